"""One day becomes one Parquet file, with every row of its archives."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pytest

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Layout
from asyncexport.errors import ChangedArchiveError
from asyncexport.warehouse.make_day import make_day
from tests.day_making import metadata_of, ndjson, request_of, table_of

CLICK = {
    "UserId": 6127384950617283940,
    "SessionId": 2,
    "PageId": 3,
    "EventStart": "2026-01-01T00:10:43.508Z",
    "EventType": "click",
    "EventTargetText": "Buy now",
    "PageNumInfos": 0,
    "UserAppKey": "",
    "user_plan_str": "trial",
    "evt_price_real": 12.5,
    "evt_order.items_int": 4,
}


def test_a_row_has_its_values_under_their_names(tmp_path):
    """Documented fields have columns, all others are in `vars`, sorted and as written; the origin is added."""
    request = request_of(tmp_path, ndjson(CLICK))
    made = make_day(request)
    assert made.rows == {"archive-00.ndjson.gz": 1}
    (row,) = table_of(request.flat)
    assert list(row) == [column.name for column in request.layout.columns]
    assert row["UserId"] == 6127384950617283940
    assert row["EventStart"] == datetime(2026, 1, 1, 0, 10, 43, 508000, UTC)
    assert row["UserAppKey"] == ""
    assert row["PageName"] is None
    assert row["vars"] == '{"evt_order.items_int":4,"evt_price_real":12.5,"user_plan_str":"trial"}'
    assert row["_rescued"] is None
    assert row["event_id"].startswith("ax1-")
    assert row["_archive"] == "archive-00.ndjson.gz"
    assert row["_bundle_end"] == datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    assert row["_exported_at"].microsecond == 250_000
    assert row["_revision"] == 3


def test_a_value_that_does_not_fit_is_rescued(tmp_path):
    """The column is NULL, and the text is kept."""
    request = request_of(tmp_path, ndjson(CLICK | {"PageId": 1.6, "EventStart": "yesterday", "ReqStatus": "200"}))
    assert make_day(request).rescued == 1
    (row,) = table_of(request.flat)
    assert (row["PageId"], row["EventStart"], row["ReqStatus"]) == (None, None, 200)
    assert json.loads(row["_rescued"]) == {"EventStart": "yesterday", "PageId": "1.6"}


def test_a_custom_variable_can_have_a_column(tmp_path):
    """A variable named in the settings has a column, and is no longer in `vars`."""
    request = request_of(tmp_path, ndjson(CLICK), layout=Layout(Type.EVENT, ("evt_price_real", "user_none_int")))
    make_day(request)
    (row,) = table_of(request.flat)
    assert (row["evt_price_real"], row["user_none_int"]) == (12.5, None)
    assert row["vars"] == '{"evt_order.items_int":4,"user_plan_str":"trial"}'


def test_equal_events_have_ids_of_their_own(tmp_path):
    """Rows with the same key differ in a running number; their ids do not depend on the order of the rows."""
    rows = [CLICK, CLICK, CLICK | {"PageDuration": 5}, CLICK | {"evt_price_real": 13}, CLICK | {"UserId": 7}]
    ids = []
    for number, order in zip(count(), (rows, rows[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        request = request_of(folder, ndjson(*order))
        make_day(request)
        ids.append({row["event_id"] for row in table_of(request.flat)})
    assert len(ids[0]) == 5
    assert ids[0] == ids[1]


def test_without_a_field_of_the_key_there_is_no_id(tmp_path):
    """An export that does not ask for a field of the key has no ids."""
    request = request_of(tmp_path, ndjson(CLICK), fields=("UserId", "EventStart"))
    make_day(request)
    assert [row["event_id"] for row in table_of(request.flat)] == [None]


def test_the_file_says_what_it_was_made_from(tmp_path):
    """The receipt, the layout and the archives are in the file itself."""
    request = request_of(tmp_path, ndjson(CLICK), b"")
    make_day(request)
    found = metadata_of(request.flat)
    assert found["receipt"] == request.receipt
    assert [one["rows"] for one in json.loads(found["archives"])] == [1, 0]
    assert json.loads(found["columns"])["UserId"].startswith("The device")


def test_a_day_without_rows_has_no_file(tmp_path):
    """Archives without rows make no Parquet file."""
    request = request_of(tmp_path, b"", b"\n")
    assert make_day(request).rows == {"archive-00.ndjson.gz": 0, "archive-01.ndjson.gz": 0}
    assert not request.flat.exists()


def test_individuals_are_loaded_alike(tmp_path):
    """The table of individuals has the columns of individuals, and no event id."""
    request = request_of(
        tmp_path, ndjson({"IndvId": 5, "Uid": "u", "UserVars": {"a": [1, 2]}}), layout=Layout(Type.INDIVIDUAL)
    )
    make_day(request)
    (row,) = table_of(request.flat)
    assert list(row) == [column.name for column in request.layout.columns]
    assert (row["IndvId"], row["Uid"], row["UserVars"]) == (5, "u", '{"a":[1,2]}')


def test_nothing_is_written_once_the_folder_is_gone(tmp_path):
    """Nobody would remove it: the load of this day is over."""
    request = replace(request_of(tmp_path, ndjson(CLICK)), scratch=tmp_path / "gone" / "day")
    with pytest.raises(FileNotFoundError):
        make_day(request)
    assert not (tmp_path / "gone").exists()


def test_an_altered_archive_is_not_loaded(tmp_path):
    """An archive whose hash differs from the ledger's, that is missing, or is a folder, ends the day."""
    request = request_of(tmp_path, ndjson(CLICK))
    archive = tmp_path / "archive-00.ndjson.gz"
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(ChangedArchiveError, match="hash differs"):
        make_day(request)
    archive.unlink()
    with pytest.raises(ChangedArchiveError, match="does not exist"):
        make_day(request)
    archive.mkdir()
    with pytest.raises(ChangedArchiveError, match="is no file"):
        make_day(request)
