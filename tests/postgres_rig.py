"""A schema on the tests' server, the destination that loads into it, and what is in it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psycopg

from asyncexport.core.warehouse.columns import Column, ColumnKind
from asyncexport.warehouse.sinks.postgres import PostgresSink
from asyncexport.warehouse.sinks.postgres_connection import PostgresConnection
from tests.postgres_server import PostgresServer
from tests.sink_rig import EVENTS, NUMBERS, SinkRig, comparable

DAY = "2026-01-31"


class PostgresRig(SinkRig):
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
