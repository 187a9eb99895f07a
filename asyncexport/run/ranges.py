"""Works out the range of time that a run covers, for each export.

1. A range ends with the last complete bundle that is settled, even if a later end was requested. Otherwise the bundle
   at the end would be exported in two parts, and would stay two archives forever.
2. A range that is stored up to the requested end is done, whatever the clock says about that end. Everything else
   depends on the clock: an open end, an end that is cut back, and relative dates such as "yesterday".
3. Nightly runs start at `[nightly] since`, else where the first nightly run started, else seven days back.

All times are seconds since 1970 UTC by the service's clock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import DAY, Ago, Range, moment_of, settled_until, show
from asyncexport.core.covered_range import CoveredRange
from asyncexport.core.exports import Export
from asyncexport.errors import Problem
from asyncexport.run.spec import Instructions

FIRST_NIGHT_SECONDS = 7 * DAY
"""How far back the first nightly run goes if `[nightly] since` is not set."""

NIGHTLY_SINCE = "nightly_since"
"""The ledger's key for the start of nightly runs."""


@dataclass(frozen=True, slots=True)
class ExportRanges:
    """The ranges of a run.

    Attributes:
        spans: The range of each export. Exports with nothing settled in the range are left out.
        notes: A message about each range that was cut back or left out.
        depend_on_clock: Whether the ranges could be different at another time (rule 2).
        covered: The range of every export, by its name.
    """

    spans: tuple[tuple[Export, Range], ...]
    notes: tuple[str, ...]
    depend_on_clock: bool
    covered: Mapping[str, CoveredRange]


def export_ranges(
    exports: Sequence[Export],
    asked: Instructions,
    *,
    now: float,
    night_start: int,
    is_stored: Callable[[str, Range], bool],
) -> ExportRanges:
    """Return the range of each export.

    Args:
        exports: The exports.
        asked: The instructions of the run.
        now: The current time.
        night_start: The start of the range of nightly runs.
        is_stored: Returns whether a range of an export, given by its name, is stored completely.
    """
    spans, notes, covered = [], [], {}
    depend_on_clock = any(one is None or isinstance(one, Ago) for one in (asked.end, asked.start or 0))
    start = night_start if asked.start is None else moment_of(asked.start, now=now)
    last = None if asked.end is None else moment_of(asked.end, now=now)
    for export in exports:
        settled = settled_end(export, now=now)
        end = settled if last is None else min(last, settled)
        if last is not None and end < last and start < last and is_stored(export.name, Range(start, last)):
            end = last
        # Up to the grid line at or after the end: bundles are exported as a whole.
        complete_at = 0 if last is None else -(-last // export.bundle_seconds) * export.bundle_seconds
        complete_at += 0 if last is None else export.settle_seconds
        covered[export.name] = CoveredRange(start, max(start, end), settled, last, complete_at)
        if start < end:
            spans.append((export, Range(start, end)))
        elif last is not None and last <= start:
            notes.append(f"{export.name}: nothing to do: the range starts at {show(start)} and ends at {show(last)}")
        else:
            notes.append(
                f"{export.name}: nothing to do from {show(start)} on; data is only settled up to {show(settled)}"
            )
        if last is not None and end < last:
            depend_on_clock = True
            if start < end:
                notes.append(f"{export.name}: data is only settled up to {show(settled)}, so the range ends there")
    return ExportRanges(tuple(spans), tuple(notes), depend_on_clock, covered)


def settled_end(export: Export, *, now: float) -> int:
    """Return the end of the last complete bundle of an export that is settled."""
    return settled_until(now, settle_seconds=export.settle_seconds) // export.bundle_seconds * export.bundle_seconds


def date_problems(asked: Instructions, *, now: float, nights_since: int | None = None) -> Iterator[Problem]:
    """Yield the problems of the requested dates at the time `now`.

    `nights_since` is `[nightly] since`, or None if it is not set.
    """
    if asked.start is None:
        if nights_since is not None and nights_since > now:
            yield Problem("nightly.since", f"{show(nights_since)} is in the future: it is now {show(now)}")
        return
    start = moment_of(asked.start, now=now)
    if start > now:
        yield Problem("--start", f"{show(start)} is in the future: it is now {show(now)}")
    if asked.end is not None and moment_of(asked.end, now=now) <= start:
        yield Problem("--end", f"{show(moment_of(asked.end, now=now))} is not after the start, {show(start)}")


def nightly_start(chosen: int | None, remembered: str | None, *, now: float) -> int:
    """Return the start of the range of nightly runs.

    Args:
        chosen: `[nightly] since`. None if it is not set.
        remembered: The start that the ledger remembers. None if it remembers none.
        now: The current time.
    """
    if chosen is not None:
        return chosen
    # A remembered start in the future comes from a wrong clock and would leave nothing to do.
    if remembered and is_past(remembered, now=now):
        return int(remembered)
    return int(now) // DAY * DAY - FIRST_NIGHT_SECONDS


def is_past(remembered: str | None, *, now: float) -> bool:
    """Return whether the ledger remembers a time that is not in the future."""
    return bool(remembered) and float(remembered or 0) <= now
