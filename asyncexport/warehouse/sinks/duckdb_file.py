"""The DuckDB file that tables and views are in, opened for one operation at a time.

1. DuckDB lets one process write a file, or several read it, but not both. So the file is open only while something is
   read or written, and a load that has nothing to change only reads it: it works while users have the file open for
   reading.
2. No extension is installed or loaded: DuckDB would fetch it from the internet.
3. DuckDB flushes its file and its log (`.wal`), but not their folder. So the folder is flushed here, after each change:
   otherwise a power cut could leave a log beside a file that it does not belong to, which DuckDB refuses to open.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from asyncexport.core.access import Access
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.duckdb_sql import SCHEMA, qualified
from asyncexport.core.warehouse.views import LOADS, TABLES
from asyncexport.errors import SinkError
from asyncexport.warehouse.faults import NO_SPACE
from asyncexport.warehouse.load_disk import flush_folder

NAME = SinkName.DUCKDB.value

_RECORDS = f"""
CREATE TABLE IF NOT EXISTS {qualified(TABLES)} (
    table_name VARCHAR PRIMARY KEY, organisation VARCHAR, complete_until TIMESTAMP WITH TIME ZONE, views VARCHAR,
    definition VARCHAR
);
CREATE TABLE IF NOT EXISTS {qualified(LOADS)} (
    table_name VARCHAR, day DATE, receipt VARCHAR, rows BIGINT, loaded_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (table_name, day)
);
"""

_DAMAGED = (
    "move the file away, with the .wal file beside it if there is one, and run the same command again: it makes all "
    "its tables and views again from the Parquet files"
)

_NO_SPACE_HINT = "free some space, and run the same command again"

_HINTS = (
    ("version number", "update DuckDB here (pip install --upgrade duckdb), or set another [load.duckdb] path"),
    ("not a valid DuckDB|[Cc]orrupt|replaying WAL|[Ss]erialization Error|read enough bytes", _DAMAGED),
    ("Is a directory", "move the folder away that is in the place of the file, and run the same command again"),
    ("Permission denied|[Rr]ead-only", "check the owner and the permissions of the file and of its folder"),
)
"""What to do about an error, by a part of DuckDB's message."""


class DuckDbFile:
    """A DuckDB file.

    Args:
        path: Where it is. It is made when something is written first.
        scratch: Where DuckDB puts what does not fit into memory.
        memory: DuckDB's memory limit, in bytes.
        access: Who may read the file if it is made.
    """

    def __init__(self, path: Path, *, scratch: Path, memory: int, access: Access) -> None:
        self.path = path
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory}B",
            "temp_directory": str(scratch),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._access = access

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """Open the file for reading; None if there is no file yet.

        Raises:
            SinkError: the file cannot be opened or read.
        """
        if not self.path.exists():
            yield None
            return
        with self._failing("read"), self._connected(read_only=True) as con:
            yield con

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for one transaction, which is rolled back if the caller fails.

        Raises:
            SinkError: the file cannot be opened or written; it is as before.
        """
        with self._failing("write"):
            if not self.path.exists():
                self._create()
            with self._connected(read_only=False) as con:
                con.execute("BEGIN")
                con.execute(_RECORDS)
                yield con
                con.execute("COMMIT")
                # The space of deleted rows is free for others only after a checkpoint: without it the file would grow.
                con.execute("CHECKPOINT")
            flush_folder(self.path.parent)

    def _create(self) -> None:
        """Make the file, with nothing in it, under a temporary name first: it gets its mode before it has content.

        A log that is there belongs to a file that is gone. It is moved aside, or DuckDB would not open the new file.
        """
        part, log = (self.path.with_name(f"{self.path.name}{end}") for end in (".part", ".wal"))
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=self._access.folder_mode)
        part.unlink(missing_ok=True)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.old"))
            flush_folder(self.path.parent)
        duckdb.connect(part).close()
        if self._access is Access.PRIVATE:
            part.chmod(self._access.file_mode)
        part.rename(self.path)
        flush_folder(self.path.parent)

    @contextmanager
    def _connected(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(self.path, read_only=read_only, config=self._config) as con:
            con.execute("SET TimeZone='UTC'")
            yield con

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, OSError) as error:
            raise self._translated(doing, error) from error

    def _translated(self, doing: str, error: Exception) -> SinkError:
        text = str(error).split("\n", maxsplit=1)[0]
        if "Could not set lock" in text:
            pid = re.search(r"PID \d+", text)
            return SinkError(
                f"could not open {self.path}: another process has it open{f' ({pid[0]})' if pid else ''}",
                sink=NAME,
                hint="close the file there and load again; days in Parquet are loaded all the same",
            )
        if NO_SPACE in text:
            return SinkError(f"could not {doing} {self.path}: its disk is full", sink=NAME, hint=_NO_SPACE_HINT)
        hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "")
        return SinkError(f"could not {doing} {self.path}: {text}", sink=NAME, hint=hint)


def kind_of(con: duckdb.DuckDBPyConnection, name: str) -> str | None:
    """Return `BASE TABLE` or `VIEW`; None if there is nothing of that name. DuckDB ignores the case of names."""
    found = con.execute(
        "SELECT table_type FROM information_schema.tables "
        "WHERE table_catalog = current_database() AND table_schema = ? AND lower(table_name) = lower(?)",
        [SCHEMA, name],
    ).fetchone()
    return None if found is None else str(found[0])


def has_comment(con: duckdb.DuckDBPyConnection, view: str) -> bool:
    """Return whether a view has a comment."""
    found = con.execute(
        "SELECT comment FROM duckdb_views() WHERE database_name = current_database() AND schema_name = ? "
        "AND lower(view_name) = lower(?)",
        [SCHEMA, view],
    ).fetchone()
    return found is not None and found[0] is not None
