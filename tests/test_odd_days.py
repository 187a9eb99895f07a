"""Whatever is odd about a row, the table holds it exactly, and the way it is read makes no difference."""

import gzip
import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.columns import STANDARD, ColumnKind, Layout, custom_column
from asyncexport.warehouse.day_maker import DayMade, DayRequest
from asyncexport.warehouse.make_day import make_day
from tests.day_making import request_of, table_of
from tests.odd_rows import LAYOUT, ODD_FILES, ODD_OBJECTS, OddFile, OddRow

ORIGIN = ("event_id", "_archive", "_bundle_start", "_bundle_end", "_exported_at", "_revision")
GOOD = b'{"UserId":5,"PageName":"good","evt_x_int":1}'


def value(name: str, text: str) -> Any:
    """Return what a column holds for a text that fits."""
    kind = (STANDARD.get(name) or custom_column(name)).kind
    match kind:
        case ColumnKind.INTEGER:
            return int(text)
        case ColumnKind.REAL:
            return float(text)
        case ColumnKind.SWITCH:
            return text == "true"
        case ColumnKind.TIME:
            return datetime.fromisoformat(text)
        case _:
            return text


def content_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row of the table holds from the archive, without what is NULL."""
    held = {name: one for name, one in row.items() if one is not None and name not in ORIGIN}
    return held | ({"_rescued": json.loads(held["_rescued"])} if "_rescued" in held else {})


def expected_of(odd: OddRow) -> dict[str, Any]:
    """Return what the table should hold of an odd row."""
    expected = {name: value(name, text) for name, text in odd.columns.items()}
    others = {"vars": odd.vars, "_rescued": odd.rescued}
    return expected | {name: one for name, one in others.items() if one is not None}


def made(request: DayRequest) -> tuple[DayMade, list[dict[str, Any]]]:
    """Make a day; return the answer and the rows of the table."""
    answer = make_day(request)
    return answer, table_of(request.flat) if request.flat.exists() else []


ACCEPTED = [odd for odd in ODD_OBJECTS if odd.row.lstrip().startswith(b"{")]
"""Rows that an archive may have: a line that does not begin like an object is refused before it is stored."""


@pytest.mark.parametrize("odd", ACCEPTED, ids=[odd.says for odd in ACCEPTED])
def test_an_odd_row_is_held_exactly(tmp_path, odd: OddRow):
    """Between two good rows, and beside a good archive, an odd row becomes what the table of odd rows says."""
    request = request_of(tmp_path, b"\n".join([GOOD, odd.row, GOOD]), GOOD, layout=LAYOUT)
    answer, rows = made(request)
    path = request.source.archives[0].path
    assert answer.rows[path] + answer.quarantined.get(path, 0) == 3
    assert [one for one in answer.exact if one != path] == []
    held = [content_of(row) for row in rows if row["PageName"] != "good"]
    assert held == ([] if odd.reason else [expected_of(odd)])
    assert len(rows) == 3 + (not odd.reason)
    if odd.reason:
        (line,) = gzip.decompress(request.quarantine.read_bytes()).splitlines()
        assert json.loads(line)["reason"] == odd.reason


@pytest.mark.parametrize("odd", ODD_FILES, ids=[odd.says for odd in ODD_FILES])
def test_an_odd_csv_file_is_held_exactly(tmp_path, odd: OddFile):
    """A CSV archive is read row by row."""
    request = request_of(tmp_path, odd.content, form=Format.CSV, layout=LAYOUT)
    answer, rows = made(request)
    expected = []
    for row in odd.rows:
        if isinstance(row, dict):
            own = {name: text for name, text in row.items() if name in STANDARD}
            expected.append(row | {name: value(name, str(text)) for name, text in own.items()})
    held = [content_of(row) for row in rows]
    assert sorted(held, key=repr) == sorted(expected, key=repr)
    assert sum(answer.quarantined.values()) == sum(isinstance(row, str) for row in odd.rows)


NAMES = st.sampled_from(
    (
        *("UserId", "PageId", "EventStart", "EventType", "PageName", "PageDuration", "EventCumulativeLayoutShift"),
        *("evt_a_str", "evt_b_real", "user_c", "evt_d_int", "page_e.f", "evt_price_real", "evt_A_str", "x y"),
    )
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
PLAIN = st.integers(-(2**70), 2**70).map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
TEXTS = (
    st.text(max_size=8)
    | st.sampled_from(["1.50", "12", ",1.50]", ':1e5,"', "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.1234567Z", ""])
    | st.datetimes().map(lambda one: one.isoformat() + "Z")
)
SCALARS = NUMBERS | PLAIN | TEXTS.map(json.dumps) | st.sampled_from(["true", "false", "null", "NaN"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda one: f"[{', '.join(one)}]")
        | st.dictionaries(TEXTS, inner, max_size=3).map(
            lambda one: "{" + ",".join(f"{json.dumps(name)}: {text}" for name, text in one.items()) + "}"
        )
    ),
    max_leaves=5,
)
ROWS = st.lists(
    st.lists(st.tuples(NAMES, VALUES), max_size=6).map(
        lambda members: "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members) + "}"
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(rows=ROWS)
def test_the_way_of_reading_makes_no_difference(tmp_path_factory, rows: list[str]):
    """The same rows as NDJSON, which DuckDB reads if it can, and as a JSON array make the same table."""
    layout = Layout(Type.EVENT, ("evt_price_real",))
    tables = []
    for form, content in ((Format.NDJSON, "\n".join(rows)), (Format.JSON, f"[{','.join(rows)}]")):
        request = request_of(tmp_path_factory.mktemp("day"), content.encode(), form=form, layout=layout)
        _, table = made(request)
        tables.append(sorted((content_of(row) | {"event_id": row["event_id"]} for row in table), key=repr))
    assert tables[0] == tables[1]
