"""The ledger as the run that holds it sees it."""

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
    """Reads and writes; one process at a time, under the lock of `hold`.

    Once a commit has failed, every method raises what it failed with, and only `close` is of use. A write that is
    cancelled is written all the same.
    """

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        busy_seconds: float = BUSY_SECONDS,
        lazy_seconds: float = LAZY_SECONDS,
    ) -> Self:
        """The ledger of an output directory, made if there is none, and migrated if an earlier version made it.

        Args:
            directory: The output directory.
            busy_seconds: How long to wait for another program that has it open.
            lazy_seconds: How long a row that nobody waits for may wait for the next commit.

        Raises:
            LedgerError: it is from a newer version, or in use.
            LedgerCorruptError: it is damaged.
            StorageError: it cannot be made or opened.
        """
        path = ledger_path(directory)
        with translated(path):
            await asyncio.to_thread(make_folder, directory)
        thread = LedgerThread(path, busy_seconds=busy_seconds, lazy_seconds=lazy_seconds)
        await thread.start()
        return cls(thread)

    async def close(self) -> None:
        """Write what is still to be written, and close the ledger.

        Raises:
            StorageError: something that nobody waited for could not be written.
        """
        await self._thread.stop()

    async def register(self, exports: Sequence[Export]) -> None:
        """Remember the definitions of exports that are new.

        Raises:
            LedgerError: one is known by another definition.
        """
        await self._write(lambda transaction: transaction.register(exports))

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Add the newest state of a bundle's newest revision; it is durable on return. `at` is in seconds since 1970.

        Raises:
            StorageError: it could not be written.
            LedgerError: its export was never registered, or another program has the ledger in use.
            IllegalMove: the ledger has an archive of the bundle and the record has none, or the other way round.
        """
        row = NewStateRow.of(record, at=at)
        await self._write(lambda transaction: transaction.append((row,)))

    async def exports(self) -> dict[str, Definition]:
        """See `LedgerQueries.exports`."""
        return await self._read(LedgerQueries.exports)

    async def split(self, record: BundleRecord, pieces: Sequence[Range], *, at: float) -> None:
        """Have a bundle of which nothing was ever stored give way to narrower ones, all in one commit.

        Args:
            record: The bundle, parked.
            pieces: The narrower ones. One that the ledger knows already stays as it is.
            at: In seconds since 1970.

        Raises:
            IllegalMove: it is in no state that may be split.
            StorageError: it could not be written.
        """
        after = BundleRecord(record.bundle, record.revision, moved(record.state, Split()), record.stored)
        children = [BundleRecord(Bundle(record.bundle.export, piece)) for piece in pieces]
        rows = [NewStateRow.of(one, at=at) for one in (after, *children)]
        await self._write(lambda transaction: transaction.split(rows[0], rows[1:]))

    async def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """See `LedgerQueries.bundles_of_operation`."""
        return await self._read(lambda queries: queries.bundles_of_operation(operation_id))

    async def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """See `LedgerQueries.bundles_of_export`."""
        return await self._read(lambda queries: queries.bundles_of_export(export_id))

    async def restore(self, records: Sequence[BundleRecord], *, at: float) -> None:
        """Add bundles whose archives were found on disk, some thousands in each commit.

        Raises:
            ValueError: one is not stored.
            StorageError: they could not be written.
            LedgerError: an export was never registered.
        """
        if not all(isinstance(one.state, Stored) for one in records):
            raise ValueError("only what is stored can be restored")
        for first in range(0, len(records), RESTORED_PER_COMMIT):
            rows = [NewStateRow.of(one, at=at) for one in records[first : first + RESTORED_PER_COMMIT]]
            await self._write(lambda transaction, rows=rows: transaction.append(rows))  # type: ignore[misc]

    async def has_states(self) -> bool:
        """See `LedgerQueries.has_states`."""
        return await self._read(LedgerQueries.has_states)

    async def look(self, question: Callable[[LedgerQueries], T]) -> T:
        """The answer to a question about the ledger, or to several that belong together.

        It is asked in the thread that writes: what was put before it is committed, and what comes after it waits.
        """
        return await self._read(question)

    async def check_if_small(self) -> None:
        """See `LedgerQueries.check_if_small`."""
        await self._read(LedgerQueries.check_if_small)
