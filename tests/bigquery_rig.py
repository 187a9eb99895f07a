"""A dataset of a test's own in BigQuery, the destination that loads into it, and what is in it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.bigquery_sql import bigquery_name
from asyncexport.core.warehouse.columns import Column, ColumnKind, Layout
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.warehouse.sinks.bigquery import BigQueryPlace, BigQuerySink
from asyncexport.warehouse.sinks.bigquery_connection import BigQueryConnection
from tests.sink_rig import EVENTS, Row, comparable, write_parquet

DAY = "2026-01-31"


def client_of(address: str) -> bigquery.Client:
    """Return a client of the tests' server, without credentials."""
    return bigquery.Client(
        project="local", credentials=AnonymousCredentials(), client_options={"api_endpoint": address}
    )


class BigQueryRig:
    """A dataset, and the destination that loads into it.

    Args:
        connect: Makes a client.
        dataset: The dataset, which does not exist.
        folder: A folder for files.
    """

    def __init__(self, connect: Callable[[], bigquery.Client], dataset: str, folder: Path) -> None:
        self._connect = connect
        self.dataset = dataset
        self.folder = folder
        self.notes: list[str] = []
        self.client = connect()
        self.sinks: list[BigQuerySink] = []
        self.sink = self.another()
        self._files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sink in self.sinks:
            sink.close()
        self.client.delete_dataset(self.dataset, delete_contents=True, not_found_ok=True)
        self.client.close()

    @property
    def of(self) -> str:
        """The dataset with its project."""
        return f"{self.client.project}.{self.dataset}"

    def another(
        self, address: str = "", *, location: str = "", retry_seconds: float = 60.0, scratch: Path | None = None
    ) -> BigQuerySink:
        """Return another destination of the same dataset, at another address if there is one."""
        connect = partial(client_of, address) if address else self._connect
        connection = BigQueryConnection(connect, retry_seconds=retry_seconds)
        place = BigQueryPlace(self.dataset, location, scratch or self.folder)
        self.sinks.append(BigQuerySink(connection, place, report=self.notes.append))
        return self.sinks[-1]

    def parquet(self, rows: Sequence[Row], layout: Layout = EVENTS) -> Path:
        """Write a Parquet file."""
        self._files += 1
        return write_parquet(self.folder / f"{self._files}.parquet", layout, rows)

    def load(self, days: Mapping[str, Sequence[Row]], layout: Layout = EVENTS, table: str = "t") -> dict[str, Path]:
        """Replace days, and return their files."""
        files = {}
        self.sink.prepare(table, layout.columns)
        for day, rows in days.items():
            files[day] = self.parquet(rows, layout)
            replaced = self.sink.replace(table, day, files[day] if rows else None, f"of {day}, {len(rows)}")
            assert replaced == len(rows)
        self.sink.finish(table, TableFacts(Type.EVENT))
        return files

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement."""
        config = bigquery.QueryJobConfig(default_dataset=self.of, use_query_cache=False)
        return [tuple(row.values()) for row in self.client.query(text, job_config=config).result()]

    def rows(self, columns: Sequence[Column] = EVENTS.columns, table: str = "t") -> Counter[tuple[Any, ...]]:
        """Return the multiset of the rows, in the form of `rows_in_parquet`."""
        names = ", ".join(map(as_read, columns))
        found = self.query(f"SELECT {names}, CAST(`date` AS STRING) FROM {table}")
        return Counter((*comparable(row[:-1], columns), row[-1]) for row in found)

    def jobs(self) -> list[bigquery.LoadJob]:
        """Return the load jobs of the dataset."""
        found = self.client.list_jobs(max_results=1000)
        return [job for job in found if isinstance(job, bigquery.LoadJob) and self._is_here(job)]

    def _is_here(self, job: bigquery.LoadJob) -> bool:
        return job.destination is not None and job.destination.dataset_id == self.dataset


def as_read(column: Column) -> str:
    """Return a column as `readable` does for DuckDB."""
    name = f"`{bigquery_name(column.name)}`"
    return f"UNIX_MICROS({name})" if column.kind is ColumnKind.TIME else name
