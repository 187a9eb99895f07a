"""Shortfalls: stored time with far fewer rows than expected.

1. Shortfalls less than a day apart are one trouble, which begins with the first of them. A trouble is reported once:
   one that goes on, or is found again by a later run, is already known.
2. A known shortfall is over when its time is judged again and is no longer short, because it was exported again or
   because the site has had so few rows since that this is usual.
3. Time that the user has accepted is neither judged nor compared with. A trouble that goes on after it is a new one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from asyncexport.core.bundles import DAY, Bundle, Range, merged, show

APART_SECONDS = DAY
"""Shortfalls at least this far apart are different troubles."""


class ShortfallRule(StrEnum):
    """What was noticed; the values are those of `--json`."""

    EMPTY = "empty"
    LOW_DAY = "low_day"
    OLD_EMPTY = "old_empty"


class ShortPiece(NamedTuple):
    """A half hour or a day that is short.

    Attributes:
        range: The half hour or the day.
        expected: The rows it usually has.
        found: The rows it has.
        rule: The rule that noticed it.
    """

    range: Range
    expected: float
    found: int
    rule: ShortfallRule


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Stored time with far fewer rows than expected.

    Attributes:
        bundle: The export, and the time from the beginning of the first piece to the end of the last.
        rule: What was noticed.
        expected: The rows that the short half hours and days usually have. None if it is not known.
        found: The rows they have.
    """

    bundle: Bundle
    rule: ShortfallRule
    expected: int | None
    found: int

    def to_dict(self) -> dict[str, str | int | None]:
        """Return it under the keys of `--json`."""
        return {
            "export": self.bundle.export,
            "start": show(self.bundle.range.start),
            "end": show(self.bundle.range.end),
            "expected": self.expected,
            "found": self.found,
            "rule": self.rule.value,
        }

    @property
    def text(self) -> str:
        """What was expected and what came, in a sentence."""
        span = self.bundle.range
        match self.rule:
            case ShortfallRule.OLD_EMPTY:
                return (
                    f"no rows at all from {show(span.start)} to {show(span.end)}: everything that was older than 30 "
                    "days when it was exported is empty"
                )
            case ShortfallRule.EMPTY:
                return f"no rows from {show(span.start)} to {show(span.end)}, where about {self.expected:,} are usual"
            case ShortfallRule.LOW_DAY:
                return (
                    f"only {self.found:,} rows from {show(span.start)} to {show(span.end)}, where about "
                    f"{self.expected:,} are usual"
                )

    @property
    def figures(self) -> str:
        """The same in a few words, without the time."""
        if self.expected is None:
            return f"{self.found:,} rows, all older than 30 days"
        return f"{self.found:,} rows, about {self.expected:,} are usual"

    @property
    def advice(self) -> str:
        """What to check, in a clause."""
        if self.rule is ShortfallRule.OLD_EMPTY:
            return (
                "check whether the segment itself is limited to the last days, and how long the account keeps its data"
            )
        return "check whether the site was recorded then and whether the segment changed"


class Reconciled(NamedTuple):
    """The shortfalls after a run.

    Attributes:
        open: All that are neither over nor accepted, in order.
        new: Those that were not known before.
    """

    open: tuple[Shortfall, ...]
    new: tuple[Shortfall, ...]


def troubles(export: str, pieces: Sequence[ShortPiece]) -> Iterator[Shortfall]:
    """Combine the short half hours and days of an export to troubles, in order (rule 1).

    A half hour within a short day is part of that day.
    """
    days = {one.range.start // DAY for one in pieces if one.rule is ShortfallRule.LOW_DAY}
    relevant = [one for one in pieces if one.rule is ShortfallRule.LOW_DAY or one.range.start // DAY not in days]
    group: list[ShortPiece] = []
    for piece in sorted(relevant):
        if group and piece.range.start - group[-1].range.end >= APART_SECONDS:
            yield _trouble(export, group)
            group = []
        group.append(piece)
    if group:
        yield _trouble(export, group)


def _trouble(export: str, pieces: Sequence[ShortPiece]) -> Shortfall:
    has_days = any(one.rule is ShortfallRule.LOW_DAY for one in pieces)
    return Shortfall(
        Bundle(export, Range(pieces[0].range.start, pieces[-1].range.end)),
        ShortfallRule.LOW_DAY if has_days else ShortfallRule.EMPTY,
        round(sum(one.expected for one in pieces)),
        sum(one.found for one in pieces),
    )


def reconciled(
    known: Sequence[Shortfall], found: Sequence[Shortfall], *, judged: Range, accepted: Sequence[Range]
) -> Reconciled:
    """Compare the shortfalls of one export with those that were known (rules 1 to 3).

    Args:
        known: Those known so far.
        found: Those found now.
        judged: The time that was judged now.
        accepted: What the user has accepted of this export.
    """
    left = list(not_accepted(known, accepted))
    still_open, new = [], []
    for one in found:
        same = [before for before in left if _is_same(before, one)]
        left = [before for before in left if before not in same]
        if same:
            still_open.append(_beginning_with(one, min(before.bundle.range.start for before in same)))
        else:
            still_open.append(one)
            new.append(one)
    still_open += [one for one in left if not _lies_within(one.bundle.range, [judged])]
    return Reconciled(tuple(sorted(still_open, key=lambda one: one.bundle)), tuple(new))


def not_accepted(shortfalls: Iterable[Shortfall], accepted: Sequence[Range]) -> Iterator[Shortfall]:
    """Return the shortfalls of one export that do not lie within what the user has accepted of it."""
    spans = list(merged(sorted((one.start, one.end) for one in accepted)))
    return (one for one in shortfalls if not _lies_within(one.bundle.range, spans))


def _beginning_with(shortfall: Shortfall, start: int) -> Shortfall:
    span = Range(min(start, shortfall.bundle.range.start), shortfall.bundle.range.end)
    return Shortfall(Bundle(shortfall.bundle.export, span), shortfall.rule, shortfall.expected, shortfall.found)


def _is_same(one: Shortfall, other: Shortfall) -> bool:
    """Whether two shortfalls belong to one trouble; data older than 30 days is a trouble of its own."""
    first, second = one.bundle.range, other.bundle.range
    if (one.rule is ShortfallRule.OLD_EMPTY) != (other.rule is ShortfallRule.OLD_EMPTY):
        return False
    return first.start < second.end + APART_SECONDS and second.start < first.end + APART_SECONDS


def _lies_within(span: Range, spans: Sequence[Range]) -> bool:
    return any(one.start <= span.start and span.end <= one.end for one in spans)
