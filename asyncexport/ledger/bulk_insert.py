"""Inserts many rows with few statements: each statement releases the interpreter lock and waits to get it back."""

import sqlite3
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

ROWS_PER_STATEMENT = 16
"""Small enough for `sqlite3` to cache one prepared statement for each number of rows."""


def insert_rows(connection: sqlite3.Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows of equal length; `statement` is the INSERT statement without `VALUES`."""
    left = iter(rows)
    while some := list(islice(left, ROWS_PER_STATEMENT)):
        places = f"({', '.join('?' * len(some[0]))})"
        values = ", ".join([places] * len(some))
        connection.execute(f"{statement} VALUES {values}", list(chain.from_iterable(some)))
