"""Makes a day of the Data Direct table from the flat table's Parquet file of that day.

1. Only the flat file is read. DuckDB does the work in one thread; the parts of URLs and the nesting of custom variables
   are made in Python, in batches, so memory stays bounded.
2. The rows written, those left out and those made up must add up to the events of the flat file, or nothing is made.
3. Equal flat files make equal bytes, whatever the machine's time zone.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from asyncexport.core.warehouse.choices import Suffixes
from asyncexport.core.warehouse.data_direct import statements
from asyncexport.core.warehouse.data_direct.json_members import members
from asyncexport.core.warehouse.data_direct.nesting import nested
from asyncexport.core.warehouse.data_direct.urls import url_parts
from asyncexport.errors import DayCountError
from asyncexport.warehouse.day_maker import DataDirectMade, DataDirectRequest

BATCH = 1024
"""The most values that are read, computed and stored at once."""

COPIES = 32
"""The memory limit, divided by the bytes of text that may be worked on at once.

DuckDB computes a block of rows at a time, and holds each text several times while JSON is put together.
"""


def make_data_direct(flat: Path, request: DataDirectRequest, *, memory: int, scratch: Path) -> DataDirectMade:
    """Write a day of the Data Direct table.

    Args:
        flat: The flat table's Parquet file of the day.
        request: What to make of it.
        memory: DuckDB's memory limit, in bytes.
        scratch: A directory for temporary files, which the caller deletes.

    Raises:
        DayCountError: the events have no ids, or the rows do not add up.
    """
    options: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": f"{memory}B",
        "temp_directory": str(scratch),
    }
    with duckdb.connect(config=options) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(statements.flat_file(str(flat)))
        return _Day(connection, request, memory).make()


class _Day:
    """Makes a day in a database that has the view `flat`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, request: DataDirectRequest, memory: int) -> None:
        self._connection = connection
        self._request = request
        columns = connection.execute("DESCRIBE flat").fetchall()
        self._columns = [str(name) for name, *_ in columns]
        self._texts = [str(name) for name, kind, *_ in columns if kind == "VARCHAR"]
        self._block = self._number(statements.widest_block(self._texts))
        self._at_once = max(memory // COPIES, 1)

    def make(self) -> DataDirectMade:
        """Write the file."""
        events = self._number("SELECT count(*) FROM flat")
        self._check_ids(events)
        recipe = self._request.recipe
        left_out = dict(self._connection.execute(statements.left_out()).fetchall())
        self._run(*statements.TABLES, statements.sessions(recipe.identify))
        self._fill_urls()
        self._fill_variables(strip=recipe.suffixes is Suffixes.STRIP)
        made_up = self._number("SELECT count(identified_by) FROM sessions")
        self._run(*statements.day(recipe.identify, self._parts(events)))
        rows = events - sum(left_out.values()) + made_up
        found = self._number("SELECT count(*) FROM day")
        if rows != found:
            raise DayCountError(f"making the Data Direct table: {rows} rows should be there, but there are {found}")
        if rows:
            groups = statements.group_rows(self._block)
            target = str(self._request.file)
            self._run(statements.written(target, receipt=self._request.receipt, rows_in_group=groups))
        return DataDirectMade(rows, left_out, made_up)

    def _check_ids(self, events: int) -> None:
        without_id = self._number("SELECT count(*) FROM flat WHERE event_id IS NULL")
        if without_id:
            raise DayCountError(
                f"making the Data Direct table: {without_id} of {events} events have no id",
                hint="an event has no id if a field of its key was not exported",
            )

    def _fill_urls(self) -> None:
        for batch in self._batches(statements.urls()):
            urls, for_request = zip(*batch, strict=True)
            self._insert("urls", urls, for_request, map(url_parts, urls))

    def _fill_variables(self, *, strip: bool) -> None:
        for batch in self._batches(statements.variables(self._columns)):
            events, prefixes, *objects = zip(*batch, strict=True)
            texts = (_nested(prefix, pair, strip=strip) for prefix, *pair in zip(prefixes, *objects, strict=True))
            self._insert("variables", events, prefixes, texts)

    def _parts(self, events: int) -> list[tuple[int, int]]:
        """Return the parts of the file that are read one after another: usually one."""
        if self._block <= self._at_once:
            return [(0, events)]
        return self._connection.execute(statements.slices(self._texts, most=self._at_once)).fetchall()

    def _batches(self, query: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query in batches. They have a cursor of their own, so others can be stored meanwhile."""
        rows = max(1, min(BATCH, self._at_once * BATCH // max(self._block, 1)))
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            while batch := cursor.fetchmany(rows):
                yield batch

    def _insert(self, table: str, *columns: Iterable[Any]) -> None:
        """Store rows, given by column: as lists they are stored many times faster than row by row."""
        values = ", ".join("unnest(?)" for _ in columns)
        self._connection.execute(f"INSERT INTO {table} SELECT {values}", [list(column) for column in columns])

    def _run(self, *queries: str) -> None:
        for query in queries:
            self._connection.execute(query)

    def _number(self, query: str) -> int:
        row = self._connection.execute(query).fetchone()
        assert row is not None, "each of these queries has one row"  # noqa: S101 - states a fact for the type checker
        return int(row[0])


def _nested(prefix: str, objects: Iterable[str | None], *, strip: bool) -> str | None:
    """Return the variables with a prefix that JSON objects hold, as nested objects."""
    found = {
        name.removeprefix(prefix): value
        for text in objects
        if text
        for name, value in members(text)
        if name.startswith(prefix)
    }
    return nested(found, strip=strip) if found else None
