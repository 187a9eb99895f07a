"""A schema on the tests' server, the destination that loads into it, and what is in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Column, ColumnKind, Layout
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.warehouse.sinks.postgres import PostgresSink
from asyncexport.warehouse.sinks.postgres_connection import PostgresConnection
from tests.postgres_server import PostgresServer
from tests.sink_rig import EVENTS, Row, comparable, write_parquet

DAY = "2026-01-31"

FACTS = TableFacts(Type.EVENT, "o-1-na1", datetime(2026, 1, 3, tzinfo=UTC).timestamp())

NUMBERS = count()


class PostgresRig:
    """A schema of a test's own, and the destination that loads into it."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.schema = f"s{next(NUMBERS)}"
        self.notes: list[str] = []
        self.sink = self.another()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.close()

    def another(self, dsn: str = "") -> PostgresSink:
        """Return another destination of the same schema."""
        return PostgresSink(PostgresConnection(dsn or self.server.dsn), schema=self.schema, report=self.notes.append)

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

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Run statements in the schema."""
        with psycopg.connect(self.server.dsn, autocommit=True) as con:
            con.execute(f"SET search_path = {self.schema}; SET TimeZone = 'UTC'")
            found = con.execute(text)
            return found.fetchall() if found.description else []

    def rows(self, columns: Sequence[Column] = EVENTS.columns, table: str = "t") -> Counter[tuple[Any, ...]]:
        """Return the multiset of the rows, in the form of `rows_in_parquet`."""
        names = ", ".join(map(as_read, columns))
        found = self.query(f'SELECT {names}, "date"::text FROM {table}')
        return Counter((*comparable(row[:-1], columns), row[-1]) for row in found)


def as_read(column: Column) -> str:
    """Return a column as `readable` does for DuckDB."""
    match column.kind:
        case ColumnKind.TIME:
            return f'(extract(epoch FROM "{column.name}") * 1000000)::bigint'
        case ColumnKind.JSON:
            return f'"{column.name}"::text'
        case _:
            return f'"{column.name}"'
