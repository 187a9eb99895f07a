"""Where the load directory and the DuckDB file may be: not where archives, a ledger or unfinished files are.

1. Files of tables among archives would be reported as foreign by `verify`, and deleted with the archives.
2. What is in `.spill` of the load directory is deleted by the next load.
3. A table's folder belongs to the table: whatever is there under the name of a day is replaced or removed.
"""

from collections.abc import Iterable, Iterator

from asyncexport.core.warehouse.tables import DATA_DIRECT, table_name
from asyncexport.errors import Problem

SPILL = ".spill"
"""The folder in the load directory for unfinished files."""

OWN = (SPILL, ".lock", ".last-load.json")
"""What is in a load directory beside tables."""

LEDGER_FOLDER = ".asyncexport"

Path = tuple[str, ...]
"""The parts of an absolute path without symbolic links."""


def place_problems(output: Path, load: Path, duckdb: Path, exports: Iterable[str]) -> Iterator[Problem]:
    """Yield what is wrong with the load directory and the DuckDB file.

    Args:
        output: The output directory.
        load: The load directory.
        duckdb: The DuckDB file.
        exports: The names of the exports.
    """
    names = list(exports)
    taken = {LEDGER_FOLDER, *names}
    tables = {f"{table_name(one)}{more}" for one in names for more in ("", DATA_DIRECT, ".quarantine")}
    if load == output:
        yield Problem("load.directory", "must not be the directory of the archives")
    elif _is_in(load, output, taken):
        yield Problem("load.directory", "must not be in a folder of the archives or of the ledger")
    elif _is_in(output, load, {*OWN, *tables}):
        yield Problem("load.directory", "must not have the directory of the archives in a folder of a table")
    elif _is_in(duckdb, output, taken):
        yield Problem("load.duckdb.path", "must not be in a folder of the archives or of the ledger")
    elif _is_in(duckdb, load, {*OWN, *tables}) or duckdb == load:
        yield Problem("load.duckdb.path", "must not be where files of the load are")


def _is_in(path: Path, above: Path, folders: Iterable[str]) -> bool:
    """Return whether a path is one of these folders of a directory, or in one. Some disks ignore the case of names."""
    depth = len(above)
    return path[:depth] == above and len(path) > depth and path[depth].casefold() in {one.casefold() for one in folders}
