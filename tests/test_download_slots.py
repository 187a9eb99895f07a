"""How many downloads go on at once, and what waits for what."""

import asyncio

import pytest

from asyncexport.engine.download_slots import DownloadSlots


async def soon() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, 3])
async def test_a_slot_is_free_for_the_next_when_the_body_has_ended(count):
    """The line is not idle while a file is inspected; but no more files wait for that than there are slots."""
    slots = DownloadSlots(count)
    downloading: set[int] = set()
    inspected = {number: asyncio.Event() for number in range(4 * count)}

    async def fetch(number: int) -> None:
        async with slots.take() as slot:
            downloading.add(number)
            await asyncio.sleep(0)
            await slot.end_body()
            downloading.remove(number)
            await inspected[number].wait()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fetch(number)) for number in inspected]
        await soon()
        assert downloading == {*range(count, 2 * count)}, "so many are held back, and the rest did not begin"
        inspected[0].set()
        await soon()
        assert len(downloading) == count
        assert sum(task.done() for task in tasks) == 1
        for event in inspected.values():
            event.set()


@pytest.mark.parametrize("moment", ["downloading", "held back", "inspected"])
async def test_a_cancelled_download_gives_back_what_it_holds(moment):
    """Whatever it waited for."""
    slots = DownloadSlots(1)
    if moment == "held back":
        await slots.inspections.acquire()

    async def fetch() -> None:
        async with slots.take() as slot:
            if moment != "downloading":
                await slot.end_body()
            await asyncio.Event().wait()

    task = asyncio.create_task(fetch())
    await soon()
    task.cancel()
    await asyncio.wait([task])
    if moment == "held back":
        slots.inspections.release()
    async with slots.take() as slot:
        await asyncio.wait_for(slot.end_body(), 1)
