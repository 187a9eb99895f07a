"""The destination DuckDB: a file with each table as a view over the Parquet files, or with copies of all rows.

1. As views (`[load.duckdb] tables = false`) there is nothing to load: a new day is in the view as soon as its Parquet
   file is published, and the receipts are those of the Parquet files. Views name the folder by its absolute path, so
   that they work wherever the file is opened. After the folder has moved, the next load makes them again.
2. As tables, each day is replaced in one transaction together with its receipt.
3. Whoever changes the setting gets the other kind of table at the next load. What asyncexport did not make is never
   dropped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from asyncexport.core.warehouse.columns import DATE, Column
from asyncexport.core.warehouse.duckdb_sql import (
    DAY_FILES,
    comments,
    created,
    insertion,
    one_file,
    over_parquet,
    qualified,
)
from asyncexport.core.warehouse.identifiers import quoted
from asyncexport.core.warehouse.table_columns import missing_columns
from asyncexport.core.warehouse.views import LOADS, TableFacts
from asyncexport.errors import SinkError
from asyncexport.warehouse.faults import unread_file
from asyncexport.warehouse.sinks.duckdb_file import NAME, DuckDbFile, kind_of
from asyncexport.warehouse.sinks.duckdb_record import DuckDbRecord
from asyncexport.warehouse.sinks.sink import Sink


class DuckDbViews:
    """Tables as views over Parquet files.

    Args:
        file: The DuckDB file.
        directory: The load directory, which has a folder for each table.
        parquet: The destination Parquet, whose receipts are those of the views.
    """

    name = NAME

    def __init__(self, file: DuckDbFile, *, directory: Path, parquet: Sink) -> None:
        self._file = file
        self._record = DuckDbRecord(file)
        self._directory = directory.absolute()
        self._parquet = parquet
        self._columns: dict[str, tuple[Column, ...]] = {}
        self._with_files: dict[str, bool] = {}

    def reach(self) -> None:
        """Open the file, if there is one yet (`Sink`)."""
        with self._file.reading():
            pass

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return the receipt of each day (`Sink`)."""
        return self._parquet.receipts(table)

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return the rows of each day, as the view shows them; none if there is no view (`Sink`)."""
        with self._file.reading() as con:
            return {} if con is None or kind_of(con, table) != "VIEW" else _rows_by_day(con, table)

    def prepare(self, table: str, columns: Sequence[Column]) -> None:
        """Make the view (`Sink`)."""
        self._columns[table] = tuple(columns)
        self._show(table)

    def replace(self, table: str, day: str, parquet: Path | None, receipt: str) -> int:  # noqa: ARG002 - the view shows the Parquet file
        """Return the number of rows; makes the view again after the first file has come or the last one has gone."""
        if self._has_files(table) is not self._with_files.get(table):
            self._show(table)
        if parquet is None:
            return 0
        try:
            with duckdb.connect() as con:
                (rows,) = con.execute(f"SELECT count(*) FROM read_parquet({one_file(str(parquet))})").fetchall()[0]
        except duckdb.Error as error:
            raise unread_file(parquet, error, sink=NAME) from error
        return int(rows)

    def finish(self, table: str, facts: TableFacts) -> None:
        """Bring the views beside the table up to date (`Sink`)."""
        self._show(table)
        self._record.finish(table, facts, counts_rows=True)

    def close(self) -> None:
        """Do nothing: the file is open only while it is used."""

    def _has_files(self, table: str) -> bool:
        return any((self._directory / table).glob(DAY_FILES))

    def _show(self, table: str) -> None:
        has_files, columns = self._has_files(table), self._columns[table]
        query = over_parquet(columns, str(self._directory / table), has_files=has_files)
        self._record.show(table, query, (*columns, DATE))
        self._with_files[table] = has_files


class DuckDbTables:
    """Tables with copies of all rows."""

    name = NAME

    def __init__(self, file: DuckDbFile) -> None:
        self._file = file
        self._record = DuckDbRecord(file)

    def reach(self) -> None:
        """Open the file, if there is one yet (`Sink`)."""
        with self._file.reading():
            pass

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return the receipt of each day (`Sink`)."""
        with self._file.reading() as con:
            if con is None or kind_of(con, table) != "BASE TABLE" or kind_of(con, LOADS) is None:
                return {}
            found = con.execute(f"SELECT day, receipt FROM {qualified(LOADS)} WHERE table_name = ?", [table])
            return {str(day): str(receipt) for day, receipt in found.fetchall()}

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return the rows of each day (`Sink`)."""
        days = self.receipts(table)
        if not days:
            return {}
        with self._file.reading() as con:
            if con is None:
                return {}
            counts = _rows_by_day(con, table)
        return {day: counts.get(day, 0) for day in days}

    def prepare(self, table: str, columns: Sequence[Column]) -> None:
        """Make the table, or add what it lacks (`Sink`)."""
        wanted = (*columns, DATE)
        if self._missing(table, wanted) == ():
            return
        with self._file.writing() as con:
            if kind_of(con, table) == "VIEW":
                self._record.forget_view(con, table)
            if kind_of(con, table) is None:
                con.execute(created(table, wanted))
                # Receipts of a table that was dropped.
                con.execute(f"DELETE FROM {qualified(LOADS)} WHERE table_name = ?", [table])
                added = wanted
            else:
                added = self._missing_in(con, table, wanted)
                for column in added:
                    con.execute(f"ALTER TABLE {qualified(table)} ADD COLUMN {quoted(column.name)} {column.kind.value}")
            for statement in comments(table, added):
                con.execute(statement)

    def replace(self, table: str, day: str, parquet: Path | None, receipt: str) -> int:
        """Replace a day (`Sink`)."""
        with self._file.writing() as con:
            con.execute(f'DELETE FROM {qualified(table)} WHERE "date" = CAST(? AS DATE)', [day])
            rows = 0
            if parquet is not None:
                (rows,) = con.execute(insertion(table, day, str(parquet))).fetchall()[0]
            con.execute(
                f"INSERT OR REPLACE INTO {qualified(LOADS)} VALUES (?, CAST(? AS DATE), ?, ?, now())",
                [table, day, receipt, rows],
            )
        return int(rows)

    def finish(self, table: str, facts: TableFacts) -> None:
        """Bring the views beside the table up to date (`Sink`)."""
        self._record.finish(table, facts, counts_rows=False)

    def close(self) -> None:
        """Do nothing: the file is open only while it is used."""

    def _missing(self, table: str, wanted: Sequence[Column]) -> tuple[Column, ...] | None:
        """Return the columns that the table lacks; None if it has to be made."""
        with self._file.reading() as con:
            if con is None or kind_of(con, table) != "BASE TABLE":
                return None
            return self._missing_in(con, table, wanted)

    def _missing_in(self, con: duckdb.DuckDBPyConnection, table: str, wanted: Sequence[Column]) -> tuple[Column, ...]:
        found = con.execute(
            "SELECT lower(column_name), data_type FROM information_schema.columns "
            "WHERE table_catalog = current_database() AND table_schema = 'main' AND lower(table_name) = lower(?)",
            [table],
        )
        names = {column.name.lower(): column.name for column in wanted}
        types = {names.get(name, name): str(type_) for name, type_ in found.fetchall()}
        try:
            return missing_columns(
                wanted,
                types,
                name_of=lambda column: column.name,
                type_of=lambda column: column.kind.value,
                fits=lambda column, type_: type_ == column.kind.value,
            )
        except ValueError as error:
            raise SinkError(
                f"could not load into the DuckDB table {table}: {error}",
                sink=NAME,
                hint="rename the table or the column; asyncexport then makes its own",
            ) from error


def _rows_by_day(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    found = con.execute(f'SELECT "date", count(*) FROM {qualified(table)} GROUP BY "date"').fetchall()
    return {str(day): int(rows) for day, rows in found}
