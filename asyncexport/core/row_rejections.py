"""What follows when files of an export are rejected because of their rows (`core.archive.expected_rows`).

1. A file with the rows of another range leads to a new export immediately: another download would bring the same rows.
   After `MOST_IN_A_ROW` in a row of several bundles the rule is wrong for this export, not the files, and it is
   switched off.
2. A file that is not an export, or has no known field, is fetched again through a new link. After `MOST_IN_A_ROW` in a
   row of several bundles our list of names is wrong, or the service sends something else: the export is stopped, before
   all of its bundles are exported in vain. A proxy with a brief fault spoils many files at the same time, so the
   rejected ones must span `span_seconds`, unless the storage host's own hash confirms one.
3. "In a row" means without a file in between that shows the opposite. One bundle alone decides nothing for the others,
   and neither do the pieces that it is split into. After `MOST_IN_A_ROW` files of its own that are no export it is
   given up for this run, whatever becomes of others meanwhile. So what happens does not depend on how fast they are.
4. The ledger remembers for which exports rule 1 is off: their archives are not judged by the time of their rows. In the
   next run one more such file is enough to switch the rule off again, and one with the right rows switches it on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

import orjson

from asyncexport.core.archive.expected_rows import RowCheck
from asyncexport.core.bundles import Bundle
from asyncexport.errors import ArchiveError

T = TypeVar("T")

UNTIMED = "untimed_exports"
"""The key of the ledger's note that names the exports for which rule 1 is off."""

MOST_IN_A_ROW = 3
"""This many rejected files in a row are no accident."""

RULE_IS_OFF = (
    f"EventStart of the rows in {MOST_IN_A_ROW} files in a row lies outside their ranges, so this field does not "
    "follow the requested range; it is no longer checked"
)
"""The warning when the rule about the rows' time is switched off for an export."""

RULE_WAS_OFF = (
    f"an earlier run found that EventStart does not follow the requested range (in {MOST_IN_A_ROW} files in a row), "
    "and stored such files: the field is not checked"
)
"""What a check reports about an export for which a run has switched the rule off."""

RULES_ARE_OFF = (
    f"{MOST_IN_A_ROW} archives in a row have an EventStart outside their range, or no known field: these rows do not "
    "look as expected, so no archive is rejected because of its rows"
)
"""What a check reports about an export whose archives it does not judge by their rows."""


def read_untimed(text: str | None) -> frozenset[str]:
    """Read what `write_untimed` wrote; empty if there is nothing, or if another version wrote it."""
    try:
        names = orjson.loads(text or "[]")
    except ValueError:
        return frozenset()
    return frozenset(one for one in names if isinstance(one, str)) if isinstance(names, list) else frozenset()


def write_untimed(exports: Iterable[str]) -> str:
    """Return the names of exports as the ledger stores them."""
    return orjson.dumps(sorted(exports)).decode()


class Repeated(Enum):
    """Whether files without a known field keep coming."""

    NO = "not yet"
    FOR_BUNDLE = "for one bundle alone"
    FOR_EXPORT = "for several bundles in a row"


@dataclass(slots=True)
class RowRejections:
    """The rejected files of one export.

    Args:
        span_seconds: Seconds over which files without a known field must come to be believed.

    Attributes:
        checks_range: Whether the time of rows is checked.
        was_off: Whether an earlier run has switched off the check of the rows' time, and no file has shown since then
            that it may be on.
        foreign: The bundles of the files in a row that had rows of another range.
        unknown: When each of the files in a row came that had no known field, with its bundle.
        unknown_of: The same for each bundle, whatever came of others in between.
    """

    span_seconds: float
    checks_range: bool = True
    was_off: bool = False
    foreign: list[Bundle] = field(default_factory=list)
    unknown: list[tuple[float, Bundle]] = field(default_factory=list)
    unknown_of: dict[Bundle, list[float]] = field(default_factory=dict)

    def note_accepted(self, rows: RowCheck) -> None:
        """Note that a file was accepted, with the check of its rows."""
        if rows.known:
            self.unknown.clear()
        if rows.timed:
            self.was_off = False
            self.foreign.clear()

    def note_foreign(self, bundle: Bundle) -> bool:
        """Note a file with the rows of another range, and return whether it is rejected."""
        if self.checks_range:
            self.foreign.append(bundle)
            is_wrong = len(self.foreign) >= MOST_IN_A_ROW and _are_several(self.foreign)
            self.checks_range = not (is_wrong or self.was_off)
        return self.checks_range

    def note_unknown(self, bundle: Bundle, *, now: float, proved: bool) -> Repeated:
        """Note a file without a known field, and return whether such files keep coming.

        Args:
            bundle: The bundle.
            now: The time, in seconds on a clock that never goes back.
            proved: Whether its hash shows that it is the file the storage host holds.
        """
        own = self.unknown_of.setdefault(bundle, [])
        own.append(now)
        self.unknown.append((now, bundle))
        if _are_several([one for _, one in self.unknown]) and self._keep_coming(
            [at for at, _ in self.unknown], proved=proved
        ):
            return Repeated.FOR_EXPORT
        if not self._keep_coming(own, proved=proved):
            return Repeated.NO
        # What follows begins anew.
        own.clear()
        return Repeated.FOR_BUNDLE

    def _keep_coming(self, times: list[float], *, proved: bool) -> bool:
        return len(times) >= MOST_IN_A_ROW and (proved or times[-1] - times[0] >= self.span_seconds)


def _are_several(bundles: Sequence[Bundle]) -> bool:
    """Whether these are not all the same bundle, or pieces of it."""
    widest = max(bundles, key=lambda one: one.range.seconds)
    return not all(widest.contains(one) for one in bundles)


@dataclass(slots=True)
class RowVerdicts(Generic[T]):
    """Applies the same rules to existing archives of one export, which come in order. Verdicts may be delayed.

    An archive whose rows are wrong is held until the next ones show whether it is rejected.

    Attributes:
        are_off: Whether the rules are switched off, because too many archives in a row were wrong by them.
    """

    are_off: bool = False
    _held: list[tuple[T, ArchiveError]] = field(default_factory=list)

    def judge(self, archive: T, rows: RowCheck) -> Iterator[tuple[T, ArchiveError | None]]:
        """Yield the archives judged now, each with the error if it is rejected, or None."""
        wrong = None if self.are_off else rows.wrong
        if wrong is None:
            if rows.decides:
                yield from self.close()
            yield archive, None
            return
        self._held.append((archive, wrong))
        if len(self._held) >= MOST_IN_A_ROW:
            self.are_off = True
            held, self._held = self._held, []
            yield from ((one, None) for one, _ in held)

    def close(self) -> Iterator[tuple[T, ArchiveError]]:
        """Note that no more archives come, and yield those held: they are rejected."""
        held, self._held = self._held, []
        yield from held
