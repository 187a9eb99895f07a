"""A process that replaces a day in a destination, for tests that kill it.

Arguments: `duckdb FILE PARQUET` stops before its transaction ends and says so; `postgres DSN SCHEMA PARQUET` replaces.
"""

import sys
from pathlib import Path

from asyncexport.core.access import Access
from asyncexport.core.warehouse.duckdb_sql import insertion, qualified
from asyncexport.warehouse.sinks.duckdb_file import DuckDbFile
from asyncexport.warehouse.sinks.postgres import PostgresSink
from asyncexport.warehouse.sinks.postgres_connection import PostgresConnection

DAY = "2026-01-31"


def replace_in_duckdb(path: Path, parquet: Path) -> None:
    """Replace the day, but wait before the end of the transaction."""
    file = DuckDbFile(path, scratch=path.parent, memory=1 << 28, access=Access.PRIVATE)
    with file.writing() as con:
        con.execute(f"DELETE FROM {qualified('t')} WHERE \"date\" = DATE '{DAY}'")
        con.execute(insertion("t", DAY, str(parquet)))
        sys.stdout.write("replaced\n")
        sys.stdout.flush()
        sys.stdin.read()


def main() -> None:
    """Do as the arguments say."""
    match sys.argv[1:]:
        case ["duckdb", path, parquet]:
            replace_in_duckdb(Path(path), Path(parquet))
        case ["postgres", dsn, schema, parquet]:
            sink = PostgresSink(PostgresConnection(dsn), schema=schema, report=print)
            sink.replace("t", DAY, Path(parquet), "new")


if __name__ == "__main__":
    main()
