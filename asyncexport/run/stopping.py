"""Does work until it is done or the run is asked to stop."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from asyncexport.engine.scheduler import Stop


def _nothing() -> None:
    """Do nothing."""


async def unless_stopped(
    work: Coroutine[Any, Any, None], stop: Stop, *, at_once: Callable[[], None] = _nothing
) -> bool:
    """Do some work unless the run is asked to stop before it is done; return whether it is done.

    Args:
        work: The work. It is cancelled, and waited for.
        stop: Asks the run to stop.
        at_once: Called if the run is asked to stop immediately while the work is waited for.
    """
    return await _unless(work, stop.asked, partial(ended, stop=stop, at_once=at_once))


async def unless_set(work: Coroutine[Any, Any, None], event: asyncio.Event) -> bool:
    """Do some work unless an event is set before it is done; return whether it is done."""
    return await _unless(work, event, _cancelled)


async def ended(task: "asyncio.Task[Any]", *, stop: Stop, at_once: Callable[[], None]) -> None:
    """Cancel a task and wait until it has ended; `at_once` as in `unless_stopped`."""
    task.cancel()
    hurrying = asyncio.create_task(stop.now.wait())
    try:
        await asyncio.wait({task, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            at_once()
            await asyncio.wait({task})
    finally:
        hurrying.cancel()


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait({task})


async def _unless(
    work: Coroutine[Any, Any, None], event: asyncio.Event, end: Callable[["asyncio.Task[None]"], Awaitable[None]]
) -> bool:
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        stopping.cancel()
        await end(task)
