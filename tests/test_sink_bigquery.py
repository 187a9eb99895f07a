"""The destination BigQuery, through Google's client, against a server that answers like it."""

from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path

import pytest
from google.cloud import bigquery

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.bigquery_sql import EMPTY, RECORD, TYPES
from asyncexport.core.warehouse.columns import DATE, Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS
from asyncexport.errors import SinkError
from tests.bigquery_rig import DAY, BigQueryRig, client_of
from tests.bigquery_server import server_or_skip, why_not
from tests.sink_rig import EVENTS, PEOPLE, event, rows_in_parquet

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

ODD_TEXTS = ["", "\\N", "\n\\.\n", "\t", "\r\n", "'\"`", "é🎈", "NULL", "\\\\", "a\0b\x01\x7f", "\ufeff", "%s @day"]

ROWS = [
    event(2**62, 7, "10:00:00", PageId=-(2**63), vars='{"a":12345678901234567890123456789.50}', evt_price_real=0.1),
    event(2**62, 7, "10:00:01", UserEmail="a@b", UserAppKey="k", evt_price_real=-5e-324, _rescued='{"x":"1.6"}'),
    event(2**63 - 1, 8, "11:00:00", PageId=3, UserEmail="", evt_price_real=1.7976931348623157e308, vars='{"a":1e5}'),
    event(1, 9, "12:00:00.123456", user_vip_bool=True, UserCreated="0001-01-01T00:00:00Z", evt_tags_strs='["a"]'),
    event(1, 9, "9999-12-31T23:59:59.999999Z", user_vip_bool=False),
    event(3, 0, "12:00:00"),
    event(3, 0, "12:00:00"),
    *(event(4, number, "12:00:00", PageName=text, UserEmail=text[::-1]) for number, text in enumerate(ODD_TEXTS)),
    {"EventType": "odd"},
]

NUMBERS = count()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """Run a server for all tests of the module."""
    with server_or_skip(tmp_path_factory.mktemp("bigquery")) as address:
        yield address


@pytest.fixture
def rig(address: str, tmp_path: Path) -> Iterator[BigQueryRig]:
    """Return the rig of a new dataset."""
    with BigQueryRig(lambda: client_of(address), f"d{next(NUMBERS)}", tmp_path) as rig:
        yield rig


def test_a_table_holds_exactly_the_rows_of_the_parquet_files(rig):
    """Every value arrives, in a table that is partitioned by day and clustered; a second load changes nothing."""
    days = {DAY: ROWS, "2026-02-01": ROWS[:3], "2026-12-31": ROWS[:2]}
    for _ in range(2):
        files = rig.load(days)
        assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
        assert rig.sink.row_counts("t") == {day: len(rows) for day, rows in days.items()}
        assert rig.sink.receipts("t") == {day: f"of {day}, {len(rows)}" for day, rows in days.items()}
    table = rig.client.get_table(f"{rig.of}.t")
    assert (table.time_partitioning.type_, table.time_partitioning.field) == ("DAY", "date")
    assert table.clustering_fields == ["UserId", "SessionId", "EventStart"]
    wanted = [(one.name, TYPES[one.kind], one.says) for one in (*EVENTS.columns, DATE)]
    assert [(one.name, one.field_type, one.description) for one in table.schema] == wanted
    assert rig.notes == []


def test_a_day_that_is_replaced_or_emptied_loses_its_old_rows(rig):
    """Other days stay as they are; an empty day keeps its receipt, so that it is not loaded again."""
    rig.load({DAY: ROWS, "2026-01-30": ROWS, "2026-01-29": ROWS[:1]})
    files = rig.load({DAY: ROWS[:2], "2026-01-30": []})
    kept = rig.parquet(ROWS[:1])
    assert rig.rows() == rows_in_parquet({DAY: files[DAY], "2026-01-29": kept}, EVENTS.columns)
    assert rig.sink.row_counts("t") == {DAY: 2, "2026-01-30": 0, "2026-01-29": 1}
    assert rig.query("SELECT day, `rows` FROM _asyncexport_loads ORDER BY day") == [
        (date(2026, 1, 29), 1),
        (date(2026, 1, 30), 0),
        (date(2026, 1, 31), 2),
    ]


def test_a_day_is_loaded_again_with_the_receipt_of_an_earlier_load(rig):
    """A, then B, then A: a job that did the same before is not taken for this one. So it is after a drop, too."""
    for rows in (ROWS, ROWS[:1], ROWS, [], ROWS):
        rig.load({DAY: rows})
        assert rig.sink.row_counts("t") == {DAY: len(rows)}
    rig.client.delete_table(f"{rig.of}.t")
    assert rig.sink.receipts("t") == {}
    files = rig.load({DAY: ROWS})
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)


def test_a_record_that_was_lost_hides_no_change(rig):
    """The jobs of before are still known to the service, but they say nothing about the rows that are there now."""
    for rows in (ROWS, ROWS[:2]):
        rig.load({DAY: rows})
    rig.client.delete_table(f"{rig.of}._asyncexport_loads")
    assert rig.sink.receipts("t") == {}
    files = rig.load({DAY: ROWS})
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
    assert rig.sink.receipts("t") == {DAY: f"of {DAY}, {len(ROWS)}"}


def test_a_record_that_lacks_a_column_is_refused(rig):
    """It may be of another version; further columns are none of our business."""
    rig.client.create_dataset(rig.dataset)
    name = f"{rig.of}._asyncexport_loads"
    fields = [bigquery.SchemaField(one.upper(), type_) for one, type_ in {**RECORD, "more": "DATE"}.items()]
    rig.client.create_table(bigquery.Table(name, schema=fields))
    rig.load({DAY: ROWS[:1]})
    rig.client.delete_table(name)
    rig.client.create_table(bigquery.Table(name, schema=fields[:-2]))
    with pytest.raises(SinkError, match="the table _asyncexport_loads lacks the column number") as caught:
        rig.sink.prepare("t", EVENTS.columns)
    assert caught.value.hint.startswith("rename the table _asyncexport_loads")


def test_days_that_bigquery_deletes_again_are_reported(rig):
    """Once for each table, with what to do."""
    rig.load({DAY: ROWS[:1]})
    table = rig.client.get_table(f"{rig.of}.t")
    table.time_partitioning = bigquery.TimePartitioning(field="date", expiration_ms=86_400_000)
    rig.client.update_table(table, ["time_partitioning"])
    rig.load({"2026-01-30": ROWS[:1], DAY: ROWS[:1], "9999-01-01": ROWS[:1]})
    (note,) = rig.notes
    assert note.startswith("bigquery: the partitions of t expire after 24 h, so BigQuery deletes 2026-01-30")


def test_the_job_says_what_it_loaded(rig):
    """Each day has one load job, labelled with table, day and receipt, and the record names it."""
    rig.load({DAY: ROWS})
    (job,) = rig.jobs()
    assert job.labels == {
        "asyncexport_table": "t",
        "asyncexport_day": DAY,
        "asyncexport_receipt": f"of_{DAY}__{len(ROWS)}",
    }
    assert rig.query("SELECT job, number FROM _asyncexport_loads") == [(job.job_id, 1)]


def test_individuals_and_the_data_direct_table_are_clustered_by_what_they_have(rig):
    """Both are partitioned by day as well; JSON is text."""
    rig.load({DAY: [{"IndvId": 1, "Email": "a", "UserVars": '{"a": 1}'}]}, PEOPLE, "people")
    assert rig.query("SELECT `IndvId`, UserVars FROM people") == [(1, '{"a": 1}')]
    rig.sink.prepare("direct", COLUMNS)
    found = {name: rig.client.get_table(f"{rig.of}.{name}") for name in ("people", "direct")}
    assert {name: table.clustering_fields for name, table in found.items()} == {
        "people": ["IndvId"],
        "direct": ["device_id", "session_id", "event_time"],
    }
    types = [one.field_type for one in found["direct"].schema]
    assert types == [TYPES[one.kind] for one in (*COLUMNS, DATE)]


def test_a_column_that_was_added_is_null_in_earlier_days(rig):
    """Days that were loaded with fewer columns stay, and so do the columns that later days lack."""
    rig.load({DAY: ROWS}, Layout(Type.EVENT))
    rig.load({"2026-02-01": ROWS})
    rig.load({"2026-02-02": ROWS}, Layout(Type.EVENT))
    found = rig.query("SELECT count(*), count(evt_price_real) FROM t GROUP BY `date` ORDER BY `date`")
    assert found == [(len(ROWS), 0), (len(ROWS), 3), (len(ROWS), 0)]


def test_a_column_whose_name_bigquery_does_not_allow_gets_another(rig):
    """Its description has the full name."""
    layout = Layout(Type.EVENT, ("evt_a.b c_str", "evt_a-b c_str"))
    rig.load({DAY: [event(1, 2, "10:00:00", **{"evt_a.b c_str": "x", "evt_a-b c_str": "y"})]}, layout)
    (dot, dash) = [one for one in rig.client.get_table(f"{rig.of}.t").schema if one.name.startswith("evt_a_b_c_str_")]
    assert (dot.description, dash.description) == ("evt_a.b c_str: Custom variable.", "evt_a-b c_str: Custom variable.")
    assert rig.query(f"SELECT {dot.name}, {dash.name} FROM t") == [("x", "y")]


def test_a_time_that_bigquery_cannot_hold_is_null_and_counted(rig):
    """The rest of the row arrives, and the number of such rows is reported."""
    odd = ["0000-12-31T23:59:59.999999Z", "10000-01-01T00:00:00Z"]
    rig.load({DAY: [*ROWS[:1], *(event(1, 2, at, PageName=at) for at in odd)]})
    found = rig.query("SELECT PageName FROM t WHERE EventStart IS NULL ORDER BY 1")
    assert found == [(at,) for at in odd]
    (note,) = rig.notes
    assert note.startswith(f"bigquery: 2 rows of t, {DAY}, have a time before the year 1 or after 9999")


def made_beforehand(rig: BigQueryRig, fields: list[bigquery.SchemaField], *, field: str = "date") -> bigquery.Table:
    """Make the table `t` as a user would, partitioned by day of a column."""
    rig.client.create_dataset(rig.dataset, exists_ok=True)
    table = bigquery.Table(f"{rig.of}.t", schema=fields)
    if field:
        table.time_partitioning = bigquery.TimePartitioning(field=field)
    return rig.client.create_table(table)


def test_a_table_made_beforehand_is_accepted(rig):
    """It keeps its own columns, descriptions and clustering, and gets the columns that it lacks."""
    own = [bigquery.SchemaField(f"own_{type_}", type_, description="ours") for type_ in EMPTY]
    fields = [
        bigquery.SchemaField("Date", "DATE"),
        bigquery.SchemaField("UserId", "INT64", description="who"),
        *own,
    ]
    made_beforehand(rig, fields, field="Date")
    files = rig.load({DAY: ROWS})
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
    found = {one.name: one.description for one in rig.client.get_table(f"{rig.of}.t").schema}
    assert found["UserId"] == "who"
    assert {found[one.name] for one in own} == {"ours"}
    assert rig.query(f"SELECT {', '.join(f'count({one.name})' for one in own)} FROM t") == [(0,) * len(own)]


DAY_FIELD = bigquery.SchemaField("date", "DATE")

PARTITIONING = "it is not partitioned by day of its column date"


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        ([DAY_FIELD], "", PARTITIONING),
        ([DAY_FIELD, bigquery.SchemaField("at", "DATE")], "at", PARTITIONING),
        ([DAY_FIELD, bigquery.SchemaField("vars", "JSON")], "date", "its column vars is JSON, not STRING"),
        ([DAY_FIELD, bigquery.SchemaField("userid", "STRING")], "date", "its column userid is STRING, not INTEGER"),
        (
            [DAY_FIELD, bigquery.SchemaField("PageName", "STRING", mode="REPEATED")],
            "date",
            "its column PageName is ARRAY of STRING, not STRING",
        ),
        (
            [DAY_FIELD, bigquery.SchemaField("UserId", "INT64", mode="REQUIRED")],
            "date",
            "its column UserId is REQUIRED, but the columns of a day's file are NULLABLE",
        ),
        (
            [DAY_FIELD, bigquery.SchemaField("x", "JSON")],
            "date",
            "its column x is JSON, which asyncexport cannot leave empty",
        ),
    ],
)
def test_a_table_that_cannot_be_loaded_is_refused(rig, fields, field, fault):
    """The message names what is wrong, and the table stays as it is."""
    made = made_beforehand(rig, fields, field=field)
    with pytest.raises(SinkError) as caught:
        rig.sink.prepare("t", EVENTS.columns)
    assert str(caught.value) == f"could not load into the BigQuery table t: {fault}"
    assert rig.client.get_table(f"{rig.of}.t").schema == made.schema


def test_a_view_of_that_name_is_refused(rig):
    """A view cannot be loaded."""
    rig.client.create_dataset(rig.dataset)
    rig.query("CREATE VIEW t AS SELECT 1 AS one")
    with pytest.raises(SinkError, match="could not load into the BigQuery table t: it is a view"):
        rig.sink.prepare("t", EVENTS.columns)
