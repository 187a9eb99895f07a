"""The sandbox's rows: synthetic ones and those of a file, the selection of fields, and all formats."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, read_timestamp
from asyncexport.core.exports import Format
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.filler import filler
from asyncexport.sandbox.formats import (
    EVENT_FIELDS,
    INDIVIDUAL_FIELDS,
    columns_depend_on_rows,
    empty,
    render,
    row_json,
    select,
)
from asyncexport.sandbox.people import count_individuals, individuals
from asyncexport.sandbox.rowfile import SandboxFileRow, SandboxFileRows
from asyncexport.sandbox.rows import Row
from tests.inspecting import inspect_pieces

START = 1_767_225_600  # 2026-01-01T00:00:00Z
NOON = START + DAY // 2
HOUR = 3600


def texts(rows):
    """Count the rows, each as bytes."""
    return Counter(map(row_json, rows))


def moments(rows):
    return [read_timestamp(row["EventStart"]) for row in rows]


def written(*args, **options):
    return b"".join(render(*args, **options))


def a_day(**options):
    return list(SandboxSyntheticRows(**options).between(START, START + DAY))


millis = st.integers(0, 3 * HOUR * 1000).map(lambda ms: (NOON * 1000 + ms) / 1000)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 64), st.sampled_from([40.0, 800.0, 15_000.0]), st.tuples(millis, millis, millis).map(sorted))
def test_adjacent_ranges_add_up(seed, rate, cuts):
    """Two adjacent ranges have exactly the rows of the range they form, wherever it is cut."""
    a, b, c = cuts
    rows = SandboxSyntheticRows(seed, rate)
    assert texts(rows.between(a, c)) == texts(rows.between(a, b)) + texts(rows.between(b, c))


def test_a_row_at_a_boundary_is_in_one_range():
    """A row is in the range that begins at its time and not in the one that ends there."""
    rows = SandboxSyntheticRows()
    for moment in sorted(moments(rows.between(NOON, NOON + 600))):
        assert moment in moments(rows.between(moment, moment + 0.001))
        assert moment not in moments(rows.between(moment - 1, moment))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(millis, st.floats(0, 600))
def test_rows_lie_in_the_range(start, length):
    """All rows are in the requested range, to the microsecond."""
    for moment in moments(SandboxSyntheticRows(rows_per_hour=5000).between(start, start + length)):
        assert round(start, 6) <= moment < round(start + length, 6)


def test_rows_are_always_in_the_same_shuffled_order():
    """A client that relies on order by time fails, and fails reproducibly."""
    rows = list(SandboxSyntheticRows().between(NOON, NOON + HOUR))
    backwards = sum(a > b for a, b in pairwise(moments(rows)))
    assert len(rows) / 3 < backwards < len(rows) * 2 / 3
    assert rows == list(SandboxSyntheticRows().between(NOON, NOON + HOUR))


@pytest.mark.slow
def test_another_process_has_the_same_rows():
    """The rows depend only on the seed, not on the process or its hash seed."""
    code = (
        "import sys; from hashlib import sha256; from asyncexport.sandbox.data import SandboxSyntheticRows;"
        "from asyncexport.sandbox.formats import render;"
        f"print(sha256(b''.join(render(SandboxSyntheticRows(7).between({NOON}, {NOON + HOUR}), 'ndjson'))).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    rows = SandboxSyntheticRows(7).between(NOON, NOON + HOUR)
    assert done.stdout.strip() == sha256(written(rows, "ndjson")).hexdigest()


def test_another_seed_gives_other_rows():
    """Two seeds share no row."""
    one, other = (texts(SandboxSyntheticRows(seed).between(NOON, NOON + HOUR)) for seed in (1, 2))
    assert one
    assert not one & other


@pytest.mark.slow
def test_the_number_of_rows_is_as_requested():
    """Two weeks have the requested average rate, with or without quiet half-hours."""
    for quiet in (0, 0.25, 1):
        count = sum(1 for _ in SandboxSyntheticRows(3, 60, quiet=quiet).between(START, START + 14 * DAY))
        assert count == pytest.approx(14 * 24 * 60, rel=0.05)


@pytest.mark.slow
def test_nights_are_quieter():
    """Traffic follows the time of day."""
    by_hour = Counter(int(moment - START) // HOUR for moment in moments(a_day(quiet=0)))
    assert max(by_hour[hour] for hour in (2, 3)) * 3 < min(by_hour[hour] for hour in (17, 18, 19))


@pytest.mark.slow
def test_some_half_hours_of_the_night_are_empty():
    """Empty half-hours occur only at night, and only if `quiet` is above 0."""
    busy = {int(moment - START) // 1800 for moment in moments(a_day())}
    missing = set(range(48)) - busy
    assert missing
    assert max(missing) < 12
    assert {int(moment - START) // 1800 for moment in moments(a_day(quiet=0))} == set(range(48))
    assert {int(moment - START) // 1800 for moment in moments(a_day(quiet=1))} == set(range(12, 48))


@pytest.mark.slow
def test_the_first_row_of_ten_years_comes_immediately():
    """Rows are made only when they are needed."""
    row = next(SandboxSyntheticRows().between(START - 3650 * DAY, START))
    assert row["EventStart"] < "2026"


def test_times_beyond_all_time_stamps_have_no_rows():
    """Ranges before 1970, after 9999 or of length 0 have no rows."""
    assert list(SandboxSyntheticRows().between(253_402_300_800, 253_402_300_900)) == []
    assert list(SandboxSyntheticRows().between(-7200, 0)) == []
    assert list(SandboxSyntheticRows().between(NOON, NOON)) == []


@pytest.fixture(scope="module")
def day():
    return a_day(rows_per_hour=1500)


@pytest.mark.slow
def test_every_documented_field_occurs(day):
    """All documented fields of events occur, and custom ones of every group and type."""
    keys = set().union(*day)
    assert keys >= set(EVENT_FIELDS)
    custom = keys - set(EVENT_FIELDS)
    assert all(re.fullmatch(r"(user|evt|page)_\w[\w.]*_(str|int|real|bool)", key) for key in custom), custom
    sorts = {(key.split("_")[0], key.rsplit("_")[-1]) for key in custom}
    assert sorts == {(group, suffix) for group in ("user", "evt", "page") for suffix in ("str", "int", "real", "bool")}
    assert any("." in key for key in custom)


def test_every_known_type_of_event_occurs(day):
    """Every event type and subtype that a client may handle occurs."""
    types = (
        "abandon backgrounded change click click_error console_message copy crashed cumulative_layout_shift custom "
        "custom_error exception first_input_delay highlight keyboard_open keyboard_close load low_memory navigate "
        "pageview paste pinch_gesture request seen seen_error thrash uservar"
    )
    assert {row["EventType"] for row in day} == set(types.split())
    subtypes = "navigate reload back_forward pinch_scale_in pinch_scale_out error rendered visible uncaught"
    assert {row["EventSubType"] for row in day if "EventSubType" in row} == set(subtypes.split())


def test_rows_are_sparse_and_some_strings_are_empty(day):
    """A key that does not apply is absent, not null."""
    assert all(("LoadEventTime" in row) == (row["EventType"] == "load") for row in day)
    assert all(("ReqStatus" in row) == (row["EventType"] == "request") for row in day)
    assert all(("AppName" in row) != ("PageUrl" in row) for row in day)
    assert any(row["UserEmail"] == "" for row in day)
    assert not any(value is None for row in day for value in row.values())


def test_errors_of_custom_events_come_with_the_event(day):
    """As in real data, each custom_error equals a custom row except for its type and the error."""
    error_fields = ("EventVarErrorKind", "EventVarFields")
    errors = [row for row in day if row["EventType"] == "custom_error"]
    expected = texts(
        {key: value for key, value in row.items() if key not in error_fields} | {"EventType": "custom"}
        for row in errors
    )
    assert len(errors) > 10
    assert expected <= texts(day)


def test_fields_belong_to_their_event_types(day):
    """Clicks have EventModError, errors have EventVar*, and a pageview is the last event of its page."""
    for row in day:
        kind = row["EventType"]
        assert kind == "click" or "EventModError" not in row
        is_error = kind in ("custom_error", "click_error", "seen_error")
        assert (bool(row.get("EventVarErrorKind")), bool(row.get("EventVarFields"))) == (is_error, is_error)
    assert any("EventModError" in row for row in day)
    views = [row for row in day if row["EventType"] == "pageview"]
    assert {"PageUrl" in row for row in views} == {True, False}
    latest: dict[int, str] = {}
    for row in day:
        latest[row["PageId"]] = max(latest.get(row["PageId"], ""), row["EventStart"])
    assert all(row["EventStart"] == latest[row["PageId"]] for row in views)


def test_ids_do_not_fit_into_a_float(day):
    """A client that reads an id as a float gets another id."""
    for name in ("IndvId", "UserId", "SessionId", "PageId"):
        ids = {row[name] for row in day}
        assert all(1 << 53 < number < 1 << 63 for number in ids)
        assert any(int(float(number)) != number for number in ids)


def test_an_individual_may_have_two_devices(day):
    """An IndvId has one or two UserIds; each session has one UserId, and each page one session."""
    users: dict[int, set[int]] = {}
    for row in day:
        users.setdefault(row["IndvId"], set()).add(row["UserId"])
    assert {len(found) for found in users.values()} == {1, 2}
    assert len({(row["UserId"], row["SessionId"]) for row in day}) == len({row["SessionId"] for row in day})
    assert len({(row["SessionId"], row["PageId"]) for row in day}) == len({row["PageId"] for row in day})


@pytest.mark.slow
def test_times_are_consistent(day):
    """Offsets match the starts of page and session; time stamps have milliseconds and Z."""
    for row in day:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["EventStart"])
        at = round(read_timestamp(row["EventStart"]) * 1000)
        assert at - round(read_timestamp(row["PageStart"]) * 1000) == row["EventPageOffset"] < row["PageDuration"]
        assert at - round(read_timestamp(row["SessionStart"]) * 1000) == row["EventSessionOffset"]
        assert row["PageActiveDuration"] <= row["PageDuration"]
        assert row.get("UserCreated", "") < row["EventStart"]


@pytest.mark.slow
def test_some_rows_are_there_twice(day):
    """Identical rows occur but are rare."""
    twins = [count for count in texts(day).values() if count > 1]
    assert set(twins) == {2}
    assert len(day) / 1000 < len(twins) < len(day) / 100


@pytest.mark.parametrize("what", ["\n", "\r\n", "\t", '"', ",", "\\", "\u2028", "\U0001f375", "é", "カ"], ids=ascii)
def test_difficult_characters_occur(day, what):
    """Each character that breaks careless parsers is in some value."""
    assert any(what in value for row in day for value in row.values() if isinstance(value, str))


def test_custom_values_have_json_types(day):
    """`_real` is 12.5 or 4, `_int` an integer, `_bool` true or false."""
    assert {type(row["evt_price_real"]) for row in day if "evt_price_real" in row} == {int, float}
    assert {row["evt_order.gift_bool"] for row in day if "evt_order.gift_bool" in row} == {True, False}
    assert {type(row["evt_order.items_int"]) for row in day if "evt_order.items_int" in row} == {int}


def test_a_late_row_is_exported_after_its_arrival():
    """Late rows are missing until they arrive; all others are there immediately."""
    rows = SandboxSyntheticRows(late_share=0.1, late_seconds=7200)
    everything = texts(rows.between(NOON, NOON + HOUR))
    soon = texts(rows.between(NOON, NOON + HOUR, arrived_by=NOON + HOUR))
    assert everything == texts(SandboxSyntheticRows().between(NOON, NOON + HOUR))
    assert soon < everything
    assert soon.total() / everything.total() == pytest.approx(0.9, abs=0.04)
    assert texts(rows.between(NOON, NOON + HOUR, arrived_by=NOON + 3 * HOUR)) == everything
    late = everything - soon
    halfway = everything - texts(rows.between(NOON, NOON + HOUR, arrived_by=NOON + 2.5 * HOUR))
    assert halfway == Counter({text: count for text, count in late.items() if _at(text) > NOON + HOUR / 2})


def _at(text):
    return read_timestamp(orjson.loads(text)["EventStart"])


def test_no_row_arrives_before_its_event():
    """An export of a range that is not over has the rows so far."""
    rows = SandboxSyntheticRows()
    assert texts(rows.between(NOON, NOON + HOUR, arrived_by=NOON + 600)) == texts(rows.between(NOON, NOON + 600.001))


def test_individuals_are_those_with_an_event_in_the_range():
    """There is exactly one row for each of them."""
    rows = SandboxSyntheticRows(5, 60)
    found = [row["IndvId"] for row in individuals(rows, NOON, NOON + HOUR, as_of=NOON + 30 * DAY)]
    assert found
    assert len(found) == len(set(found))
    assert set(found) == {row["IndvId"] for row in rows.between(NOON, NOON + HOUR)}


@pytest.mark.slow
@pytest.mark.parametrize("as_of", [NOON + HOUR, NOON + 2 * DAY, NOON + 30 * DAY])
def test_totals_are_those_of_all_events_so_far(as_of):
    """The numbers of sessions, pages and events match the events that had arrived."""
    rows = SandboxSyntheticRows(5, 60, late_share=0.1, late_seconds=9000)
    counted: dict[int, list[Row]] = {}
    for row in rows.between(NOON - 20 * DAY, as_of, arrived_by=as_of):
        counted.setdefault(row["IndvId"], []).append(row)
    found = list(individuals(rows, NOON, NOON + HOUR, as_of=as_of))
    assert found
    for row in found:
        mine = counted[row["IndvId"]]
        assert row["NumEvents"] == len(mine)
        assert row["NumPages"] == len({event["PageId"] for event in mine})
        assert row["NumSessions"] == len({event["SessionId"] for event in mine})
        assert row["LastEventStart"] == max(event["EventStart"] for event in mine)
        assert row["DisplayName"] == mine[0]["UserDisplayName"]


def test_an_individual_has_every_documented_field():
    """All documented fields of individuals occur, with consistent values; variables are an object."""
    found = list(individuals(SandboxSyntheticRows(), NOON, NOON + HOUR, as_of=NOON + DAY))
    assert set().union(*found) == set(INDIVIDUAL_FIELDS)
    assert any(row["UserVars"] for row in found)
    for row in found:
        assert 0 <= row["ActiveSec"] <= row["TotalSec"]
        assert row["LastSessionSec"] <= row["MaxSessionSec"] <= row["TotalSec"]
        assert row["LastSessionStart"] <= row["LastEventStart"]
    assert found == list(individuals(SandboxSyntheticRows(), NOON, NOON + HOUR, as_of=NOON + DAY))


def test_counting_individuals_pauses():
    """The generator yields regularly, also while it only searches for the individuals."""
    rows = SandboxSyntheticRows()
    for start, end in ((NOON, NOON + HOUR), (NOON - 2 * DAY, NOON)):
        found: list[object] = []

        def counted(start, end, found):
            found += yield from count_individuals(rows, start, end, as_of=NOON + HOUR)

        assert sum(1 for _ in counted(start, end, found)) > 20
        assert found == list(individuals(rows, start, end, as_of=NOON + HOUR))


def test_an_empty_range_has_no_individuals():
    """Without an event there is no individual."""
    assert list(individuals(SandboxSyntheticRows(quiet=1), START, START + HOUR, as_of=START + DAY)) == []


# Any JSON value, except text with half of a surrogate pair, which UTF-8 cannot express.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(st.integers(-(1 << 80), 1 << 80), st.floats(allow_nan=False, allow_infinity=False))
values = st.one_of(words, numbers, st.booleans(), st.none(), st.lists(st.integers(0, 9), max_size=2))
keys = st.one_of(st.sampled_from([*EVENT_FIELDS[:9], "user_a_str", "evt_b.c_real", "page_d_bool", "user_", "x"]), words)
objects = st.dictionaries(keys, values, max_size=8)


@given(st.lists(objects, max_size=4), st.sampled_from([1, 100, 1 << 16]))
def test_json_and_ndjson_round_trip(rows, pieces):
    """Any row survives, with the order of rows and keys."""
    lines = written(rows, "ndjson", pieces=pieces).decode().split("\n")
    assert lines.pop() == ""
    assert [list(json.loads(line).items()) for line in lines] == [list(row.items()) for row in rows]
    assert json.loads(written(rows, "json", pieces=pieces)) == rows


@given(st.lists(objects, min_size=1, max_size=4))
def test_csv_round_trips_through_the_csv_module(rows):
    """Every value is found under its name, as text or as its JSON text."""
    found = list(csv.DictReader(io.StringIO(written(rows, "csv").decode(), newline=""), strict=True))
    assert len(found) == len(rows)
    for row, cells in zip(rows, found, strict=True):
        assert {key: cell for key, cell in cells.items() if key in row} == {
            key: _cell(value) for key, value in row.items()
        }
        assert not any(cell for key, cell in cells.items() if key not in row)


def _cell(value):
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else json.dumps(value, separators=(",", ":"))


@pytest.mark.slow
def test_synthetic_rows_survive_every_format():
    """Difficult texts survive each format, and the exporter's own inspection counts the rows."""
    rows = list(SandboxSyntheticRows(rows_per_hour=1500).between(NOON, NOON + HOUR))
    assert [orjson.loads(line) for line in written(rows, "ndjson").split(b"\n")[:-1]] == rows
    assert orjson.loads(written(rows, "json")) == rows
    found = list(csv.DictReader(io.StringIO(written(rows, "csv").decode(), newline=""), strict=True))
    assert [{key: cell for key, cell in cells.items() if cell} for cells in found] == [
        {key: _cell(value) for key, value in row.items() if value != ""} for row in rows
    ]
    for form in Format:
        assert inspect_pieces([gzip.compress(written(rows, form))], form).rows == len(rows)


def test_pieces_have_the_requested_size():
    """A file comes in pieces that are hardly bigger than requested."""
    rows = list(SandboxSyntheticRows().between(NOON, NOON + HOUR))
    for form in Format:
        sizes = [len(piece) for piece in render(rows, form, pieces=10_000)]
        assert len(sizes) > 10
        assert all(10_000 <= size < 13_000 for size in sizes[:-1])


def test_the_json_array_has_the_layout_of_the_real_one():
    """There is one object a line, with the comma at its end."""
    assert written([{"a": 1}, {"b": "é"}], "json") == '[{"a":1},\n{"b":"é"}]'.encode()


def test_columns_follow_the_fields():
    """A CSV file has the requested fields in their order; a wildcard is replaced by its fields."""
    rows = [{"EventStart": "x", "evt_b_str": "1", "user_a_bool": True}, {"evt_a_str": "2", "PageUrl": "u"}]
    fields = ["user_*", "EventStart", "evt_*", "AppName"]
    assert written(rows, "csv", fields=fields).decode().split("\n") == [
        "user_a_bool,EventStart,evt_a_str,evt_b_str,AppName",
        "true,x,,1,",
        ",,2,,",
        "",
    ]


@given(st.lists(objects, max_size=4), st.none() | st.lists(st.one_of(keys, st.sampled_from(["user_*", "evt_*"]))))
def test_csv_is_the_same_with_given_and_collected_names(rows, fields):
    """Names given beforehand make the same header as names collected from the rows."""
    held = written(rows, "csv", fields=fields)
    names = {key for row in rows for key in row}
    assert written(iter(rows), "csv", fields=fields, keys=names) == held
    if not columns_depend_on_rows(fields):
        assert written(iter(rows), "csv", fields=fields, keys=()) == held


def test_columns_without_fields_are_the_defaults_and_custom_ones():
    """The header does not depend on the order of the rows."""
    rows = [{"evt_b_str": "1"}, {"evt_a_str": "2"}]
    header = written(rows, "csv").split(b"\n")[0]
    assert header.decode().split(",") == [*EVENT_FIELDS, "evt_a_str", "evt_b_str"]
    assert written(rows[::-1], "csv").split(b"\n")[0] == header
    people = written([{"IndvId": 1, "UserVars": {"a": 1}}], "csv", columns=INDIVIDUAL_FIELDS).decode()
    assert people.split("\n")[0] == ",".join(INDIVIDUAL_FIELDS)
    assert people.split("\n")[1].endswith(',"{""a"":1}"')


@given(st.lists(objects, max_size=3), st.lists(st.one_of(keys, st.sampled_from(["user_*", "evt_*", "page_*"]))))
def test_a_selection_has_exactly_the_requested_fields(rows, fields):
    """Exact names and wildcards select members, for synthetic rows and rows of a file, in the row's own order."""
    patterns = [re.escape(field).replace(r"_\*", "_.*") for field in dict.fromkeys(fields)]
    wanted = re.compile("|".join(patterns) if fields else ".*", re.DOTALL)
    expected = [[(key, value) for key, value in row.items() if wanted.fullmatch(key)] for row in rows]
    assert [list(row.items()) for row in select(rows, fields)] == expected
    raw = [SandboxFileRow(json.dumps(row)) for row in rows]
    assert [list(row.items()) for row in select(raw, fields)] == expected


def test_there_are_three_wildcards_and_no_others():
    """`Event*` is not a wildcard, nor is a star within a name."""
    row = {"EventStart": "x", "user_a_str": "1", "evt_a.b_str": "2", "page_a_str": "3", "users_str": "4"}
    assert next(select([row], ["Event*", "evt_a*", "*"])) == {}
    assert next(select([row], ["user_*"])) == {"user_a_str": "1"}
    assert next(select([row], ["evt_a.b_str", "page_*"])) == {"evt_a.b_str": "2", "page_a_str": "3"}


@pytest.mark.parametrize("fields", [None, [], ()])
def test_no_fields_mean_all_fields(fields):
    """None and an empty list mean the same."""
    row = {"EventStart": "x", "user_a_str": "1", "SomethingNew": 2}
    assert list(select([row], fields)) == [row]


def test_a_field_is_found_by_its_old_name():
    """A request for the old name gets the value under the old name."""
    row = {"EventTargetSelector": "a.b", "PageUserAgent": "Mozilla"}
    old = {"EventTargetSelectorTok": "a.b", "PageAgent": "Mozilla"}
    assert next(select([row], list(old))) == old
    assert next(select([SandboxFileRow(json.dumps(row))], list(old))) == old
    assert next(select([row], [*row, *old])) == row


def test_an_unknown_format_is_refused():
    """An unknown format is an error."""
    with pytest.raises(ValueError, match="there is no format"):
        render([], "parquet")
    with pytest.raises(ValueError, match="there is no format"):
        filler("parquet", 1000)


@pytest.mark.parametrize(
    ("form", "usual"), [("ndjson", b""), ("json", b"[]"), ("csv", ",".join(EVENT_FIELDS).encode() + b"\n")]
)
def test_an_empty_export_has_two_shapes(form, usual):
    """An empty container and no bytes at all both count as no rows."""
    assert empty(form, "usual") == usual
    assert empty(form, "nothing") == b""
    assert inspect_pieces([gzip.compress(usual)], Format(form)).rows == 0
    with pytest.raises(ValueError, match="there is no shape"):
        empty(form, "odd")


def test_an_empty_csv_follows_the_fields_too():
    """Its header is that of a file with rows."""
    assert empty("csv", fields=["EventStart", "user_*", "PageUrl"]) == b"EventStart,PageUrl\n"
    assert empty("csv", columns=INDIVIDUAL_FIELDS) == ",".join(INDIVIDUAL_FIELDS).encode() + b"\n"


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(Format), st.integers(4000, 3_000_000))
def test_a_filler_is_valid_and_has_the_requested_size(form, size):
    """The size is exact, and so is the number of rows."""
    made = filler(form, size)
    assert len(b"".join(made)) == size
    assert inspect_pieces([gzip.compress(b"".join(made), 1)], form).rows == made.rows


def test_a_gigabyte_repeats_one_block():
    """A big file needs only the memory of a block, and its parts can be compressed separately."""
    made = filler("ndjson", 1 << 30)
    assert len(made.head) + made.times * len(made.block) + len(made.tail) == 1 << 30
    assert made.times > 500
    assert made.block.endswith(b"}\n")
    few = [gzip.compress(made.block, 1)] * 3 + [gzip.compress(made.tail, 1)]
    rows_a_block = made.block.count(b"\n")
    assert inspect_pieces(few, Format.NDJSON).rows == 3 * rows_a_block + made.rows - made.times * rows_a_block


def test_a_filler_has_rows_of_its_range():
    """Its rows begin at the given time, so a client that checks their range accepts them."""
    rows = orjson.loads(b"".join(filler("json", 100_000, start=NOON)))
    assert all(NOON <= moment < NOON + 300 for moment in moments(rows))


def test_a_filler_smaller_than_a_row_is_refused():
    """Rows cannot be cut to fit."""
    with pytest.raises(ValueError, match="no row fits into 10 bytes"):
        filler("json", 10)


GIVEN = [
    '{"IndvId":123456789012345678901234567890,"EventStart":"2024-05-01T00:00:00.000Z","z":4.0,"a":1e2,"m":-0.0}',
    '{"IndvId":9007199254740993,"EventStart":"2024-05-01T00:00:00.5Z","page_a_str": "a, \\"colon\\"","b":[1, 2.50]}',
    '{"EventStart":"2024-05-01T00:00:01Z","twice":1,"twice":2,"text":"\\u00e9\\ud83c\\udf75 é\\n","n":null,"t":true}',
    '{"EventStart":"2024-05-01T00:00:01.999999999Z","half":"\\ud83c","deep":{"x":[{"y":1E+3}]}}',
    '{"EventStart":"2024-05-01T00:00:01.999999999Z","half":"\\ud83c","deep":{"x":[{"y":1E+3}]}}',
]
MAY = 1_714_521_600  # 2024-05-01T00:00:00Z


@pytest.fixture(params=["array", "array, pretty", "lines", "lines, CRLF", "gzip", "BOM"])
def rows_file(request, tmp_path):
    """The same rows in each form that a file may have."""
    shapes = {
        "array": "[" + ",\n".join(GIVEN) + "]",
        "array, pretty": " [\n  " + " ,\n  ".join(GIVEN) + "\n]\n\n",
        "lines": "\n".join(GIVEN),
        "lines, CRLF": "\r\n".join(GIVEN) + "\r\n\r\n",
        "gzip": "\n".join(GIVEN) + "\n",
        "BOM": "\ufeff" + "\n".join(GIVEN) + "\n",
    }
    data = shapes[request.param].encode()
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(data) if request.param == "gzip" else data)
    return path


def test_rows_of_a_file_are_exported_unchanged(rows_file):
    """Each row has the text of the file in NDJSON and JSON, including duplicates."""
    rows = SandboxFileRows(rows_file)
    assert Counter(written(rows.between(MAY, MAY + 10), "ndjson").decode().splitlines()) == Counter(GIVEN)
    array = written(rows.between(MAY, MAY + 10), "json").decode()
    assert Counter(array[1:-1].split(",\n")) == Counter(GIVEN)


def test_selected_fields_of_a_file_are_unchanged(rows_file):
    """Selected members keep the spelling of the file."""
    rows = SandboxFileRows(rows_file).between(MAY, MAY + 0.1)
    assert written(rows, "ndjson", fields=["IndvId", "a", "z"]) == (
        b'{"IndvId":123456789012345678901234567890,"z":4.0,"a":1e2}\n'
    )
    rows = SandboxFileRows(rows_file).between(MAY + 0.5, MAY + 1)
    assert written(rows, "ndjson", fields=["page_*"]) == b'{"page_a_str":"a, \\"colon\\""}\n'
    rows = SandboxFileRows(rows_file).between(MAY + 1, MAY + 1.5)
    assert written(rows, "ndjson", fields=["text", "twice"]) == (
        b'{"twice":1,"twice":2,"text":"\\u00e9\\ud83c\\udf75 \xc3\xa9\\n"}\n'
    )


def test_csv_of_a_file_has_numbers_as_written(rows_file):
    """A number keeps its text; half of a surrogate pair becomes a question mark."""
    fields = ["EventStart", "IndvId", "z", "a", "m", "b", "t", "n", "deep", "half"]
    data = written(SandboxFileRows(rows_file).between(MAY, MAY + 10), "csv", fields=fields).decode()
    cells = {
        row.pop("EventStart")[17:]: {k: v for k, v in row.items() if v} for row in csv.DictReader(io.StringIO(data))
    }
    assert cells == {
        "00.000Z": {"IndvId": "123456789012345678901234567890", "z": "4.0", "a": "1e2", "m": "-0.0"},
        "00.5Z": {"IndvId": "9007199254740993", "b": "[1, 2.50]"},
        "01Z": {"t": "true"},
        "01.999999999Z": {"deep": '{"x":[{"y":1E+3}]}', "half": "?"},
    }


def test_ranges_of_a_file_are_exact_to_the_nanosecond(rows_file):
    """A row just before a second stays on its side of it, and arrives at the time of its event."""
    rows = SandboxFileRows(rows_file)

    def count(start, end, **options):
        return sum(1 for _ in rows.between(start, end, **options))

    assert count(MAY, MAY + 2) == 5
    assert count(MAY + 2, MAY + 3) == 0
    assert count(MAY + 1, MAY + 2) == 3
    assert count(MAY, MAY + 0.5) == 1
    assert count(MAY, MAY + 2, arrived_by=MAY + 1) == 3
    assert count(MAY, MAY + 2, arrived_by=MAY) == 1


def test_ranges_of_a_file_are_exact_at_any_microsecond(tmp_path):
    """A bound read from a time stamp separates the rows exactly, in spite of the precision of a float."""
    path = tmp_path / "rows"
    stamps = [f"2024-05-01T00:00:00.{177_990 + number}Z" for number in range(20)]
    path.write_text("\n".join(f'{{"EventStart":"{stamp}"}}' for stamp in stamps))
    for number, stamp in enumerate(stamps):
        at = read_timestamp(stamp)
        assert sorted(row["EventStart"] for row in SandboxFileRows(path).between(MAY, at)) == stamps[:number]
        assert sorted(row["EventStart"] for row in SandboxFileRows(path).between(at, MAY + 1)) == stamps[number:]


def test_a_row_over_many_lines_becomes_one_line(tmp_path):
    """An indented file still becomes one object a line as NDJSON."""
    path = tmp_path / "rows"
    path.write_text(json.dumps([json.loads(text) for text in GIVEN], indent=2).replace("\n", "\r\n"))
    lines = written(SandboxFileRows(path).between(MAY, MAY + 10), "ndjson").splitlines()
    assert Counter(map(_parsed, lines)) == Counter(map(_parsed, GIVEN))


def _parsed(text):
    return json.dumps(json.loads(text))


def test_rows_of_a_file_are_always_in_the_same_shuffled_order(tmp_path):
    """The order of the file is not that of the export."""
    path = tmp_path / "rows"
    path.write_text("\n".join(f'{{"EventStart":"2024-05-01T00:00:00Z","n":{n}}}' for n in range(100)))
    order = [row["n"] for row in SandboxFileRows(path).between(MAY, MAY + 1)]
    assert order != sorted(order) == list(range(100))
    assert order == [row["n"] for row in SandboxFileRows(path).between(MAY, MAY + 1)]


def test_individuals_come_from_a_file_too(tmp_path):
    """Totals count the rows up to the given time; rows without an individual count for no one."""
    event = {"IndvId": 1, "UserId": 2, "SessionId": 3, "PageUrl": "u", "UserDisplayName": "Ana", "user_a_str": "b"}
    lines = [
        event | {"EventStart": "2024-05-01T00:00:00Z", "PageId": 4, "PageActiveDuration": 900},
        event | {"EventStart": "2024-05-01T00:00:02.5Z", "PageId": 4, "PageActiveDuration": 900},
        event | {"EventStart": "2024-05-01T00:00:03Z", "PageId": 5, "PageUrl": "v"},
        event | {"EventStart": "2024-05-01T00:00:09Z", "PageId": 6},
        {"EventStart": "2024-05-01T00:00:01Z"},
    ]
    path = tmp_path / "rows"
    path.write_text("\n".join(map(json.dumps, lines)))
    (row,) = individuals(SandboxFileRows(path), MAY, MAY + 1, as_of=MAY + 5)
    assert row == {
        "IndvId": 1,
        "DisplayName": "Ana",
        "NumSessions": 1,
        "NumPages": 2,
        "NumEvents": 3,
        "TotalSec": 3,
        "ActiveSec": 0.9,
        "AvgSessionSec": 3,
        "AvgSessionActiveSec": 0.9,
        "MaxSessionSec": 3,
        "LastSessionStart": "2024-05-01T00:00:00.000Z",
        "LastEventStart": "2024-05-01T00:00:03.000Z",
        "LastSessionSec": 3,
        "LastSessionActiveSec": 0.9,
        "LastSessionNumPages": 2,
        "LastSessionNumEvents": 3,
        "LastPage": "v",
        "UserVars": {"a_str": "b"},
    }
    assert list(individuals(SandboxFileRows(path), MAY + 4, MAY + 5, as_of=MAY + 20)) == []


@given(st.lists(objects, min_size=1, max_size=4), st.sampled_from([None, 0, 3, "\t"]), st.booleans())
def test_the_members_of_a_file_row_are_its_parsed_ones(rows, indent, ascii_only):
    """In any layout, each key is found with the text of its value."""
    for row in rows:
        found = list(SandboxFileRow(json.dumps(row, indent=indent, ensure_ascii=ascii_only)).members())
        assert [(key, json.loads(text)) for key, text in found] == list(row.items())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it has no rows"),
        ("[]", "it has no rows"),
        ("hello", "line 1 holds something|Expecting value"),
        ("id,name\n1,2\n", "Expecting value"),
        ("[1, 2]", "line 1 holds something that is not an object"),
        ('{"EventStart":"2024-05-01T00:00:00Z"}\n[1]', "line 2 holds something that is not an object"),
        ('{"EventStart":"2024-05-01T00:00:00Z"}\n]', "line 2 holds something that is not an object"),
        ('{"EventStart":"2024-05-01T00:00:00Z"} {"EventStart":"2024-05-01T00:00:00Z"}', "line 1 has extra text"),
        ('{"EventStart":"2024-05-01T00:00:00Z"},\n{"EventStart":"2024-05-01T00:00:00Z"}', "line 1 has extra text"),
        ('[{"EventStart":"2024-05-01T00:00:00Z"}', "its array is not closed"),
        ('[{"EventStart":"2024-05-01T00:00:00Z"}] x', "something after its array"),
        ('[{"EventStart":"2024-05-01T00:00:00Z"},]', "line 1 has extra text"),
        ('{"EventStart":"2024-05-01T00:00:00Z","x":NaN}', "NaN is not JSON"),
        ('{"EventStart":"2024-05-01T00:00:00Z"', "delimiter"),
        ('{"IndvId":1}', "a row has no EventStart"),
        ('{"EventStart":17}', "a row has no EventStart"),
        ('{"EventStart":"last week"}', "not a time stamp"),
        ("[" * 100_000, "recursion|not an object|Expecting"),
        (b"\x89PNG\r\n", "decode"),
        (b"\x1f\x8b\x08junk", "its gzip is broken"),
        (gzip.compress(b'{"EventStart":"2024-05-01T00:00:00Z"}', mtime=0)[:-6], "its gzip is broken"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_file_without_event_rows_is_refused(tmp_path, text, what):
    """The message has the path and the place of the error."""
    path = tmp_path / "rows.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"rows.json is not a file of event rows: .*({what})"):
        SandboxFileRows(path)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    """A missing file is not reported as an invalid one."""
    with pytest.raises(FileNotFoundError):
        SandboxFileRows(tmp_path / "none")


def test_the_constants_have_the_dates_of_their_comments():
    """START and MAY are the dates in their comments."""
    assert datetime.fromtimestamp(START, UTC).isoformat() == "2026-01-01T00:00:00+00:00"
    assert datetime.fromtimestamp(MAY, UTC).isoformat() == "2024-05-01T00:00:00+00:00"
