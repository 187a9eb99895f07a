"""`load` for programs: what the command does, with the same lock, without printing anything."""

import asyncio
from collections.abc import Sequence

from asyncexport.config import Settings
from asyncexport.core.summary import Summary
from asyncexport.core.warehouse.load_events import LoadEvent, LoadListener
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ConfigError, Problem
from asyncexport.run.library import settings_or_found
from asyncexport.run.load import LoadSpec
from asyncexport.run.load import load as load_days
from asyncexport.run.moments import Moment, read_range
from asyncexport.run.survey import time_at_service


def _ignore(_event: LoadEvent) -> None:
    """Do nothing."""


async def load(
    settings: Settings | None = None,
    *,
    start: Moment = 0,
    end: Moment | None = None,
    exports: Sequence[str] = (),
    to: Sequence[str] = (),
    again: bool = False,
    stop: Stop | None = None,
    on_event: LoadListener = _ignore,
) -> Summary:
    """Load stored days into tables; what has not changed is not touched. No key is needed.

    Args:
        settings: The settings. None: those that `load_settings()` finds.
        start: The start of the range. A day that is only partly in the range is loaded as a whole.
        end: The end of the range, exclusive. None: no end.
        exports: Names of exports. Empty: those of the settings.
        to: Destinations. Empty: those of `[load] to`.
        again: Whether to load days that the destinations have already.
        stop: Stops the load when its `ask` is called in the event loop.
        on_event: Called with each day that was loaded or failed.

    Raises:
        ConfigError: the settings or the arguments are wrong, or a library is missing.
    """
    settings = await settings_or_found(settings)
    problems: list[Problem] = []
    first, last = read_range(start, end, problems)
    if problems:
        raise ConfigError(problems)
    names, sinks = (tuple([one] if isinstance(one, str) else one) for one in (exports, to))
    now = await asyncio.to_thread(time_at_service, settings)
    return await load_days(settings, LoadSpec(names, first, last, sinks, again), now=now, stop=stop, on_event=on_event)
