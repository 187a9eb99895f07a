"""Days as Parquet files, made from rows that a test writes down, and what a table holds, in one comparable form."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import duckdb

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Column, ColumnKind, Layout
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal, quoted
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.warehouse.sinks.sink import Sink

EVENTS = Layout(Type.EVENT, ("evt_price_real", "evt_tags_strs", "user_vip_bool"))
PEOPLE = Layout(Type.INDIVIDUAL)

Row = Mapping[str, Any]


def stored_type(column: Column) -> str:
    """Return the type of a column in a Parquet file."""
    return "VARCHAR" if column.kind is ColumnKind.JSON else column.kind.value


def write_parquet(path: Path, layout: Layout, rows: Iterable[Row]) -> Path:
    """Write rows, with None for each column that a row lacks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [column.name for column in layout.columns]
    with duckdb.connect() as con:
        con.execute("SET TimeZone='UTC'")
        columns = ", ".join(f"{quoted(column.name)} {stored_type(column)}" for column in layout.columns)
        con.execute(f"CREATE TABLE rows ({columns})")
        values = [[row.get(name) for name in names] for row in rows]
        if values:
            con.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * len(names))})", values)
        con.execute(f"COPY rows TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
    return path


def day_path(directory: Path, table: str, day: str) -> Path:
    """Return where the Parquet file of a day is."""
    return directory / table / f"date={day}" / "data.parquet"


def event(user: int, session: int, at: str, **more: Any) -> Row:
    """Return an event; `at` is a time such as 10:00:00 on 2026-01-01, or a complete one."""
    start = at if "T" in at else f"2026-01-01T{at}Z"
    return {"UserId": user, "SessionId": session, "EventStart": start, "EventType": "click", **more}


def rows_in_parquet(paths: Mapping[str, Path], columns: Iterable[Column]) -> Counter[tuple[Any, ...]]:
    """Return the multiset of rows of several days' files, each row with its date last."""
    found: Counter[tuple[Any, ...]] = Counter()
    kinds = list(columns)
    with duckdb.connect() as con:
        con.execute("SET TimeZone='UTC'")
        names = ", ".join(map(readable, kinds))
        for day, path in paths.items():
            con.execute(f"SELECT {names} FROM read_parquet({one_file(str(path))}, hive_partitioning = false)")
            found.update((*comparable(row, kinds), day) for row in con.fetchall())
    return found


def readable(column: Column) -> str:
    """Return a column as DuckDB selects it: times in microseconds, since Python has none before the year 1."""
    name = quoted(column.name)
    return f"epoch_us({name})" if column.kind is ColumnKind.TIME else name


def comparable(row: Iterable[Any], columns: Iterable[Column]) -> tuple[Any, ...]:
    """Return a row with its JSON values in one notation: see `canonical`."""
    return tuple(
        canonical(value) if column.kind is ColumnKind.JSON and value is not None else value
        for value, column in zip(row, columns, strict=True)
    )


def canonical(text: str) -> str:
    """Return JSON in one notation: names sorted, and numbers by their exact value, however they are spelled."""

    def exact(number: str) -> str:
        return f"number {Fraction(number)}"

    return json.dumps(json.loads(text, parse_float=exact, parse_int=exact), sort_keys=True)


FACTS = TableFacts(Type.EVENT, "o-1-na1", datetime(2026, 1, 3, tzinfo=UTC).timestamp())

NUMBERS = count()
"""Numbers for the names of files and schemas, so that no two tests of a process share one."""


class SinkRig:
    """A folder for Parquet files, and the destination that loads them. Each destination's rig adds how to read it."""

    folder: Path
    sink: Sink

    def parquet(self, rows: Sequence[Row], layout: Layout = EVENTS) -> Path:
        """Write a Parquet file."""
        return write_parquet(self.folder / f"{next(NUMBERS)}.parquet", layout, rows)

    def load(self, days: Mapping[str, Sequence[Row]], layout: Layout = EVENTS, table: str = "t") -> dict[str, Path]:
        """Replace days, and return their files."""
        files = {}
        self.sink.prepare(table, layout.columns)
        for day, rows in days.items():
            files[day] = self.parquet(rows, layout)
            replaced = self.sink.replace(table, day, files[day] if rows else None, f"of {day}, {len(rows)}")
            assert replaced == len(rows)
        self.sink.finish(table, FACTS if layout.type is Type.EVENT else TableFacts(Type.INDIVIDUAL))
        return files
