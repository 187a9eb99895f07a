"""An audit: exports a random sample of stored bundles again, and works out from that what holds for all of them.

1. Rows that reach the service after a bundle was exported are missing from its archive. Only another export can find
   them, and asking for all bundles again costs as much as the whole history. A random sample tells how many bundles may
   be affected at most (`core.confidence`).
2. The sample is spread over exports and time: the candidates in order are divided into equal parts, and each part gives
   one bundle. Every bundle has the same chance, up to one bundle in the size of a part.
3. A bundle that was exported again within the last week is chosen only if there are too few others: it has just been
   compared with the service, by an audit, a refresh or a repair.
4. A bundle differs if the set of its rows does, regardless of their order (`core.archive.row_digest`). It is then
   replaced as by a refresh, or kept if the new export has far fewer rows (`core.replacement_guard`).
5. Exports of individuals are not audited: their rows are totals at the time of the export and always differ.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Self

from asyncexport.core.bundles import DAY, HOUR, Bundle, Range
from asyncexport.core.confidence import CONFIDENCE, upper_share
from asyncexport.core.exports import Export, Type
from asyncexport.core.states import FewerRows, Stored

DEFAULT_SAMPLE = 60
"""Bundles in the sample of the `audit` command: if none of them differs, fewer than 5 % of all do."""

DEFAULT_AGE_SECONDS = 2.0 * DAY
"""Age from which bundles are audited: by then their late rows should have come."""

COMPARED_LATELY_SECONDS = 7 * DAY
"""How long a bundle that was exported again counts as compared (rule 3)."""

STEPS: tuple[float, ...] = (
    *(hours * HOUR for hours in (24, 25, 26, 28, 30, 36, 48)),
    *(days * DAY for days in (3, 4, 7, 14, 30, 90)),
)
"""Ages that divide the curve, in seconds: finer where rows usually still come."""


@dataclass(frozen=True, slots=True)
class AuditSample:
    """Which stored bundles an audit exports again.

    Attributes:
        count: How many.
        seed: The seed of the random choice.
        older_than_seconds: The least age of a bundle, counted from its end.
    """

    count: int
    seed: int
    older_than_seconds: float = DEFAULT_AGE_SECONDS


class AuditCandidate(NamedTuple):
    """A stored bundle that an audit may choose, without the cost of a `Bundle`: there may be a million.

    Attributes:
        export: The name of its export.
        start, end: Its range, in seconds since 1970.
        compared_lately: Whether it was exported again lately (rule 3 of the module).
    """

    export: str
    start: int
    end: int
    compared_lately: bool = False

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return Bundle(self.export, Range(self.start, self.end))


def is_audited(export: Export) -> bool:
    """Whether an export can be audited (rule 5)."""
    return export.definition.type is Type.EVENT


def choose(candidates: Sequence[AuditCandidate], draws: Sequence[float]) -> list[Bundle]:
    """Choose the sample: as many bundles as there are draws, or all if there are fewer (rules 2 and 3).

    Args:
        candidates: The bundles to choose from, ordered by export and time.
        draws: Random numbers from 0 up to but not including 1.
    """
    preferred = [one for one in candidates if not one.compared_lately]
    chosen = _spread(preferred, draws)
    if len(chosen) < len(draws):
        others = [one for one in candidates if one.compared_lately]
        chosen += _spread(others, draws[len(chosen) :])
    return [one.bundle for one in chosen]


def _spread(candidates: Sequence[AuditCandidate], draws: Sequence[float]) -> list[AuditCandidate]:
    if not draws or len(candidates) <= len(draws):
        return list(candidates[: len(draws)])
    bounds = [number * len(candidates) // len(draws) for number in range(len(draws) + 1)]
    return [
        candidates[min(end - 1, start + int(draw * (end - start)))]
        for draw, (start, end) in zip(draws, pairwise(bounds), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of a stored bundle with a new export.

    Attributes:
        bundle: The bundle.
        age_seconds: How long after the bundle's end its archive had been exported.
        rows_before: Rows of that archive.
        rows_found: Rows of the new export.
        differs: Whether the rows differ.
        kept: Whether the archive was kept because the new export has far fewer rows.
    """

    bundle: Bundle
    age_seconds: float
    rows_before: int
    rows_found: int
    differs: bool
    kept: bool = False

    @classmethod
    def of_stored(cls, bundle: Bundle, before: Stored, after: Stored) -> Self:
        """Return the comparison for a bundle that was stored again; an archive with the same rows keeps its bytes."""
        differs = (before.rows, before.sha256) != (after.rows, after.sha256)
        return cls(bundle, before.exported_at - bundle.range.end, before.rows, after.rows, differs)

    @classmethod
    def of_kept(cls, bundle: Bundle, before: Stored, fewer: FewerRows) -> Self:
        """Return the comparison for a bundle whose archive was kept."""
        age = before.exported_at - bundle.range.end
        return cls(bundle, age, fewer.rows_before, fewer.rows_found, differs=True, kept=True)


@dataclass(slots=True)
class AuditStep:
    """A step of the curve: the bundles whose archive had been exported at an age within these limits, in seconds.

    Attributes:
        from_seconds: The lower limit.
        to_seconds: The upper limit, exclusive. None if there is none.
        bundles: Bundles that were compared.
        differ: Bundles of these that differ.
        rows: Rows of all their archives.
        rows_added, rows_removed: The differences in rows, added up over the bundles that have more and fewer.
    """

    from_seconds: float
    to_seconds: float | None
    bundles: int = 0
    differ: int = 0
    rows: int = 0
    rows_added: int = 0
    rows_removed: int = 0

    def count(self, one: Comparison) -> None:
        """Count a comparison."""
        self.bundles += 1
        self.differ += one.differs
        self.rows += one.rows_before
        self.rows_added += max(0, one.rows_found - one.rows_before)
        self.rows_removed += max(0, one.rows_before - one.rows_found)


@dataclass(slots=True)
class AuditResult:
    """What an audit has found.

    Attributes:
        sample: The chosen bundles, each with the archive that it had.
        comparisons: The comparisons so far.
        damaged: Bundles that were chosen and cannot be compared, because their archive on the disk is damaged.
    """

    sample: dict[Bundle, Stored] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    damaged: dict[Bundle, Stored] = field(default_factory=dict)

    def __contains__(self, bundle: object) -> bool:
        """Whether a bundle is in the sample."""
        return bundle in self.sample

    @property
    def differing(self) -> list[Comparison]:
        """The comparisons of bundles that differ, ordered by export and time."""
        return sorted((one for one in self.comparisons if one.differs), key=lambda one: one.bundle)

    @property
    def kept(self) -> int:
        """Bundles of these whose archive was kept."""
        return sum(one.kept for one in self.comparisons)

    @property
    def share_limit(self) -> float | None:
        """The share of all bundles that differ at most, with 95 % confidence. None if nothing follows."""
        if not self.comparisons or all(one.differs for one in self.comparisons):
            return None
        return upper_share(len(self.differing), len(self.comparisons))

    def curve(self) -> list[AuditStep]:
        """Return how the share of differing bundles depends on the age at which they had been exported."""
        limits = (0.0, *STEPS)
        steps: dict[int, AuditStep] = {}
        for one in self.comparisons:
            at = max(0, bisect_right(limits, one.age_seconds) - 1)
            end = limits[at + 1] if at + 1 < len(limits) else None
            steps.setdefault(at, AuditStep(limits[at], end)).count(one)
        return [steps[at] for at in sorted(steps)]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as the summary shows it."""
        total, limit = AuditStep(0.0, None), self.share_limit
        for one in self.comparisons:
            total.count(one)
        return {
            "sampled": len(self.sample) + len(self.damaged),
            "compared": total.bundles,
            "differ": total.differ,
            "kept": self.kept,
            "damaged": len(self.damaged),
            "rows": total.rows,
            "rows_added": total.rows_added,
            "rows_removed": total.rows_removed,
            "share_below": None if limit is None else math.ceil(limit * 1e6) / 1e6,
            "confidence": CONFIDENCE,
            "curve": [
                {
                    "from_seconds": step.from_seconds,
                    "to_seconds": step.to_seconds,
                    "bundles": step.bundles,
                    "differ": step.differ,
                    "rows": step.rows,
                    "rows_added": step.rows_added,
                    "rows_removed": step.rows_removed,
                }
                for step in self.curve()
            ],
        }
