"""The threads that work with the disk, and the translation of the errors that occur there.

Inspecting a file takes long and needs a core, so it has threads of its own: no write waits for an inspection.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aiofiles.os import wrap

from asyncexport.storage.faults import storage_error

CORES = os.cpu_count() or 1
"""Files inspected in parallel: more would contend for the interpreter lock and keep decompressed data in memory."""

THREADS = 8
"""Files written in parallel: the threads mostly wait for the disk."""

T = TypeVar("T")


def _do(work: Callable[..., T], *arguments: Any) -> T:
    return work(*arguments)


# Wrapped once: aiofiles copies the name and the docstring of the function each time it wraps one.
in_a_thread: Callable[..., Awaitable[Any]] = wrap(_do)


async def until_over(doing: "asyncio.Future[Any]") -> None:
    """Wait until a thread has finished, even if cancelled repeatedly; its result is dropped."""
    while not doing.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([doing])
    if not doing.cancelled():
        # Retrieve the exception, or asyncio would log a traceback: the caller is cancelled and does not do it.
        doing.exception()


class DiskThreads:
    """The threads that work in an output directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="storage")
        self._inspecting = ThreadPoolExecutor(max_workers=CORES, thread_name_prefix="storage-inspecting")

    async def close(self) -> None:
        """End the threads after they have finished their work."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._inspecting.shutdown)

    async def run(self, work: Callable[..., T], *arguments: Any, abandon: Callable[[], None] | None = None) -> T:
        """Run work with the disk in a thread. If the caller is cancelled, call `abandon` and wait for the thread.

        Raises:
            StorageError: the disk is full, not writable, or failed.
        """
        return await self._do(self._threads, work, *arguments, abandon=abandon)

    async def inspect(self, work: Callable[..., T], *arguments: Any, abandon: Callable[[], None]) -> T:
        """Run work that takes long and needs a core, in threads of its own, so that no write waits for it; see `run`.

        Raises:
            StorageError: the disk is full, not writable, or failed.
        """
        return await self._do(self._inspecting, work, *arguments, abandon=abandon)

    async def _do(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[..., T],
        *arguments: Any,
        abandon: Callable[[], None] | None,
    ) -> T:
        doing: asyncio.Future[T] = asyncio.ensure_future(
            in_a_thread(self._run_translated, work, *arguments, executor=threads)
        )
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            if abandon:
                abandon()
            await until_over(doing)
            raise

    def _run_translated(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run the work and translate its errors, in the thread, because the translation reads the disk."""
        try:
            return work(*arguments)
        except OSError as error:
            raise storage_error(error, self.directory) from error
