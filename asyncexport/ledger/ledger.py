"""The ledger for the run that holds its lock."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Definition, Export
from asyncexport.core.states import BundleRecord, Split, Stored, moved
from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import BUSY_SECONDS, ledger_path
from asyncexport.ledger.folder import make_folder
from asyncexport.ledger.metadata import LedgerMetadata
from asyncexport.ledger.queries import LedgerQueries
from asyncexport.ledger.rows import NewStateRow
from asyncexport.ledger.thread import LAZY_SECONDS, LedgerThread

T = TypeVar("T")

RESTORED_PER_COMMIT = 2_000
"""Bundles written in one commit while a ledger is rebuilt."""


class Ledger(LedgerMetadata):
    """Reads and writes the ledger; for one process at a time, under the lock of `hold`.

    After a failed commit, every method but `close` raises that commit's error. A write whose caller is cancelled is
    still committed.
    """

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        busy_seconds: float = BUSY_SECONDS,
        lazy_seconds: float = LAZY_SECONDS,
    ) -> Self:
        """Open the ledger of an output directory; create it if missing, migrate it if it is of an earlier version.

        Args:
            directory: The output directory.
            busy_seconds: Seconds to wait for another program that has the ledger locked.
            lazy_seconds: The longest time that a row without a waiter waits for the next commit, in seconds.

        Raises:
            LedgerError: the ledger is of a newer version, or in use.
            LedgerCorruptError: it is damaged.
            StorageError: it cannot be created or opened.
        """
        path = ledger_path(directory)
        with translated(path):
            await asyncio.to_thread(make_folder, directory)
        thread = LedgerThread(path, busy_seconds=busy_seconds, lazy_seconds=lazy_seconds)
        await thread.start()
        return cls(thread)

    async def close(self) -> None:
        """Commit all pending writes and close the ledger.

        Raises:
            StorageError: a write without a waiter could not be committed.
        """
        await self._thread.stop()

    async def register(self, exports: Sequence[Export]) -> None:
        """Record the definitions of new exports.

        Raises:
            LedgerError: an export is recorded with another definition and has data.
        """
        await self._write(lambda transaction: transaction.register(exports))

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Append the new state of a bundle's newest revision; durable on return. `at` is in seconds since 1970.

        Raises:
            StorageError: it could not be written.
            LedgerError: its export was never registered, or another program has the ledger in use.
            IllegalMove: the ledger has an archive of the bundle and the record has none, or vice versa.
        """
        row = NewStateRow.of(record, at=at)
        await self._write(lambda transaction: transaction.append((row,)))

    async def exports(self) -> dict[str, Definition]:
        """See `LedgerQueries.exports`."""
        return await self._read(LedgerQueries.exports)

    async def split(self, record: BundleRecord, pieces: Sequence[Range], *, at: float) -> tuple[BundleRecord, ...]:
        """Replace a bundle of which nothing was ever stored by narrower ones, in one commit.

        Returns:
            Those of the narrower bundles that are not stored, as they are recorded.

        Args:
            record: The bundle.
            pieces: The ranges of the narrower bundles. One that the ledger already knows stays as it is.
            at: The time, in seconds since 1970.

        Raises:
            IllegalMove: the bundle is in a state that must not be split.
            StorageError: the states could not be written.
        """
        after = BundleRecord(record.bundle, record.revision, moved(record.state, Split()), record.stored)
        children = [BundleRecord(Bundle(record.bundle.export, piece)) for piece in pieces]
        rows = [NewStateRow.of(one, at=at) for one in (after, *children)]
        await self._write(lambda transaction: transaction.split(rows[0], rows[1:]))
        export, span = record.bundle.export, record.bundle.range
        recorded = await self._read(lambda queries: queries.recorded_range(export, span))
        return tuple(one for one in recorded.unfinished if one.bundle.range in pieces)

    async def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """See `LedgerQueries.bundles_of_operation`."""
        return await self._read(lambda queries: queries.bundles_of_operation(operation_id))

    async def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """See `LedgerQueries.bundles_of_export`."""
        return await self._read(lambda queries: queries.bundles_of_export(export_id))

    async def restore(self, records: Sequence[BundleRecord], *, at: float) -> None:
        """Record bundles whose archives were found on disk, with some thousands in each commit.

        Raises:
            ValueError: a record's state is not `Stored`.
            StorageError: the records could not be written.
            LedgerError: an export was never registered.
        """
        if not all(isinstance(one.state, Stored) for one in records):
            raise ValueError("only stored bundles can be restored")
        for first in range(0, len(records), RESTORED_PER_COMMIT):
            rows = [NewStateRow.of(one, at=at) for one in records[first : first + RESTORED_PER_COMMIT]]
            await self._write(lambda transaction, rows=rows: transaction.append(rows))  # type: ignore[misc]

    async def has_states(self) -> bool:
        """See `LedgerQueries.has_states`."""
        return await self._read(LedgerQueries.has_states)

    async def query(self, read: Callable[[LedgerQueries], T]) -> T:
        """Return what `read` returns for the ledger; it may run several queries that belong together.

        It runs in the ledger's thread: earlier writes are committed before it, and later writes wait for it.
        """
        return await self._read(read)

    async def check_if_small(self) -> None:
        """See `LedgerQueries.check_if_small`."""
        await self._read(LedgerQueries.check_if_small)
