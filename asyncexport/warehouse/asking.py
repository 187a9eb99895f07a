"""Asks a DuckDB file a question: for the demo, which shows a query and its answer."""

from pathlib import Path
from typing import Any

import duckdb


def ask(file: Path, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and the rows that answer a query."""
    with duckdb.connect(file, read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(query)
        return [column[0] for column in found.description or ()], found.fetchall()
