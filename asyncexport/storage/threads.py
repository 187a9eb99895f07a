"""The threads in which work with the disk is done; what goes wrong there is told in plain words.

Inspecting a file takes long and needs a core, so it has threads of its own: no write waits for one.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aiofiles.os import wrap

from asyncexport.storage.faults import in_plain_words

CORES = os.cpu_count() or 1
"""How many files are inspected at the very same time: more would only contend for the interpreter, and hold what they
inflate in memory."""

THREADS = 8
"""How many files are written at once: most of it is waiting for the disk."""

T = TypeVar("T")


def _do(work: Callable[..., T], *arguments: Any) -> T:
    return work(*arguments)


# Wrapped once: aiofiles would copy the name and the words of what it wraps at every call.
in_a_thread: Callable[..., Awaitable[Any]] = wrap(_do)


async def until_over(doing: "asyncio.Future[Any]") -> None:
    """Wait for the end of what a thread does, however often we are cancelled; its result is dropped."""
    while not doing.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([doing])
    if not doing.cancelled():
        # The waiter is cancelled. An exception that nobody retrieves would make asyncio print a traceback.
        doing.exception()


class DiskThreads:
    """The threads for what lies under a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="storage")
        self._inspecting = ThreadPoolExecutor(max_workers=CORES, thread_name_prefix="storage-inspecting")

    async def close(self) -> None:
        """End the threads, once they have done what they were given."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._inspecting.shutdown)

    async def run(self, work: Callable[..., T], *arguments: Any, give_up: Callable[[], None] | None = None) -> T:
        """Do work with the disk in a thread. A caller that is cancelled calls `give_up`, and waits for the end.

        Raises:
            StorageError: the disk is full, not writable, or failed.
        """
        return await self._do(self._threads, work, *arguments, give_up=give_up)

    async def inspect(self, work: Callable[..., T], *arguments: Any, give_up: Callable[[], None]) -> T:
        """The same for work that takes long and needs a core, in other threads, so that no write waits for it.

        Raises:
            StorageError: the disk is full, not writable, or failed.
        """
        return await self._do(self._inspecting, work, *arguments, give_up=give_up)

    async def _do(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[..., T],
        *arguments: Any,
        give_up: Callable[[], None] | None,
    ) -> T:
        doing: asyncio.Future[T] = asyncio.ensure_future(in_a_thread(self._told, work, *arguments, executor=threads))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            if give_up:
                give_up()
            await until_over(doing)
            raise

    def _told(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do it; in the thread, since the disk is looked at once more to say what is wrong with it."""
        try:
            return work(*arguments)
        except OSError as error:
            raise in_plain_words(error, self.directory) from error
