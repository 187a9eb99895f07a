"""The destination BigQuery when a load stops halfway, a job fails, two loads meet, or nothing answers."""

import io
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from google.cloud import bigquery

from asyncexport.core.warehouse.bigquery_sql import DayLoad, next_load
from asyncexport.errors import SinkError, StorageError
from asyncexport.warehouse.sinks.bigquery_file import day_file
from asyncexport.warehouse.sinks.bigquery_jobs import job_id
from tests.bigquery_rig import DAY, BigQueryRig, client_of
from tests.bigquery_server import server_or_skip, why_not
from tests.sink_rig import EVENTS, event, rows_in_parquet

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

OLD = [event(1, 1, "10:00:00")]

NEW = [event(2, 2, "11:00:00"), event(2, 3, "12:00:00")]

NUMBERS = count()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """Run a server for all tests of the module."""
    with server_or_skip(tmp_path_factory.mktemp("bigquery")) as address:
        yield address


@pytest.fixture
def rig(address: str, tmp_path: Path) -> Iterator[BigQueryRig]:
    """Return the rig of a dataset whose table `t` has one day."""
    with BigQueryRig(lambda: client_of(address), f"f{next(NUMBERS)}", tmp_path) as rig:
        rig.load({DAY: OLD})
        yield rig


def table_of(rig: BigQueryRig) -> bigquery.Table:
    """Return the table."""
    return rig.client.get_table(f"{rig.of}.t")


def fields_of(table: bigquery.Table) -> dict[str, str]:
    """Return the columns of a table and their types."""
    return {one.name: one.field_type for one in table.schema}


def begin(rig: BigQueryRig, file: Path, *, receipt: str = "new", until: str) -> str:
    """Do the first steps of a load, as a process that is killed after one of them; return the id of the job."""
    sink, table = rig.another(), table_of(rig)
    load = next_load(sink._record.load(rig.client, "t", DAY), receipt)
    if until == "recorded":
        sink._record.begin(rig.client, "t", DAY, load=load, job=job_id(table, DAY, load))
        return job_id(table, DAY, load)
    with day_file(file, fields_of(table), day=DAY, scratch=rig.folder, memory=1 << 28) as made:
        return sink._jobs.load(rig.client, table, DAY, load=load, file=made)


@pytest.mark.parametrize("until", ["recorded", "loaded"])
def test_a_load_that_was_killed_is_completed_by_the_next_one(rig, until):
    """Between the steps the day has no receipt; the next load finds the job, and runs it only if there is none."""
    file = rig.parquet(NEW)
    job = begin(rig, file, until=until)
    assert rig.sink.receipts("t") == {}
    assert rig.sink.replace("t", DAY, file, "new") == len(NEW)
    assert rig.sink.receipts("t") == {DAY: "new"}
    assert rig.rows() == rows_in_parquet({DAY: file}, EVENTS.columns)
    assert rig.query("SELECT job, number FROM _asyncexport_loads") == [(job, 2)]
    assert len(rig.jobs()) == 2


def test_a_load_that_was_killed_does_not_hide_a_return_to_the_old_rows(rig):
    """The rows are the new ones; whoever wants the old ones then gets them, although their receipt was there before."""
    rig.sink.reach()  # also while the dataset does not exist
    begin(rig, rig.parquet(NEW), until="loaded")
    files = rig.load({DAY: OLD})
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
    assert rig.query("SELECT number FROM _asyncexport_loads") == [(3,)]
    rig.sink.reach()


def test_a_job_that_is_running_is_waited_for(rig):
    """A load whose process was killed during the job does not start it again."""
    file = rig.parquet(NEW)
    id_ = begin(rig, file, until="recorded")
    fields = fields_of(table_of(rig))
    with day_file(file, fields, day=DAY, scratch=rig.folder, memory=1 << 28) as made, made.path.open("rb") as data:
        config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
        config.schema = table_of(rig).schema
        rig.client.load_table_from_file(data, f"{rig.of}.t${DAY.replace('-', '')}", job_id=id_, job_config=config)
    assert rig.sink.replace("t", DAY, file, "new") == len(NEW)
    assert rig.rows() == rows_in_parquet({DAY: file}, EVENTS.columns)
    assert len(rig.jobs()) == 2


def test_a_job_that_failed_before_is_followed_by_one_with_another_id(rig):
    """The service never runs a job of the same id again."""
    failed = job_id(table_of(rig), DAY, DayLoad("new", 2, is_over=False))
    config = bigquery.LoadJobConfig(source_format="PARQUET", schema=table_of(rig).schema)
    broken = rig.client.load_table_from_file(io.BytesIO(b"?"), f"{rig.of}.t", job_id=failed, job_config=config)
    assert broken.exception() is not None
    file = rig.parquet(NEW)
    assert rig.sink.replace("t", DAY, file, "new") == len(NEW)
    assert rig.rows() == rows_in_parquet({DAY: file}, EVENTS.columns)
    ((job, number),) = rig.query("SELECT job, number FROM _asyncexport_loads")
    assert (job != failed, number) == (True, 3)


def test_a_job_that_fails_leaves_the_rows_as_they_are(rig):
    """The day is loaded again by the next load; the message has no value of a row."""
    rig.client.create_table(wrong_table(rig))
    file = rig.parquet([event(3, 3, "10:00:00", PageName="CANARY")])
    with pytest.raises(SinkError) as caught:
        rig.sink.replace("wrong", DAY, file, "new")
    assert str(caught.value).startswith(f"could not replace {DAY} of wrong in BigQuery: ")
    assert "CANARY" not in str(caught.value)
    assert (rig.query("SELECT count(*) FROM wrong"), rig.sink.receipts("wrong")) == ([(0,)], {})
    good = rig.parquet([event(3, 3, "10:00:00", PageName="5")])
    assert rig.sink.replace("wrong", DAY, good, "good") == 1


def wrong_table(rig: BigQueryRig) -> bigquery.Table:
    """Return a table whose column has another type, as if it was changed after `prepare`."""
    types = {"PageName": "INTEGER"}
    fields = [bigquery.SchemaField(one.name, types.get(one.name, one.field_type)) for one in table_of(rig).schema]
    table = bigquery.Table(f"{rig.of}.wrong", schema=fields)
    table.time_partitioning = bigquery.TimePartitioning(field="date")
    return table


def test_two_loads_of_a_day_at_once_leave_no_receipt(rig):
    """Nobody knows which one came last, so both are told, and the day is loaded again."""
    record = rig.sink._record
    for receipt in "ab":
        record.begin(rig.client, "t", DAY, load=DayLoad(receipt, 2, is_over=False), job=receipt)
    assert not record.end(rig.client, "t", DAY, job="a", rows=1)
    assert not record.end(rig.client, "t", DAY, job="b", rows=1)
    assert rig.sink.receipts("t") == {}
    rig.load({DAY: NEW})
    assert rig.sink.row_counts("t") == {DAY: len(NEW)}


def test_a_dataset_in_another_location_is_refused(rig):
    """Jobs there would not find it."""
    rig.client.delete_dataset(rig.dataset, delete_contents=True)
    rig.another(location="EU").prepare("t", EVENTS.columns)
    assert rig.client.get_dataset(rig.dataset).location == "EU"
    with pytest.raises(SinkError, match=f"the dataset {rig.of} is in EU, not in US") as caught:
        rig.another(location="US").prepare("t", EVENTS.columns)
    assert caught.value.hint == "correct location in [load.bigquery], or leave it empty"
    for location in ("", "eu"):
        rig.another(location=location).prepare("t", EVENTS.columns)


def test_a_file_that_cannot_be_read_is_an_error(rig):
    """So is a disk that fails. The day stays as it is, with its receipt."""
    broken = rig.folder / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(SinkError, match=r"could not read .*broken\.parquet"):
        rig.sink.replace("t", DAY, broken, "new")
    (rig.folder / "no folder").touch()
    with pytest.raises(StorageError, match="no folder"):
        rig.another(scratch=rig.folder / "no folder").replace("t", DAY, rig.parquet(NEW), "new")
    assert rig.sink.receipts("t") == {DAY: f"of {DAY}, 1"}


def test_a_service_that_does_not_answer_is_an_error(rig):
    """The client retries for a while, and then it is over."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        sink = rig.another(f"http://127.0.0.1:{unused.getsockname()[1]}", retry_seconds=0.2)
        with pytest.raises(SinkError, match="could not read the receipts of t in BigQuery: there was no answer"):
            sink.receipts("t")
        with pytest.raises(SinkError, match="could not look up the dataset in BigQuery: there was no answer"):
            sink.reach()
