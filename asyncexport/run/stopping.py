"""Does work until it is done or the run is asked to stop."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from asyncexport.engine.scheduler import Stop


async def unless_stopped(work: Coroutine[Any, Any, None], stop: Stop) -> bool:
    """Do some work unless the run is asked to stop before it is done; return whether it is done."""
    return await unless_set(work, stop.asked)


async def unless_set(work: Coroutine[Any, Any, None], event: asyncio.Event) -> bool:
    """Do some work unless an event is set before it is done; return whether it is done."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        stopping.cancel()
        await asyncio.wait({task, stopping})
