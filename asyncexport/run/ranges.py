"""The range of time that a run covers, export by export.

1. A range ends at the last whole bundle that is settled, even if a later end was asked for. Half a bundle now and the
   other half tomorrow would be two archives for ever.
2. A night begins where `[nightly] since` says, else where the first night began, else seven days back.

All moments are seconds since 1970 UTC by the service's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import DAY, Range, settled_until, show
from asyncexport.core.exports import Export
from asyncexport.run.spec import Instructions

FIRST_NIGHT_SECONDS = 7 * DAY
"""How far back the first night goes where `[nightly] since` does not say."""

NIGHTLY_SINCE = "nightly_since"
"""The ledger's key for the moment at which nights begin."""

TIME_AT_SERVICE = "time_at_service"
"""The ledger's key for the last moment that was heard from the service."""


@dataclass(frozen=True, slots=True)
class ExportRanges:
    """The ranges of a run.

    Attributes:
        spans: The range of each export; an export with nothing settled in the range is left out.
        notes: A sentence about each range that was cut back or left out.
    """

    spans: tuple[tuple[Export, Range], ...]
    notes: tuple[str, ...]


def export_ranges(exports: Sequence[Export], asked: Instructions, *, now: float, night_start: int) -> ExportRanges:
    """The range of each export; `night_start`: where a night begins."""
    spans, notes = [], []
    for export in exports:
        settled = settled_until(now, settle_seconds=export.settle_seconds)
        settled = settled // export.bundle_seconds * export.bundle_seconds
        start = night_start if asked.start is None else asked.start
        end = settled if asked.end is None else min(asked.end, settled)
        if start < end:
            spans.append((export, Range(start, end)))
            if asked.end is not None and asked.end > settled:
                notes.append(f"{export.name}: data is settled up to {show(settled)}; the end is cut back to that")
        else:
            notes.append(f"{export.name}: nothing to do from {show(start)} on; data is settled up to {show(settled)}")
    return ExportRanges(tuple(spans), tuple(notes))


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
