"""The DuckDB file that tables and views are in: opened for one operation at a time, with a record of what is in it.

1. DuckDB lets one process write a file, or several read it, but not both. So the file is open only while something is
   read or written, and what is already as it should be is only read: users who have the file open for reading then
   neither notice a load nor stand in its way.
2. No extension is installed or loaded: DuckDB would fetch it from the internet.
3. What is known about each table is in `_asyncexport_tables`; `definition` is a digest of the table's own definition
   where it is a view.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from asyncexport.core.access import Access
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.columns import Column
from asyncexport.core.warehouse.duckdb_sql import SCHEMA, comments, qualified
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.core.warehouse.views import LOADS, TABLES, Dialect, TableFacts, ViewPlace, views
from asyncexport.core.warehouse.views import digest as digest_of
from asyncexport.errors import SinkError

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


class DuckDbFile:
    """A DuckDB file.

    Args:
        path: Where it is. It is made when something is written first.
        scratch: Where DuckDB puts what does not fit into memory.
        memory: DuckDB's memory limit, in bytes.
        access: Who may read the file if it is made.
    """

    def __init__(self, path: Path, *, scratch: Path, memory: int, access: Access) -> None:
        self._path = path
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
        if not self._path.exists():
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
            if not self._path.exists():
                self._create()
            with self._connected(read_only=False) as con:
                con.execute("BEGIN")
                con.execute(_RECORDS)
                yield con
                con.execute("COMMIT")
                # The space of deleted rows is free for others only after a checkpoint: without it the file would grow.
                con.execute("CHECKPOINT")

    def kind(self, con: duckdb.DuckDBPyConnection, table: str) -> str | None:
        """Return `BASE TABLE` or `VIEW`; None if there is nothing of that name. DuckDB ignores the case of names."""
        found = con.execute(
            "SELECT table_type FROM information_schema.tables "
            "WHERE table_catalog = current_database() AND table_schema = ? AND lower(table_name) = lower(?)",
            [SCHEMA, table],
        ).fetchone()
        return None if found is None else str(found[0])

    def show(self, table: str, query: str, columns: Sequence[Column]) -> None:
        """Make a table a view with this query, unless it is that already.

        Raises:
            SinkError: the file cannot be written, or there is a table of that name that is not ours.
        """
        definition = sha256(repr((query, tuple(columns))).encode()).hexdigest()
        if self._known(table).get("definition") == definition:
            return
        with self.writing() as con:
            if self.kind(con, table) == "BASE TABLE":
                self._drop_copy(con, table)
            con.execute(f"CREATE OR REPLACE VIEW {qualified(table)} AS {query}")
            for statement in comments(table, columns):
                con.execute(statement)
            self._record(con, table, definition=definition, views=None)

    def forget_view(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        """Remove a table that is a view of ours.

        Raises:
            SinkError: it is a view of somebody else.
        """
        found = con.execute(f"SELECT definition FROM {qualified(TABLES)} WHERE table_name = ?", [table]).fetchone()
        if found is None or found[0] is None:
            raise self._not_ours(table, "view")
        con.execute(f"DROP VIEW {qualified(table)}")
        self._record(con, table, definition=None, views=None)

    def finish(self, table: str, facts: TableFacts, *, counts_rows: bool) -> None:
        """Bring the views beside a table up to date.

        Args:
            table: The table.
            facts: What is known about it.
            counts_rows: Whether there is no record of its days (`ViewPlace`).

        Raises:
            SinkError: the file cannot be read or written.
        """
        made = views(ViewPlace(table, Dialect.DUCKDB, SCHEMA, counts_rows), facts.type)
        until = None if facts.complete_until is None else datetime.fromtimestamp(facts.complete_until, UTC)
        wanted = {"organisation": facts.organisation or None, "complete_until": until, "views": digest_of(made)}
        known = self._known(table)
        if known and all(known[name] == value for name, value in wanted.items()):
            return
        with self.writing() as con:
            self._record(con, table, **wanted)
            if known.get("views") != wanted["views"]:
                for view in made:
                    con.execute(f"CREATE OR REPLACE VIEW {qualified(view.name)} AS {view.query}")
                    con.execute(f"COMMENT ON VIEW {qualified(view.name)} IS {literal(view.says)}")

    def _known(self, table: str) -> Mapping[str, Any]:
        """Return what the file records about a table; empty if nothing."""
        with self.reading() as con:
            if con is None or self.kind(con, TABLES) is None:
                return {}
            found = con.execute(
                f"SELECT organisation, complete_until, views, definition FROM {qualified(TABLES)} WHERE table_name = ?",
                [table],
            ).fetchone()
        return (
            {}
            if found is None
            else dict(zip(("organisation", "complete_until", "views", "definition"), found, strict=True))
        )

    def _record(self, con: duckdb.DuckDBPyConnection, table: str, **values: Any) -> None:
        con.execute(f"INSERT OR IGNORE INTO {qualified(TABLES)} (table_name) VALUES (?)", [table])
        changes = ", ".join(f"{name} = ?" for name in values)
        con.execute(f"UPDATE {qualified(TABLES)} SET {changes} WHERE table_name = ?", [*values.values(), table])

    def _drop_copy(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        """Remove a table that an earlier load copied days into; the Parquet files have its rows."""
        if con.execute(f"DELETE FROM {qualified(LOADS)} WHERE table_name = ? RETURNING 1", [table]).fetchone() is None:
            raise self._not_ours(table, "table")
        con.execute(f"DROP TABLE {qualified(table)}")

    def _not_ours(self, table: str, kind: str) -> SinkError:
        return SinkError(
            f"could not make {table} in {self._path}: there is a {kind} of that name that asyncexport did not make",
            sink=NAME,
            hint="rename it, or set another [load.duckdb] path",
        )

    def _create(self) -> None:
        """Make the file, with nothing in it, under a temporary name first: it gets its mode before it has content."""
        part = self._path.with_name(f"{self._path.name}.part")
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=self._access.folder_mode)
        part.unlink(missing_ok=True)
        duckdb.connect(part).close()
        if self._access is Access.PRIVATE:
            part.chmod(self._access.file_mode)
        part.rename(self._path)

    @contextmanager
    def _connected(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(self._path, read_only=read_only, config=self._config) as con:
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
                f"could not open {self._path}: another process has it open{f' ({pid[0]})' if pid else ''}",
                sink=NAME,
                hint="close the file there and load again; days in Parquet are loaded all the same",
            )
        return SinkError(f"could not {doing} {self._path}: {text}", sink=NAME)
