"""What the ledger's thread is given to do, and how it gets there from the event loop.

1. A job that somebody waits for wakes the thread at once.
2. A job that nobody waits for wakes nobody: it is taken with the next one, or after `lazy_seconds`, or at the end.
3. Whoever asks a question gets an answer that knows of everything put before it.
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
    """Something to write; `waiter` is None where nobody waits."""

    write: Callable[[LedgerTransaction], Any]
    waiter: asyncio.Future[Any] | None = None


@dataclass(frozen=True, slots=True)
class ReadJob:
    """Something to read."""

    read: Callable[[LedgerQueries], Any]
    waiter: asyncio.Future[Any]


Job = WriteJob | ReadJob


class JobQueue:
    """Hands jobs over. `put` and `end` are called in the event loop, `take` in the thread.

    Args:
        lazy_seconds: How long a job that nobody waits for may lie there.
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
        """Say that no more jobs will come."""
        self._urgent.put(None)

    def take(self) -> tuple[list[Job], bool]:
        """Wait for a job, or for `lazy_seconds`; all jobs that are there then, and whether those were the last."""
        urgent: list[Job] = []
        ended = False
        with suppress(queue.Empty):
            while job := self._urgent.get(timeout=0 if urgent else self._lazy_seconds):
                urgent.append(job)
            ended = True
        # The lazy ones are looked at last and come first, for rule 3.
        return [self._lazy.popleft() for _ in range(len(self._lazy))] + urgent, ended
