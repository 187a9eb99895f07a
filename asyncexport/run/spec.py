"""Specifies what a run does.

1. A run specification is a frozen value of one of five kinds. Each kind has the fields it needs and no others.
2. What a kind means is decided only here, in `instructions`. The rest of the package follows the instructions and does
   not check the kind.

All times are whole seconds since 1970 UTC, or relative dates such as "yesterday" (`Ago`), which are resolved once the
time is known.
"""

import secrets
from dataclasses import dataclass

from asyncexport.core.auditing import DEFAULT_AGE_SECONDS, AuditSample
from asyncexport.core.bundles import When
from asyncexport.core.exports import Export
from asyncexport.core.old_order import OldOrder
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
        require_end: Whether the run ends with `Exit.TIME_UP` if the requested end is not settled yet.
    """

    exports: tuple[Export, ...]
    start: When
    end: When | None = None
    max_duration_seconds: float | None = None
    command: str = "backfill"
    require_end: bool = False


@dataclass(frozen=True, slots=True)
class Nightly:
    """Export what is new since `[nightly] since`, and refresh what may have changed since it was exported.

    Attributes:
        exports: What to export.
        end: The end of the range, exclusive. None: up to what is settled.
        refresh_ages: The ages at which a bundle is exported again, in seconds after its end (`core.refreshing`).
        max_duration_seconds: Stop the run after this long. None: no limit.
        command: The command's name in the summary.
        require_end: Whether the run ends with `Exit.TIME_UP` if the requested end is not settled yet.
        old_order: The order of bundles that are neither fresh nor refreshed (`core.lanes`).
        audit: The stored bundles to audit when everything else is done. None: none.
    """

    exports: tuple[Export, ...]
    end: When | None = None
    refresh_ages: tuple[float, ...] = ()
    max_duration_seconds: float | None = None
    command: str = "nightly"
    require_end: bool = False
    old_order: OldOrder = OldOrder.NEWEST
    audit: AuditSample | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Retry parked bundles, and finish those in progress.

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
    """Export bundles again whose archive is missing or damaged, retry parked bundles, and finish those in progress.

    Attributes:
        exports: The exports that these bundles belong to.
        bundles: The bundles as recorded in the ledger.
        max_duration_seconds: Stop the run after this long. None: no limit.
        command: The command's name in the summary.
    """

    exports: tuple[Export, ...]
    bundles: tuple[BundleRecord, ...]
    max_duration_seconds: float | None = None
    command: str = "repair"


@dataclass(frozen=True, slots=True)
class Audit:
    """Export a random sample of stored bundles again to find rows that came late, and finish bundles in progress.

    Attributes:
        exports: The exports to choose from.
        sample: Which bundles.
        max_duration_seconds: Stop the run after this long. None: no limit.
        command: The command's name in the summary.
    """

    exports: tuple[Export, ...]
    sample: AuditSample
    max_duration_seconds: float | None = None
    command: str = "audit"


RunSpec = Backfill | Nightly | Retry | Repair | Audit


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a run does, independently of its kind.

    Attributes:
        start: The start of the range. None: `[nightly] since`, or the start of earlier nightly runs.
        end: The end of the range, exclusive. None: up to what is settled.
        fills_gaps: Whether to export what no earlier run has started. False: there must be a ledger already.
        refresh_ages: The ages at which a bundle is exported again, in seconds after its end (`core.refreshing`).
        repairs: Stored bundles to be exported again regardless of their age.
        accepts_fewer: Whether to export bundles again whose archive was kept, and accept far fewer rows.
        pauses_parked: Whether parked bundles are retried only after a pause (`core.parking`), or immediately.
        retries_accepted: Whether to retry parked bundles that the user has accepted as missing.
        retries_kept: Whether bundles that kept their archive are exported again when that is due (`core.refreshing`).
        reports_kept: Whether to report that bundles whose archive was kept are left alone.
        require_end: Whether work is left while the requested end is not settled.
        old_order: The order of old bundles in a run with an open end (`core.lanes`).
        audit: The stored bundles to audit after everything else. None: none.
        ignores_parked: Whether parked bundles, and others that are not in progress, are left to other runs.
    """

    start: When | None
    end: When | None
    fills_gaps: bool
    refresh_ages: tuple[float, ...] = ()
    repairs: tuple[BundleRecord, ...] = ()
    accepts_fewer: bool = False
    pauses_parked: bool = False
    retries_accepted: bool = False
    retries_kept: bool = False
    reports_kept: bool = False
    require_end: bool = False
    old_order: OldOrder = OldOrder.OLDEST
    audit: AuditSample | None = None
    ignores_parked: bool = False


def instructions(spec: RunSpec) -> Instructions:
    """Return what a run of this kind does."""
    match spec:
        case Backfill(start=start, end=end, require_end=require_end):
            return Instructions(start, end, fills_gaps=True, require_end=require_end)
        case Nightly(end=end, refresh_ages=ages, require_end=require_end, old_order=old_order, audit=audit):
            return Instructions(
                None,
                end,
                fills_gaps=True,
                refresh_ages=ages,
                pauses_parked=True,
                retries_kept=True,
                require_end=require_end,
                old_order=old_order,
                audit=audit,
            )
        case Retry(start=start, end=end, accept_fewer=accepts):
            names_range = start != 0 or end is not None
            return Instructions(
                start,
                end,
                fills_gaps=False,
                accepts_fewer=accepts,
                retries_accepted=names_range,
                reports_kept=not accepts,
            )
        case Repair(bundles=bundles):
            # Bundles to be repaired may be at any time.
            return Instructions(0, None, fills_gaps=False, repairs=bundles)
        case Audit(sample=sample):
            return Instructions(0, None, fills_gaps=False, audit=sample, ignores_parked=True)


def random_sample(count: int, *, older_than_seconds: float = DEFAULT_AGE_SECONDS) -> AuditSample:
    """Return a sample of this size with a new seed, so that each audit chooses other bundles."""
    return AuditSample(count, secrets.randbits(64), older_than_seconds)


def nightly_sample(count: int) -> AuditSample | None:
    """Return the sample of a nightly run, given `[nightly] audit`."""
    return random_sample(count) if count else None


__all__ = [
    "Audit",
    "Backfill",
    "Instructions",
    "Nightly",
    "Repair",
    "Retry",
    "RunSpec",
    "instructions",
    "nightly_sample",
    "random_sample",
]
