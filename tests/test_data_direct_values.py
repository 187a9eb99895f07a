"""The values of the Data Direct table are those of the flat table, whatever they are and however many."""

import json
from collections import Counter
from random import Random
from typing import Any

from asyncexport.config.load_fields import LEAST_MEMORY
from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import ColumnKind, Layout
from asyncexport.core.warehouse.data_direct.columns import DataDirectRecipe
from asyncexport.core.warehouse.data_direct.mapping import EVENT_TYPES, OTHER_TYPES, SOURCE
from asyncexport.core.warehouse.data_direct.urls import url_parts
from asyncexport.warehouse.data_direct import make_data_direct
from asyncexport.warehouse.day_maker import DataDirectRequest
from asyncexport.warehouse.make_day import make_day
from tests.day_making import ndjson, request_of, table_of
from tests.test_data_direct import ROW, made_of

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
UNCHECKED = object()


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
        yield row


def leaf(value, path):
    """Return what is at a path of nested objects, or None."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def expected_value(one, flat):
    """Return what a property should be, from a row of the flat table."""
    values = [flat.get(name) for name in one.value.columns]
    match one.path:
        case "event_properties" | "user_properties" | "initial_referrer":
            return UNCHECKED
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


def test_every_property_has_the_value_of_its_column(tmp_path):
    """Whatever the values, each property is the value of its column, and is left out where the column is NULL."""
    request, made = made_of(tmp_path, ndjson(*random_rows(3000)))
    assert made.rows + sum(made.left_out.values()) == 3000
    flats = {row["event_id"]: row for row in table_of(request.flat)}
    compared: Counter[str] = Counter()
    for event in table_of(request.data_direct.file):
        flat = flats[event["event_id"]]
        kind = EVENT_TYPES.get(flat["EventType"])
        own = kind.properties if kind else OTHER_TYPES
        for properties, column in ((own, "event_properties"), (SOURCE, "source_properties")):
            value = json.loads(event[column])
            for one in properties:
                expected = expected_value(one, flat)
                if expected is not UNCHECKED:
                    assert leaf(value, one.path) == expected, (one, flat)
                    compared[one.path] += expected is not None
    assert min(compared.values()) > 5
    paths = {one.path for one in (*SOURCE, *(one for kind in EVENT_TYPES.values() for one in kind.properties))}
    assert paths - set(compared) == {"event_properties", "user_properties", "initial_referrer"}


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
        for _ in range(4096)
    ]
    request = request_of(tmp_path, ndjson(*rows))
    make_day(request)
    files = []
    for memory in (LEAST_MEMORY, 1 << 30):
        asked = DataDirectRequest(tmp_path / f"{memory}.parquet", "receipt", DataDirectRecipe())
        assert make_data_direct(request.flat, asked, memory=memory, scratch=request.scratch).rows == len(rows)
        files.append(asked.file.read_bytes())
    assert files[0] == files[1]
