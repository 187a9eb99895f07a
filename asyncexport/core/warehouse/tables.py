"""The names of tables: those of the exports, in letters that every database accepts.

1. A table is named after its export, in lower case, with `_` for every character that is neither a letter nor a digit:
   `everyone-events` becomes `everyone_events`.
2. Beside it there may be a table in the shape of Data Direct and views, whose names begin with the table's.
3. Two exports must not lead to the same name, or one would overwrite the other's rows. In PostgreSQL a table has
   partitions, one a month, such as `everyone_events__2026_01`. Names that begin with `_` belong
   to asyncexport itself; no export has one, because the names of exports begin with a letter or a digit.
"""

import re
from collections.abc import Iterable, Iterator

from asyncexport.errors import Problem

DATA_DIRECT = "__datadirect"
"""What follows the name of the flat table in that of the table in the shape of Data Direct."""

PARTITION = re.compile(r"(.+)__[0-9]{4}_[0-9]{2}")
"""The name of a partition in PostgreSQL."""

VIEWS = ("", "__sessions", "__pages", "__users", "__coverage")
"""What may follow the name of a table in those of its views."""


def table_name(export: str) -> str:
    """Return the name of an export's flat table."""
    return re.sub(r"[^a-z0-9_]", "_", export.lower())


def clashes(exports: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each export whose tables or views would have the names of another's."""
    taken: dict[str, str] = {}
    every = list(exports)
    for export in every:
        names = _names_of(table_name(export))
        both = next((name for name in names if taken.get(name, export) != export), None)
        if both is not None:
            yield Problem("", f"the exports {taken[both]} and {export} would both have a table or view {both}")
        taken |= {name: export for name in names if name not in taken}
    tables = {f"{table_name(export)}{more}": export for export in every for more in ("", DATA_DIRECT)}
    for export in every:
        partition = PARTITION.fullmatch(table_name(export))
        if partition is not None and partition[1] in tables:
            owner = tables[partition[1]]
            yield Problem(
                "", f"the exports {owner} and {export} would both have a table {partition[0]}, one as a month"
            )


def _names_of(table: str) -> list[str]:
    return [f"{one}{view}" for one in (table, f"{table}{DATA_DIRECT}") for view in VIEWS]
