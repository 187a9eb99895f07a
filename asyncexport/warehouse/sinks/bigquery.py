"""The destination BigQuery: a table partitioned by day, each day replaced by one load job.

1. A load job cannot be part of a transaction, so the order of the steps is: the record says which job will load the
   day; the job; the record has the receipt. A load that is killed between two of them leaves a day without a receipt,
   and the next one looks for the job first.
2. A table that was made beforehand is used as it is, if it is partitioned by day of `date`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from asyncexport.core.text import show_duration
from asyncexport.core.warehouse import bigquery_sql
from asyncexport.core.warehouse.bigquery_sql import TYPES, Field, bigquery_name, described
from asyncexport.core.warehouse.columns import DATE, Column
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.errors import SinkError
from asyncexport.warehouse.sinks.bigquery_connection import NAME, BigQueryConnection
from asyncexport.warehouse.sinks.bigquery_file import day_file
from asyncexport.warehouse.sinks.bigquery_jobs import BigQueryJobs
from asyncexport.warehouse.sinks.bigquery_record import BigQueryRecord


@dataclass(frozen=True, slots=True)
class BigQueryPlace:
    """Where the tables are, and what a load may use here.

    Attributes:
        dataset: The dataset, which is made if it does not exist.
        location: Its location; "" for BigQuery's default, or wherever it is.
        scratch: A folder for temporary files.
        memory: DuckDB's memory limit, in bytes.
    """

    dataset: str
    location: str
    scratch: Path
    memory: int = 1 << 30


class BigQuerySink:
    """BigQuery.

    Args:
        connection: The connection.
        place: Where the tables are.
        report: Called with messages for the user.
    """

    name = NAME

    def __init__(self, connection: BigQueryConnection, place: BigQueryPlace, *, report: Callable[[str], None]) -> None:
        self._connection = connection
        self._retry = connection.retry
        self._place = place
        self._report = report
        self._record = BigQueryRecord(connection, place.dataset)
        self._jobs = BigQueryJobs(connection, self._record)
        self._expiring: set[str] = set()

    def reach(self) -> None:
        """Look up the dataset, which may not exist yet (`Sink`)."""
        with self._connection.client("look up the dataset") as client, suppress(NotFound):
            client.get_dataset(f"{client.project}.{self._place.dataset}", retry=self._retry)

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return the receipt of each day (`Sink`)."""
        with self._connection.client(f"read the receipts of {table}") as client:
            return {} if self._found(client, table) is None else self._record.receipts(client, table)

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return the rows of each day (`Sink`)."""
        days = self.receipts(table)
        if not days:
            return {}
        with self._connection.client(f"count the rows of {table}") as client:
            of = bigquery_sql.qualified(client.project, self._place.dataset, table)
            text = f"SELECT `date`, count(*) FROM {of} WHERE `date` IS NOT NULL GROUP BY `date`"
            found = client.query(text, retry=self._retry).result(retry=self._retry)
            counts = {str(day): int(rows) for day, rows in found}
        return {day: counts.get(day, 0) for day in days}

    def prepare(self, table: str, columns: Sequence[Column]) -> None:
        """Make the table, or add what it lacks (`Sink`)."""
        wanted = (*columns, DATE)
        with self._connection.client(f"prepare the table {table}") as client:
            self._make_dataset(client)
            self._record.make(client)
            found = self._found(client, table)
            if found is None:
                self._record.forget(client, table)  # receipts of a table that was dropped
                made = bigquery.Table(self._of(client, table), schema=[_field(column) for column in wanted])
                made.time_partitioning = bigquery.TimePartitioning(field=DATE.name)
                made.clustering_fields = list(bigquery_sql.clustering(columns)) or None
                client.create_table(made, retry=self._retry)
            elif lacking := _missing(found, wanted):
                found.schema = [*found.schema, *(_field(column) for column in lacking)]
                client.update_table(found, ["schema"], retry=self._retry)

    def replace(self, table: str, day: str, parquet: Path | None, receipt: str) -> int:
        """Replace a day (`Sink`)."""
        rows = odd_times = 0
        with self._connection.client(f"replace {day} of {table}") as client:
            into = client.get_table(self._of(client, table), retry=self._retry)
            load = bigquery_sql.next_load(self._record.load(client, table, day), receipt)
            if parquet is None:
                job = self._jobs.delete(client, into, day, load)
            else:
                fields, place = {one.name: one.field_type for one in into.schema}, self._place
                with day_file(parquet, fields, day=day, scratch=place.scratch, memory=place.memory) as file:
                    job = self._jobs.load(client, into, day, load=load, file=file)
                    rows, odd_times = file.rows, file.odd_times
            was_alone = self._record.end(client, table, day, job=job, rows=rows)
            self._report_expiry(into, day)
        if not was_alone:
            raise SinkError(
                f"could not replace {day} of {table} in BigQuery: another load replaced it at the same time",
                sink=NAME,
                hint="load again, from one place at a time",
            )
        if odd_times:
            self._report(
                f"bigquery: {odd_times} rows of {table}, {day}, have a time before the year 1 or after 9999, which "
                "BigQuery cannot hold; it is NULL there"
            )
        return rows

    def _report_expiry(self, table: bigquery.Table, day: str) -> None:
        """Say once of a table that BigQuery deletes a day again."""
        by, name = table.time_partitioning, str(table.table_id)
        kept = None if by is None or not by.expiration_ms else by.expiration_ms / 1000
        if kept and name not in self._expiring and bigquery_sql.is_expired(day, kept, now=time.time()):
            self._expiring.add(name)
            self._report(
                f"bigquery: the partitions of {name} expire after {show_duration(kept)}, so BigQuery deletes {day} and "
                "other old days; remove the partition expiration of the table, or load later days only, with --start"
            )

    def finish(self, table: str, facts: TableFacts) -> None:
        """Do nothing, since there are no views (`Sink`)."""

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _of(self, client: bigquery.Client, table: str) -> str:
        return f"{client.project}.{self._place.dataset}.{table}"

    def _found(self, client: bigquery.Client, table: str) -> bigquery.Table | None:
        try:
            return client.get_table(self._of(client, table), retry=self._retry)
        except NotFound:
            return None

    def _make_dataset(self, client: bigquery.Client) -> None:
        name, wanted = f"{client.project}.{self._place.dataset}", self._place.location
        try:
            found = client.get_dataset(name, retry=self._retry)
        except NotFound:
            made = bigquery.Dataset(name)
            made.location = wanted or None
            client.create_dataset(made, exists_ok=True, retry=self._retry)
            return
        if wanted and found.location and found.location.lower() != wanted.lower():
            raise SinkError(
                f"could not load into BigQuery: the dataset {name} is in {found.location}, not in {wanted}",
                sink=NAME,
                hint="correct location in [load.bigquery], or leave it empty",
            )


def _field(column: Column) -> bigquery.SchemaField:
    return bigquery.SchemaField(bigquery_name(column.name), TYPES[column.kind], description=described(column))


def _missing(found: bigquery.Table, wanted: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns that a table lacks.

    Raises:
        SinkError: the table cannot be loaded.
    """
    hint = "change it, or rename the table; asyncexport then makes its own"
    by = found.time_partitioning
    if found.table_type != "TABLE":
        fault = f"it is a {str(found.table_type).lower().replace('_', ' ')}"
    elif by is None or (by.type_, str(by.field).lower()) != ("DAY", DATE.name):
        fault = "it is not partitioned by day of its column date"
    else:
        fields = [
            Field(one.name, one.field_type, is_required=one.mode == "REQUIRED", is_repeated=one.mode == "REPEATED")
            for one in found.schema
        ]
        try:
            return bigquery_sql.missing(wanted, fields)
        except ValueError as error:
            fault = str(error)
    raise SinkError(f"could not load into the BigQuery table {found.table_id}: {fault}", sink=NAME, hint=hint)
