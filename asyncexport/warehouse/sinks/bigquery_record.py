"""The record of loaded days in BigQuery, `_asyncexport_loads`.

BigQuery has no transaction that includes a load job. So the record says before the job that the day is being loaded,
and by which job; and after it, that this job has loaded the day. A day between the two has no receipt, so it is loaded
again.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from asyncexport.core.warehouse.bigquery_sql import RECORD, DayLoad, RecordStatements
from asyncexport.core.warehouse.table_columns import lacking_names, single_receipts
from asyncexport.core.warehouse.views import LOADS
from asyncexport.warehouse.faults import unfit_record
from asyncexport.warehouse.sinks.bigquery_connection import NAME, BigQueryConnection

_KINDS = {"table": "STRING", "day": "DATE", "receipt": "STRING", "job": "STRING", "number": "INT64", "rows": "INT64"}


class BigQueryRecord:
    """The record; errors are those of the client.

    Args:
        connection: The connection.
        dataset: The dataset.
    """

    def __init__(self, connection: BigQueryConnection, dataset: str) -> None:
        self._retry = connection.retry
        self._dataset = dataset

    def make(self, client: bigquery.Client) -> None:
        """Make the table if there is none.

        Raises:
            SinkError: it lacks a column.
        """
        of = f"{client.project}.{self._dataset}.{LOADS}"
        try:
            found = client.get_table(of, retry=self._retry)
            if lacks := lacking_names(RECORD, (one.name.lower() for one in found.schema)):
                raise unfit_record(LOADS, lacks[0], sink=NAME, title="BigQuery")
        except NotFound:
            fields = [bigquery.SchemaField(name, type_) for name, type_ in RECORD.items()]
            table = bigquery.Table(of, schema=fields)
            table.description = "Days that asyncexport has loaded. receipt is NULL while a day is being loaded."
            client.create_table(table, exists_ok=True, retry=self._retry)

    def receipts(self, client: bigquery.Client, table: str) -> Mapping[str, str]:
        """Return the receipt of each day; empty if there is no record."""
        try:
            found = self._run(client, self._of(client).receipts, table=table).result(retry=self._retry)
        except NotFound:
            return {}
        return single_receipts((str(day), receipt) for day, receipt in found)

    def forget(self, client: bigquery.Client, table: str) -> None:
        """Remove all days of a table."""
        self._change(client, self._of(client).forget, table=table)

    def load(self, client: bigquery.Client, table: str, day: str) -> DayLoad | None:
        """Return the latest load of a day; None if there was none."""
        found = self._run(client, self._of(client).load, table=table, day=day).result(retry=self._retry)
        known = [DayLoad(receipt or wanted or "", number, receipt is not None) for receipt, wanted, number in found]
        return max(known, key=lambda one: one.number, default=None)

    def begin(self, client: bigquery.Client, table: str, day: str, *, load: DayLoad, job: str) -> None:
        """Record what will be loaded, and by which job; until then, the day has no receipt."""
        text = self._of(client).begin
        self._change(client, text, table=table, day=day, receipt=load.receipt, job=job, number=load.number)

    def end(self, client: bigquery.Client, table: str, day: str, *, job: str, rows: int) -> bool:
        """Record that a job has loaded the day; return whether no other load of the day has begun meanwhile.

        If one has, nobody knows which of the two came last, and the day has no receipt.
        """
        statements = self._of(client)
        if self._change(client, statements.end, table=table, day=day, job=job, rows=rows):
            return True
        self._change(client, statements.doubt, table=table, day=day)
        return False

    def _of(self, client: bigquery.Client) -> RecordStatements:
        return RecordStatements(client.project, self._dataset)

    def _run(self, client: bigquery.Client, text: str, **values: Any) -> bigquery.QueryJob:
        if "day" in values:
            values["day"] = date.fromisoformat(values["day"])
        parameters = [bigquery.ScalarQueryParameter(name, _KINDS[name], value) for name, value in values.items()]
        config = bigquery.QueryJobConfig(query_parameters=parameters, use_query_cache=False)
        return client.query(text, job_config=config, retry=self._retry)

    def _change(self, client: bigquery.Client, text: str, **values: Any) -> int:
        """Run a statement and return the number of rows that it changed."""
        job = self._run(client, text, **values)
        job.result(retry=self._retry)
        return int(job.num_dml_affected_rows or 0)
