"""How many files are downloaded at once, and how many wait for their inspection meanwhile.

A download gives its slot to the next when its body has ended, not when the file was inspected: the line is not idle
while the processor works. Where as many files wait for their inspection as may be downloaded, it keeps the slot. So
neither the disk nor memory fills with files that nobody has looked at.
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
        """Wait for a slot, and hold it, or what it was exchanged for, until the end."""
        await self.downloads.acquire()
        slot = DownloadSlot(self)
        try:
            yield slot
        finally:
            slot.held.release()


class DownloadSlot:
    """A slot that is held."""

    def __init__(self, slots: DownloadSlots) -> None:
        self._slots = slots
        self.held = slots.downloads

    async def end_body(self) -> None:
        """The body has ended: exchange the slot for a place among the files that wait for their inspection."""
        await self._slots.inspections.acquire()
        self.held.release()
        self.held = self._slots.inspections
