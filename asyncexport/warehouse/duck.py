"""The connection to DuckDB that makes a day."""

from pathlib import Path

import duckdb

from asyncexport.core.warehouse.identifiers import literal


def connected(scratch: Path, *, memory: int) -> duckdb.DuckDBPyConnection:
    """Return a connection that makes equal bytes of equal archives: one thread, the time zone UTC, rows in order.

    Args:
        scratch: Where it writes what does not fit into memory.
        memory: Its memory limit, in bytes.
    """
    duck = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": "false"})
    duck.execute(
        f"SET TimeZone = 'UTC'; SET memory_limit = '{memory}B'; SET temp_directory = {literal(str(scratch))}; "
        "SET preserve_insertion_order = true"
    )
    return duck
