"""The jobs that replace a day in BigQuery.

1. A load job into the day's partition replaces all its rows at once, or none.
2. The id of a job follows from what it loads. The record has the id before the job starts. If the record had it before
   this load, and the service says that there is such a job, that one is waited for. If it has failed, or the record did
   not have it, the job gets another id: a job of long ago says nothing about the rows that are there now.
3. A day without rows is deleted by a statement. BigQuery then drops the partition, which costs nothing.
"""

from datetime import date
from typing import cast

from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.cloud import bigquery

from asyncexport.core.warehouse import bigquery_sql
from asyncexport.core.warehouse.bigquery_sql import DayLoad, after
from asyncexport.errors import SinkError
from asyncexport.warehouse.sinks.bigquery_connection import NAME, BigQueryConnection
from asyncexport.warehouse.sinks.bigquery_file import DayFile
from asyncexport.warehouse.sinks.bigquery_record import BigQueryRecord

JOB_SECONDS = 3600.0
"""How long a job is waited for. One that takes longer is found by the next load."""


class BigQueryJobs:
    """Runs jobs and records them; errors are those of the client.

    Args:
        connection: The connection.
        record: The record of loaded days.
    """

    def __init__(self, connection: BigQueryConnection, record: BigQueryRecord) -> None:
        self._retry = connection.retry
        self._record = record

    def delete(self, client: bigquery.Client, table: bigquery.Table, day: str, load: DayLoad) -> str:
        """Delete the rows of a day, and return what the record has as its job."""
        job = job_id(table, day, load)
        self._record.begin(client, table.table_id, day, load=load, job=job)
        of = bigquery_sql.qualified(table.project, table.dataset_id, table.table_id)
        parameters = [bigquery.ScalarQueryParameter("day", "DATE", date.fromisoformat(day))]
        config = bigquery.QueryJobConfig(query_parameters=parameters)
        client.query(f"DELETE FROM {of} WHERE `date` = @day", job_config=config, retry=self._retry).result(
            retry=self._retry
        )
        return job

    def load(self, client: bigquery.Client, table: bigquery.Table, day: str, *, load: DayLoad, file: DayFile) -> str:
        """Replace the rows of a day with those of a file, and return the id of the job.

        Raises:
            SinkError: the job has loaded another number of rows.
        """
        while True:
            id_ = job_id(table, day, load)
            self._record.begin(client, table.table_id, day, load=load, job=id_)
            into = bigquery_sql.partition(f"{table.project}.{table.dataset_id}.{table.table_id}", day)
            config = _config(table, bigquery_sql.labels(table.table_id, day, load.receipt))
            job, was_there = self._submitted(client, file, into, id_=id_, location=table.location, config=config)
            if was_there and not load.was_begun:
                load = after(load)
                continue
            try:
                job.result(retry=self._retry, timeout=JOB_SECONDS)
            except GoogleAPICallError:
                if job.error_result is None or not was_there:
                    raise
                load = after(load)
                continue
            if job.output_rows != file.rows:
                raise SinkError(
                    f"could not load {day} into BigQuery: of {file.rows} rows it loaded {job.output_rows}", sink=NAME
                )
            return id_

    def _submitted(
        self,
        client: bigquery.Client,
        file: DayFile,
        into: str,
        *,
        id_: str,
        location: str | None,
        config: bigquery.LoadJobConfig,
    ) -> tuple[bigquery.LoadJob, bool]:
        """Start a job, or look up the one with its id; return whether it was there before."""
        try:
            with file.path.open("rb") as data:
                job = client.load_table_from_file(data, into, job_id=id_, location=location, job_config=config)
        except Conflict:
            known = client.get_job(id_, location=location, retry=self._retry)
            return cast("bigquery.LoadJob", known), True
        return job, False


def _config(table: bigquery.Table, labels: dict[str, str]) -> bigquery.LoadJobConfig:
    config = bigquery.LoadJobConfig()
    config.source_format = bigquery.SourceFormat.PARQUET
    config.write_disposition = bigquery.WriteDisposition.WRITE_TRUNCATE
    config.create_disposition = bigquery.CreateDisposition.CREATE_NEVER
    config.schema = table.schema
    config.labels = labels
    return config


def job_id(table: bigquery.Table, day: str, load: DayLoad) -> str:
    """Return the id of the job that does a load."""
    made = "" if table.created is None else table.created.isoformat()
    return bigquery_sql.job_id(f"{table.project}.{table.dataset_id}.{table.table_id}", made, day=day, load=load)
