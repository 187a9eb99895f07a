"""Whether a day in Snowflake has the values of its Parquet file: aggregates of both are compared before the commit.

COPY may load NULL or another instant without an error, for example where a name or the type of a column in the file is
not understood. So for every column the values are counted, and of numbers and times the smallest and the largest value
are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncexport.core.warehouse.columns import DATE, ColumnKind
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import quoted
from asyncexport.core.warehouse.snowflake_sql import snowflake_name

_ORDERED = (ColumnKind.INTEGER.value, ColumnKind.REAL.value)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate of a day.

    Attributes:
        says: What it is, for a message.
        in_duckdb: Its expression over the Parquet file.
        in_snowflake: Its expression over the table.
    """

    says: str
    in_duckdb: str
    in_snowflake: str


def aggregates(types: Mapping[str, str]) -> tuple[Aggregate, ...]:
    """Return what is compared; `types`: the columns of the file and their types in DuckDB."""
    found = [Aggregate("number of rows", "count(*)", "COUNT(*)")]
    for name, type_ in types.items():
        here, there = quoted(name), quoted(snowflake_name(name))
        found.append(Aggregate(f"number of values of {name}", f"count({here})", f"COUNT({there})"))
        for says, function in (("smallest", "MIN"), ("largest", "MAX")):
            says_all = f"{says} value of {name}"
            if type_ in _ORDERED:
                found.append(Aggregate(says_all, f"{function}({here})", f"{function}({there})"))
            elif type_ == ColumnKind.TIME.value:
                instant = f"DATE_PART(EPOCH_MICROSECOND, {function}({there}))"
                found.append(Aggregate(says_all, f"epoch_us({function}({here}))", instant))
    return tuple(found)


def query_of_file(compared: Sequence[Aggregate], file: str) -> str:
    """Return the query over the Parquet file, for DuckDB."""
    wanted = ", ".join(one.in_duckdb for one in compared)
    return f"SELECT {wanted} FROM read_parquet({one_file(file)}, hive_partitioning = false)"


def query_of_table(compared: Sequence[Aggregate], table: str, day: str) -> str:
    """Return the query over the day in the table, for Snowflake; `table` as it stands in a statement."""
    wanted = ", ".join(one.in_snowflake for one in compared)
    return f"SELECT {wanted} FROM {table} WHERE {quoted(snowflake_name(DATE.name))} = DATE '{day}'"


def difference(compared: Sequence[Aggregate], in_file: Sequence[Any], in_table: Sequence[Any]) -> str:
    """Return what differs first; "" if nothing does. Values are not shown: they are the customers' data."""
    for one, here, there in zip(compared, in_file, in_table, strict=True):
        if here != there:
            is_count = one.says.startswith("number")
            return f"the {one.says} is {there} instead of {here}" if is_count else f"the {one.says} is another one"
    return ""
