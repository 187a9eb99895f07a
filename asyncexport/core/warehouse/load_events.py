"""What a load reports about each day, as values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from asyncexport.errors import ExportError


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCounts:
    """What was loaded of a day.

    Attributes:
        export: The export.
        date: The day, such as `2026-01-01`.
        rows: Rows of the flat table.
        rescued: Rows that have a rescued value.
        quarantined: Lines that are no rows, and are kept in a file.
        bytes: Bytes of the Parquet files that were made.
        exact: Archives that were read row by row, with the reason for each.
        left_out: Rows that the table in the shape of Data Direct leaves out, by type.
        sinks: The destinations that were loaded.
        seconds: How long it took.
    """

    export: str
    date: str
    rows: int = 0
    rescued: int = 0
    quarantined: int = 0
    bytes: int = 0
    exact: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    sinks: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DayLoaded:
    """A day is in every destination that lacked it."""

    counts: DayCounts


@dataclass(frozen=True, slots=True)
class DayFailed:
    """A day is not in every destination.

    Attributes:
        counts: What was loaded all the same.
        error: The first error.
        failed_sinks: The destinations that do not have it, each with the reason.
        others: The errors of further destinations.
    """

    counts: DayCounts
    error: ExportError
    failed_sinks: Mapping[str, str] = field(default_factory=dict)
    others: tuple[ExportError, ...] = ()

    @property
    def errors(self) -> tuple[ExportError, ...]:
        """All errors, the first one first."""
        return (self.error, *self.others)


LoadEvent = DayLoaded | DayFailed

LoadListener = Callable[[LoadEvent], None]
"""Called with each day that was loaded or failed."""
