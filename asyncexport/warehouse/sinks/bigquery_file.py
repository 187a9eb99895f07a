"""The file that a load job reads: the day's Parquet file with `date` as a column, and only times that BigQuery holds.

A table that is partitioned by a column needs the column in the file, also if a job names the partition.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from asyncexport.core.warehouse import bigquery_sql
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.errors import SinkError
from asyncexport.warehouse.sinks.bigquery_connection import NAME


@dataclass(frozen=True, slots=True)
class DayFile:
    """A file for a load job.

    Attributes:
        path: The file.
        rows: Its rows.
        odd_times: Of these, the rows with a time that BigQuery cannot hold. It is NULL in the file.
        columns: The names of its columns, without `date`.
    """

    path: Path
    rows: int
    odd_times: int
    columns: tuple[str, ...]


@contextmanager
def day_file(parquet: Path, *, day: str, scratch: Path, memory: int) -> Iterator[DayFile]:
    """Make the file, and remove it afterwards.

    Args:
        parquet: The Parquet file of the day.
        day: The date.
        scratch: The folder for temporary files.
        memory: DuckDB's memory limit, in bytes.

    Raises:
        SinkError: the Parquet file cannot be read, or the disk is full.
    """
    with TemporaryDirectory(prefix="bigquery-", dir=scratch) as folder:
        yield _made(parquet, Path(folder), day=day, memory=memory)


def _made(parquet: Path, folder: Path, *, day: str, memory: int) -> DayFile:
    target, source = folder / "day.parquet", str(parquet)
    try:
        with duckdb.connect(config={"threads": 1, "memory_limit": f"{memory}B"}) as duck:
            duck.execute(f"SET TimeZone = 'UTC'; SET temp_directory = {literal(str(folder / 'spill'))}")
            found = duck.execute(
                f"DESCRIBE SELECT * FROM read_parquet({one_file(source)}, hive_partitioning = false)"
            ).fetchall()
            types = {str(column): str(type_) for column, type_, *_ in found}
            rows, odd_times = duck.execute(bigquery_sql.row_counts_of_file(types, file=source)).fetchall()[0]
            duck.execute(bigquery_sql.day_file(types, day=day, file=source, target=str(target)))
    except duckdb.Error as error:
        raise SinkError(f"could not prepare {parquet} for BigQuery: {str(error).splitlines()[0]}", sink=NAME) from error
    return DayFile(target, rows, odd_times, tuple(map(bigquery_sql.bigquery_name, types)))
