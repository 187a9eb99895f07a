"""Compares an export's folder with the ledger: first by quick sums for each day, then name by name.

1. The archives of each day are counted, and the times in their names added up. A day with the same sums in the ledger
   is not checked any further: a hundred thousand archives take a tenth of a second.
2. An archive without a row is one that the ledger does not know, because the ledger is older than the archives, or was
   made for others. The exception is a bundle that may have been stored without its row, if a run was killed between the
   two.
3. Archives of one export whose ranges overlap hold the same rows twice.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from asyncexport.core.bundles import Range
from asyncexport.core.exports import Format
from asyncexport.core.states import BundleRecord, Ready, Refused

START_WEIGHT = 7
"""The factor for start times in a mark, so that it tells starts from ends."""

_STEM = len("20260101T000000Z_20260101T003000Z")


class DayTally(NamedTuple):
    """The archives that begin on one day.

    Attributes:
        archives: How many there are.
        mark: The sum of their times of day, as numbers of the form HHMMSS: `START_WEIGHT` times the starts, plus the
            ends.
    """

    archives: int
    mark: int


def day_tally(names: Iterable[str], container: Format) -> DayTally:
    """Return the tally of the names in a day's folder; those that are not of an archive of this format are ignored."""
    suffix = f".{container.value}.gz"
    length = _STEM + len(suffix)
    # Built for a hundred thousand names: this takes half the time of a loop.
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
    """Return the days to compare name by name, in order. The keys of both mappings are the first second of a day.

    A day without any archive is not among them: deleting archives is up to the user.
    """
    return sorted(day for day, tally in found.items() if tally.archives and tally != known.get(day))


def unrecorded(found: Iterable[Range], stored: Iterable[Range], unfinished: Iterable[BundleRecord]) -> list[Range]:
    """Return the ranges of the archives found that no row explains, in order (rule 2)."""
    known = {*stored, *(one.bundle.range for one in unfinished if may_have_archive(one))}
    return sorted(span for span in found if span not in known)


def may_have_archive(record: BundleRecord) -> bool:
    """Whether an archive of this bundle may exist without a row: its file can be, or could be, fetched.

    A bundle whose file is lost after a crash continues with its next attempt, and the archive of the previous one
    stays.
    """
    state = record.state
    if isinstance(state, Refused):
        state = state.kept
    return isinstance(state, Ready) or getattr(state, "attempt", 1) > 1


def overlaps(spans: Iterable[Range]) -> Iterator[tuple[Range, Range]]:
    """Return the ranges that begin before an earlier one has ended, each after the earlier one that reaches furthest.

    Args:
        spans: The ranges, in order.
    """
    furthest: Range | None = None
    for span in spans:
        if furthest is not None and span.start < furthest.end:
            yield furthest, span
        if furthest is None or span.end > furthest.end:
            furthest = span


class TakenTime:
    """The time that archives cover or bundles claim, as ranges.

    Args:
        spans: The ranges, in any order.
    """

    def __init__(self, spans: Iterable[Range]) -> None:
        self._spans = sorted(spans)
        self._widest = max((span.seconds for span in self._spans), default=0)

    def add(self, span: Range) -> None:
        """Add a range."""
        insort(self._spans, span)
        self._widest = max(self._widest, span.seconds)

    def meets(self, span: Range, *, but: Range | None = None) -> Range | None:
        """Return the first range that overlaps this one, other than `but`. None if there is none."""
        first = bisect_left(self._spans, span.start - self._widest, key=lambda one: one.start)
        for one in self._spans[first:]:
            if one.start >= span.end:
                return None
            if one.end > span.start and one != but:
                return one
        return None
