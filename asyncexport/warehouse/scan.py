"""Scans the archives of a day: which ones DuckDB reads exactly, and which fields their rows have."""

from collections.abc import Iterator, Sequence

import duckdb

from asyncexport.core.warehouse.scanning import Scan, is_rewritten, scan_statement, suspects_statement

FETCHED_ROWS = 64


def scanned(duck: duckdb.DuckDBPyConnection, file: str, *, rows: int, max_row: int) -> Scan | str:
    """Scan an archive; return the reason if it has to be read row by row.

    Each archive has a statement of its own, so that one that DuckDB refuses costs no more than itself.

    Args:
        duck: The connection.
        file: The path of the archive.
        rows: The number of its rows.
        max_row: The longest row that is loaded, in bytes.
    """
    try:
        scan = Scan.of(file, duck.execute(scan_statement(file)).fetchall())
        if scan.rows != rows:
            return f"DuckDB finds {scan.rows} rows in it"
        if scan.longest > max_row:
            return f"a row has {scan.longest:,} bytes"
        if scan.repeats:
            return f"a row has the name {scan.repeats!r} twice"
        if scan.suspected and any(map(is_rewritten, _suspects(duck, file))):
            return "DuckDB would rewrite a value"
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        return _first_line(error)
    return scan


def refused(duck: duckdb.DuckDBPyConnection, statements: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Run statements, each with the file that it reads; return those that DuckDB refuses, with the reason for each."""
    found: dict[str, str] = {}
    for file, statement in statements:
        try:
            duck.execute(statement).fetchall()
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            found[file] = _first_line(error)
    return found


def _suspects(duck: duckdb.DuckDBPyConnection, file: str) -> Iterator[str]:
    found = duck.execute(suspects_statement(file))
    while rows := found.fetchmany(FETCHED_ROWS):
        for (row,) in rows:
            yield row


def _first_line(error: duckdb.Error) -> str:
    return f"DuckDB: {str(error).strip().partition(chr(10))[0]}"
