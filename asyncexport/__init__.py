"""asyncexport: a company's whole Fullstory history on its own disk, complete, at the speed that the quota allows.

From a program::

    from asyncexport import Backfill, export, load_key, load_settings

    settings = load_settings(file=None, environ=os.environ, flags={}, working_directory=Path.cwd())
    key = load_key(os.environ, file=settings.api.api_key_file)
    summary = await export(settings, Backfill(settings.exports, start=1_767_225_600), key=key)

`Nightly`, `Retry` and `Repair` take the place of `Backfill` for the other kinds of run. `Stop` asks a run to stop, and
`listeners` are functions that are called with each event of a run (`asyncexport.core.events`).

The map: `core` decides and touches nothing; the wings (`config`, `client`, `engine`, `storage`, `ledger`, `display`)
each own one subject; `run` puts them together; `simulate` runs the same engine on a clock that jumps; `cli` is for
people; `sandbox` stands in for the service.

The names below are loaded when they are first used: importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncexport.config import Settings, load_key, load_settings
    from asyncexport.core.events import Event
    from asyncexport.core.exits import Exit
    from asyncexport.core.summary import Snapshot, Summary
    from asyncexport.engine.scheduler import Stop
    from asyncexport.errors import (
        ArchiveError,
        ConfigError,
        ExportError,
        LedgerError,
        ServiceError,
        StorageError,
        UnauthorizedError,
    )
    from asyncexport.run.run import export
    from asyncexport.run.spec import Backfill, Nightly, Repair, Retry, RunSpec
    from asyncexport.run.survey import Survey, survey

_HOMES = {
    "ArchiveError": "errors",
    "Backfill": "run.spec",
    "ConfigError": "errors",
    "Event": "core.events",
    "Exit": "core.exits",
    "ExportError": "errors",
    "LedgerError": "errors",
    "Nightly": "run.spec",
    "Repair": "run.spec",
    "Retry": "run.spec",
    "RunSpec": "run.spec",
    "ServiceError": "errors",
    "Settings": "config",
    "Snapshot": "core.summary",
    "Stop": "engine.scheduler",
    "StorageError": "errors",
    "Summary": "core.summary",
    "Survey": "run.survey",
    "UnauthorizedError": "errors",
    "export": "run.run",
    "load_key": "config",
    "load_settings": "config",
    "survey": "run.survey",
}
"""The module of each public name."""

__all__ = [
    "ArchiveError",
    "Backfill",
    "ConfigError",
    "Event",
    "Exit",
    "ExportError",
    "LedgerError",
    "Nightly",
    "Repair",
    "Retry",
    "RunSpec",
    "ServiceError",
    "Settings",
    "Snapshot",
    "Stop",
    "StorageError",
    "Summary",
    "Survey",
    "UnauthorizedError",
    "export",
    "load_key",
    "load_settings",
    "survey",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name == "load":
        # What `load_settings` was called at first.
        name = "load_settings"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
