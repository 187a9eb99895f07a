"""The jobs of the ledger's thread, and the queue that passes them from the event loop to it.

1. A job with a waiter wakes the thread immediately.
2. A write without a waiter does not wake the thread: it is taken with the next job, after `lazy_seconds`, or at the
   end.
3. The answer to a read reflects all writes that were put before it.
"""

import asyncio
import queue
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from asyncexport.ledger.queries import LedgerQueries
from asyncexport.ledger.transaction import LedgerTransaction


@dataclass(frozen=True, slots=True)
class WriteJob:
    """A write; `waiter` is None if no caller waits for it."""

    write: Callable[[LedgerTransaction], Any]
    waiter: asyncio.Future[Any] | None = None


@dataclass(frozen=True, slots=True)
class ReadJob:
    """A read."""

    read: Callable[[LedgerQueries], Any]
    waiter: asyncio.Future[Any]


Job = WriteJob | ReadJob


class JobQueue:
    """Passes jobs on. `put` and `end` are called in the event loop, `take` in the thread.

    Args:
        lazy_seconds: The longest time that a write without a waiter stays in the queue.
    """

    def __init__(self, lazy_seconds: float) -> None:
        self._lazy_seconds = lazy_seconds
        self._urgent: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lazy: deque[Job] = deque()

    def put(self, job: Job) -> None:
        """Add a job."""
        if isinstance(job, WriteJob) and job.waiter is None:
            self._lazy.append(job)
        else:
            self._urgent.put(job)

    def end(self) -> None:
        """Announce that no more jobs will come."""
        self._urgent.put(None)

    def take(self) -> tuple[list[Job], bool]:
        """Wait for a job, or for `lazy_seconds`; return all jobs in the queue, and whether they are the last ones."""
        urgent: list[Job] = []
        ended = False
        with suppress(queue.Empty):
            while job := self._urgent.get(timeout=0 if urgent else self._lazy_seconds):
                urgent.append(job)
            ended = True
        # The lazy jobs are read last but returned first, for rule 3.
        return [self._lazy.popleft() for _ in range(len(self._lazy))] + urgent, ended
