"""The statements for DuckDB: a table as a view over Parquet files, or as a copy of them."""

from collections.abc import Sequence

from asyncexport.core.warehouse.columns import DATE, Column, ColumnKind
from asyncexport.core.warehouse.identifiers import literal, quoted

SCHEMA = "main"

DAY_FILES = f"date={'[0-9]' * 4}-{'[0-9]' * 2}-{'[0-9]' * 2}/data.parquet"
"""The pattern of the files of days in the folder of a table."""


def qualified(name: str) -> str:
    """Return a table or a view of ours as it stands in a statement."""
    return f"{quoted(SCHEMA)}.{quoted(name)}"


def one_file(path: str) -> str:
    """Return the pattern that matches exactly this file, as a text in SQL: DuckDB takes every path for a pattern."""
    return literal(_escaped(path))


def day_files(folder: str) -> str:
    """Return the pattern that matches the file of each day in the folder of a table, as a text in SQL.

    It does not match a folder such as `date=old`, which would make every query of the view fail.
    """
    return literal(f"{_escaped(folder)}/{DAY_FILES}")


def _escaped(path: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


def over_parquet(columns: Sequence[Column], folder: str, *, has_files: bool) -> str:
    """Return the query of the view over the files of all days, with the columns and then `date`.

    1. A pattern that matches no file is an error in DuckDB, so without files the view has the columns but no source.
    2. The files of days that were loaded before a column was added lack it, so columns are matched by name, and a
       first part without rows has them all.
    3. The day is read from the name of the folder. DuckDB then reads only the days that a query asks for, but takes
       every part `name=value` of the path for a column. If a folder above has such a name, the day is read from the
       path as a text instead, and all files are opened.

    Args:
        columns: The columns.
        folder: The absolute path of the table's folder.
        has_files: Whether it has the file of a day.
    """
    names = ", ".join(_shown(column) for column in columns)
    nothing = ", ".join(f"CAST(NULL AS {_stored(column)}) AS {quoted(column.name)}" for column in columns)
    if not has_files:
        return f"SELECT {names}, {quoted(DATE.name)} FROM (SELECT {nothing}, CAST(NULL AS DATE) AS date WHERE false)"
    if "=" in folder:
        day = r"CAST(regexp_extract(filename, 'date=([0-9-]+)/data\.parquet$', 1) AS DATE) AS date"
        place, reading = "CAST(NULL AS VARCHAR) AS filename", "hive_partitioning = false, filename = true"
    else:
        day = quoted(DATE.name)
        place, reading = "CAST(NULL AS DATE) AS date", "hive_partitioning = true, hive_types = {'date': DATE}"
    files = f"SELECT * FROM read_parquet({day_files(folder)}, union_by_name = true, {reading})"
    return f"SELECT {names}, {day} FROM (SELECT {nothing}, {place} WHERE false UNION ALL BY NAME {files})"


def _stored(column: Column) -> str:
    """Return the type in a Parquet file, where JSON is text."""
    return ColumnKind.TEXT.value if column.kind is ColumnKind.JSON else column.kind.value


def _shown(column: Column) -> str:
    name = quoted(column.name)
    return f"CAST({name} AS JSON) AS {name}" if column.kind is ColumnKind.JSON else name


def comments(table: str, columns: Sequence[Column]) -> list[str]:
    """Return the statements that give each column its description."""
    return [
        f"COMMENT ON COLUMN {qualified(table)}.{quoted(column.name)} IS {literal(column.says)}" for column in columns
    ]


def created(table: str, columns: Sequence[Column]) -> str:
    """Return the statement that makes a table with these columns."""
    of = ", ".join(f"{quoted(column.name)} {column.kind.value}" for column in columns)
    return f"CREATE TABLE {qualified(table)} ({of})"


def insertion(table: str, day: str, path: str) -> str:
    """Return the statement that adds the rows of a file to a table."""
    rows = f"SELECT *, DATE {literal(day)} AS date FROM read_parquet({one_file(path)}, hive_partitioning = false)"
    return f"INSERT INTO {qualified(table)} BY NAME {rows}"
