"""The destination Snowflake: each day is uploaded, copied into the table, checked, and recorded in one transaction.

1. The transaction begins with a change of the table's row in `_ASYNCEXPORT_TABLES`. Snowflake makes a second loader of
   the table wait there until the first has ended, so that two never replace a day at the same time.
2. What Snowflake has of the day is compared with the Parquet file before the commit (`core.warehouse.snowflake_check`).
3. Statements that define something end a transaction there, so tables and columns are made before.
4. COPY deletes the uploaded file. It stays in the stage only if the load of the day fails before; the next attempt with
   the same archives overwrites it. Another loader of the same day may have deleted it; then nothing is copied, and the
   comparison fails.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import duckdb
from snowflake.connector.errors import ProgrammingError

from asyncexport.core.warehouse.columns import DATE, Column
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import quoted
from asyncexport.core.warehouse.snowflake_check import Aggregate, aggregates, difference, query_of_file, query_of_table
from asyncexport.core.warehouse.snowflake_sql import RECORDS, STAGE, SnowflakeSchema, literal, missing, snowflake_name
from asyncexport.core.warehouse.table_columns import lacking_names, single_receipts
from asyncexport.core.warehouse.views import LOADS, TABLES, TableFacts
from asyncexport.errors import SinkError
from asyncexport.warehouse.faults import storage_error, unfit_record, unread_file
from asyncexport.warehouse.sinks.snowflake_connection import NAME, NOT_FOUND, SnowflakeConnection

DEFAULT_MEMORY = 1 << 30

FILE = "data.parquet"
"""The name of an uploaded file."""


class SnowflakeSink:
    """Snowflake.

    Args:
        connection: The connection.
        schema: The schema of all tables, which is made if it does not exist.
        memory: DuckDB's memory limit, in bytes.
    """

    name = NAME

    def __init__(
        self, connection: SnowflakeConnection, *, schema: SnowflakeSchema, memory: int = DEFAULT_MEMORY
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._memory = memory

    def reach(self) -> None:
        """Log in, which needs no virtual warehouse (`Sink`)."""
        with self._connection.doing("log in"):
            pass

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return the receipt of each day (`Sink`)."""
        with self._connection.doing(f"read the receipts of {table}"):
            if not (self._types(table) and self._types(LOADS)):
                return {}
            query = f"SELECT DAY, RECEIPT FROM {self._schema.of(LOADS)} WHERE TABLE_NAME = {literal(table)}"
            return single_receipts((str(day), str(receipt)) for day, receipt in self._connection.run(query))

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return the rows of each day (`Sink`)."""
        days = self.receipts(table)
        if not days:
            return {}
        with self._connection.doing(f"count the rows of {table}"):
            day = quoted(snowflake_name(DATE.name))
            found = self._connection.run(f"SELECT {day}, COUNT(*) FROM {self._schema.of(table)} GROUP BY {day}")
            counts = {str(date): int(rows) for date, rows in found}
        return {day: counts.get(day, 0) for day in days}

    def prepare(self, table: str, columns: Sequence[Column]) -> None:
        """Make the table, or add what it lacks (`Sink`)."""
        wanted = (*columns, DATE)
        with self._connection.doing(f"prepare the table {table}"):
            self._make_records()
            types = self._types(table)
            if types:
                lacks = _missing(table, wanted, types)
                if lacks:
                    self._connection.run(self._schema.added(table, lacks))
            else:
                self._connection.run(self._schema.created(table, wanted))
                self._connection.run(self._schema.forget(table))  # receipts of a table that was dropped
            known = f"SELECT 1 FROM {self._schema.of(TABLES)} WHERE TABLE_NAME = {literal(table)}"
            if not self._connection.run(known):
                self._connection.run(
                    f"INSERT INTO {self._schema.of(TABLES)} (TABLE_NAME, LOADED_AT) "
                    f"SELECT {literal(table)}, CURRENT_TIMESTAMP()"
                )

    def replace(self, table: str, day: str, parquet: Path | None, receipt: str) -> int:
        """Replace a day (`Sink`)."""
        file = None if parquet is None else _ParquetDay(parquet, memory=self._memory)
        what = f"replace {day} of {table}"
        if file is not None:
            with self._connection.doing(what), file.under_a_plain_path() as path:
                self._connection.run(f"USE SCHEMA {self._schema.qualified}")  # COPY needs a current schema
                self._connection.run(self._schema.upload(path, self._schema.staged(table, day, receipt)))
        with self._connection.transaction(what):
            self._connection.run(self._schema.lock(table))
            self._connection.run(self._schema.delete(table, day))
            if file is not None:
                types, staged = self._types(table), self._schema.staged(table, day, receipt, file=FILE)
                self._connection.run(self._schema.copy(table, file.types, types, day=day, file=staged))
                self._check(table, day, file)
            rows = 0 if file is None else file.rows
            self._connection.run(self._schema.forget(table, day))
            self._connection.run(self._schema.record(table, day, receipt, rows))
        return rows

    def finish(self, table: str, facts: TableFacts) -> None:
        """Record what is known about the table; there are no views here (`Sink`)."""
        until = "NULL"
        if facts.complete_until is not None:
            until = f"{literal(datetime.fromtimestamp(facts.complete_until, UTC).isoformat())}::TIMESTAMP_TZ(6)"
        with self._connection.doing(f"record the facts of {table}"):
            self._connection.run(
                f"UPDATE {self._schema.of(TABLES)} SET ORGANISATION = NULLIF({literal(facts.organisation)}, ''), "
                f"COMPLETE_UNTIL = {until} WHERE TABLE_NAME = {literal(table)}"
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _types(self, table: str) -> dict[str, str]:
        """Return the columns of a table and their types; empty if there is no such table."""
        try:
            found = self._connection.run(f"DESCRIBE TABLE {self._schema.of(table)}")
        except ProgrammingError as error:
            if error.errno in NOT_FOUND:
                return {}
            raise
        return {str(column): str(type_) for column, type_, *_ in found}

    def _make_records(self) -> None:
        # CREATE … IF NOT EXISTS needs the right to create even if there is nothing to create.
        run, schema = self._connection.run, self._schema
        lacking = []
        for name, columns in RECORDS.items():
            types = self._types(name)
            if not types:
                lacking.append(schema.made_record(name))
            elif lacks := lacking_names(columns, types):
                raise unfit_record(name, lacks[0], sink=NAME, title="Snowflake")
        if lacking and schema.name not in self._names(f"SHOW SCHEMAS IN DATABASE {quoted(schema.database)}"):
            run(f"CREATE SCHEMA IF NOT EXISTS {schema.qualified}")
        for statement in lacking:
            run(statement)
        if snowflake_name(STAGE) not in self._names(f"SHOW STAGES IN SCHEMA {schema.qualified}"):
            run(f"CREATE STAGE IF NOT EXISTS {schema.of(STAGE)} COMMENT = 'Files on their way into tables.'")

    def _names(self, statement: str) -> list[str]:
        return [str(name) for _, name, *_ in self._connection.run(statement)]

    def _check(self, table: str, day: str, file: "_ParquetDay") -> None:
        (found,) = self._connection.run(query_of_table(file.compared, self._schema.of(table), day))
        differs = difference(file.compared, file.values, found)
        if differs:
            raise SinkError(
                f"could not load {day} into the Snowflake table {table}: {differs}; the day is as before",
                sink=NAME,
                hint="check that no policy of the table hides or masks rows from the user, and that no other load "
                "replaces the day at the same time, and load again",
            )


def _missing(table: str, wanted: Sequence[Column], types: Mapping[str, str]) -> tuple[Column, ...]:
    try:
        return missing(wanted, types)
    except ValueError as error:
        raise SinkError(
            f"could not load into the Snowflake table {table}: {error}",
            sink=NAME,
            hint="change the type of the column, or rename the table; asyncexport then makes its own",
        ) from None


class _ParquetDay:
    """The Parquet file of a day.

    Args:
        path: The file.
        memory: DuckDB's memory limit, in bytes.

    Attributes:
        types: Its columns and their types in DuckDB.
        compared: What is compared with the table.
        values: The values of `compared`.

    Raises:
        SinkError: the file cannot be read.
    """

    def __init__(self, path: Path, *, memory: int) -> None:
        self._path = path
        try:
            with duckdb.connect(config={"threads": 1, "memory_limit": f"{memory}B"}) as duck:
                duck.execute("SET TimeZone = 'UTC'")
                described = f"DESCRIBE SELECT * FROM read_parquet({one_file(str(path))}, hive_partitioning = false)"
                self.types = {str(name): str(type_) for name, type_, *_ in duck.execute(described).fetchall()}
                self.compared: Sequence[Aggregate] = aggregates(self.types)
                (self.values,) = duck.execute(query_of_file(self.compared, str(path))).fetchall()
        except duckdb.Error as error:
            raise unread_file(path, error, sink=NAME) from error

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.values[0])

    @contextmanager
    def under_a_plain_path(self) -> Iterator[str]:
        """Give the file a path without wildcards, which PUT would expand, and with the name `FILE`."""
        with ExitStack() as stack:
            try:
                link = Path(stack.enter_context(TemporaryDirectory(prefix="asyncexport-"))) / FILE
                link.symlink_to(self._path.absolute())
            except OSError as error:
                raise storage_error(error, Path(gettempdir())) from error
            yield str(link)
