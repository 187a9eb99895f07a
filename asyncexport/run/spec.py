"""What one run is asked to do.

1. A run specification is a frozen value of one of four kinds. Each kind has the fields it needs and no others.
2. What a kind means is decided here and nowhere else, in `instructions`. The rest of the package follows the
   instructions and does not ask which kind it was.

All moments are whole seconds since 1970 UTC, or words such as "yesterday" (`Ago`), which the run reads once the
time is known.
"""

from dataclasses import dataclass

from asyncexport.core.bundles import When
from asyncexport.core.exports import Export
from asyncexport.core.states import BundleRecord


@dataclass(frozen=True, slots=True)
class Backfill:
    """Export everything in a range that is not stored yet.

    Attributes:
        exports: What to export.
        start: The start of the range.
        end: The end of the range, exclusive. None: up to what is settled.
        max_duration_seconds: Stop the run after this long. None: no limit.
        command: The command's name in the summary.
    """

    exports: tuple[Export, ...]
    start: When
    end: When | None = None
    max_duration_seconds: float | None = None
    command: str = "backfill"


@dataclass(frozen=True, slots=True)
class Nightly:
    """Export what is new since `[nightly] since`, and export again what may have changed since it was exported.

    Attributes:
        exports: What to export.
        end: The end of the range, exclusive. None: up to what is settled.
        refresh_ages: How long after its end a bundle is exported once more, in seconds (`core.refreshing`).
        max_duration_seconds: Stop the run after this long. None: no limit.
        command: The command's name in the summary.
    """

    exports: tuple[Export, ...]
    end: When | None = None
    refresh_ages: tuple[float, ...] = ()
    max_duration_seconds: float | None = None
    command: str = "nightly"


@dataclass(frozen=True, slots=True)
class Retry:
    """Go on with bundles that are parked, and with those that were begun and are not finished.

    Attributes:
        exports: What to export.
        start: The start of the range.
        end: The end of the range, exclusive. None: up to what is settled.
        accept_fewer: Also export again the bundles whose archive was kept because the new export had far fewer rows,
            and store the new export however few rows it has.
        max_duration_seconds: Stop the run after this long. None: no limit.
        command: The command's name in the summary.
    """

    exports: tuple[Export, ...]
    start: When = 0
    end: When | None = None
    accept_fewer: bool = False
    max_duration_seconds: float | None = None
    command: str = "retry"


@dataclass(frozen=True, slots=True)
class Repair:
    """Export again the bundles whose archive is missing or damaged, and go on with what was begun or parked.

    Attributes:
        exports: The exports these bundles belong to.
        bundles: The bundles as the ledger has them.
        max_duration_seconds: Stop the run after this long. None: no limit.
        command: The command's name in the summary.
    """

    exports: tuple[Export, ...]
    bundles: tuple[BundleRecord, ...]
    max_duration_seconds: float | None = None
    command: str = "repair"


RunSpec = Backfill | Nightly | Retry | Repair


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a run does, whichever kind of run it is.

    Attributes:
        start: The start of the range. None: where `[nightly] since` says, or where earlier nights began.
        end: The end of the range, exclusive. None: up to what is settled.
        fills_gaps: Whether to export what no earlier run has begun. False: there must be a ledger already.
        refresh_ages: How long after its end a bundle is exported once more, in seconds (`core.refreshing`).
        repairs: Stored bundles to be exported again whatever their age.
        accepts_fewer: Whether to export again the bundles whose archive was kept, and accept far fewer rows.
        lets_parked_rest: Whether parked bundles wait for their time (`core.parking`). False: they are tried at once.
        reports_kept: Whether to say that bundles whose archive was kept are left as they are.
    """

    start: When | None
    end: When | None
    fills_gaps: bool
    refresh_ages: tuple[float, ...] = ()
    repairs: tuple[BundleRecord, ...] = ()
    accepts_fewer: bool = False
    lets_parked_rest: bool = False
    reports_kept: bool = False


def instructions(spec: RunSpec) -> Instructions:
    """What a run of this kind does."""
    match spec:
        case Backfill(start=start, end=end):
            return Instructions(start, end, fills_gaps=True)
        case Nightly(end=end, refresh_ages=ages):
            return Instructions(None, end, fills_gaps=True, refresh_ages=ages, lets_parked_rest=True)
        case Retry(start=start, end=end, accept_fewer=accepts):
            return Instructions(start, end, fills_gaps=False, accepts_fewer=accepts, reports_kept=not accepts)
        case Repair(bundles=bundles):
            # Bundles to be repaired may lie anywhere.
            return Instructions(0, None, fills_gaps=False, repairs=bundles)


__all__ = ["Backfill", "Instructions", "Nightly", "Repair", "Retry", "RunSpec", "instructions"]
