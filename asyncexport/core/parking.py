"""When a parked bundle is retried, and when it is split into narrower ones.

1. A nightly run retries a parked bundle after 1, 2, 4, and then every 8 days, counted from when it was last parked. How
   often it was parked decides which pause applies. If the user names a range or asks for a retry, it is retried
   immediately.
2. A night that starts at the same hour as the last one starts a little before the day is full. So the last hours of a
   pause do not count.
3. A refused bundle (`Refused`) has no pause: its operation or file still exists, and expires. Neither has one whose
   archive a rebuild moved aside: the service has not failed it.
4. A bundle that kept its archive is exported again after the same pauses, but at most four times. If all these exports
   have far fewer rows as well, the rows were probably deleted, and only an age of `[nightly] refresh` leads to another
   one (`core.refreshing`).
5. A bundle of which nothing was ever stored is split if the bundle width or the requested range is narrower than the
   bundle. It is also split if archives cover a part of its time, since those rows would be stored twice. Bundles of
   individuals are never split: their rows are totals over a day. Neither are bundles whose operation or file may be
   fine. An overdue bundle that is too wide is parked as failed once asking for its operation was in vain; the next run
   splits it.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from asyncexport.core.bundles import DAY, Range, cut
from asyncexport.core.exports import Export, Type
from asyncexport.core.states import BundleRecord, Failed, Overdue

PAUSES_DAYS = (1, 2, 4, 8)
"""The pauses after a bundle was parked once, twice, three times, and more often."""

LEEWAY_SECONDS = 6 * 3600.0
"""How much earlier than the end of a pause a night may begin (rule 2)."""

LAST_MOMENT = 253_402_300_799.0
"""The end of the year 9999: a time that a wrong clock wrote must still be one that can be shown."""

MOVED_ASIDE = "its archive was damaged, and a rebuild moved it aside"
"""Why a bundle is parked whose archive a rebuild could not use. Until it is exported again, a check reports it as
missing."""

PAUSABLE = (Failed, Overdue)
"""The states in which nightly runs pause a bundle (rule 3)."""


@dataclass(frozen=True, slots=True)
class ParkedTimes:
    """How often a bundle was parked since it was last stored, and when it was last parked, in seconds since 1970.

    For a bundle that kept its archive: how often it did, and when it last did.
    """

    times: int
    last_at: float


def next_try(record: BundleRecord, parked: ParkedTimes) -> float | None:
    """Return the time from which on a night retries a parked bundle, in seconds since 1970.

    None if it is not retried after a pause (rule 4).
    """
    if record.kept and parked.times > len(PAUSES_DAYS):
        return None
    pause = PAUSES_DAYS[min(parked.times, len(PAUSES_DAYS)) - 1]
    return min(parked.last_at + pause * DAY - LEEWAY_SECONDS, LAST_MOMENT)


def may_pause(record: BundleRecord) -> bool:
    """Whether nightly runs pause a parked bundle for a while (rule 3)."""
    return isinstance(record.state, PAUSABLE) and record.state != Failed(MOVED_ASIDE)


def pause_end(record: BundleRecord, parked: ParkedTimes | None, *, now: float) -> float | None:
    """Return when the pause of a parked bundle ends. None if it has none, or if it has ended.

    A time of parking in the future was written by a wrong clock: it is ignored, and the bundle is retried.
    """
    if parked is None or not may_pause(record):
        return None
    due = next_try(record, parked)
    return due if due is not None and parked.last_at <= now < due else None


def is_split(record: BundleRecord, export: Export, span: Range, covered: Sequence[Range] = ()) -> bool:
    """Whether a parked bundle is split into narrower ones, in a run over this span (rule 5).

    `covered`: the time that archives cover, merged, in order.
    """
    if not isinstance(record.state, Failed) or not _may_be_split(record, export):
        return False
    own = record.bundle.range
    return is_too_wide(record, export) or own.start < span.start or span.end < own.end or _meets(own, covered)


def is_too_wide(record: BundleRecord, export: Export) -> bool:
    """Whether a bundle of which nothing was ever stored is wider than the current width."""
    return _may_be_split(record, export) and record.bundle.range.seconds > export.bundle_seconds


def _may_be_split(record: BundleRecord, export: Export) -> bool:
    return record.stored is None and export.definition.type is not Type.INDIVIDUAL


def _meets(span: Range, covered: Sequence[Range]) -> bool:
    at = bisect_right(covered, span.start, key=lambda one: one.end)
    return at < len(covered) and covered[at].start < span.end


def pieces_of(split: Range, export: Export, span: Range) -> Iterator[Range]:
    """Yield the pieces a bundle is split into, at the ends of the span and at the grid lines of the export's width."""
    edges = (edge for edge in (span.start, span.end) if split.start < edge < split.end)
    for start, end in pairwise((split.start, *edges, split.end)):
        yield from cut(Range(start, end), export.bundle_seconds)
