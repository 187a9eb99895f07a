"""Scans the archives of a day: which ones DuckDB reads exactly, and which fields their rows have."""

from collections.abc import Iterator, Sequence

import duckdb

from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.scanning import (
    ADD_KNOWN,
    CREATE_KNOWN,
    Names,
    Scan,
    is_rewritten,
    scan_statement,
    suspects_statement,
)

FETCHED_ROWS = 64


class Scanner:
    """Scans the archives of a day, one after the other.

    Each archive has a statement of its own, so that one that DuckDB refuses costs no more than itself.

    Args:
        duck: The connection.
        layout: The columns of the table.
        max_row: The longest row that is loaded, in bytes.

    Attributes:
        names: The names in the archives that DuckDB can read.
    """

    def __init__(self, duck: duckdb.DuckDBPyConnection, layout: Layout, *, max_row: int) -> None:
        self.names = Names(layout)
        self._duck = duck
        self._max_row = max_row
        duck.execute(CREATE_KNOWN)

    def reason(self, file: str, *, rows: int) -> str | None:
        """Scan an archive of so many rows; return the reason if it has to be read row by row."""
        try:
            scan = Scan.of(self._duck.execute(scan_statement(file)).fetchall())
            return self._reason(file, scan, rows=rows) or self._learn(scan)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            return _first_line(error, file)

    def _reason(self, file: str, scan: Scan, *, rows: int) -> str | None:
        if scan.rows != rows:
            return f"DuckDB finds {scan.rows} rows in it"
        if scan.longest > self._max_row:
            return f"a row has {scan.longest:,} bytes"
        if scan.repeats:
            return f"a row has the name {scan.repeats!r} twice"
        if scan.suspected and any(map(is_rewritten, self._suspects(file))):
            return "DuckDB would rewrite a value"
        return None

    def _learn(self, scan: Scan) -> str | None:
        names = frozenset[str]().union(*scan.lists.values())
        odd = self.names.odd_one(names)
        if odd is not None:
            return f"the name {odd!r} cannot be that of a column"
        self.names.add(names)
        self._duck.execute(ADD_KNOWN, [list(scan.lists)])
        return None

    def _suspects(self, file: str) -> Iterator[str]:
        found = self._duck.execute(suspects_statement(file))
        while rows := found.fetchmany(FETCHED_ROWS):
            for (row,) in rows:
                yield row


def refused(duck: duckdb.DuckDBPyConnection, statements: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Run statements, each with the file that it reads; return those that DuckDB refuses, with the reason for each."""
    found: dict[str, str] = {}
    for file, statement in statements:
        try:
            duck.execute(statement).fetchall()
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            found[file] = _first_line(error, file)
    return found


def _first_line(error: duckdb.Error, file: str) -> str:
    """Return what DuckDB said, without the name of the temporary file."""
    text = str(error).strip().partition("\n")[0].replace(f' in file "{file}"', "").replace(f' file "{file}"', "")
    return f"DuckDB: {text}"
