"""What is known about each table of a DuckDB file: which views there are, and whether they are ours.

It is in `_asyncexport_tables`; `definition` is a digest of the table's own definition where the table is a view. What
is already as it should be is not written again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import duckdb

from asyncexport.core.warehouse.columns import Column
from asyncexport.core.warehouse.duckdb_sql import SCHEMA, comments, qualified
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.core.warehouse.views import LOADS, TABLES, Dialect, TableFacts, View, ViewPlace, views
from asyncexport.core.warehouse.views import digest as digest_of
from asyncexport.errors import SinkError
from asyncexport.warehouse.sinks.duckdb_file import NAME, DuckDbFile, has_comment, kind_of


class DuckDbRecord:
    """The record of a DuckDB file."""

    def __init__(self, file: DuckDbFile) -> None:
        self._file = file

    def show(self, table: str, query: str, columns: Sequence[Column]) -> None:
        """Make a table a view with this query, unless it is that already.

        Raises:
            SinkError: the file cannot be written, or there is a table of that name that is not ours.
        """
        definition = sha256(repr((query, tuple(columns))).encode()).hexdigest()
        if self._known(table).get("definition") == definition:
            return
        with self._file.writing() as con:
            kind = kind_of(con, table)
            if kind == "BASE TABLE":
                self._drop_copy(con, table)
            elif kind is not None and self._definition(con, table) is None:
                raise self._not_ours(table, "view")
            con.execute(f"CREATE OR REPLACE VIEW {qualified(table)} AS {query}")
            for statement in comments(table, columns):
                con.execute(statement)
            self._record(con, table, definition=definition, views=None)

    def forget_view(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        """Remove a table that is a view of ours.

        Raises:
            SinkError: it is a view of somebody else.
        """
        if self._definition(con, table) is None:
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
        known = self._known(table, made)
        if all(name in known and known[name] == value for name, value in wanted.items()):
            return
        with self._file.writing() as con:
            self._record(con, table, **wanted)
            if known.get("views") != wanted["views"]:
                for view in made:
                    self._make_view(con, view)

    def _make_view(self, con: duckdb.DuckDBPyConnection, view: View) -> None:
        """Make a view beside a table, or make it again.

        Raises:
            SinkError: there is something of that name that is not ours. Our views have a comment.
        """
        kind = kind_of(con, view.name)
        if kind is not None and not (kind == "VIEW" and has_comment(con, view.name)):
            raise self._not_ours(view.name, "view" if kind == "VIEW" else "table")
        con.execute(f"CREATE OR REPLACE VIEW {qualified(view.name)} AS {view.query}")
        con.execute(f"COMMENT ON VIEW {qualified(view.name)} IS {literal(view.says)}")

    def _definition(self, con: duckdb.DuckDBPyConnection, table: str) -> str | None:
        """Return the digest of the definition of a table that we made a view; None if we did not."""
        found = con.execute(f"SELECT definition FROM {qualified(TABLES)} WHERE table_name = ?", [table]).fetchone()
        return None if found is None else found[0]

    def _known(self, table: str, beside: Sequence[View] = ()) -> dict[str, Any]:
        """Return what the file records about a table; empty if nothing. No digest of a view that somebody dropped."""
        names = ("organisation", "complete_until", "views", "definition")
        with self._file.reading() as con:
            if con is None or kind_of(con, TABLES) is None:
                return {}
            found = con.execute(
                f"SELECT {', '.join(names)} FROM {qualified(TABLES)} WHERE table_name = ?", [table]
            ).fetchone()
            known = {} if found is None else dict(zip(names, found, strict=True))
            if kind_of(con, table) != "VIEW":
                known["definition"] = None
            if any(kind_of(con, view.name) is None for view in beside):
                known["views"] = None
        return known

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
            f"could not make {table} in {self._file.path}: the {kind} of that name was not made by asyncexport",
            sink=NAME,
            hint="rename it, or set another [load.duckdb] path",
        )
