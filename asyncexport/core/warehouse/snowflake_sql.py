"""The statements for Snowflake.

1. Names are in capitals, as Snowflake stores all names that are written without quotes. So queries need no quotes, and
   the Data Direct table has the vendor's names. A name that would need quotes anyway, such as one with an umlaut, is
   kept as it is.
2. A text may have a backslash, which is the beginning of an escape in Snowflake.
3. What to cast a value to depends on the table as it is, because it may have been made beforehand.
4. JSON that Snowflake refuses, for example with a name twice in one object, becomes a string with the JSON as written.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from asyncexport.core.warehouse.columns import DATE, Column, ColumnKind
from asyncexport.core.warehouse.identifiers import quoted
from asyncexport.core.warehouse.table_columns import missing_columns
from asyncexport.core.warehouse.views import LOADS, TABLES

STAGE = "_asyncexport_stage"
"""The stage that files are uploaded to. A table's own stage would not do: only the table's owner may use it."""

LONGEST_NAME = 255
"""Characters."""

DIGEST_CHARACTERS = 8

TYPES: Mapping[ColumnKind, str] = {
    ColumnKind.INTEGER: "NUMBER(19,0)",
    ColumnKind.TIME: "TIMESTAMP_TZ(6)",
    ColumnKind.REAL: "FLOAT",
    ColumnKind.SWITCH: "BOOLEAN",
    ColumnKind.TEXT: "VARCHAR",
    ColumnKind.JSON: "VARIANT",
    ColumnKind.DAY: "DATE",
}
"""The type that a column gets, unless it has one of its own (`Column.in_snowflake`)."""

FITTING: Mapping[ColumnKind, str] = {
    ColumnKind.INTEGER: r"NUMBER\((19|[23]\d),0\)",
    ColumnKind.TIME: r"TIMESTAMP_(TZ|LTZ|NTZ)\([6-9]\)",
    ColumnKind.REAL: "FLOAT|DOUBLE",
    ColumnKind.SWITCH: "BOOLEAN",
    ColumnKind.TEXT: r"VARCHAR(\(\d+\))?",
    ColumnKind.JSON: r"VARIANT|VARCHAR(\(\d+\))?",
    ColumnKind.DAY: "DATE",
}
"""The types in which a column may be made beforehand, as a regular expression over the server's spelling."""

RECORDS: Mapping[str, Mapping[str, str]] = {
    TABLES: {
        "TABLE_NAME": "VARCHAR NOT NULL",
        "ORGANISATION": "VARCHAR",
        "COMPLETE_UNTIL": "TIMESTAMP_TZ(6)",
        "LOADED_AT": "TIMESTAMP_TZ(6)",
    },
    LOADS: {
        "TABLE_NAME": "VARCHAR NOT NULL",
        "DAY": "DATE NOT NULL",
        "RECEIPT": "VARCHAR NOT NULL",
        "ROW_COUNT": "NUMBER(19,0) NOT NULL",
        "LOADED_AT": "TIMESTAMP_TZ(6) NOT NULL",
    },
}
"""The columns of our own two tables."""

VARIANT = "VARIANT"

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")

_PLAIN_PLACE = re.compile(r'[A-Za-z0-9_$@"./-]+')
"""A place in a stage that needs no quotes around it."""


def snowflake_name(name: str) -> str:
    """Return the name that something has in Snowflake (rule 1)."""
    if _PLAIN_NAME.fullmatch(name):
        name = name.upper()
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - DIGEST_CHARACTERS - 1]}_{sha256(name.encode()).hexdigest()[:DIGEST_CHARACTERS]}"


def name_of_setting(text: str) -> str:
    """Return the name that a setting means: as Snowflake reads it, so one in quotes keeps its case."""
    if len(text) > 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return snowflake_name(text)


def literal(text: str) -> str:
    """Return a text as it stands in a statement (rule 2)."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def column_type(column: Column) -> str:
    """Return the type that a column gets."""
    return column.in_snowflake or TYPES[column.kind]


def missing(columns: Iterable[Column], types: Mapping[str, str]) -> tuple[Column, ...]:
    """Return the columns that a table with these columns and types lacks.

    Raises:
        ValueError: a column has a type that cannot hold its values.
    """
    return missing_columns(
        columns,
        types,
        name_of=lambda column: snowflake_name(column.name),
        type_of=column_type,
        fits=lambda column, type_: re.fullmatch(FITTING[column.kind], type_) is not None,
    )


class SnowflakeSchema:
    """The statements for one schema.

    Args:
        database: The database, as it is stored.
        name: The schema, as it is stored.
    """

    def __init__(self, database: str, name: str) -> None:
        self.database = database
        self.name = name

    @property
    def qualified(self) -> str:
        """The schema as it stands in a statement."""
        return f"{quoted(self.database)}.{quoted(self.name)}"

    def of(self, name: str) -> str:
        """Return a table or a stage as it stands in a statement."""
        return f"{self.qualified}.{quoted(snowflake_name(name))}"

    def made_record(self, name: str) -> str:
        """Return the statement that makes one of our own tables (`RECORDS`)."""
        columns = ", ".join(f"{column} {type_}" for column, type_ in RECORDS[name].items())
        return f"CREATE TABLE IF NOT EXISTS {self.of(name)} ({columns})"

    def created(self, table: str, columns: Sequence[Column]) -> str:
        """Return the statement that makes a table."""
        return f"CREATE TABLE {self.of(table)} ({', '.join(map(_defined, columns))})"

    def added(self, table: str, columns: Sequence[Column]) -> str:
        """Return the statement that adds columns to a table."""
        return f"ALTER TABLE {self.of(table)} ADD COLUMN {', '.join(map(_defined, columns))}"

    def staged(self, table: str, day: str, receipt: str, *, file: str = "") -> str:
        """Return where the file of a day is uploaded to, the folder or the file: for each receipt another place."""
        digest = sha256(f"{table}\0{day}\0{receipt}".encode()).hexdigest()[:32]
        place = f"@{self.of(STAGE)}/{day}/{digest}/{file}"
        return place if _PLAIN_PLACE.fullmatch(place) else literal(place)

    def upload(self, file: str, folder: str) -> str:
        """Return the statement that uploads a file; `folder` as of `staged`."""
        place = literal(f"file://{file}")
        return f"PUT {place} {folder} AUTO_COMPRESS = FALSE OVERWRITE = TRUE PARALLEL = 4"

    def copy(self, table: str, columns: Iterable[str], types: Mapping[str, str], *, day: str, file: str) -> str:
        """Return the statement that adds the rows of an uploaded file to a table, and deletes the file.

        Args:
            table: The table.
            columns: The columns of the file.
            types: The columns of the table, with their types as the server writes them.
            day: The date.
            file: Where the file is, as of `staged`.
        """
        values = {name: _value(name, types[snowflake_name(name)]) for name in columns} | {DATE.name: _date(day)}
        into = ", ".join(quoted(snowflake_name(name)) for name in values)
        return (
            f"COPY INTO {self.of(table)} ({into}) FROM (SELECT {', '.join(values.values())} FROM {file}) "
            "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE) ON_ERROR = ABORT_STATEMENT FORCE = TRUE "
            "PURGE = TRUE"
        )

    def delete(self, table: str, day: str) -> str:
        """Return the statement that deletes a day."""
        return f"DELETE FROM {self.of(table)} WHERE {quoted(snowflake_name(DATE.name))} = {_date(day)}"

    def forget(self, table: str, day: str | None = None) -> str:
        """Return the statement that deletes the receipt of a day, or of all days."""
        of_day = "" if day is None else f" AND DAY = {_date(day)}"
        return f"DELETE FROM {self.of(LOADS)} WHERE TABLE_NAME = {literal(table)}{of_day}"

    def record(self, table: str, day: str, receipt: str, rows: int) -> str:
        """Return the statement that records the receipt of a day."""
        values = f"{literal(table)}, {_date(day)}, {literal(receipt)}, {rows}, CURRENT_TIMESTAMP()"
        return f"INSERT INTO {self.of(LOADS)} (TABLE_NAME, DAY, RECEIPT, ROW_COUNT, LOADED_AT) SELECT {values}"

    def lock(self, table: str) -> str:
        """Return the statement that keeps other loaders of a table waiting until the transaction ends."""
        return f"UPDATE {self.of(TABLES)} SET LOADED_AT = CURRENT_TIMESTAMP() WHERE TABLE_NAME = {literal(table)}"


def _date(day: str) -> str:
    return f"DATE {literal(day)}"


def _defined(column: Column) -> str:
    name = snowflake_name(column.name)
    says = column.says if len(column.name) <= LONGEST_NAME else f"{column.name}: {column.says}"
    return f"{quoted(name)} {column_type(column)} COMMENT {literal(says)}"


def _value(name: str, type_: str) -> str:
    """Return a value of the file as a column of this type holds it (rule 4)."""
    value = f"$1:{quoted(name)}"
    text = f"{value}::VARCHAR"
    if type_.startswith("VARCHAR"):
        return text  # a cast with a length may cut the text, and without one the column refuses what is too long
    if type_ != VARIANT:
        return f"{value}::{type_}"
    return f"CASE WHEN CHECK_JSON({text}) IS NULL THEN PARSE_JSON({text}) ELSE TO_VARIANT({text}) END"
