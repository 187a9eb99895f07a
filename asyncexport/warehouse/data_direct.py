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
"""Values that are read, computed and stored at once."""


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
        return _make(connection, request)


def _make(connection: duckdb.DuckDBPyConnection, request: DataDirectRequest) -> DataDirectMade:
    recipe = request.recipe
    events, without_id = _one(connection, statements.counts())
    if without_id:
        raise DayCountError(
            f"making the Data Direct table: {without_id} of {events} events have no id",
            hint="an event has no id if a field of its key was not exported",
        )
    left_out = dict(connection.execute(statements.left_out()).fetchall())
    for statement in (*statements.TABLES, statements.sessions(recipe.identify)):
        connection.execute(statement)
    _fill_urls(connection)
    _fill_variables(connection, strip=recipe.suffixes is Suffixes.STRIP)
    made_up = int(_one(connection, "SELECT count(identified_by) FROM sessions")[0])
    for statement in statements.day(recipe.identify):
        connection.execute(statement)
    rows = events - sum(left_out.values()) + made_up
    if not rows:
        return DataDirectMade(0, left_out)
    found = int(_one(connection, statements.written(str(request.file), receipt=request.receipt))[0])
    if found != rows:
        raise DayCountError(f"making the Data Direct table: {rows} rows should be there, but {found} were written")
    return DataDirectMade(rows, left_out, made_up)


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None, "each of these statements has one row"  # noqa: S101 - states a fact for the type checker
    return row


def _fill_urls(connection: duckdb.DuckDBPyConnection) -> None:
    for batch in _batches(connection, statements.urls()):
        urls, for_request = zip(*batch, strict=True)
        _insert(connection, "urls", urls, for_request, map(url_parts, urls))


def _fill_variables(connection: duckdb.DuckDBPyConnection, *, strip: bool) -> None:
    columns = [name for name, *_ in connection.execute("DESCRIBE flat").fetchall()]
    for batch in _batches(connection, statements.variables(columns)):
        events, prefixes, *objects = zip(*batch, strict=True)
        texts = (_nested(prefix, pair, strip=strip) for prefix, *pair in zip(prefixes, *objects, strict=True))
        _insert(connection, "variables", events, prefixes, texts)


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


def _batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of a query in batches. They have a cursor of their own, so that others can be stored meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        while batch := cursor.fetchmany(BATCH):
            yield batch


def _insert(connection: duckdb.DuckDBPyConnection, table: str, *columns: Iterable[Any]) -> None:
    """Store rows, given by column: as lists they are stored many times faster than row by row."""
    values = ", ".join("unnest(?)" for _ in columns)
    connection.execute(f"INSERT INTO {table} SELECT {values}", [list(column) for column in columns])
