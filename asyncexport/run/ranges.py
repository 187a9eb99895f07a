"""The range of time that a run covers, export by export.

1. A range ends at the last whole bundle that is settled, even if a later end was asked for. Half a bundle now and the
   other half tomorrow would be two archives for ever.
2. A range that is stored up to the end that was asked for is done, whatever a clock says of that end. All else hangs
   on the clock: an end that is left open, one that is cut back, and words such as "yesterday".
3. A night begins where `[nightly] since` says, else where the first night began, else seven days back.

All moments are seconds since 1970 UTC by the service's clock.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import DAY, Ago, Range, moment_of, settled_until, show
from asyncexport.core.exports import Export
from asyncexport.errors import Problem
from asyncexport.run.spec import Instructions

FIRST_NIGHT_SECONDS = 7 * DAY
"""How far back the first night goes where `[nightly] since` does not say."""

NIGHTLY_SINCE = "nightly_since"
"""The ledger's key for the moment at which nights begin."""


@dataclass(frozen=True, slots=True)
class ExportRanges:
    """The ranges of a run.

    Attributes:
        spans: The range of each export; an export with nothing settled in the range is left out.
        notes: A sentence about each range that was cut back or left out.
        hang_on_clock: Whether another time would have made them others (rule 2).
    """

    spans: tuple[tuple[Export, Range], ...]
    notes: tuple[str, ...]
    hang_on_clock: bool


def export_ranges(
    exports: Sequence[Export],
    asked: Instructions,
    *,
    now: float,
    night_start: int,
    is_stored: Callable[[str, Range], bool],
) -> ExportRanges:
    """The range of each export.

    Args:
        exports: The exports.
        asked: What the run does.
        now: The present moment.
        night_start: Where a night begins.
        is_stored: Whether all of a range of an export, by its name, is stored.
    """
    spans, notes = [], []
    hang_on_clock = any(one is None or isinstance(one, Ago) for one in (asked.end, asked.start or 0))
    start = night_start if asked.start is None else moment_of(asked.start, now=now)
    last = None if asked.end is None else moment_of(asked.end, now=now)
    for export in exports:
        settled = settled_until(now, settle_seconds=export.settle_seconds)
        settled = settled // export.bundle_seconds * export.bundle_seconds
        end = settled if last is None else min(last, settled)
        if last is not None and end < last and start < last and is_stored(export.name, Range(start, last)):
            end = last
        if start < end:
            spans.append((export, Range(start, end)))
        else:
            notes.append(
                f"{export.name}: nothing to do from {show(start)} on; data is only settled up to {show(settled)}"
            )
        if last is not None and end < last:
            hang_on_clock = True
            if start < end:
                notes.append(f"{export.name}: data is only settled up to {show(settled)}, so the range ends there")
    return ExportRanges(tuple(spans), tuple(notes), hang_on_clock)


def faults_of_dates(asked: Instructions, *, now: float, nights_since: int | None = None) -> Iterator[Problem]:
    """What is wrong with the dates that were asked for, as it turns out once the time is known.

    `nights_since`: what `[nightly] since` says. None: nothing.
    """
    if asked.start is None:
        if nights_since is not None and nights_since > now:
            yield Problem("nightly.since", f"{show(nights_since)} is in the future: it is {show(now)}")
        return
    start = moment_of(asked.start, now=now)
    if start > now:
        yield Problem("--start", f"{show(start)} is in the future: it is now {show(now)}")
    if asked.end is not None and moment_of(asked.end, now=now) <= start:
        yield Problem("--end", f"{show(moment_of(asked.end, now=now))} is not after the start, {show(start)}")


def where_nights_begin(chosen: int | None, remembered: str | None, *, now: float) -> int:
    """Where a night begins.

    Args:
        chosen: What `[nightly] since` says; None: nothing.
        remembered: What the ledger remembers; None: nothing.
        now: The present moment.
    """
    if chosen is not None:
        return chosen
    # A start that lies ahead comes from a wrong clock, and would mean that there is never anything to do.
    if remembered and is_past(remembered, now=now):
        return int(remembered)
    return int(now) // DAY * DAY - FIRST_NIGHT_SECONDS


def is_past(remembered: str | None, *, now: float) -> bool:
    """Whether the ledger remembers a moment, and it does not lie ahead."""
    return bool(remembered) and float(remembered or 0) <= now
