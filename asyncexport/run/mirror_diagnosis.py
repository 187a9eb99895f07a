"""Checks the mirror for `doctor`: the library, the URL, and whether the bucket can be listed with the key.

Whether the key may also write is not tried out, because that would write to the bucket.
"""

from asyncexport.config import Settings
from asyncexport.core.diagnosis import Check, failed, passed
from asyncexport.core.exits import exit_of
from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.errors import MirrorError
from asyncexport.run.mirror_place import open_store

LIMITS = MirrorLimits(connect=10.0, answer=20.0, retries=1, retry=20.0)
"""A user waits for the answer."""


async def mirror_check(settings: Settings, *, offline: bool, limits: MirrorLimits = LIMITS) -> Check | None:
    """Return the check of the mirror; None if none is set. It sends one request at most, unless that fails.

    Raises:
        ConfigError: the library is missing, or the settings cannot be used.
    """
    url = settings.output.mirror
    if not url:
        return None
    store = open_store(settings, limits)
    if offline:
        return passed("mirror", f"{url}: the library is installed; not asked, because of --offline")
    try:
        await store.reach()
    except MirrorError as error:
        advice = error.hint or "check the URL, and the variables of the object store"
        return failed("mirror", str(error), advice, code=exit_of(error))
    return passed("mirror", f"{url} can be listed: it accepts the key")
