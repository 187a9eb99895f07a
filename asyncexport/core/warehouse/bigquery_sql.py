"""The tables, statements and job ids for BigQuery.

1. A table is partitioned by day of `date`, since that is the unit in which it is replaced, and clustered by what
   queries select: user, session, time. That also holds for the Data Direct table: its `event_time` comes from the
   device's clock and may be outside the day of the bundle, so a partition by it could not be replaced as one piece.
2. All JSON is STRING: a load job cannot fill a JSON column from Parquet, and STRING keeps every value as it is written.
   BigQuery's JSON functions accept it.
3. BigQuery treats names of columns as equal if only their case differs.
4. A load job gets the schema of the table as it is, and a file with exactly these columns: otherwise a job that
   replaces rows might change the schema, or fail for a column that the file lacks. What a day does not have is NULL.
5. The record of loaded days says before each load which job will do it, so the next load finds that job after a crash.
   Each load of a day has a number of its own, so a job is never taken for an earlier one that loaded the same archives.
   If the record was lost, numbers begin anew; so only a load that the record knew before is looked up by its job.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from asyncexport.core.bundles import DAY, read_moment
from asyncexport.core.warehouse.columns import DATE, Column, ColumnKind
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal, quoted
from asyncexport.core.warehouse.views import LOADS

TYPES: Mapping[ColumnKind, str] = {
    ColumnKind.INTEGER: "INTEGER",
    ColumnKind.TIME: "TIMESTAMP",
    ColumnKind.REAL: "FLOAT",
    ColumnKind.SWITCH: "BOOLEAN",
    ColumnKind.TEXT: "STRING",
    ColumnKind.JSON: "STRING",
    ColumnKind.DAY: "DATE",
}
"""The type of each kind of column, as the API names it."""

EMPTY: Mapping[str, str] = {
    "INTEGER": "BIGINT",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "STRING": "VARCHAR",
    "DATE": "DATE",
}
"""The types of further columns that a file can have as NULL (rule 4), with their types in DuckDB."""

CLUSTERINGS = (("UserId", "SessionId", "EventStart"), ("device_id", "session_id", "event_time"), ("IndvId",))
"""The columns that a table is clustered by: the first of these that it has all of."""

RECORD: Mapping[str, str] = {
    "table_name": "STRING",
    "day": "DATE",
    "receipt": "STRING",
    "rows": "INTEGER",
    "loaded_at": "TIMESTAMP",
    "wanted": "STRING",
    "job": "STRING",
    "number": "INTEGER",
}
"""The columns of `_asyncexport_loads`. While a day is being loaded, `receipt` is NULL, and `wanted` is what it will be.
`job` is the job of the latest load of the day, and `number` counts its loads."""

LONGEST_NAME = 300
"""Characters of a column's name."""

LONGEST_LABEL = 63

LONGEST_IN_ID, DIGEST_CHARACTERS = 200, 32
"""Characters of a job's id: of the table's name, and of the digest."""

FIRST_TIME, LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, in microseconds since 1970: the times that a TIMESTAMP holds."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column that a table has.

    Attributes:
        name: Its name.
        type: Its type, as the API names it.
        is_required: Whether it must not be NULL.
        is_repeated: Whether it is an array.
    """

    name: str
    type: str
    is_required: bool = False
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class DayLoad:
    """One load of a day, as recorded.

    Attributes:
        receipt: What the day will have been made from.
        number: The number of the load, counted from 1.
        is_over: Whether it has ended.
        was_begun: Whether the record has had it before, so that there may be a job that does it.
    """

    receipt: str
    number: int
    is_over: bool
    was_begun: bool = False


def bigquery_name(name: str) -> str:
    """Return the name that a column has: letters, digits and underscores, or else shortened and with a digest."""
    fitting = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if fitting == name and len(name) <= LONGEST_NAME:
        return name
    return f"{fitting[: LONGEST_NAME - 9]}_{sha256(name.encode()).hexdigest()[:8]}"


def described(column: Column) -> str:
    """Return the description of a column; it has the full name if that is another one."""
    return column.says if bigquery_name(column.name) == column.name else f"{column.name}: {column.says}"


def clustering(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the columns that a table is clustered by."""
    names = {column.name for column in columns}
    return next((wanted for wanted in CLUSTERINGS if names.issuperset(wanted)), ())


def missing(columns: Iterable[Column], fields: Iterable[Field]) -> tuple[Column, ...]:
    """Return the columns that a table lacks.

    Args:
        columns: The columns that it should have.
        fields: Those that it has.

    Raises:
        ValueError: one of them cannot be filled.
    """
    wanted = {bigquery_name(column.name).lower(): column for column in columns}
    for field in fields:
        if field.is_required:
            raise ValueError(f"its column {field.name} is REQUIRED, but the columns of a day's file are NULLABLE")
        type_ = f"ARRAY of {field.type}" if field.is_repeated else field.type
        column = wanted.pop(field.name.lower(), None)
        if column is None and type_ not in EMPTY:
            raise ValueError(f"its column {field.name} is {type_}, which asyncexport cannot leave empty")
        if column is not None and type_ != TYPES[column.kind]:
            raise ValueError(f"its column {field.name} is {type_}, not {TYPES[column.kind]}")
    return tuple(wanted.values())


def next_load(known: DayLoad | None, receipt: str) -> DayLoad:
    """Return the load that is to be done: the one that was begun, if it is for the same receipt, or else the next."""
    if known is not None and not known.is_over and known.receipt == receipt:
        return replace(known, was_begun=True)
    return DayLoad(receipt, 1 if known is None else known.number + 1, is_over=False)


def after(load: DayLoad) -> DayLoad:
    """Return the load that is to be done instead of one whose job has failed or did another load."""
    return replace(load, number=load.number + 1, was_begun=False)


def job_id(table: str, made: str, *, day: str, load: DayLoad) -> str:
    """Return the id of a job (rule 5).

    Args:
        table: The table, with its project and dataset.
        made: When the table was created: one that was dropped and made again is another table.
        day: The date.
        load: The load of the day.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", table)[-LONGEST_IN_ID:]
    digest = sha256(repr((table, made, day, load.receipt, load.number)).encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"asyncexport_{name}_{day.replace('-', '')}_{digest}"


def labels(table: str, day: str, receipt: str) -> dict[str, str]:
    """Return the labels of a job. They are shortened, and have no other characters than labels may have."""
    values = {"asyncexport_table": table, "asyncexport_day": day, "asyncexport_receipt": receipt}
    return {key: re.sub(r"[^a-z0-9_-]", "_", value.lower())[:LONGEST_LABEL] for key, value in values.items()}


def is_expired(day: str, kept_seconds: float, *, now: float) -> bool:
    """Return whether a partition has expired that is kept so long after its day; `now` in seconds since 1970."""
    return read_moment(day, now=now) + DAY + kept_seconds <= now


def partition(table: str, day: str) -> str:
    """Return the name of a day's partition."""
    return f"{table}${day.replace('-', '')}"


def day_file(columns: Mapping[str, str], fields: Mapping[str, str], *, day: str, file: str) -> str:
    """Return the query for DuckDB that gives the rows of a Parquet file as BigQuery can load them (rule 4).

    Args:
        columns: The columns of the file, and their types in DuckDB.
        fields: The columns of the table, and their types in BigQuery.
        day: The date, which becomes a column.
        file: The Parquet file of the day.
    """
    values = {bigquery_name(name).lower(): _value(name, type_) for name, type_ in columns.items()}
    values[DATE.name] = f"DATE {literal(day)}"
    selected = [
        f"{values.get(name.lower()) or f'CAST(NULL AS {EMPTY[type_]})'} AS {quoted(name)}"
        for name, type_ in fields.items()
    ]
    return f"SELECT {', '.join(selected)} FROM {_rows(file)}"


def row_counts_of_file(columns: Mapping[str, str], *, file: str) -> str:
    """Return the query for the number of rows of a Parquet file, and of those with a time that becomes NULL."""
    odd = [f"epoch_us({quoted(name)}) NOT {_HELD}" for name, type_ in columns.items() if type_ == ColumnKind.TIME.value]
    return f"SELECT count(*), count(*) FILTER (WHERE {' OR '.join(odd) or 'false'}) FROM {_rows(file)}"


_HELD = f"BETWEEN {FIRST_TIME} AND {LAST_TIME}"


def _value(name: str, type_: str) -> str:
    column = quoted(name)
    if type_ == ColumnKind.TIME.value:
        return f"CASE WHEN epoch_us({column}) {_HELD} THEN {column} END"
    return column


def _rows(file: str) -> str:
    return f"read_parquet({one_file(file)}, hive_partitioning = false)"


def qualified(*names: str) -> str:
    """Return a table as it stands in a statement: project, dataset, name."""
    return f"`{'.'.join(names)}`"


class RecordStatements:
    """The statements about `_asyncexport_loads`. Values are parameters.

    Args:
        project: The project.
        dataset: The dataset.
    """

    def __init__(self, project: str, dataset: str) -> None:
        self._of = qualified(project, dataset, LOADS)
        of_day = "table_name = @table AND day = @day"
        self.receipts = f"SELECT day, receipt FROM {self._of} WHERE table_name = @table"
        self.forget = f"DELETE FROM {self._of} WHERE table_name = @table"
        self.load = f"SELECT receipt, wanted, number FROM {self._of} WHERE {of_day}"
        self.begin = _merged(self._of)
        done = "receipt = wanted, `rows` = @rows, loaded_at = CURRENT_TIMESTAMP()"
        self.end = f"UPDATE {self._of} SET {done} WHERE {of_day} AND job = @job"
        self.doubt = f"UPDATE {self._of} SET receipt = NULL, wanted = NULL, job = NULL WHERE {of_day}"


def _merged(of: str) -> str:
    """Return the statement that records what will be loaded, and that the day has no receipt until then."""
    # The casts are for local-bigquery, which refuses a plain NULL there.
    nothing = "receipt = CAST(NULL AS STRING), `rows` = CAST(NULL AS INT64)"
    changes = f"{nothing}, wanted = @receipt, job = @job, number = @number"
    names = "table_name, day, wanted, job, number"
    return (
        f"MERGE {of} AS known USING (SELECT @table AS table_name, @day AS day) AS one "
        "ON known.table_name = one.table_name AND known.day = one.day "
        f"WHEN MATCHED THEN UPDATE SET {changes} "
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES (@table, @day, @receipt, @job, @number)"
    )
