"""A day of the Data Direct table is made from the flat table's file of that day."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import md5
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest

from asyncexport.core.bundles import DAY, HOUR
from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.choices import Identify, Suffixes
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS, DataDirectRecipe
from asyncexport.core.warehouse.data_direct.mapping import APP_COLUMNS, EVENT_TYPES, FAILED_STATUS, LEFT_OUT
from asyncexport.errors import DayCountError
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import render
from asyncexport.warehouse.data_direct import make_data_direct
from asyncexport.warehouse.day_maker import DataDirectMade, DataDirectRequest
from asyncexport.warehouse.make_day import make_day
from tests.day_making import MIDNIGHT, metadata_of, ndjson, request_of, table_of

REAL_ROWS = json.loads((Path(__file__).parent / "demo_shop_events.json").read_text(encoding="utf-8"))
"""Rows of a shop that the vendor recorded itself to show its product."""

ROW = {
    "UserId": 6127384950617283940,
    "SessionId": 5,
    "PageId": 7,
    "EventStart": "2026-01-01T00:10:43.508Z",
    "EventType": "navigate",
}


def made_of(folder, *contents, recipe=DataDirectRecipe(), layout=None, **more):  # noqa: B008 - it is frozen
    """Make a day of archives with these contents; return the request and what was made."""
    folder.mkdir(exist_ok=True)
    asked = DataDirectRequest(folder / "datadirect.parquet", recipe.receipt("flat"), recipe)
    request = request_of(folder, *contents, data_direct=asked, layout=layout, **more)
    made = make_day(request)
    assert made.data_direct is not None
    return request, made.data_direct


def events_of(folder, *rows, **options):
    """Return the rows of the Data Direct table that is made of rows, with their JSON parsed."""
    request, _ = made_of(folder, ndjson(*rows), **options)
    found = table_of(request.data_direct.file)
    for row in found:
        for name in ("event_properties", "source_properties"):
            row[name] = json.loads(row[name])
    return found


def event_of(folder, row, **options):
    """Return the one event that is made of a row."""
    (event,) = events_of(folder, ROW | row, **options)
    return event


# The real rows


def test_real_rows_become_events(tmp_path):
    """Of the 144 real rows, 137 are events; errors about custom events are left out and counted."""
    request, made = made_of(tmp_path, ndjson(*REAL_ROWS))
    assert len({row["event_id"] for row in table_of(request.flat)}) == len(REAL_ROWS) == 144
    assert made == DataDirectMade(137, {"custom_error": 7})
    events = table_of(request.data_direct.file)
    assert Counter(event["event_type"] for event in events) == {
        "click": 42,
        "custom": 42,
        "navigate": 17,
        "element_seen": 14,
        "change": 12,
        "identify": 5,
        "load": 5,
    }
    assert len({event["event_id"] for event in events}) == 137


def test_the_table_has_the_vendors_columns(tmp_path):
    """The columns have the vendor's order, and their types in DuckDB."""
    request, _ = made_of(tmp_path, ndjson(*REAL_ROWS))
    with duckdb.connect() as duck:
        found = duck.execute("SELECT * FROM read_parquet(?)", [str(request.data_direct.file)]).description
    assert [(one[0], str(one[1])) for one in found] == [
        ("event_id", "VARCHAR"),
        ("event_time", "TIMESTAMP WITH TIME ZONE"),
        ("processed_time", "TIMESTAMP WITH TIME ZONE"),
        ("updated_time", "TIMESTAMP WITH TIME ZONE"),
        ("device_id", "BIGINT"),
        ("session_id", "BIGINT"),
        ("view_id", "BIGINT"),
        ("event_type", "VARCHAR"),
        ("event_properties", "VARCHAR"),
        ("source_type", "VARCHAR"),
        ("source_properties", "VARCHAR"),
    ]
    facts = metadata_of(request.data_direct.file)
    assert facts["receipt"] == request.data_direct.receipt
    assert list(json.loads(facts["columns"])) == [column.name for column in COLUMNS]


# One row


def test_ids_and_times(tmp_path):
    """Ids are the export's; the event's id is the flat table's; the export's time stands for the processing."""
    request, _ = made_of(tmp_path, ndjson(ROW))
    (flat,), (event,) = table_of(request.flat), table_of(request.data_direct.file)
    assert event["event_id"] == flat["event_id"]
    assert event["event_time"] == datetime(2026, 1, 1, 0, 10, 43, 508000, UTC)
    assert event["processed_time"] == event["updated_time"] == flat["_exported_at"]
    assert (event["device_id"], event["session_id"], event["view_id"]) == (6127384950617283940, 5, 7)


def test_no_session_is_null(tmp_path):
    """An event without a session has no session, and no referrer of a session's first page."""
    rows = [ROW | {"SessionId": session, "PageRefererUrl": "https://search.example/"} for session in (0, None)]
    found = [(event["session_id"], event["source_properties"]) for event in events_of(tmp_path, *rows)]
    assert found == [(None, {}), (None, {})]


PROPERTIES: dict[str, tuple[dict[str, Any], str | None, dict[str, Any]]] = {
    "click": (
        {
            "EventType": "click",
            "EventTargetText": 'Buy "now"\n',
            "EventTargetSelector": "a > b",
            "EventModFrustrated": 3,
            "EventModDead": 1,
            "EventModError": 2,
        },
        "click",
        {
            "target": {"text": 'Buy "now"\n', "raw_selector": "a > b"},
            "fs_rage_count": 3,
            "fs_dead_count": 1,
            "fs_error_kind": "console",
        },
    ),
    "click, no error": ({"EventType": "click", "EventModError": 0}, "click", {}),
    "navigate": ({"EventSubType": "back_forward"}, "navigate", {"navigate_reason": "back_forward"}),
    "custom": (
        {
            "EventType": "custom",
            "EventCustomName": "Paid",
            "evt_order.total_real": 9,
            "evt_a_str": "x",
            "user_b_str": "y",
        },
        "custom",
        {"event_name": "Paid", "event_properties": {"a_str": "x", "order": {"total_real": 9}}},
    ),
    "custom, alone": ({"EventType": "custom"}, "custom", {}),
    "load": (
        {"EventType": "load", "LoadEventTime": 4, "LoadDomContentTime": 3, "LoadFirstPaintTime": 1},
        "load",
        {"load_time_millis": 4, "dom_content_time_millis": 3, "first_paint_time_millis": 1},
    ),
    "request": (
        {
            "EventType": "request",
            "ReqMethod": "GET",
            "ReqUrl": "https://shop.example/api?q=1",
            "ReqStatus": 400,
            "EventDuration": 12,
        },
        "request",
        {
            "request_method": "GET",
            "request_url": {
                "full_url": "https://shop.example/api?q=1",
                "host": "shop.example",
                "path": "/api",
                "query": {"q": {"values": ["1"]}},
            },
            "request_status": 400,
            "request_duration_millis": 12,
        },
    ),
    "exception": (
        {
            "EventType": "exception",
            "EventSubType": "uncaught",
            "EventTargetText": "no leaf",
            "EventWebSourceFileUrl": "",
            "EventMobileSourceFile": "a.kt",
        },
        "exception",
        {"message": "no leaf", "is_exception_handled": False, "exception_source_file": "a.kt"},
    ),
    "exception, caught": ({"EventType": "exception", "EventSubType": "x"}, "exception", {}),
    "console_message": (
        {"EventType": "console_message", "EventSubType": "error", "EventTargetText": "no"},
        "console_message",
        {"message": "no", "console_message_level": "error"},
    ),
    "cumulative_layout_shift": (
        {"EventType": "cumulative_layout_shift", "EventCumulativeLayoutShift": 0.0312},
        "cumulative_layout_shift",
        {"cumulative_layout_shift": 0.0312},
    ),
    "seen": (
        {"EventType": "seen", "EventSubType": "visible", "EventDuration": 4, "EventSecondaryDuration": 5},
        "element_seen",
        {"element_start_type": "visible", "element_render_duration_millis": 4, "element_visible_duration_millis": 5},
    ),
    "thrash": ({"EventType": "thrash", "EventTargetText": "x"}, "mouse_thrash", {"target": {"text": "x"}}),
    "crashed": ({"EventType": "crashed", "EventTargetText": "x"}, "crash", {}),
    "uservar": (
        {
            "EventType": "uservar",
            "UserAppKey": "ann",
            "UserEmail": "",
            "UserDisplayName": "Ann",
            "user_plan_str": "pro",
        },
        "identify",
        {"user_id": "ann", "user_display_name": "Ann", "user_properties": {"plan_str": "pro"}},
    ),
    "pageview": (
        {
            "EventType": "pageview",
            "PageName": "Home",
            "PageStart": "2026-01-01T00:10:00.5Z",
            "PageDuration": 30,
            "PageActiveDuration": 10,
            "PageMaxScrollDepthPercent": 37,
        },
        "page_view",
        {
            "page_name": "Home",
            "start_time": "2026-01-01T00:10:00.500000Z",
            "duration_millis": 30,
            "active_duration_millis": 10,
            "inactive_duration_millis": 20,
            "max_scroll_depth": 0.37,
        },
    ),
    "unknown": ({"EventType": "swirl", "EventTargetText": "x"}, "swirl", {"target": {"text": "x"}}),
    "no type": ({"EventType": None, "EventTargetText": "x"}, None, {"target": {"text": "x"}}),
}


def test_properties_by_type(tmp_path):
    """Each type of event has its name and its properties; without a value there is no key."""
    rows = [ROW | row | {"SessionId": number} for number, (row, _, _) in enumerate(PROPERTIES.values(), 1)]
    found = [(event["event_type"], event["event_properties"]) for event in events_of(tmp_path, *rows)]
    assert dict(zip(PROPERTIES, found, strict=True)) == {case: (name, of) for case, (_, name, of) in PROPERTIES.items()}


def test_every_type_of_the_mapping_is_made(tmp_path):
    """A row of each type that the mapping knows becomes an event of the name that it says."""
    rows = [ROW | {"EventType": name, "ReqStatus": 500} for name in EVENT_TYPES]
    assert {event["event_type"] for event in events_of(tmp_path, *rows)} == {one.name for one in EVENT_TYPES.values()}


def test_rows_without_a_counterpart_are_left_out(tmp_path):
    """Complaints of the service and requests that did not fail have no row, and are counted by type."""
    rows = [ROW | {"EventType": name} for name in (*LEFT_OUT, "custom_error")]
    rows += [ROW | {"EventType": "request", "ReqStatus": status} for status in (None, 0, 200, 399, "n/a", 400)]
    request, made = made_of(tmp_path, ndjson(*rows))
    assert made == DataDirectMade(1, {"click_error": 1, "custom_error": 2, "request": 5, "seen_error": 1})
    assert len(table_of(request.data_direct.file)) == 1


def test_the_source_of_an_event(tmp_path):
    """Browser, place, page and device are nested objects."""
    event = event_of(
        tmp_path,
        {
            "PageUserAgent": "Mozilla/5.0",
            "PageDevice": "Desktop",
            "PageOperatingSystem": "OS X",
            "PageBrowser": "Safari",
            "PageBrowserVersion": "17",
            "PageIp": "",
            "PageLatLong": "1.5,2.5",
            "PageUrl": "https://shop.example/a?b=c%20d",
            "PageRefererUrl": "https://search.example/",
            "PageScreenWidth": 1280,
            "PageViewportHeight": 700,
            "PagePlatform": "Web",
        },
    )
    assert event["source_type"] == "web"
    assert event["source_properties"] == {
        "user_agent": {
            "raw_user_agent": "Mozilla/5.0",
            "device": "Desktop",
            "operating_system": "OS X",
            "browser": "Safari",
            "browser_version": "17",
        },
        "location": {"ip_address": "", "lat_long": "1.5,2.5"},
        "url": {
            "full_url": "https://shop.example/a?b=c%20d",
            "host": "shop.example",
            "path": "/a",
            "query": {"b": {"values": ["c d"]}},
        },
        "initial_referrer": {"full_url": "https://search.example/", "host": "search.example", "path": "/"},
        "device": {"screen_width": 1280, "viewport_height": 700},
    }


SOURCES: list[tuple[dict[str, str], str]] = [
    ({}, "web"),
    ({"PagePlatform": ""}, "web"),
    ({"PagePlatform": "web", "AppName": ""}, "web"),
    ({"PagePlatform": "Web", "AppName": "Leaf"}, "mobile_app"),
    ({"PagePlatform": "iOS"}, "mobile_app"),
    *(({name: "x"}, "mobile_app") for name in APP_COLUMNS),
]


def test_the_type_of_a_source(tmp_path):
    """An app is recognized by its platform, or by a value in any column that only apps have."""
    rows = [ROW | row | {"SessionId": number} for number, (row, _) in enumerate(SOURCES, 1)]
    assert [event["source_type"] for event in events_of(tmp_path, *rows)] == [source for _, source in SOURCES]


def test_an_app(tmp_path):
    """An app has its name and version, and a device with a maker."""
    row = {"AppName": "Leaf", "AppVersion": "2", "AppDeviceVendor": "Ray", "AppDeviceModel": "R1", "AppOsVersion": "9"}
    assert event_of(tmp_path, row)["source_properties"] == {
        "device": {"manufacturer": "Ray", "model": "R1", "operating_system": "9"},
        "app": {"name": "Leaf", "version": "2"},
    }


# Values as they are written


def test_custom_values_are_as_written(tmp_path):
    """Numbers of any length and spelling, lists and escapes of custom variables are not changed."""
    values = b'"evt_a_real":1.50,"evt_b_int":12345678901234567890123456789012345678,"evt_c_strs":["x",1e5],"evt_d":-0.0'
    line = json.dumps(ROW | {"EventType": "custom"}).encode()[:-1] + b"," + values + b"}\n"
    request, _ = made_of(tmp_path, line)
    (flat,), (event,) = table_of(request.flat), table_of(request.data_direct.file)
    inner = flat["vars"].replace('"evt_', '"')
    assert event["event_properties"] == f'{{"event_properties":{inner}}}'


def test_variables_with_a_column_are_found_there(tmp_path):
    """A custom variable with a column of its own is where it would be without; what did not fit keeps its kind."""
    row = ROW | {
        "EventType": "custom",
        "evt_a.b_int": 5,
        "evt_c/d~_str": 'x"',
        "evt_e_bool": True,
        "evt_f_strs": ["y"],
        "evt_g_date": "2026-01-01T00:00:00Z",
        "evt_h_int": "five",
        "evt_i_real": 1.5,
        "evt_j_str": "z",
        "evt_l_int": 12345678901234567890,
        "evt_m_bool": 0.5,
        "evt_n_date": True,
        "evt_o_int": [1],
    }
    layout = Layout(
        Type.EVENT, (*(name for name in row if name.startswith("evt_") and name != "evt_j_str"), "evt_k_int")
    )
    assert event_of(tmp_path, row, layout=layout)["event_properties"]["event_properties"] == {
        "a": {"b_int": 5},
        "c/d~_str": 'x"',
        "e_bool": True,
        "f_strs": ["y"],
        "g_date": "2026-01-01T00:00:00.000000Z",
        "h_int": "five",
        "i_real": 1.5,
        "j_str": "z",
        "l_int": 12345678901234567890,
        "m_bool": 0.5,
        "n_date": True,
        "o_int": "[1]",
    }


def test_suffixes_can_be_removed(tmp_path):
    """With `suffixes = "strip"`, names are those that the site set, where they stay different."""
    row = {"EventType": "custom", "evt_a_str": "x", "evt_b_str": "1", "evt_b_real": 1}
    event = event_of(tmp_path, row, recipe=DataDirectRecipe(suffixes=Suffixes.STRIP))
    assert event["event_properties"]["event_properties"] == {"a": "x", "b_str": "1", "b_real": 1}


def test_difficult_texts_make_valid_json(tmp_path):
    """Quotes, control characters, U+0000 and other scripts come back from the JSON as they were."""
    text = '"\\\n\t\0\x1f\u2028é🫖</script>'
    event = event_of(tmp_path, {"EventType": "click", "EventTargetText": text, "PageUrl": text, "evt_x_str": text})
    assert event["event_properties"]["target"]["text"] == text
    assert event["source_properties"]["url"]["full_url"] == text


# Sessions


def at(minute, **members):
    """Return a row at a minute of the first hour."""
    return ROW | {"EventStart": f"2026-01-01T00:{minute:02}:00Z"} | members


def test_the_referrer_is_that_of_the_sessions_first_page(tmp_path):
    """All events of a session have the referrer of its first page, even if an event of a later page came first."""
    rows = [
        at(5, PageId=2, PageStart="2026-01-01T00:04:00Z", PageRefererUrl="https://shop.example/1"),
        at(6, PageId=1, PageStart="2026-01-01T00:01:00Z", PageRefererUrl="https://search.example/"),
        at(7, PageId=1, PageStart="2026-01-01T00:01:00Z"),
        at(8, PageId=3, SessionId=6, PageRefererUrl=""),
        at(9, PageId=4, SessionId=6, PageRefererUrl="https://shop.example/3"),
        at(10, PageId=5, SessionId=7, PageStart="2026-01-01T00:09:00Z", PageRefererUrl=""),
        at(11, PageId=5, SessionId=7, PageStart="2026-01-01T00:09:00Z", PageRefererUrl="https://search.example/5"),
    ]
    found = [
        event["source_properties"].get("initial_referrer", {}).get("full_url") for event in events_of(tmp_path, *rows)
    ]
    assert found == ["https://search.example/"] * 3 + [None] * 2 + ["https://search.example/5"] * 2


IDENTITY = DataDirectRecipe(identify=Identify.PER_SESSION)


def test_no_event_is_made_up_by_default(tmp_path):
    """A session's user is only known from events that were exported."""
    _, made = made_of(tmp_path, ndjson(at(1, UserAppKey="ann")))
    assert made == DataDirectMade(1)


def test_an_identify_per_session(tmp_path):
    """A session with a user's id and no `uservar` that has it gets one more event, at the time of its first event."""
    rows = [
        at(1, EventType="custom", evt_a_str="x", UserAppKey=""),
        at(
            2, EventType="custom", evt_a_str="y", UserAppKey="ann", UserEmail="ann@shop.example", user_b_int=1, PageId=9
        ),
        at(3, UserAppKey="ann"),
        at(4, SessionId=6, UserAppKey="ann"),
        at(5, SessionId=6, UserAppKey="ann", EventType="uservar"),
        at(6, SessionId=7, UserAppKey="bob"),
        at(7, SessionId=7, UserAppKey="", EventType="uservar"),
        at(8, SessionId=8, UserAppKey=""),
        at(9, SessionId=0, UserAppKey="ann"),
        at(9, SessionId=9, UserAppKey="cid", EventType="custom_error"),
    ]
    request, made = made_of(tmp_path, ndjson(*rows), recipe=IDENTITY)
    assert made == DataDirectMade(12, {"custom_error": 1}, made_up=3)
    found = table_of(request.data_direct.file)
    made_up = [event for event in found if event["event_id"].startswith("ax1i-")]
    assert [(one["session_id"], one["event_type"], one["event_time"].minute) for one in made_up] == [
        (5, "identify", 1),
        (7, "identify", 6),
        (9, "identify", 9),
    ]
    key = json.dumps([str(ROW["UserId"]), "5", "ann", "2026-01-01"], separators=(",", ":"))
    assert made_up[0]["event_id"] == "ax1i-" + md5(key.encode()).hexdigest()
    assert json.loads(made_up[0]["event_properties"]) == {
        "user_id": "ann",
        "user_email": "ann@shop.example",
        "user_properties": {"b_int": 1},
    }
    assert made_up[0]["view_id"] == 9
    (custom,) = [event for event in found if '"a_str":"y"' in event["event_properties"]]
    assert json.loads(custom["event_properties"]) == {"event_properties": {"a_str": "y"}}


def test_a_session_past_midnight_has_an_identify_on_each_day(tmp_path):
    """The two have different ids, and each is at the time of the session's first event of that day."""
    found = []
    for number, time in (47, "2026-01-01T23:50:00Z"), (48, "2026-01-02T00:10:00Z"):
        row = ROW | {"EventStart": time, "UserAppKey": "ann"}
        request, made = made_of(tmp_path / str(number), ndjson(row), recipe=IDENTITY, first=number)
        assert made.made_up == 1
        found += [event for event in table_of(request.data_direct.file) if event["event_id"].startswith("ax1i-")]
    assert [event["event_time"].day for event in found] == [1, 2]
    assert len({event["event_id"] for event in found}) == 2
    assert len({(event["device_id"], event["session_id"]) for event in found}) == 1


# Days


def test_a_day_without_events_has_no_file(tmp_path):
    """No rows, or only rows that are left out, make no file."""
    for name, content in {"nothing": b"", "complaint": ndjson(ROW | {"EventType": "seen_error"})}.items():
        request, made = made_of(tmp_path / name, content)
        assert made.rows == 0
        assert not request.data_direct.file.exists()


def test_events_without_an_id_are_refused(tmp_path):
    """Without ids nothing is made, but the flat file stays."""
    asked = DataDirectRequest(tmp_path / "datadirect.parquet", "receipt", DataDirectRecipe())
    request = request_of(tmp_path, ndjson(ROW), fields=("UserId", "EventStart", "EventType"))
    make_day(request)
    with pytest.raises(DayCountError, match="1 of 1 events have no id"):
        make_data_direct(request.flat, asked, memory=1 << 28, scratch=request.scratch)
    assert request.flat.exists()
    assert not asked.file.exists()


def shop_rows(hours=8, seed=1):
    """Return the rows of the sandbox's shop in the morning, among them pairs that are equal in every member."""
    noon = MIDNIGHT + DAY // 2
    rows = list(SandboxSyntheticRows(seed=seed, rows_per_hour=500).between(noon - hours * HOUR, noon))
    return [*rows, *(row for row in rows if row["EventType"] == "click")][: len(rows) + 148]


def test_totals_equal_those_of_the_flat_table(tmp_path):
    """Types, sessions and devices of the made-up shop are those that direct SQL over the flat table finds."""
    rows = shop_rows()
    request, made = made_of(tmp_path, ndjson(*rows), recipe=IDENTITY)
    flat, ours = str(request.flat), str(request.data_direct.file)
    names = ", ".join(f"('{name}', '{one.name}')" for name, one in EVENT_TYPES.items())
    left_out = ", ".join(f"'{name}'" for name in LEFT_OUT)
    kept = f"EventType NOT IN ({left_out}) AND (EventType <> 'request' OR ReqStatus >= {FAILED_STATUS})"
    with duckdb.connect() as duck:

        def same(one, other):
            found = duck.execute(one).fetchall()
            assert found == duck.execute(other).fetchall()
            return found

        real = f"FROM '{ours}' WHERE event_id NOT LIKE 'ax1i-%'"
        assert (made.rows - made.made_up,) in duck.execute(f"SELECT count(*) {real}").fetchall()
        assert same(
            f"SELECT event_type, count(*) {real} GROUP BY 1 ORDER BY 1",
            f"SELECT theirs, count(*) FROM '{flat}' JOIN (VALUES {names}) AS names(name, theirs) ON name = EventType "
            f"WHERE {kept} GROUP BY 1 ORDER BY 1",
        )
        assert same(
            f"SELECT device_id, session_id, count(*), min(event_time), max(event_time) {real} "
            "GROUP BY 1, 2 ORDER BY 1, 2",
            f"SELECT UserId, SessionId, count(*), min(EventStart), max(EventStart) FROM '{flat}' WHERE {kept} "
            "GROUP BY 1, 2 ORDER BY 1, 2",
        )
        known = "FROM (SELECT device_id, session_id, event_properties->>'user_id' AS u FROM"
        assert same(
            f"SELECT DISTINCT device_id, session_id, u {known} '{ours}') WHERE u IS NOT NULL ORDER BY ALL",
            f"SELECT DISTINCT UserId, SessionId, UserAppKey FROM '{flat}' WHERE UserAppKey <> '' ORDER BY ALL",
        )
        invalid = "NOT json_valid(event_properties) OR NOT json_valid(source_properties)"
        assert duck.execute(f"SELECT count(*) FROM '{ours}' WHERE {invalid}").fetchall() == [(0,)]
    assert sum(made.left_out.values()) + made.rows - made.made_up == len(rows)
    events = table_of(request.flat)
    assert len({event["event_id"] for event in events}) == len(rows)
    twins = Counter(json.dumps(row, sort_keys=True) for row in rows)
    assert sum(count > 1 for count in twins.values()) >= 100


SETTLING = {"UserAppKey": "later", "PageDuration": 99, "PageNumErrors": 9, "IndvId": 4, "user_late_str": "x"}


def test_exporting_again_gives_the_same_ids(tmp_path):
    """Rows in another order, with other values where rows still settle, or as CSV, keep their ids; so do the events."""
    rows = shop_rows(hours=3)
    again = [row | SETTLING for row in rows]
    Random(1).shuffle(again)
    as_csv = b"".join(render(rows, "csv"))
    requests = [
        made_of(tmp_path / "first", ndjson(*rows))[0],
        made_of(tmp_path / "again", ndjson(*again))[0],
        made_of(tmp_path / "csv", as_csv, form=Format.CSV)[0],
    ]
    for files in ([one.flat for one in requests], [one.data_direct.file for one in requests]):
        ids, *others = [sorted(row["event_id"] for row in table_of(file)) for file in files]
        assert others == [ids, ids]
        assert len(set(ids)) == len(ids) > 1000


def test_equal_flat_files_make_equal_bytes(tmp_path, monkeypatch):
    """Neither the time zone nor the memory limit nor a second run changes the file."""
    request, _ = made_of(tmp_path, ndjson(*shop_rows(hours=2)), recipe=IDENTITY)
    found = {request.data_direct.file.read_bytes()}
    for number, (zone, memory) in enumerate([("America/New_York", 1 << 28), ("Asia/Kolkata", 1 << 30)]):
        monkeypatch.setenv("TZ", zone)
        asked = DataDirectRequest(tmp_path / f"again-{number}", request.data_direct.receipt, IDENTITY)
        make_data_direct(request.flat, asked, memory=memory, scratch=request.scratch)
        found.add(asked.file.read_bytes())
    assert len(found) == 1


def test_the_order_is_by_device_session_and_time(tmp_path):
    """Rows are in order of device, session, time and id, so that a session is in one place of the file."""
    request, _ = made_of(tmp_path, ndjson(*shop_rows(hours=2)))
    far = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
    order = [
        (row["device_id"], row["session_id"] or 1 << 63, row["event_time"] or far, row["event_id"])
        for row in table_of(request.data_direct.file)
    ]
    assert order == sorted(order)


def test_a_path_may_contain_anything(tmp_path):
    """Characters with a meaning in patterns or SQL are only characters in a path."""
    folder = tmp_path / "it's [a] *?"
    request, made = made_of(folder, ndjson(ROW))
    assert made.rows == 1
    assert request.data_direct.file.exists()
