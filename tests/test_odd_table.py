"""The page's table of odd input is what the two readers of DuckDB and asyncexport really make of it."""

from pathlib import Path

import duckdb
import pytest

import asyncexport
from tests.odd_table import table

pytestmark = pytest.mark.slow

PAGE = (Path(asyncexport.__file__).parent / "warehouse" / "ODD_INPUT.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- odd input: printed by python -m tests.odd_table -->", "<!-- end of odd input -->"


def cells(text: str) -> list[list[str]]:
    """Return the cells of a table."""
    return [line.strip("|").split(" | ") for line in text.strip().splitlines()]


def test_the_table_is_what_is_read():
    """Every row is in the table, with what becomes of it; what DuckDB makes of it, for the version named there."""
    stated, found = cells(PAGE.partition(BEGIN)[2].partition(END)[0]), cells(table())
    assert [(row[0], row[-1]) for row in stated] == [(row[0], row[-1]) for row in found]
    if f"DuckDB {duckdb.__version__}" in PAGE:
        assert stated == found
