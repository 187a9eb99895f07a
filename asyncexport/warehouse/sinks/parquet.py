"""The Parquet files: one for each day of a table, `TABLE/date=2026-01-01/data.parquet`.

1. A file is replaced by one rename, after it was flushed. So a reader sees the old day or the new one, never a part.
2. The receipt is in the file's own metadata. A day without rows has no file; `empty.json` beside its place holds the
   receipt. If both are there, because a load was killed between two steps, the Parquet file counts.
3. Lines that are no rows are kept in `TABLE.quarantine/date=2026-01-01/data.ndjson.gz`. That file is in place before
   the day's Parquet file is, so that whoever finds the new rows finds it as well.
"""

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb

from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.columns import Column
from asyncexport.core.warehouse.day_statement import RECEIPT_KEY
from asyncexport.core.warehouse.days import is_date
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.errors import SinkError
from asyncexport.warehouse.load_disk import LoadDisk

DATA_NAME = "data.parquet"

EMPTY_NAME = "empty.json"

QUARANTINE_NAME = "data.ndjson.gz"

DAY_PREFIX = "date="


class ParquetSink:
    """The Parquet files of all tables.

    Args:
        directory: The load directory.
        scratch: A folder for unfinished files, on the same file system.
        folder_mode: The mode of folders that are created, before the umask.
        file_mode: The mode of files that are created, before the umask.
    """

    name = SinkName.PARQUET.value

    def __init__(self, directory: Path, *, scratch: Path, folder_mode: int = 0o777, file_mode: int = 0o666) -> None:
        self.directory = directory
        self._scratch = scratch
        self._disk = LoadDisk(directory, folder_mode=folder_mode)
        self._file_mode = file_mode

    def path(self, table: str, day: str) -> Path:
        """Return the path of a day's file."""
        return self.directory / table / f"{DAY_PREFIX}{day}" / DATA_NAME

    def quarantine_path(self, table: str, day: str) -> Path:
        """Return the path of the file with the lines of a day that are no rows."""
        return self.directory / f"{table}.quarantine" / f"{DAY_PREFIX}{day}" / QUARANTINE_NAME

    def reach(self) -> None:
        """Do nothing: the files are on this machine (`Sink`)."""

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return the receipt of each day; "" for a file that cannot be read or has none, so that it is replaced."""
        with self._disk.translated():
            found = {day: _empty_receipt(file) for day, file in self._files(table, EMPTY_NAME)}
            files = dict(self._files(table, DATA_NAME))
        return found | dict.fromkeys(files, "") | _read_metadata(files, RECEIPTS)

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return the rows of each day, as its file says."""
        with self._disk.translated():
            counts = {day: 0 for day, _ in self._files(table, EMPTY_NAME)}
            files = dict(self._files(table, DATA_NAME))
        return counts | {day: int(count) for day, count in _read_metadata(files, ROWS).items()}

    def prepare(self, table: str, columns: Sequence[Column]) -> None:
        """Do nothing: a folder is made with its first day, and each file has its own columns."""

    def finish(self, table: str, facts: TableFacts) -> None:
        """Do nothing: there are no views."""

    def close(self) -> None:
        """Do nothing."""

    def put_quarantine(self, table: str, day: str, made: Path | None) -> None:
        """Move the file with the lines that are no rows to its place, or remove an old one if there are none.

        Raises:
            StorageError: this failed.
        """
        final = self.quarantine_path(table, day)
        with self._disk.translated():
            if made is not None:
                self._disk.make_folder(final.parent)
                self._disk.flush("quarantine", made)
                self._disk.rename("quarantine", made, final)
            elif final.exists():
                self._disk.remove("quarantine", final)
                self._disk.flush_folder("quarantine", final.parent)

    def replace(self, table: str, day: str, parquet: Path | None, receipt: str) -> int:
        """Move a day's file to its place, or put `empty.json` there if the day has no rows; return the rows.

        Raises:
            StorageError: this failed.
            SinkError: the file is not the one that was asked for.
        """
        final = self.path(table, day)
        empty = final.with_name(EMPTY_NAME)
        with self._disk.translated():
            self._disk.make_folder(final.parent)
        if parquet is None:
            self._put_empty(self._scratch / f"{table}-{day}.empty.part", final, receipt)
            return 0
        if _read_metadata({day: parquet}, RECEIPTS).get(day) != receipt:
            raise SinkError(f"{parquet} was not made from the archives of {day}", sink=self.name)
        rows = int(_read_metadata({day: parquet}, ROWS)[day])
        with self._disk.translated():
            if empty.exists():
                self._disk.remove("empty", empty)
            self._disk.flush("parquet", parquet)
            self._disk.rename("parquet", parquet, final)
        return rows

    def _put_empty(self, part: Path, final: Path, receipt: str) -> None:
        empty = final.with_name(EMPTY_NAME)
        with self._disk.translated():
            part.unlink(missing_ok=True)
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._file_mode)
            try:
                os.write(file, json.dumps({RECEIPT_KEY: receipt}).encode() + b"\n")
            finally:
                os.close(file)
            self._disk.flush("empty", part)
            self._disk.rename("empty", part, empty)
            if final.exists():
                self._disk.remove("parquet", final)
                self._disk.flush_folder("parquet", final.parent)

    def _files(self, table: str, name: str) -> Iterator[tuple[str, Path]]:
        """Yield the date and the path of each file of this name. Other files and folders are not ours."""
        folder = self.directory / table
        if not folder.is_dir():
            return
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            file, day = Path(entry.path) / name, entry.name.removeprefix(DAY_PREFIX)
            if day != entry.name and is_date(day) and file.is_file():
                yield day, file


RECEIPTS = f"SELECT file_name, decode(value) FROM parquet_kv_metadata($files) WHERE decode(key) = '{RECEIPT_KEY}'"

ROWS = "SELECT file_name, num_rows FROM parquet_file_metadata($files)"


def _read_metadata(files: Mapping[str, Path], query: str) -> dict[str, str]:
    """Return what a query finds in the metadata of each file, by its day. A file that cannot be read has nothing."""
    if not files:
        return {}
    days = {str(path): day for day, path in files.items()}
    with duckdb.connect(config={"threads": 1}) as connection:
        try:
            return _found(connection, query, days, list(days))
        except duckdb.Error:
            found: dict[str, str] = {}
            for file in days:
                try:
                    found |= _found(connection, query, days, [file])
                except duckdb.Error:
                    continue
            return found


def _found(
    connection: duckdb.DuckDBPyConnection, query: str, days: Mapping[str, str], files: Sequence[str]
) -> dict[str, str]:
    rows = connection.execute(query, {"files": [glob.escape(file) for file in files]}).fetchall()
    return {days[name]: value for name, value in rows if name in days}


def _empty_receipt(file: Path) -> str:
    try:
        return str(json.loads(file.read_bytes())[RECEIPT_KEY])
    except (ValueError, KeyError, TypeError):
        return ""
