"""Looking into archives that are there: as many side by side as there are cores, and judged by their rows in order.

Whether rows are those that were asked for shows in one archive alone only as far as the others bear it out
(`core.row_rejections`). So an archive whose rows look wrong is held until the next ones have told.
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
"""How many archives are asked for at the same time, so that no core waits for the next one."""

T = TypeVar("T")


def look_at(bundle: Bundle, definition: Definition, *, untimed: Container[str]) -> RowCheck:
    """What is to look at the rows of a bundle's archive, and raises nothing.

    `untimed`: the exports whose rows may be of any time, by their names.
    """
    checks_range = bundle.export not in untimed
    return RowCheck(ExpectedRows.of(definition, bundle.range, checks_range=checks_range), raises=False)


async def judged(
    looks: Iterable[Coroutine[Any, Any, tuple[T, RowCheck | None]]], verdicts: RowVerdicts[T]
) -> AsyncGenerator[tuple[T, ArchiveError | None], None]:
    """What came of each look, and why its archive is refused for its rows; None: it is not."""
    async with aclosing(side_by_side(looks)) as found:
        async for one, look in found:
            if look is None:
                yield one, None
                continue
            for verdict in verdicts.judge(one, look):
                yield verdict
    for verdict in verdicts.close():
        yield verdict


async def side_by_side(works: Iterable[Coroutine[Any, Any, T]]) -> AsyncGenerator[T, None]:
    """The results in order, while a few of the coroutines run at the same time."""
    under_way: deque[asyncio.Task[T]] = deque()
    try:
        for work in works:
            under_way.append(asyncio.create_task(work))
            if len(under_way) >= ARCHIVES_AT_ONCE:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
