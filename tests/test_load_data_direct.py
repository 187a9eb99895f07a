"""Loads: the table in the shape of Data Direct is made, published and counted with the flat table."""

from collections import Counter

import duckdb
import pytest

from asyncexport.config import Settings
from asyncexport.core.bundles import DAY
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Definition, Export, Type
from asyncexport.core.warehouse.columns import EVENT_KEY
from asyncexport.core.warehouse.data_direct.columns import COLUMNS
from asyncexport.core.warehouse.tables import DATA_DIRECT
from asyncexport.run.load import LoadSpec
from asyncexport.run.load_check import check_load
from tests.day_making import MIDNIGHT, metadata_of, table_of
from tests.load_rig import EVENTS, TABLE, Arrival, Place, date, event, events

OURS = f"{TABLE}{DATA_DIRECT}"
COMPLAINT = event(40, EventType="custom_error")


BOTH_KINDS = pytest.mark.parametrize("place", [False, True], ids=["views", "tables"], indirect=True)
"""For tests that look into the DuckDB file."""


@pytest.fixture
def place(tmp_path, request):
    """Two days; an event of the first has no row in the table."""
    made = Place(tmp_path, changes={"load": {"duckdb": {"tables": getattr(request, "param", False)}}})
    made.store(Arrival((0, 1), [*events(0, 10), COMPLAINT]), Arrival((24, 25), events(20, 3)))
    return made


def in_duckdb(place: Place, table: str = OURS) -> list[tuple[str, str]]:
    """Return the ids of the rows in the DuckDB file, with their dates."""
    with duckdb.connect(str(place.warehouse / "warehouse.duckdb"), read_only=True) as duck:
        return duck.execute(f'SELECT event_id, CAST("date" AS VARCHAR) FROM "{table}" ORDER BY 1').fetchall()


def in_parquet(place: Place, table: str = OURS) -> list[tuple[str, str]]:
    """Return the ids of the rows in the Parquet files, with their dates."""
    days = [date(number) for number in range(3) if place.file(number, table).exists()]
    rows = [(row["event_id"], day) for number, day in enumerate(days) for row in table_of(place.file(number, table))]
    return sorted(rows)


@BOTH_KINDS
def test_both_tables_have_the_same_events(place):
    """Each event is in both tables under one id, but for those that are left out; each file has its own receipt."""
    summary = place.load()
    assert (summary.exit_code, summary.to_dict()["load"]["left_out"]) == (Exit.DONE, {"custom_error": 1})
    assert summary.to_dict()["load"]["rows"] == 14
    ours, flat = in_parquet(place), in_parquet(place, TABLE)
    assert (len(ours), len(flat)) == (13, 14)
    assert set(ours) < set(flat)
    assert in_duckdb(place) == ours
    with duckdb.connect(str(place.warehouse / "warehouse.duckdb"), read_only=True) as duck:
        found = duck.execute(f'SELECT * FROM "{OURS}"').description
    assert [(one[0], str(one[1])) for one in found] == [
        *((column.name, column.kind.value) for column in COLUMNS),
        ("date", "DATE"),
    ]
    receipts = [metadata_of(place.file(0, table))["receipt"] for table in (TABLE, OURS)]
    assert Counter(map(len, receipts)) == {64: 2}
    assert receipts[0] != receipts[1]


def test_a_second_load_touches_neither_table(place):
    """Both tables have their receipts."""
    place.load()
    before = place.states()
    assert place.count("already") == 2
    assert place.states() == before


@BOTH_KINDS
def test_a_refresh_changes_the_day_in_both_tables(place):
    """Other days are as they were; a day that has no rows any more has none in either table."""
    place.load()
    before = place.states()
    place.store(Arrival((0, 1), events(0, 4), revision=1))
    place.load()
    assert len(in_parquet(place)) == len(in_duckdb(place)) == 7
    assert place.states()[f"{OURS}/date={date(1)}/data.parquet"] == before[f"{OURS}/date={date(1)}/data.parquet"]
    place.store(Arrival((0, 1), [], revision=2))
    place.load()
    assert len(in_duckdb(place)) == 3
    assert [one.name for one in place.file(0, OURS).parent.iterdir()] == ["empty.json"]


@BOTH_KINDS
def test_a_day_of_which_everything_is_left_out_is_empty(place):
    """The flat table has the rows; the other one has none, and has its receipt all the same."""
    place.store(Arrival((48, 49), [COMPLAINT]))
    assert place.load().exit_code is Exit.DONE
    assert len(in_duckdb(place, TABLE)) == 15
    assert len(in_duckdb(place)) == 13
    assert place.count("already") == 3


def test_another_setting_makes_the_table_again(place):
    """The receipt depends on the settings of the table; the flat file keeps its bytes."""
    place.load()
    flat, ours = place.file().read_bytes(), place.file(0, OURS).read_bytes()
    place.changes["load"]["datadirect"] = {"suffixes": "strip", "identify": "per_session"}
    assert place.count("loaded") == 2
    assert place.file().read_bytes() == flat
    assert place.file(0, OURS).read_bytes() != ours
    assert place.count("loaded") == 0


def test_a_table_that_was_deleted_is_made_again(place):
    """Without its file, a day is made again, with the same bytes."""
    place.load()
    before = place.file(0, OURS).read_bytes()
    place.file(0, OURS).unlink()
    found = [(one.sink, one.table, one.date) for one in differences(place, place.settings)]
    assert ("parquet", OURS, date(0)) in found
    assert {(table, day) for _, table, day in found} == {(OURS, date(0))}
    assert place.count("loaded") == 1
    assert place.file(0, OURS).read_bytes() == before
    assert differences(place, place.settings) == []


def differences(place: Place, settings: Settings):
    """Return what `load --check` finds."""
    return list(check_load(settings, LoadSpec(), now=MIDNIGHT + 30 * DAY, on_failure=fail))


def fail(error):
    """Fail: a destination could not be read."""
    raise error


def test_the_table_can_be_left_out(tmp_path):
    """With `enabled = false` there is no such table, nor is there one for individuals."""
    place = Place(tmp_path, changes={"load": {"datadirect": {"enabled": False}}})
    place.store(Arrival((0, 1), events(0, 3)))
    assert place.load().exit_code is Exit.DONE
    people = Export("people", Definition(type=Type.INDIVIDUAL), bundle_seconds=DAY)
    other = Place(tmp_path / "other", exports=(people,))
    other.store(Arrival((0, 24), [{"IndvId": 1, "Uid": "u"}], export="people"))
    summary = other.load()
    assert (summary.exit_code, summary.load and summary.load.notes) == (Exit.DONE, [])
    for one in (place, other):
        assert [found.name for found in one.warehouse.glob(f"*{DATA_DIRECT}*")] == []


def test_an_export_without_a_field_of_the_key_has_only_the_flat_table(tmp_path):
    """The load says which fields are missing, and loads the flat table."""
    fields = (
        "UserId",
        "PageId",
        "EventStart",
        "EventType",
        "EventSubType",
        "EventCustomName",
        "EventTarget*",
        "Req*",
        "evt_*",
    )
    place = Place(tmp_path, exports=(Export(EVENTS.name, Definition(fields=fields)),))
    place.store(Arrival((0, 1), events(0, 3)))
    summary = place.load()
    assert summary.load
    assert summary.exit_code is Exit.DONE
    assert [note for note in summary.load.notes if f"{OURS} cannot be made" in note and "lack SessionId, from" in note]
    assert place.in_parquet() == place.expected()
    assert not (place.warehouse / OURS).exists()


def test_an_export_without_the_users_id_gets_no_further_identify_events(tmp_path):
    """The load says so if the settings ask for them, and makes the table."""
    export = Export(EVENTS.name, Definition(fields=(*EVENT_KEY, "evt_*")))
    place = Place(tmp_path, exports=(export,), changes={"load": {"datadirect": {"identify": "per_session"}}})
    place.store(Arrival((0, 1), events(0, 3)))
    summary = place.load()
    assert summary.load
    assert [note for note in summary.load.notes if f"{OURS} gets no further identify events" in note]
    assert len(in_parquet(place)) == 3
