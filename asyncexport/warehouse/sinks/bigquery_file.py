"""The file that a load job reads: the rows of the day's Parquet file in the columns of the table, `date` among them.

A table that is partitioned by a column needs the column in the file, also if a job names the partition.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from asyncexport.core.warehouse import bigquery_sql
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.warehouse.faults import storage_error, unread_file
from asyncexport.warehouse.sinks.bigquery_connection import NAME


@dataclass(frozen=True, slots=True)
class DayFile:
    """A file for a load job.

    Attributes:
        path: The file.
        rows: Its rows.
        odd_times: Of these, the rows with a time that BigQuery cannot hold. It is NULL in the file.
    """

    path: Path
    rows: int
    odd_times: int


@contextmanager
def day_file(parquet: Path, fields: Mapping[str, str], *, day: str, scratch: Path, memory: int) -> Iterator[DayFile]:
    """Make the file, and remove it afterwards.

    Args:
        parquet: The Parquet file of the day.
        fields: The columns of the table, and their types.
        day: The date.
        scratch: The folder for temporary files.
        memory: DuckDB's memory limit, in bytes.

    Raises:
        SinkError: the Parquet file cannot be read.
        StorageError: the disk is full or failed.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="bigquery-", dir=scratch))
            file = _made(parquet, fields, Path(folder), day=day, memory=memory)
        except OSError as error:
            raise storage_error(error, scratch) from error
        yield file


def _made(parquet: Path, fields: Mapping[str, str], folder: Path, *, day: str, memory: int) -> DayFile:
    target, source = folder / "day.parquet", str(parquet)
    try:
        with duckdb.connect(config={"threads": 1, "memory_limit": f"{memory}B"}) as duck:
            duck.execute(f"SET TimeZone = 'UTC'; SET temp_directory = {literal(str(folder / 'spill'))}")
            found = duck.execute(
                f"DESCRIBE SELECT * FROM read_parquet({one_file(source)}, hive_partitioning = false)"
            ).fetchall()
            types = {str(column): str(type_) for column, type_, *_ in found}
            rows, odd_times = duck.execute(bigquery_sql.row_counts_of_file(types, file=source)).fetchall()[0]
            query = bigquery_sql.day_file(types, fields, day=day, file=source)
            duck.execute(f"COPY ({query}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)")
    except duckdb.Error as error:
        raise unread_file(parquet, error, sink=NAME, scratch=folder) from error
    return DayFile(target, rows, odd_times)
