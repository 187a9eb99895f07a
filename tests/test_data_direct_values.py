"""The values of the Data Direct table are those of the flat table, whatever they are and however many."""

import json
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

from asyncexport.config.load_fields import LEAST_MEMORY
from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import ColumnKind, Layout
from asyncexport.core.warehouse.data_direct.columns import DataDirectRecipe
from asyncexport.core.warehouse.data_direct.mapping import EVENT_TYPES, IDENTIFY, OTHER_TYPES, SOURCE
from asyncexport.core.warehouse.data_direct.nesting import nested
from asyncexport.core.warehouse.data_direct.urls import url_parts
from asyncexport.warehouse.data_direct import make_data_direct
from asyncexport.warehouse.day_maker import DataDirectRequest
from asyncexport.warehouse.make_day import make_day
from tests.day_making import ndjson, request_of, table_of
from tests.test_data_direct import IDENTITY, ROW, made_of

TEXTS = (
    "",
    "a",
    'q"\\',
    "0",
    "null",
    "\0",
    "é\u2028🫖",
    "'; --",
    "{}",
    " x ",
    "%41",
    "https://shop.example/?a=%00#b?c",
)
VARIABLES = (
    "evt_a_str",
    "evt_a_str.b",
    "evt_o.n_int",
    "evt_o.n.m_real",
    "evt_..x",
    "user_p.q_str",
    "user_p",
    "page_z_str",
)
FAR = datetime.max.replace(tzinfo=UTC)
"""Stands for a time that is not there: it comes last."""


def random_rows(number):
    """Return rows of all types with values in random columns, texts of all sorts among them."""
    chance = Random(7)
    kinds = {column.name: column.kind for column in Layout(Type.EVENT).standard}
    for _ in range(number):
        row: dict[str, Any] = {"EventType": chance.choice([*EVENT_TYPES, "swirl"])}
        row["EventSubType"] = chance.choice(["uncaught", "x"])
        for name in chance.sample(sorted(set(kinds) - {"EventType", "EventSubType"}), 40):
            match kinds[name]:
                case ColumnKind.INTEGER:
                    row[name] = chance.choice([0, 1, 2, 3, -1, 400, 37, 1 << 62, chance.getrandbits(40)])
                case ColumnKind.REAL:
                    row[name] = chance.choice([0.5, 1e-9, 1e22, 0.0312])
                case ColumnKind.TIME:
                    row[name] = f"2026-01-01T00:{chance.randrange(60):02}:00.{chance.randrange(10**6):06}Z"
                case _:
                    row[name] = chance.choice(TEXTS)
        for name in chance.sample(VARIABLES, chance.randrange(4)):
            row[name] = chance.choice([*TEXTS, 4, 1.5, True, None, ["x", {"y": 1}]])
        yield row


def leaf(value, path):
    """Return what is at a path of nested objects, or None."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def by_session(flats):
    """Return the rows of each session, by device and session."""
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for flat in flats:
        if flat["UserId"] is not None and flat["SessionId"]:
            found.setdefault((flat["UserId"], flat["SessionId"]), []).append(flat)
    return found


def first_referrer(rows):
    """Return the referrer of a session's first page: one that is not empty, if the page has any."""
    far, last = 1 << 63, chr(0x10FFFF)

    def place(flat):
        page = far if flat["PageId"] is None else flat["PageId"]
        return flat["PageStart"] or flat["EventStart"] or FAR, page, flat["PageRefererUrl"] or last

    return min(rows, key=place, default={"PageRefererUrl": None})["PageRefererUrl"]


def expected_value(one, flat, session):
    """Return what a property should be, from a row of the flat table and all rows of its session."""
    values = [flat.get(name) for name in one.value.columns]
    match one.path:
        case "event_properties" | "user_properties":
            prefix = one.value.columns[0].removesuffix("*")
            members = json.loads(flat["vars"] or "{}").items()
            texts = {name.removeprefix(prefix): json.dumps(value) for name, value in members if name.startswith(prefix)}
            return json.loads(nested(texts, strip=False)) or None
        case "initial_referrer":
            referrer = first_referrer(session)
            return json.loads(url_parts(referrer)) if referrer else None
        case "url" | "request_url":
            return json.loads(url_parts(values[0])) if values[0] else None
        case "exception_source_file":
            return values[0] or values[1] or None
        case "user_id" | "user_email" | "user_display_name":
            return values[0] or None
        case "fs_error_kind":
            return {1: "unknown", 2: "console", 3: "exception"}.get(values[0])
        case "is_exception_handled":
            return False if values[0] == "uncaught" else None
        case "start_time":
            return values[0] and values[0].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        case "max_scroll_depth":
            return None if values[0] is None else values[0] / 100
        case "inactive_duration_millis":
            return None if None in values else values[0] - values[1]
    return values[0]


def check_event(event, flat, session, compared, kind=None):
    """Check all properties of an event."""
    kind = kind or EVENT_TYPES.get(flat["EventType"])
    own = kind.properties if kind else OTHER_TYPES
    for properties, column in ((own, "event_properties"), (SOURCE, "source_properties")):
        value = json.loads(event[column])
        for one in properties:
            expected = expected_value(one, flat, session)
            assert leaf(value, one.path) == expected, (one, flat)
            compared[one.path] += expected is not None


def test_every_property_has_the_value_of_its_column(tmp_path):
    """Whatever the values, each property is the value of its column, and is left out where the column is NULL."""
    request, made = made_of(tmp_path, ndjson(*random_rows(3000)), recipe=IDENTITY)
    assert made.rows - made.made_up + sum(made.left_out.values()) == 3000
    flats = {row["event_id"]: row for row in table_of(request.flat)}
    sessions = by_session(flats.values())
    compared: Counter[str] = Counter()
    made_up = {}
    for event in table_of(request.data_direct.file):
        session = sessions.get((event["device_id"], event["session_id"]), [])
        if event["event_id"] in flats:
            check_event(event, flats[event["event_id"]], session, compared)
        else:
            made_up[event["device_id"], event["session_id"]] = event
    assert min(compared.values()) > 5
    assert set(compared) == {one.path for kind in EVENT_TYPES.values() for one in (*SOURCE, *kind.properties)}
    known = {place: [flat for flat in rows if flat["UserAppKey"]] for place, rows in sessions.items()}
    unseen = {place for place, rows in known.items() if rows and all(row["EventType"] != "uservar" for row in rows)}
    assert set(made_up) == unseen
    assert len(made_up) == made.made_up > 5
    for place, event in made_up.items():
        first = min(known[place], key=lambda flat: (flat["EventStart"] or FAR, flat["event_id"]))
        check_event(event, first, sessions[place], compared, IDENTIFY)
        assert (event["event_time"] or FAR) == min(flat["EventStart"] or FAR for flat in sessions[place])


def test_long_texts_need_little_memory(tmp_path):
    """Below a small limit, a file with long texts is read in parts, which gives the same bytes as in one."""
    chance = Random(3)
    rows = [
        ROW
        | {
            "SessionId": chance.randrange(1, 400),
            "EventType": "custom",
            "PageUrl": f"https://shop.example/?id={chance.getrandbits(8_000):x}",
            "evt_text_str": f"{chance.getrandbits(24_000):x}",
        }
        for _ in range(2304)
    ]
    request = request_of(tmp_path, ndjson(*rows))
    make_day(request)
    files = []
    for memory in (LEAST_MEMORY, 1 << 30):
        asked = DataDirectRequest(tmp_path / f"{memory}.parquet", "receipt", DataDirectRecipe())
        assert make_data_direct(request.flat, asked, memory=memory, scratch=request.scratch).rows == len(rows)
        files.append(asked.file.read_bytes())
    assert files[0] == files[1]
