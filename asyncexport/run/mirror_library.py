"""`mirror` for programs: what the command does, without printing anything. `asyncexport.mirror` is a package."""

from asyncexport.config import Settings
from asyncexport.core.mirror.tally import MirrorListener
from asyncexport.core.summary import Summary
from asyncexport.engine.scheduler import Stop
from asyncexport.run.library import settings_or_found
from asyncexport.run.mirror import ignore, mirror


async def mirror_archives(
    settings: Settings | None = None, *, stop: Stop | None = None, on_event: MirrorListener = ignore
) -> Summary:
    """Upload to `[output] mirror` what it lacks. No key of Fullstory is needed; a run may go on meanwhile.

    Args:
        settings: The settings. None: those that `load_settings()` finds.
        stop: Stops the mirror when its `ask` is called in the event loop.
        on_event: Called with what became of each file, except those that the mirror had.

    Raises:
        ConfigError: no mirror is set, the settings or the variables of the object store are wrong, or a library is
            missing.
    """
    settings = await settings_or_found(settings)
    return await mirror(settings, stop=stop, on_event=on_event)
