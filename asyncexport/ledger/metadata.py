"""What a run writes to the ledger apart from bundles: requests, durations, notes, and a record of the run itself."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from asyncexport.core.bucket import RequestHistory
from asyncexport.core.health.records import AcceptedGap, RunRecord
from asyncexport.ledger.jobs import ReadJob, WriteJob
from asyncexport.ledger.queries import LedgerQueries
from asyncexport.ledger.run_log import KEPT_SECONDS
from asyncexport.ledger.thread import LedgerThread
from asyncexport.ledger.transaction import LedgerTransaction

T = TypeVar("T")


class LedgerMetadata:
    """The part of `Ledger` that is not about bundles."""

    def __init__(self, thread: LedgerThread) -> None:
        """See `Ledger.open`."""
        self._thread = thread

    def send(self, kind: str, *, at: float) -> "asyncio.Future[int]":
        """Record a request before it is sent; return its number once the record is durable."""
        return self._write(lambda transaction: transaction.journal.send(kind, float(at)))

    def answered(self, request_id: int, *, status: int) -> None:
        """Add the status of the answer (0 for none)."""
        self._put(lambda transaction: transaction.journal.answered(request_id, status))

    def assume_spent(self, *, at: float) -> None:
        """Make the next run begin as after a 429, because it is unknown how many requests were sent before."""
        self._put(lambda transaction: transaction.journal.assume_spent(float(at)))

    def learn(self, *, finished_at: float, seconds: float) -> None:
        """Record how long an operation took."""
        self._put(lambda transaction: transaction.journal.learn(float(finished_at), float(seconds)))

    def remember(self, key: str, value: str) -> None:
        """Store a note for later runs."""
        self._put(lambda transaction: transaction.remember(key, value))

    def begin_run(self, run: RunRecord) -> None:
        """Record that a run has begun."""
        self._put(lambda transaction: transaction.runs.begin(run))

    def end_run(self, run: RunRecord, *, drops_old: bool) -> None:
        """Record how the run ended.

        Args:
            run: The run that began last, with its end.
            drops_old: Whether to delete rows of runs and hours that are older than 400 days. Only a run that knows the
                service's time can tell how old they are.
        """
        self._put(lambda transaction: transaction.runs.end(run))
        if drops_old and run.ended is not None:
            oldest = run.ended - KEPT_SECONDS
            self._put(lambda transaction: transaction.runs.drop_before(oldest))
            self._put(lambda transaction: transaction.journal.hours.drop_before(oldest))

    async def accept(self, gap: AcceptedGap) -> None:
        """Record an accepted gap; durable on return.

        Raises:
            LedgerError: its export was never registered.
            StorageError: it could not be written.
        """
        await self._write(lambda transaction: transaction.accept(gap))

    async def recall(self, key: str) -> str | None:
        """Return the note with this key."""
        return await self._read(lambda queries: queries.recall(key))

    async def request_history(self, *, now: float) -> RequestHistory:
        """See `LedgerQueries.request_history`."""
        return await self._read(lambda queries: queries.request_history(now=now))

    async def durations(self) -> list[float]:
        """See `LedgerQueries.durations`."""
        return await self._read(LedgerQueries.durations)

    def _put(self, write: Callable[[LedgerTransaction], object]) -> None:
        """Write without a waiter."""
        self._thread.put(WriteJob(write))

    def _write(self, write: Callable[[LedgerTransaction], T]) -> "asyncio.Future[T]":
        """Return what the write returns, once it is durable."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._thread.put(WriteJob(write, waiter))
        return waiter

    async def _read(self, read: Callable[[LedgerQueries], T]) -> T:
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._thread.put(ReadJob(read, waiter))
        return await waiter
