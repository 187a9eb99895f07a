"""Counts what a load did, for its summary, and decides its exit code."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.warehouse.load_events import DayFailed, DayLoaded, LoadEvent
from asyncexport.errors import ExportError, SinkError


@dataclass(slots=True)
class SinkTally:
    """The days of one destination."""

    loaded: int = 0
    failed: int = 0


@dataclass(slots=True)
class LoadTally:
    """What a load did.

    Attributes:
        days: The days in its range that have archives, or are to be emptied.
        already: Days that every destination had.
        loaded: Days that were loaded into every destination that lacked them.
        failed: Days that were not, for which see `failures`.
        rows, rescued, quarantined, bytes: Of the days that were loaded: rows; rows with a rescued value; lines that are
            no rows; bytes of the Parquet files that were made.
        left_out: Rows that the table in the shape of Data Direct leaves out, by type.
        sinks: The days of each destination.
        failures: The days that failed.
        unfinished_sinks: Destinations that could not be brought up to date after the days, such as their views, each
            with the error.
        error: What ended a load beside a run early; None if nothing did.
        is_stopped: Whether it was stopped before it was done: by a signal, or together with its run.
        seconds: How long it took, beside a run only the part after it.
        notes: What the user should know beside that.
    """

    days: int = 0
    already: int = 0
    loaded: int = 0
    failed: int = 0
    rows: int = 0
    rescued: int = 0
    quarantined: int = 0
    bytes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    sinks: dict[str, SinkTally] = field(default_factory=dict)
    failures: list[DayFailed] = field(default_factory=list)
    unfinished_sinks: dict[str, SinkError] = field(default_factory=dict)
    error: ExportError | None = None
    is_stopped: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, sinks: Sequence[str]) -> "LoadTally":
        """Return an empty tally for these destinations."""
        return cls(sinks={name: SinkTally() for name in sinks})

    @property
    def unfinished(self) -> int:
        """Days that were neither loaded nor failed, because the load was stopped."""
        return self.days - self.already - self.loaded - self.failed

    @property
    def is_complete(self) -> bool:
        """Whether all days are in all destinations, though some of their lines may be no rows."""
        return not (self.failed or self.unfinished or self.unfinished_sinks or self.error)

    def record(self, event: LoadEvent) -> None:
        """Count a day that was loaded, or failed."""
        match event:
            case DayLoaded():
                self.loaded += 1
            case DayFailed():
                self.failed += 1
                self.failures.append(event)
        counts = event.counts
        self.rows += counts.rows
        self.rescued += counts.rescued
        self.quarantined += counts.quarantined
        self.bytes += counts.bytes
        self.left_out.update(counts.left_out)
        for name in counts.sinks:
            self.sinks.setdefault(name, SinkTally()).loaded += 1
        if isinstance(event, DayFailed):
            for name in event.failed_sinks:
                self.sinks.setdefault(name, SinkTally()).failed += 1

    def exit_code(self) -> Exit:
        """Return the exit code of a load that was not stopped by an error or a signal."""
        codes = {exit_of(error) for one in self.failures for error in one.errors}
        if self.error is not None:
            codes.add(exit_of(self.error))
        for code in (Exit.UNEXPECTED, Exit.DISK, Exit.LEDGER):
            if code in codes:
                return code
        return Exit.DONE if self.is_complete and not self.quarantined else Exit.PARTIAL

    def to_dict(self) -> dict[str, Any]:
        """Return the tally as the summary has it."""
        return {
            "days": self.days,
            "already": self.already,
            "loaded": self.loaded,
            "failed": self.failed,
            "rows": self.rows,
            "rescued": self.rescued,
            "quarantined": self.quarantined,
            "bytes": self.bytes,
            "left_out": dict(sorted(self.left_out.items())),
            "sinks": {name: {"loaded": one.loaded, "failed": one.failed} for name, one in self.sinks.items()},
        }


def exit_with_load(run: Exit, load: LoadTally, *, stopped_by: Exit | None = None) -> Exit:
    """Return the exit code of a run with a load beside it.

    The code of the run comes first. If nothing failed in the run, that of the load counts, which may only have been
    stopped together with the run.

    Args:
        run: The exit code of the run alone.
        load: What the load did.
        stopped_by: The exit code for what has stopped the load before it was done; None if it is done.
    """
    if run not in (Exit.DONE, Exit.TIME_UP):
        return run
    code = load.exit_code()
    has_failed = load.failed or load.quarantined or load.unfinished_sinks or load.error
    if stopped_by is not None and not has_failed:
        return stopped_by
    return run if code is Exit.DONE or (run is Exit.TIME_UP and code is Exit.PARTIAL and not has_failed) else code
