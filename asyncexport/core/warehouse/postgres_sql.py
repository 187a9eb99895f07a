"""The statements for PostgreSQL.

1. A table is partitioned by month of `date`. A table that the user has made beforehand is used as it is: it may be
   partitioned in another way or not at all, and may have more columns, and other types for some.
2. A partition is made as a table of its own and then attached, since that does not wait for queries on the table, nor
   do they wait for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from asyncexport.core.warehouse.columns import DATE, Column, ColumnKind
from asyncexport.core.warehouse.identifiers import literal, postgres_name, quoted
from asyncexport.core.warehouse.table_columns import missing_columns
from asyncexport.core.warehouse.views import LOADS, TABLES

TYPES: Mapping[ColumnKind, tuple[str, ...]] = {
    ColumnKind.INTEGER: ("bigint", "numeric"),
    ColumnKind.TIME: ("timestamp with time zone",),
    ColumnKind.REAL: ("double precision",),
    ColumnKind.SWITCH: ("boolean",),
    ColumnKind.TEXT: ("text", "character varying"),
    ColumnKind.JSON: ("jsonb", "json", "text"),
    ColumnKind.DAY: ("date",),
}
"""The type that a column gets, and others in which it may be made beforehand."""

JSONB = "jsonb"
"""The type that does not hold all JSON; `json` does."""

BY_DATE = f"RANGE ({DATE.name})"
"""The partition key of our tables, as the server writes it."""

RECORDS: Mapping[str, Mapping[str, str]] = {
    TABLES: {
        "table_name": "text",
        "organisation": "text",
        "complete_until": "timestamp with time zone",
        "views": "text",
    },
    LOADS: {
        "table_name": "text",
        "day": "date",
        "receipt": "text NOT NULL",
        "rows": "bigint NOT NULL",
        "loaded_at": "timestamp with time zone NOT NULL",
    },
}
"""The columns of our own two tables."""

KEY = ("table_name", "day")
"""The columns that are their primary keys, as far as they have them."""


def qualified(schema: str, name: str) -> str:
    """Return a table or a view as it stands in a statement."""
    return f"{quoted(schema)}.{quoted(postgres_name(name))}"


def made_record(schema: str, name: str) -> str:
    """Return the statement that makes one of our own tables (`RECORDS`)."""
    columns = [f"{column} {type_}" for column, type_ in RECORDS[name].items()]
    key = f"PRIMARY KEY ({', '.join(column for column in RECORDS[name] if column in KEY)})"
    return f"CREATE TABLE {qualified(schema, name)} ({', '.join((*columns, key))})"


def created(schema: str, table: str, columns: Sequence[Column]) -> list[str]:
    """Return the statements that make a table: partitioned, with an index that finds a day within its month."""
    name = qualified(schema, table)
    of = ", ".join(_defined(column) for column in columns)
    return [
        f"CREATE TABLE {name} ({of}) PARTITION BY RANGE ({quoted(DATE.name)})",
        f"CREATE INDEX ON {name} USING brin ({quoted(DATE.name)})",
        *comments(schema, table, columns),
    ]


def added(schema: str, table: str, columns: Sequence[Column]) -> list[str]:
    """Return the statements that add columns to a table."""
    if not columns:
        return []
    changes = ", ".join(f"ADD COLUMN {_defined(column)}" for column in columns)
    return [f"ALTER TABLE {qualified(schema, table)} {changes}", *comments(schema, table, columns)]


def comments(schema: str, table: str, columns: Iterable[Column]) -> list[str]:
    """Return the statements that describe columns. A column whose name was shortened has the full name there."""
    name = qualified(schema, table)
    return [
        f"COMMENT ON COLUMN {name}.{quoted(postgres_name(column.name))} IS {literal(_described(column))}"
        for column in columns
    ]


def _described(column: Column) -> str:
    return column.says if postgres_name(column.name) == column.name else f"{column.name}: {column.says}"


def _defined(column: Column) -> str:
    return f"{quoted(postgres_name(column.name))} {TYPES[column.kind][0]}"


def missing(columns: Iterable[Column], types: Mapping[str, str]) -> tuple[Column, ...]:
    """Return the columns that a table with these columns and types lacks.

    Raises:
        ValueError: a column has a type that cannot hold its values.
    """
    return missing_columns(
        columns,
        types,
        name_of=lambda column: postgres_name(column.name),
        type_of=lambda column: TYPES[column.kind][0],
        fits=lambda column, type_: type_ in TYPES[column.kind],
    )


def accepts(partition_constraints: Iterable[str], day: str) -> str:
    """Return the query that tells whether a partition takes the rows of a day.

    Args:
        partition_constraints: The constraint of each partition, as the server writes it.
        day: The date.
    """
    any_of = " OR ".join(f"({constraint})" for constraint in partition_constraints) or "false"
    return f"SELECT {any_of} FROM (SELECT DATE {literal(day)} AS {DATE.name}) AS wanted"


def partitioned(schema: str, table: str, day: str) -> list[str]:
    """Return the statements that make the partition of a day's month (rule 2)."""
    first = date.fromisoformat(day).replace(day=1)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    name, part = qualified(schema, table), qualified(schema, f"{table}__{first:%Y_%m}")
    return [
        f"CREATE TABLE {part} (LIKE {name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)",
        f"ALTER TABLE {name} ATTACH PARTITION {part} FOR VALUES FROM ('{first}') TO ('{after}')",
    ]
