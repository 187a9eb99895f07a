"""The one thread that owns the ledger's connection, and what it is given to do.

1. What waits when the thread is free goes into one commit. Whoever waits for a write is told after the commit; reading
   comes after the commit of what was asked before it.
2. What nobody waits for wakes nobody: it is written along with the next commit, or after `lazy_seconds`, or at the end.
3. When a commit fails, all who wait for it are told, and whoever comes later is told the same: nothing is written after
   a gap.
4. Whoever no longer waits when the commit is done was cancelled: what it asked for is written all the same.
"""

import asyncio
import contextvars
import functools
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncexport.ledger.commit_mark import CommitMarkFile
from asyncexport.ledger.failpoints import reached
from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import create, mark_path, open_to_write
from asyncexport.ledger.queries import LedgerQueries
from asyncexport.ledger.rows import LedgerHead
from asyncexport.ledger.transaction import LedgerTransaction, is_refusal

LAZY_SECONDS = 1.0
"""What a crash may take of statuses, durations and remarks, which the next run can do without."""


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


@dataclass(frozen=True, slots=True)
class _Outcome:
    waiter: asyncio.Future[Any] | None
    result: Any = None
    error: BaseException | None = None


class LedgerThread:
    """The thread. `put`, `start` and `stop` are called in the event loop."""

    def __init__(self, path: Path, *, busy_seconds: float, lazy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._lazy_seconds = lazy_seconds
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lazy: deque[Job] = deque()
        self._started = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._failure: BaseException | None = None
        self._told = False
        self._stopping = False
        # A daemon, so that a process whose loop is gone can end; whoever closes the ledger waits for it.
        # In a copy of this context, which holds the failpoints.
        run_in_context = functools.partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run_in_context, name="ledger", daemon=True)

    async def start(self) -> None:
        """Open the ledger, which is made if there is none."""
        self._thread.start()
        try:
            await asyncio.shield(self._started)
        except asyncio.CancelledError:
            self._jobs.put(None)
            raise

    def put(self, job: Job) -> None:
        """Give it something to do.

        Raises:
            RuntimeError: the ledger is closed, and nobody is left to do it.
        """
        if self._stopping:
            raise RuntimeError("the ledger is closed")
        if isinstance(job, WriteJob) and job.waiter is None:
            self._lazy.append(job)
        else:
            self._jobs.put(job)

    async def stop(self) -> None:
        """Have all that was put done, and close the ledger.

        Raises:
            StorageError: what nobody waited for could not be written.
        """
        if not self._stopping:
            self._stopping = True
            self._jobs.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()
        if self._failure is not None and not self._told:
            self._told = True
            raise self._failure

    def _run(self) -> None:
        try:
            with translated(self._path):
                connection = self._open()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told; a thread has nobody else to tell
            self._deliver([_Outcome(self._started, error=error)])
            return
        self._deliver([_Outcome(self._started)])
        reading = LedgerQueries(connection, self._path)
        ended = False
        while not ended:
            jobs, ended = self._gather()
            writes = [job for job in jobs if isinstance(job, WriteJob)]
            if writes:
                self._deliver(self._commit(connection, writes))
            self._deliver([self._answer(job, reading) for job in jobs if isinstance(job, ReadJob)])
        with suppress(sqlite3.Error, OSError):
            # What is committed is durable, whether or not the log can be moved into the ledger now.
            connection.close()
            self._mark.close()
        self._deliver([_Outcome(self._ended)])

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            create(self._path, now=time.time())
        connection = open_to_write(self._path, busy_seconds=self._busy_seconds)
        try:
            self._transaction = LedgerTransaction(connection, LedgerHead.read(connection))
            self._mark = CommitMarkFile(mark_path(self._path))
        except BaseException:
            connection.close()
            raise
        return connection

    def _gather(self) -> tuple[list[Job], bool]:
        """All that waits, and whether that is the end."""
        jobs: list[Job] = []
        ended = False
        with suppress(queue.Empty):
            while job := self._jobs.get(timeout=0 if jobs else self._lazy_seconds):
                jobs.append(job)
            ended = True
        # After those that somebody waits for were taken: what was put before a question is there when it is answered.
        return [self._lazy.popleft() for _ in range(len(self._lazy))] + jobs, ended

    def _commit(self, connection: sqlite3.Connection, jobs: list[WriteJob]) -> list[_Outcome]:
        if self._failure is None:
            try:
                with translated(self._path):
                    return self._commit_or_raise(connection, jobs)
            except BaseException as error:  # noqa: BLE001 - whoever waits is told; a thread has nobody else to tell
                self._failure = error
                with suppress(sqlite3.Error):
                    connection.rollback()
        return [_Outcome(job.waiter, error=self._failure) for job in jobs]

    def _commit_or_raise(self, connection: sqlite3.Connection, jobs: list[WriteJob]) -> list[_Outcome]:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [self._write(job) for job in jobs]
        mark = self._transaction.finish()
        reached("ledger.commit:before")
        connection.execute("COMMIT")
        self._mark.write(mark)
        reached("ledger.commit:after")
        return outcomes

    def _write(self, job: WriteJob) -> _Outcome:
        try:
            return _Outcome(job.waiter, job.write(self._transaction))
        except Exception as error:
            if not is_refusal(error):
                raise
            return _Outcome(job.waiter, error=error)

    def _answer(self, job: ReadJob, reading: LedgerQueries) -> _Outcome:
        if self._failure is not None:
            return _Outcome(job.waiter, error=self._failure)
        try:
            return _Outcome(job.waiter, job.read(reading))
        except BaseException as error:  # noqa: BLE001 - whoever waits is told; a thread has nobody else to tell
            return _Outcome(job.waiter, error=error)

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        if all(outcome.waiter is None for outcome in outcomes):
            return
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, outcomes)

    def _tell(self, outcomes: list[_Outcome]) -> None:
        """In the event loop."""
        for outcome in outcomes:
            if outcome.waiter is None or outcome.waiter.done():
                continue
            if outcome.error is None:
                outcome.waiter.set_result(outcome.result)
            else:
                self._told = self._told or outcome.error is self._failure
                outcome.waiter.set_exception(outcome.error)
