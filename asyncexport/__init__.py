"""asyncexport: a company's complete Fullstory history on its own disk, as fast as the quota allows.

From a program::

    import asyncexport

    settings = asyncexport.load_settings("asyncexport.toml")
    summary = asyncexport.run(asyncexport.backfill(settings, start="2026-01-01"))

If an event loop is running, as in a notebook: `summary = await asyncexport.backfill(settings, start="2026-01-01")`.
`nightly`, `retry`, `audit` and `verify` are called the same way (`asyncexport.run.library`), and so are `load` and
`mirror_archives`. `Stop` asks a run to stop, and `listeners` are functions that are called with each event of a run
(`asyncexport.core.events`). `export` runs any `RunSpec`.

The map: `core` makes the decisions and does no IO; the wings (`config`, `client`, `engine`, `storage`, `ledger`,
`display`) each own one subject; `run` puts them together; `simulate` runs the same engine on a clock that jumps; `cli`
is the command line; `sandbox` is the local stand-in for the service.

The names below are loaded on first use, so importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from asyncexport.config import ApiKey, Settings, load_key
    from asyncexport.core.auditing import AuditSample, Comparison
    from asyncexport.core.bundles import Bundle, Range
    from asyncexport.core.events import (
        BundleAudited,
        BundleParked,
        BundleSplit,
        BundleStored,
        Event,
        ExportStopped,
        Joining,
        Listener,
        Note,
        Retried,
        RowsOutside,
        ShortfallFound,
    )
    from asyncexport.core.exits import Exit
    from asyncexport.core.exports import Export
    from asyncexport.core.summary import Snapshot, Summary, Tally
    from asyncexport.engine.scheduler import Stop
    from asyncexport.errors import (
        ArchiveError,
        ConfigError,
        ExportError,
        GoneError,
        LedgerCorruptError,
        LedgerError,
        LedgerLockedError,
        OperationFailedError,
        Problem,
        RateLimitedError,
        RefusedError,
        ReplyError,
        ServiceError,
        StorageError,
        UnauthorizedError,
        UnavailableError,
    )
    from asyncexport.run.findings import (
        Broken,
        Finding,
        Intact,
        Missing,
        Overlapping,
        RulesOff,
        UnknownExport,
        Unrecorded,
    )
    from asyncexport.run.library import audit, backfill, load_settings, nightly, retry, run, verify
    from asyncexport.run.load_library import load
    from asyncexport.run.mirror_library import mirror_archives
    from asyncexport.run.moments import MaxDuration, Moment
    from asyncexport.run.run import Watch, export
    from asyncexport.run.spec import Audit, Backfill, Nightly, Repair, Retry, RunSpec
    from asyncexport.run.survey import Survey, survey

_HOMES = {
    "ApiKey": "config",
    "ArchiveError": "errors",
    "Audit": "run.spec",
    "AuditSample": "core.auditing",
    "Backfill": "run.spec",
    "Broken": "run.findings",
    "Bundle": "core.bundles",
    "BundleAudited": "core.events",
    "BundleParked": "core.events",
    "BundleSplit": "core.events",
    "BundleStored": "core.events",
    "Comparison": "core.auditing",
    "ConfigError": "errors",
    "Event": "core.events",
    "Exit": "core.exits",
    "Export": "core.exports",
    "ExportError": "errors",
    "ExportStopped": "core.events",
    "Finding": "run.findings",
    "GoneError": "errors",
    "Intact": "run.findings",
    "Joining": "core.events",
    "LedgerCorruptError": "errors",
    "LedgerError": "errors",
    "LedgerLockedError": "errors",
    "Listener": "core.events",
    "MaxDuration": "run.moments",
    "Missing": "run.findings",
    "Moment": "run.moments",
    "Nightly": "run.spec",
    "Note": "core.events",
    "OperationFailedError": "errors",
    "Overlapping": "run.findings",
    "Problem": "errors",
    "Range": "core.bundles",
    "RateLimitedError": "errors",
    "RefusedError": "errors",
    "Repair": "run.spec",
    "ReplyError": "errors",
    "Retried": "core.events",
    "Retry": "run.spec",
    "RowsOutside": "core.events",
    "RulesOff": "run.findings",
    "RunSpec": "run.spec",
    "ServiceError": "errors",
    "Settings": "config",
    "ShortfallFound": "core.events",
    "Snapshot": "core.summary",
    "Stop": "engine.scheduler",
    "StorageError": "errors",
    "Summary": "core.summary",
    "Survey": "run.survey",
    "Tally": "core.summary",
    "UnauthorizedError": "errors",
    "UnavailableError": "errors",
    "UnknownExport": "run.findings",
    "Unrecorded": "run.findings",
    "Watch": "run.run",
    "audit": "run.library",
    "backfill": "run.library",
    "export": "run.run",
    "load": "run.load_library",
    "load_key": "config",
    "load_settings": "run.library",
    "mirror_archives": "run.mirror_library",
    "nightly": "run.library",
    "retry": "run.library",
    "survey": "run.survey",
    "verify": "run.library",
}
"""The module of each public name. `run` is the package of that name, which can be called."""

__all__ = [
    "ApiKey",
    "ArchiveError",
    "Audit",
    "AuditSample",
    "Backfill",
    "Broken",
    "Bundle",
    "BundleAudited",
    "BundleParked",
    "BundleSplit",
    "BundleStored",
    "Comparison",
    "ConfigError",
    "Event",
    "Exit",
    "Export",
    "ExportError",
    "ExportStopped",
    "Finding",
    "GoneError",
    "Intact",
    "Joining",
    "LedgerCorruptError",
    "LedgerError",
    "LedgerLockedError",
    "Listener",
    "MaxDuration",
    "Missing",
    "Moment",
    "Nightly",
    "Note",
    "OperationFailedError",
    "Overlapping",
    "Problem",
    "Range",
    "RateLimitedError",
    "RefusedError",
    "Repair",
    "ReplyError",
    "Retried",
    "Retry",
    "RowsOutside",
    "RulesOff",
    "RunSpec",
    "ServiceError",
    "Settings",
    "ShortfallFound",
    "Snapshot",
    "Stop",
    "StorageError",
    "Summary",
    "Survey",
    "Tally",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownExport",
    "Unrecorded",
    "Watch",
    "audit",
    "backfill",
    "export",
    "load",
    "load_key",
    "load_settings",
    "mirror_archives",
    "nightly",
    "retry",
    "run",
    "survey",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    _log_only_where_wanted()
    if name == "run":
        return import_module(f"{__name__}.run")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def _log_only_where_wanted() -> None:
    """Give the package's logger a handler; without one, Python writes warnings to stderr by itself."""
    import logging  # noqa: PLC0415 - the command line's help does without it

    ours = logging.getLogger(__name__)
    if not ours.handlers:
        ours.addHandler(logging.NullHandler())
