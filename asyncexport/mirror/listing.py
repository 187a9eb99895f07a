"""Lists the objects below a prefix, and goes on where the connection broke.

The library repeats a request that failed, but not one whose answer has begun. A long listing has many answers.
"""

import asyncio
import time
from typing import Any

import obstore
from obstore import exceptions

from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.objects import Held
from asyncexport.errors import CutAnswerError
from asyncexport.mirror.faults import STORE_ERRORS, mirror_error

LIST_CHUNK = 1000
"""Objects per answer to a list request: the most that S3 returns."""


async def reach_listing(store: Any, *, url: str) -> None:
    """Make sure that there is a first answer to a list request; what is in it does not matter.

    Raises:
        MirrorError: the store failed.
    """
    try:
        async for _ in obstore.list(store, chunk_size=1):
            return
    except exceptions.InvalidPathError:
        return
    except STORE_ERRORS as error:
        raise mirror_error(error, "list", url) from None


async def listed_objects(store: Any, prefix: str, *, limits: MirrorLimits, url: str) -> dict[str, Held]:
    """Return the objects below a prefix, by name, without their metadata.

    Args:
        store: The store of the library.
        prefix: The prefix, which ends with a slash.
        limits: How long to go on if no more objects come.
        url: The mirror, for errors.

    Raises:
        OddNameError: an object has a name that the library cannot read.
        MirrorError: the store failed.
    """
    found: dict[str, Held] = {}
    last, pause, until = None, limits.pause, time.monotonic() + limits.retry
    while True:
        before = last
        try:
            async for chunk in obstore.list(store, prefix, offset=last, chunk_size=LIST_CHUNK):
                for one in chunk:
                    last = one["path"]
                    found[last] = Held(one["size"], one.get("e_tag"))
        except STORE_ERRORS as error:
            failure = mirror_error(error, "list", url)
            if not isinstance(failure, CutAnswerError):
                raise failure from None
            if last != before:
                pause, until = limits.pause, time.monotonic() + limits.retry
            elif time.monotonic() + pause > until:
                raise failure from None
        else:
            return found
        await asyncio.sleep(pause)
        pause *= 2
