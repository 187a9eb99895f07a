"""The one thread that owns the ledger's connection.

1. All writes that wait when the thread is free go into one commit. Their callers get their results after the commit. A
   read runs after the commit of all writes that were put before it.
2. If a commit fails, its callers get the error, and so does every later caller: nothing is written after a gap.
3. The write of a cancelled caller is still committed.
"""

import asyncio
import contextvars
import functools
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncexport.ledger.commit_mark import CommitMarkFile
from asyncexport.ledger.failpoints import reached
from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import create, mark_path, open_to_write
from asyncexport.ledger.in_place import LedgerInPlace
from asyncexport.ledger.jobs import Job, JobQueue, ReadJob, WriteJob
from asyncexport.ledger.migration import migrate
from asyncexport.ledger.queries import LedgerQueries
from asyncexport.ledger.rows import LedgerHead
from asyncexport.ledger.transaction import LedgerTransaction, is_refusal

LAZY_SECONDS = 1.0
"""Seconds that rows without a waiter may wait: statuses, durations and notes, which the next run can do without."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    waiter: asyncio.Future[Any] | None
    result: Any = None
    error: BaseException | None = None


class LedgerThread:
    """The thread. `start`, `put` and `stop` are called in the event loop."""

    def __init__(self, path: Path, *, busy_seconds: float, lazy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._loop = asyncio.get_running_loop()
        self._jobs = JobQueue(lazy_seconds)
        self._started = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._failure: BaseException | None = None
        self._failure_reported = False
        self._stopping = False
        # It runs in a copy of this context, which contains the failpoints. It is a daemon, so that a process can end if
        # its event loop is gone; `stop` waits for the thread.
        run_in_context = functools.partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run_in_context, name="ledger", daemon=True)

    async def start(self) -> None:
        """Start the thread and open the ledger; create it if there is none."""
        self._thread.start()
        try:
            await asyncio.shield(self._started)
        except asyncio.CancelledError:
            self._jobs.end()
            raise

    def put(self, job: Job) -> None:
        """Queue a job.

        Raises:
            RuntimeError: the ledger is closed.
        """
        if self._stopping:
            raise RuntimeError("the ledger is closed")
        self._jobs.put(job)

    async def stop(self) -> None:
        """Finish all queued jobs and close the ledger.

        Raises:
            StorageError: a write without a waiter could not be committed.
        """
        if not self._stopping:
            self._stopping = True
            self._jobs.end()
        await asyncio.shield(self._ended)
        self._thread.join()
        if self._failure is not None and not self._failure_reported:
            self._failure_reported = True
            raise self._failure

    def _run(self) -> None:
        try:
            with translated(self._path):
                connection = self._open()
        except BaseException as error:  # noqa: BLE001 - passed on to the caller that waits
            self._deliver([_Outcome(self._started, error=error)])
            return
        self._deliver([_Outcome(self._started)])
        queries = LedgerQueries(connection, self._path)
        ended = False
        while not ended:
            jobs, ended = self._jobs.take()
            writes = [job for job in jobs if isinstance(job, WriteJob)]
            if writes:
                self._deliver(self._commit(connection, writes))
            self._deliver([self._answer(job, queries) for job in jobs if isinstance(job, ReadJob)])
        with suppress(sqlite3.Error, OSError):
            # Commits are durable, even if the log cannot be moved into the ledger's file now.
            connection.close()
            self._mark.close()
        self._deliver([_Outcome(self._ended)])

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            create(self._path, now=time.time())
        connection = open_to_write(self._path, busy_seconds=self._busy_seconds)
        try:
            migrate(connection, self._path)
            self._transaction = LedgerTransaction(connection, LedgerHead.read(connection))
            self._mark = CommitMarkFile(mark_path(self._path))
            self._in_place = LedgerInPlace(connection, self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _commit(self, connection: sqlite3.Connection, jobs: list[WriteJob]) -> list[_Outcome]:
        if self._failure is None:
            try:
                with translated(self._path):
                    return self._commit_or_raise(connection, jobs)
            except BaseException as error:  # noqa: BLE001 - passed on to the callers that wait
                self._failure = error
                with suppress(sqlite3.Error):
                    connection.rollback()
        return [_Outcome(job.waiter, error=self._failure) for job in jobs]

    def _commit_or_raise(self, connection: sqlite3.Connection, jobs: list[WriteJob]) -> list[_Outcome]:
        connection.execute("BEGIN IMMEDIATE")
        self._in_place.check()
        outcomes = [self._write(job) for job in jobs]
        mark = self._transaction.finish()
        self._in_place.written(self._transaction.head_digest)
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

    def _answer(self, job: ReadJob, queries: LedgerQueries) -> _Outcome:
        if self._failure is not None:
            return _Outcome(job.waiter, error=self._failure)
        try:
            return _Outcome(job.waiter, job.read(queries))
        except BaseException as error:  # noqa: BLE001 - passed on to the caller that waits
            return _Outcome(job.waiter, error=error)

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        if all(outcome.waiter is None for outcome in outcomes):
            return
        # A closed event loop has no waiters any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, outcomes)

    def _resolve(self, outcomes: list[_Outcome]) -> None:
        """Pass results and errors to the waiters, in the event loop."""
        for outcome in outcomes:
            if outcome.waiter is None or outcome.waiter.done():
                continue
            if outcome.error is None:
                outcome.waiter.set_result(outcome.result)
            else:
                self._failure_reported = self._failure_reported or outcome.error is self._failure
                outcome.waiter.set_exception(outcome.error)
