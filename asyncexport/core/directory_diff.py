"""What lies in an export's folder, compared with what the ledger has: cheaply first, then name by name.

1. Each day's archives are counted, and the times in their names added up. A day for which the ledger comes to the same
   is not looked at any closer: a hundred thousand archives take a tenth of a second.
2. An archive without a row is one that the ledger knows nothing of, since it is older than the archives, or was made
   for others. The exception is one whose bundle may have been stored without its row: a run died between the two.
3. Archives of one export whose ranges overlap hold the same rows twice.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from asyncexport.core.bundles import Range
from asyncexport.core.exports import Format
from asyncexport.core.states import BundleRecord, Ready, Refused

START_WEIGHT = 7
"""By which the times of starts are multiplied in a mark, so that it tells starts from ends."""

_STEM = len("20260101T000000Z_20260101T003000Z")


class DayTally(NamedTuple):
    """The archives that begin on one day.

    Attributes:
        archives: How many.
        mark: Their times of day, as numbers of the form HHMMSS, added up: `START_WEIGHT` times the starts, and the
            ends.
    """

    archives: int
    mark: int


def day_tally(names: Iterable[str], container: Format) -> DayTally:
    """What the names in a day's folder come to; those that are no archive's of this format are left out."""
    suffix = f".{container.value}.gz"
    length = _STEM + len(suffix)
    # A hundred thousand names: so it takes half the time of a loop.
    likely = [name for name in names if len(name) == length and name.endswith(suffix)]
    try:
        return DayTally(len(likely), _mark(likely))
    except ValueError:
        likely = [name for name in likely if name[9:15].isdecimal() and name[26:32].isdecimal()]
        return DayTally(len(likely), _mark(likely))


def _mark(names: list[str]) -> int:
    starts, ends = [name[9:15] for name in names], [name[26:32] for name in names]
    return START_WEIGHT * sum(map(int, starts)) + sum(map(int, ends))


def suspect_days(found: Mapping[int, DayTally], known: Mapping[int, DayTally]) -> list[int]:
    """The days to be looked at name by name, in order; both by the second that a day begins with.

    A day with no archive is none of them: what was deleted by hand is the owner's decision.
    """
    return sorted(day for day, tally in found.items() if tally.archives and tally != known.get(day))


def unrecorded(found: Iterable[Range], stored: Iterable[Range], unfinished: Iterable[BundleRecord]) -> list[Range]:
    """Of the ranges whose archives lie there, those that no row explains, in order (rule 2)."""
    known = {*stored, *(one.bundle.range for one in unfinished if may_have_archive(one))}
    return sorted(span for span in found if span not in known)


def may_have_archive(record: BundleRecord) -> bool:
    """Whether an archive of this bundle may lie there without a row: its file was had, or may have been before.

    A bundle whose file is lost after a crash goes on with its next attempt, and the archive of the one before stays.
    """
    state = record.state
    if isinstance(state, Refused):
        state = state.kept
    return isinstance(state, Ready) or getattr(state, "attempt", 1) > 1


def overlaps(spans: Iterable[Range]) -> Iterator[tuple[Range, Range]]:
    """Ranges that begin before an earlier one has ended, each after the earlier one that reaches furthest.

    Args:
        spans: In order.
    """
    furthest: Range | None = None
    for span in spans:
        if furthest is not None and span.start < furthest.end:
            yield furthest, span
        if furthest is None or span.end > furthest.end:
            furthest = span


class Taken:
    """Time that archives cover or bundles claim, by their ranges.

    Args:
        spans: In any order.
    """

    def __init__(self, spans: Iterable[Range]) -> None:
        self._spans = sorted(spans)
        self._widest = max((span.seconds for span in self._spans), default=0)

    def add(self, span: Range) -> None:
        """Take one more."""
        insort(self._spans, span)
        self._widest = max(self._widest, span.seconds)

    def meets(self, span: Range, *, but: Range | None = None) -> Range | None:
        """The first range that shares time with this one, other than `but`; None where there is none."""
        first = bisect_left(self._spans, span.start - self._widest, key=lambda one: one.start)
        for one in self._spans[first:]:
            if one.start >= span.end:
                return None
            if one.end > span.start and one != but:
                return one
        return None
