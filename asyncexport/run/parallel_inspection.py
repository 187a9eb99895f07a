"""Checks several archives at the same time, one per core, and judges their rows in order.

Whether an archive has the right rows can only be judged together with its neighbours (`core.row_rejections`). The
verdict on an archive whose rows look wrong is therefore delayed until the next archives have been checked.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Container, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

from asyncexport.core.archive.expected_rows import ExpectedRows, RowCheck
from asyncexport.core.bundles import Bundle
from asyncexport.core.exports import Definition
from asyncexport.core.row_rejections import RowVerdicts
from asyncexport.errors import ArchiveError
from asyncexport.storage import CORES

ARCHIVES_AT_ONCE = CORES + 2
"""Archives that are checked at the same time: slightly more than there are cores, so that no core is idle."""

T = TypeVar("T")


def row_check(bundle: Bundle, definition: Definition, *, untimed: Container[str]) -> RowCheck:
    """Return a check for the rows of a bundle's archive that raises nothing.

    `untimed` has the names of exports whose rows may be of any time.
    """
    checks_range = bundle.export not in untimed
    return RowCheck(ExpectedRows.of(definition, bundle.range, checks_range=checks_range), raises=False)


async def judged(
    checks: Iterable[Coroutine[Any, Any, tuple[T, RowCheck | None]]], verdicts: RowVerdicts[T]
) -> AsyncGenerator[tuple[T, ArchiveError | None], None]:
    """Yield the result of each check, and why its archive is rejected for its rows, or None if it is not."""
    async with aclosing(in_parallel(checks)) as found:
        async for one, rows in found:
            if rows is None:
                yield one, None
                continue
            for verdict in verdicts.judge(one, rows):
                yield verdict
    for verdict in verdicts.close():
        yield verdict


async def in_parallel(works: Iterable[Coroutine[Any, Any, T]]) -> AsyncGenerator[T, None]:
    """Run a few coroutines at a time and yield their results in order."""
    running: deque[asyncio.Task[T]] = deque()
    try:
        for work in works:
            running.append(asyncio.create_task(work))
            if len(running) >= ARCHIVES_AT_ONCE:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
