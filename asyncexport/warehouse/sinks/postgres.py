"""The destination PostgreSQL: each table partitioned by month, each day replaced in one transaction with its receipt.

1. There is an advisory lock for each table, so that two loaders never replace days of it at the same time.
2. What to do depends on the table as the catalog has it, so a table that was made beforehand, or changed meanwhile, is
   used as it is (`core.warehouse.postgres_sql`).
3. Statements have their values in them and no parameters, because a name may contain a percent sign.
4. Rows go from the Parquet file through DuckDB into COPY piece by piece; memory does not grow with the day.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg

from asyncexport.core.warehouse import postgres_sql
from asyncexport.core.warehouse.columns import DATE, Column
from asyncexport.core.warehouse.copy_text import copy_line, copy_statement
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal, postgres_name, quoted
from asyncexport.core.warehouse.views import TABLES, Dialect, TableFacts, View, ViewPlace, digest, views
from asyncexport.errors import SinkError
from asyncexport.warehouse.faults import unread_file
from asyncexport.warehouse.sinks.postgres_catalog import exists, types_of
from asyncexport.warehouse.sinks.postgres_connection import NAME, PostgresConnection
from asyncexport.warehouse.sinks.postgres_record import PostgresRecord

ROWS_AT_ONCE = 2000

BYTES_A_PIECE = 1 << 20
"""A piece of the rows is sent as soon as it has this many characters."""

DEFAULT_MEMORY = 1 << 30


class PostgresSink:
    """PostgreSQL.

    Args:
        connection: The connection.
        schema: The schema of all tables, which is made if it does not exist.
        memory: DuckDB's memory limit, in bytes. It needs a fraction of it, unless rows are very long.
        report: Called with messages for the user.
    """

    name = NAME

    def __init__(
        self,
        connection: PostgresConnection,
        *,
        schema: str,
        report: Callable[[str], None],
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._memory = memory
        self._report = report
        self._record = PostgresRecord(schema)

    def reach(self) -> None:
        """Log in (`Sink`)."""
        with self._connection.transaction("log in") as con:
            con.execute("SELECT 1")

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return the receipt of each day (`Sink`)."""
        with self._connection.transaction(f"read the receipts of {table}") as con:
            return self._record.receipts(con, table) if exists(con, self._of(table)) else {}

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return the rows of each day (`Sink`)."""
        days = self.receipts(table)
        if not days:
            return {}
        with self._connection.transaction(f"count the rows of {table}") as con:
            found = con.execute(f'SELECT "date"::text, count(*) FROM {self._of(table)} GROUP BY "date"')
            counts = {str(day): int(rows) for day, rows in found}
        return {day: counts.get(day, 0) for day in days}

    def prepare(self, table: str, columns: Sequence[Column]) -> None:
        """Make the table, or add what it lacks (`Sink`)."""
        wanted = (*columns, DATE)
        with self._connection.transaction(f"prepare the table {table}") as con:
            self._lock(con, "")
            self._record.make(con)
            types = types_of(con, self._of(table))
            if types:
                statements = postgres_sql.added(self._schema, table, _missing(table, wanted, types))
            else:
                statements = postgres_sql.created(self._schema, table, wanted)
                self._record.forget(con, table)  # receipts of a table that was dropped
            for statement in statements:
                con.execute(statement)

    def replace(self, table: str, day: str, parquet: Path | None, receipt: str) -> int:
        """Replace a day (`Sink`)."""
        with self._connection.transaction(f"replace {day} of {table}") as con:
            self._lock(con, table)
            _make_partition(con, self._schema, table, day)
            deleted = con.execute(f'DELETE FROM {self._of(table)} WHERE "date" = DATE {literal(day)}').rowcount
            if deleted < self._record.rows(con, table, day):
                _check_emptied(con, self._of(table), day)
            rows, changed = (
                (0, 0) if parquet is None else _copy(con, self._of(table), day, parquet, memory=self._memory)
            )
            self._record.put(con, table, day, receipt=receipt, rows=rows)
        if changed:
            self._report(
                f"postgres: {changed} rows of {table}, {day}, have characters or numbers that PostgreSQL cannot hold; "
                "they were replaced there"
            )
        return rows

    def finish(self, table: str, facts: TableFacts) -> None:
        """Bring the views beside the table up to date (`Sink`)."""
        made = views(ViewPlace(table, Dialect.POSTGRES, self._schema), facts.type)
        until = facts.complete_until
        until_text = "NULL" if until is None else literal(datetime.fromtimestamp(until, UTC).isoformat())
        organisation = f"nullif({literal(facts.organisation)}, '')"
        with self._connection.transaction(f"update the views of {table}") as con:
            self._lock(con, table)
            of_table = f"table_name = {literal(table)}"
            known = con.execute(f"SELECT views FROM {self._of(TABLES)} WHERE {of_table}").fetchone()
            values = f"{literal(table)}, {organisation}, {until_text}, {literal(digest(made))}"
            con.execute(
                f"INSERT INTO {self._of(TABLES)} (table_name, organisation, complete_until, views) VALUES ({values}) "
                "ON CONFLICT (table_name) DO UPDATE SET organisation = EXCLUDED.organisation, "
                "complete_until = EXCLUDED.complete_until, views = EXCLUDED.views"
            )
            for view in made:
                if known != (digest(made),) or not exists(con, self._of(view.name)):
                    _make_view(con, self._of(view.name), view)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _of(self, name: str) -> str:
        return postgres_sql.qualified(self._schema, name)

    def _lock(self, con: psycopg.Connection, table: str) -> None:
        """Take the lock of a table until the transaction ends, or that of the schema if the name is empty."""
        lock = f"asyncexport {self._schema}.{table}"
        con.execute(f"SELECT pg_advisory_xact_lock(hashtextextended({literal(lock)}, 0))")


def _missing(table: str, wanted: Sequence[Column], types: Mapping[str, str]) -> tuple[Column, ...]:
    try:
        return postgres_sql.missing(wanted, types)
    except ValueError as error:
        raise SinkError(
            f"could not load into the PostgreSQL table {table}: {error}",
            sink=NAME,
            hint="change the type of the column, or rename the table; asyncexport then makes its own",
        ) from None


def _make_partition(con: psycopg.Connection, schema: str, table: str, day: str) -> None:
    """Make the partition of a day's month, if the table is partitioned as ours are and none takes the day."""
    of = f"to_regclass({literal(postgres_sql.qualified(schema, table))})"
    if con.execute(f"SELECT pg_get_partkeydef({of})").fetchone() != (postgres_sql.BY_DATE,):
        return
    found = con.execute(f"SELECT pg_get_partition_constraintdef(inhrelid) FROM pg_inherits WHERE inhparent = {of}")
    # A default partition without others has no constraint: it takes everything.
    constraints = [constraint or "true" for (constraint,) in found]
    if con.execute(postgres_sql.accepts(constraints, day)).fetchone() == (False,):
        for statement in postgres_sql.partitioned(schema, table, day):
            con.execute(statement)


def _check_emptied(con: psycopg.Connection, name: str, day: str) -> None:
    """Check that a day has no rows, after fewer were deleted than were loaded: somebody may have deleted the others.

    Raises:
        SinkError: something keeps rows of the day.
    """
    if con.execute(f'SELECT count(*) FROM {name} WHERE "date" = DATE {literal(day)}').fetchone() != (0,):
        raise SinkError(
            f"could not load {day} into PostgreSQL: the rows that it had cannot all be deleted",
            sink=NAME,
            hint="a trigger or a rule of the table keeps rows: drop it, or load into another schema",
        )


def _make_view(con: psycopg.Connection, name: str, view: View) -> None:
    """Make a view; if it has other columns, drop it first."""
    try:
        with con.transaction():  # replacing keeps the rights that others were given
            con.execute(f"CREATE OR REPLACE VIEW {name} AS {view.query}")
    except psycopg.errors.InvalidTableDefinition:
        con.execute(f"DROP VIEW {name}")
        con.execute(f"CREATE VIEW {name} AS {view.query}")
    con.execute(f"COMMENT ON VIEW {name} IS {literal(view.says)}")


def _copy(con: psycopg.Connection, name: str, day: str, parquet: Path, *, memory: int) -> tuple[int, int]:
    """Add the rows of a file to a table; return their number, and in how many of them something was replaced."""
    types = types_of(con, name)
    try:
        with duckdb.connect(config={"threads": 1, "memory_limit": f"{memory}B"}) as duck, con.cursor() as cursor:
            duck.execute("SET TimeZone = 'UTC'")
            described = duck.execute(
                f"DESCRIBE SELECT * FROM read_parquet({one_file(str(parquet))}, hive_partitioning = false)"
            ).fetchall()
            columns = {str(column): str(type_) for column, type_, *_ in described}
            json = frozenset(column for column in columns if types.get(postgres_name(column)) == postgres_sql.JSONB)
            duck.execute(copy_statement(columns, json, day=day, file=str(parquet)))
            into = ", ".join(quoted(postgres_name(column)) for column in (*columns, DATE.name))
            sent = changed = 0
            with cursor.copy(f"COPY {name} ({into}) FROM STDIN") as copy:
                for piece, rows, changed_rows in _pieces(duck, [column in json for column in columns]):
                    copy.write(piece)
                    sent, changed = sent + rows, changed + changed_rows
            kept = cursor.rowcount
    except duckdb.Error as error:
        raise unread_file(parquet, error, sink=NAME) from error
    if kept != sent:
        raise SinkError(
            f"could not load {day} into PostgreSQL: of {sent} rows it kept {kept}",
            sink=NAME,
            hint="a trigger of the table leaves rows out: drop it, or load into another schema",
        )
    return sent, changed


def _pieces(duck: duckdb.DuckDBPyConnection, json: Sequence[bool]) -> Iterator[tuple[bytes, int, int]]:
    """Yield lines in pieces, each with its number of rows and in how many of them something was replaced."""
    is_json = (*json, False)  # the date
    lines: list[str] = []
    size = changed = 0
    while found := duck.fetchmany(ROWS_AT_ONCE):
        found.reverse()
        while found:  # rows that were sent are dropped, since they may be long
            line, values = found.pop()
            if line is None:
                line, was_changed = copy_line(values, is_json)
                changed += was_changed
            lines.append(line)
            size += len(line)
            if size >= BYTES_A_PIECE:
                yield _joined(lines), len(lines), changed
                lines, size, changed = [], 0, 0
    if lines:
        yield _joined(lines), len(lines), changed


def _joined(lines: Sequence[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
