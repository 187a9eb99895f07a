"""Tests on a virtual clock: hours of waiting take milliseconds, and no task may be left running at the end."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from asyncexport.simulate.clock import run


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on virtual time, and fail it if it leaves a task running."""

    @functools.wraps(test)
    def timeless(*args: Any, **kwargs: Any) -> None:
        run(leaving_nothing(test(*args, **kwargs)))

    return timeless


async def leaving_nothing(test: Coroutine[Any, Any, None]) -> None:
    """Run the test, and fail it if it leaves a task running."""
    await test
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"still running: {sorted(task.get_name() for task in left)}"


async def at(seconds: float) -> None:
    """Wait until `seconds` after the clock's start."""
    await asyncio.sleep(seconds - asyncio.get_running_loop().time())


async def settled(turns: int = 20) -> None:
    """Let all tasks that can run now run."""
    for _ in range(turns):
        await asyncio.sleep(0)
