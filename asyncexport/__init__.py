"""asyncexport: a company's whole Fullstory history on its own disk, complete, at the speed that the quota allows.

From a program::

    from asyncexport import Backfill, Stop, export, load, load_key

    settings = load(file=None, environ=os.environ, flags={}, working_directory=Path.cwd())
    spec = Backfill(settings.exports, start=1_767_225_600)
    summary = await export(settings, spec, key=load_key(settings, os.environ), stop=Stop())

The map: `core` decides and touches nothing; the wings (`config`, `client`, `engine`, `storage`, `ledger`, `display`)
each own one subject; `run` puts them together; `simulate` runs the same engine on a clock that jumps; `cli` is for
people; `sandbox` stands in for the service.

The names below are loaded when they are first used: importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncexport.config import Settings, load, load_key
    from asyncexport.core.summary import Exit, Snapshot, Summary
    from asyncexport.engine.scheduler import Stop
    from asyncexport.run.run import export
    from asyncexport.run.spec import Backfill, Nightly, Repair, Retry
    from asyncexport.run.survey import Survey, survey

_HOMES = {
    "Backfill": "run.spec",
    "Exit": "core.summary",
    "Nightly": "run.spec",
    "Repair": "run.spec",
    "Retry": "run.spec",
    "Settings": "config",
    "Snapshot": "core.summary",
    "Stop": "engine.scheduler",
    "Summary": "core.summary",
    "Survey": "run.survey",
    "export": "run.run",
    "load": "config",
    "load_key": "config",
    "survey": "run.survey",
}

__all__ = [
    "Backfill",
    "Exit",
    "Nightly",
    "Repair",
    "Retry",
    "Settings",
    "Snapshot",
    "Stop",
    "Summary",
    "Survey",
    "export",
    "load",
    "load_key",
    "survey",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
