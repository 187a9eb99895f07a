"""The destination Snowflake, through the vendor's client, against an emulator."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import DATE, Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS
from asyncexport.errors import SinkError
from tests.sink_rig import EVENTS, PEOPLE, event, rows_in_parquet
from tests.snowflake_rig import DAY, Emulator, SnowflakeRig, emulator_or_skip, why_no_client
from tests.test_sink_postgres import ODD_TEXTS

pytestmark = [
    pytest.mark.skipif(bool(why_no_client()), reason=why_no_client() or "-"),
    pytest.mark.timeout(900),  # the first test makes the emulator's environment
]

ROWS = [
    event(2**62, 7, "10:00:00", PageId=-(2**63), vars='{"a":12345678901234567890}', evt_price_real=0.1),
    event(2**63 - 1, 7, "10:00:01", UserEmail="a@b", evt_price_real=-5e-324, _rescued='{"x":"1.6"}'),
    event(2**62, 8, "11:00:00", PageId=3, UserEmail="", evt_price_real=1.7976931348623157e308, evt_tags_strs='["a"]'),
    event(1, 9, "12:00:00.123456", user_vip_bool=True, UserCreated="0001-01-01T00:00:00Z"),
    event(1, 9, "9999-12-31T23:59:59.999999Z", user_vip_bool=False, evt_tags_strs="null"),
    event(3, 0, "12:00:00"),
    event(3, 0, "12:00:00"),
    *(event(4, number, "12:00:00", PageName=text, UserEmail=text[::-1]) for number, text in enumerate(ODD_TEXTS)),
    {"EventType": "odd"},
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """Run an emulator for all tests of the module."""
    yield from emulator_or_skip()


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[SnowflakeRig]:
    """Return an empty schema's rig."""
    with SnowflakeRig(emulator.login, tmp_path) as rig:
        yield rig


def test_a_table_holds_exactly_the_rows_of_the_parquet_files(rig):
    """Every value arrives, under a name in capitals and with the type of its kind; a second load changes nothing."""
    days = {DAY: ROWS, "2026-02-01": ROWS[:3], "2026-12-31": ROWS[:2]}
    for _ in range(2):
        files = rig.load(days)
        assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
        assert rig.sink.row_counts("t") == {day: len(rows) for day, rows in days.items()}
        assert rig.sink.receipts("t") == {day: f"of {day}, {len(rows)}" for day, rows in days.items()}
    types = {name: type_ for name, type_, *_ in rig.query("DESCRIBE TABLE t")}
    assert list(types) == [column.name.upper() for column in (*EVENTS.columns, DATE)]
    assert {types[name] for name in ("USERID", "_REVISION")} == {"NUMBER(19,0)"}
    assert (types["VARS"], types["EVT_PRICE_REAL"], types["USER_VIP_BOOL"]) == ("VARIANT", "FLOAT", "BOOLEAN")
    assert rig.query("SELECT EventType FROM T WHERE userid = 1 LIMIT 1") == [("click",)]


def test_nothing_stays_in_the_stage(rig):
    """The uploaded file is deleted when its rows are in the table."""
    rig.load({DAY: ROWS})
    assert rig.query("LIST @_asyncexport_stage") == []


def test_a_day_that_is_replaced_or_emptied_loses_its_old_rows(rig):
    """Other days stay as they are; an empty day keeps its receipt, so that it is not loaded again."""
    rig.load({DAY: ROWS, "2026-01-30": ROWS, "2026-01-29": ROWS[:1]})
    files = rig.load({DAY: ROWS[:2], "2026-01-30": []})
    assert rig.sink.row_counts("t") == {DAY: 2, "2026-01-30": 0, "2026-01-29": 1}
    rig.load({"2026-01-29": []})
    assert rig.rows() == rows_in_parquet({DAY: files[DAY]}, EVENTS.columns)
    records = rig.query("SELECT DAY::VARCHAR, ROW_COUNT FROM _asyncexport_loads ORDER BY 1")
    assert records == [("2026-01-29", 0), ("2026-01-30", 0), (DAY, 2)]


def test_what_is_known_of_a_table_is_recorded(rig):
    """The organisation, and up to when the table is complete."""
    rig.load({DAY: ROWS[:1]})
    rig.load({DAY: []}, PEOPLE, "people")
    query = "SELECT TABLE_NAME, ORGANISATION, DATE_PART(EPOCH_SECOND, COMPLETE_UNTIL) FROM _asyncexport_tables"
    assert sorted(rig.query(query)) == [("people", None, None), ("t", "o-1-na1", 1767398400)]


def test_a_new_column_is_added(rig):
    """Rows that were loaded before have NULL in it."""
    rig.load({DAY: ROWS}, Layout(Type.EVENT))
    files = rig.load({"2026-02-01": ROWS})
    assert rig.query("SELECT COUNT(*), COUNT(evt_price_real) FROM t") == [(2 * len(ROWS), 3)]
    rig.load({DAY: []})
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)


def test_the_data_direct_table_has_the_vendors_types(rig):
    """BIGINT and TIMESTAMP, as they are in Snowflake by default."""
    rig.sink.prepare("d", COLUMNS)
    types = {name: type_ for name, type_, *_ in rig.query("DESCRIBE TABLE d")}
    assert [types[name] for name in ("EVENT_TIME", "DEVICE_ID")] == ["TIMESTAMP_NTZ(9)", "NUMBER(38,0)"]
    assert types["EVENT_PROPERTIES"] == "VARIANT"


MADE_BEFOREHAND = {
    "with other columns": "CREATE TABLE t (note VARCHAR DEFAULT 'mine', date DATE NOT NULL)",
    "with wider types": "CREATE TABLE t (UserId NUMBER(38,0), EventStart TIMESTAMP_NTZ, date DATE)",
    "with local times": "CREATE TABLE t (EventStart TIMESTAMP_LTZ(9), date DATE)",
}


@pytest.mark.parametrize("made", MADE_BEFOREHAND)
def test_a_table_made_beforehand_is_accepted(rig, made):
    """It gets the columns that it lacks, and the rows."""
    rig.make_schema()
    rig.query(MADE_BEFOREHAND[made])
    for _ in range(2):
        files = rig.load({DAY: ROWS})
        assert rig.rows() == rows_in_parquet(files, EVENTS.columns)


def test_a_column_made_as_text_keeps_json_as_written(rig):
    """A VARIANT keeps the value only."""
    rig.make_schema()
    rig.query("CREATE TABLE t (vars VARCHAR, date DATE)")
    text = '{"b" : 1e5, "a": 1.50, "b": 2}'
    rig.load({DAY: [event(1, 1, "10:00:00", vars=text)]})
    assert rig.query("SELECT vars FROM t") == [(text,)]


def test_json_that_snowflake_refuses_becomes_a_string(rig):
    """So one odd value does not keep the day out."""
    text = '{"a": 1'
    rig.load({DAY: [event(1, 1, "10:00:00", vars=text), event(2, 1, "10:00:00", vars='{"a":1}')]})
    ((stored,),) = rig.query("SELECT TO_JSON(vars) FROM t WHERE UserId = 1")
    assert json.loads(stored) == text


def test_a_column_of_another_type_is_refused(rig):
    """The message names the column and both types; nothing is changed."""
    rig.make_schema()
    rig.query("CREATE TABLE t (PageId NUMBER(10,0), date DATE)")
    with pytest.raises(SinkError, match=r"its column PAGEID is NUMBER\(10,0\), not NUMBER\(19,0\)") as caught:
        rig.sink.prepare("t", EVENTS.columns)
    assert caught.value.sink == "snowflake"
    assert len(rig.query("DESCRIBE TABLE t")) == 2


def test_names_with_other_characters_keep_their_case(rig):
    """Only they need quotes in queries."""
    layout = Layout(Type.EVENT, ("evt_größe_int", "evt_Ä_str"))
    files = rig.load({DAY: [event(1, 1, "10:00:00", evt_größe_int=5, evt_Ä_str="x")]}, layout)
    assert rig.rows(layout.columns) == rows_in_parquet(files, layout.columns)
    assert rig.query('SELECT "evt_größe_int", "evt_Ä_str" FROM t') == [(5, "x")]


def test_a_dropped_table_is_loaded_again(rig):
    """Its receipts go with it."""
    rig.load({DAY: ROWS})
    rig.query("DROP TABLE t")
    assert rig.sink.receipts("t") == {}
    rig.sink.prepare("t", EVENTS.columns)
    assert rig.sink.receipts("t") == {}
    assert rig.sink.row_counts("t") == {}


def test_a_record_that_says_two_things_about_a_day_says_nothing(rig):
    """Snowflake has no unique keys, so somebody may have copied rows there; the day is then loaded again."""
    rig.load({DAY: ROWS[:1]})
    query = (
        "INSERT INTO _asyncexport_loads SELECT TABLE_NAME, DAY, 'other', ROW_COUNT, LOADED_AT FROM _asyncexport_loads"
    )
    rig.query(query)
    assert rig.sink.receipts("t") == {}
    rig.load({DAY: ROWS[:1]})
    assert rig.sink.receipts("t") == {DAY: f"of {DAY}, 1"}


def test_a_record_that_lacks_a_column_is_refused(rig):
    """It may be of another version; the message says which column."""
    rig.make_schema()
    rig.query("CREATE TABLE _asyncexport_loads (TABLE_NAME VARCHAR, DAY DATE, RECEIPT VARCHAR, MORE DATE)")
    with pytest.raises(SinkError, match="the table _asyncexport_loads lacks the column ROW_COUNT") as caught:
        rig.sink.prepare("t", EVENTS.columns)
    assert caught.value.hint.startswith("rename the table _asyncexport_loads")
