"""How many downloads run at the same time, and how files wait for their inspection."""

import asyncio

import pytest

from asyncexport.engine.download_slots import DownloadSlots


async def let_tasks_proceed() -> None:
    """Let every task proceed as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, 3])
async def test_a_slot_is_free_for_the_next_download_when_the_body_has_ended(count):
    """The connection is not idle while a file is inspected, but no more files than slots wait for inspection."""
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
        await let_tasks_proceed()
        assert downloading == {*range(count, 2 * count)}, (
            "as many as there are slots wait for inspection, and the rest have not started"
        )
        inspected[0].set()
        await let_tasks_proceed()
        assert len(downloading) == count
        assert sum(task.done() for task in tasks) == 1
        for event in inspected.values():
            event.set()


@pytest.mark.parametrize("phase", ["downloading", "waiting for inspection", "inspected"])
async def test_a_cancelled_download_releases_its_slot(phase):
    """A cancel while downloading, waiting or being inspected leaves the slot free."""
    slots = DownloadSlots(1)
    if phase == "waiting for inspection":
        await slots.inspections.acquire()

    async def fetch() -> None:
        async with slots.take() as slot:
            if phase != "downloading":
                await slot.end_body()
            await asyncio.Event().wait()

    task = asyncio.create_task(fetch())
    await let_tasks_proceed()
    task.cancel()
    await asyncio.wait([task])
    if phase == "waiting for inspection":
        slots.inspections.release()
    async with slots.take() as slot:
        await asyncio.wait_for(slot.end_body(), 1)
