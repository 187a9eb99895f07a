"""Limits how many files are downloaded at the same time, and how many may wait for their inspection.

A download releases its slot when its body has ended, not when the file was inspected, so that the network is not idle
while the CPU works. If as many files wait for inspection as may be downloaded, it keeps the slot, so that uninspected
files do not pile up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class DownloadSlots:
    """The slots of a run.

    Args:
        count: `[concurrency] downloads`.
    """

    def __init__(self, count: int) -> None:
        self.downloads = asyncio.Semaphore(count)
        self.inspections = asyncio.Semaphore(count)

    @asynccontextmanager
    async def take(self) -> AsyncIterator["DownloadSlot"]:
        """Wait for a slot, and hold it (or the inspection place it was exchanged for) until the end of the block."""
        await self.downloads.acquire()
        slot = DownloadSlot(self)
        try:
            yield slot
        finally:
            slot.held.release()


class DownloadSlot:
    """A held slot."""

    def __init__(self, slots: DownloadSlots) -> None:
        self._slots = slots
        self.held = slots.downloads

    async def end_body(self) -> None:
        """Exchange the slot for a place among the files that wait for inspection: the body has ended."""
        await self._slots.inspections.acquire()
        self.held.release()
        self.held = self._slots.inspections
