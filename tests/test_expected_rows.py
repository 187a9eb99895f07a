"""Checks of a file's rows: whether they belong to the requested range, and what follows if they do not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.archive.expected_rows import ExpectedRows, RowCheck, whole_second
from asyncexport.core.bundles import Bundle, Range, show
from asyncexport.core.exports import Definition, Type
from asyncexport.core.row_names import EVENT_FIELDS, INDIVIDUAL_FIELDS, is_known
from asyncexport.core.row_rejections import (
    MOST_IN_A_ROW,
    Repeated,
    RowRejections,
    RowVerdicts,
    read_untimed,
    write_untimed,
)
from asyncexport.errors import ArchiveError, ForeignRowsError, UnknownRowsError

SPAN = Range(1_767_225_600, 1_767_227_400)
INSIDE = {"EventStart": "2026-01-01T00:29:59.999Z"}
OUTSIDE = {"EventStart": "2026-01-01T00:30:00.000Z"}
STRANGE = {"error": "no"}
UNTIMED = {"EventStart": "soon", "EventType": "click"}


def checked(*rows: dict[str, Any], definition: Definition | None = None) -> RowCheck:
    """Check these rows and return the result."""
    look = RowCheck(ExpectedRows.of(definition or Definition(), SPAN))
    for row in rows:
        look.add(row)
    return look


@pytest.mark.parametrize(
    ("stamp", "is_inside"),
    [
        ("2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00.000000000Z", True),
        ("2025-12-31T23:59:59.999999999Z", False),
        ("2026-01-01T00:29:59.999999999Z", True),
        ("2026-01-01T00:30:00Z", False),
        ("2026-01-01T01:29:59+01:00", True),
        ("2026-01-01T00:29:59", True),
    ],
)
def test_a_range_includes_its_start_and_excludes_its_end(stamp: str, is_inside: bool) -> None:  # noqa: FBT001 - a table's column
    """This is exact to the nanosecond, although a float would round up into the next range."""
    look = checked({"EventStart": stamp})
    assert (look.timed, look.outside) == (1, 0 if is_inside else 1)


@pytest.mark.parametrize("stamp", [None, "", "soon", 5, 1.5, True, [], "2026-13-01T00:00:00Z", "9" * 1000])
def test_an_unreadable_time_is_ignored(stamp: Any) -> None:
    """Such a row counts neither as inside nor as outside."""
    look = checked({"EventStart": stamp, "EventType": "click"})
    assert look.timed == look.outside == 0
    look.close()


@pytest.mark.parametrize(
    ("rows", "is_refused"),
    [
        ((OUTSIDE,), True),
        ((OUTSIDE, OUTSIDE, INSIDE), True),
        ((OUTSIDE, INSIDE), False),
        ((OUTSIDE, INSIDE, INSIDE), False),
        ((OUTSIDE, UNTIMED, UNTIMED), True),
        ((UNTIMED,), False),
        ((), False),
    ],
)
def test_a_file_with_most_rows_outside_its_range_is_rejected(rows: Any, is_refused: bool) -> None:  # noqa: FBT001 - a table's column
    """A few rows outside are only counted."""
    look = checked(*rows)
    if is_refused:
        with pytest.raises(ForeignRowsError, match="EventStart"):
            look.close()
    else:
        look.close()
    assert look.outside == sum(row is OUTSIDE for row in rows)


@pytest.mark.parametrize(
    ("definition", "is_checked"),
    [
        (Definition(), True),
        (Definition(scope="SCOPE_EVENTS"), True),
        (Definition(scope="SCOPE_SESSIONS"), False),
        (Definition(scope="SCOPE_EVENT"), False),
        (Definition(fields=("EventStart",)), True),
        (Definition(fields=("UserId", "evt_*")), False),
        (Definition(fields=("Event*",)), True),
        (Definition(type=Type.INDIVIDUAL), False),
        (Definition(timezone="Asia/Tokyo"), True),
    ],
)
def test_times_are_checked_only_where_each_row_has_its_own(
    definition: Definition,
    is_checked: bool,  # noqa: FBT001 - a table's column
) -> None:
    """The check needs the field EventStart, and is off for other scopes and for individuals."""
    assert ExpectedRows.of(definition, SPAN).span == (SPAN if is_checked else None)


@pytest.mark.parametrize(
    ("rows", "fields", "is_refused"),
    [
        (({"error": {"code": 503}},), (), True),
        (({"OK": "1"},), (), True),
        (({"uid": 1},), (), True),
        (({"uid": 1},), ("uid",), False),
        (({"uid": 1},), ("ui*",), False),
        (({"uid": 1}, {"EventType": "click"}), (), False),
        (({},), (), False),
        (({}, {"error": 1}), (), True),
        (({"user_": 1},), (), False),
        (({"evt_price_real": 1},), (), False),
        (({"page_a": 1},), (), False),
        (({"NewField": 1, "PageAgent": ""},), (), False),
        ((), (), False),
    ],
)
def test_a_file_without_a_known_field_is_rejected(rows: Any, fields: Any, is_refused: bool) -> None:  # noqa: FBT001 - a table's column
    """One known field among the rows is enough, and rows without fields are ignored."""
    look = checked(*rows, definition=Definition(fields=fields))
    if is_refused:
        with pytest.raises(UnknownRowsError, match=next(iter(rows[-1]))):
            look.close()
    else:
        look.close()


def test_a_csv_header_is_checked_like_a_row() -> None:
    """A header of unknown names, such as `OK`, is rejected."""
    look = RowCheck(ExpectedRows())
    look.add_names(["OK"])
    with pytest.raises(UnknownRowsError, match="OK"):
        look.close()
    look.add_names(EVENT_FIELDS)
    look.close()


def test_reported_field_names_contain_no_secret() -> None:
    """A page of a proxy may contain a URL with a token, which the error does not repeat."""
    look = RowCheck(ExpectedRows())
    look.add_names(["see https://box.example/?token=CANARY\n"])
    with pytest.raises(UnknownRowsError) as caught:
        look.close()
    assert "CANARY" not in str(caught.value)


@given(st.sampled_from([*EVENT_FIELDS, *INDIVIDUAL_FIELDS]))
def test_every_default_field_is_known(name: str) -> None:
    """The default fields of both types are known, and names are case-sensitive."""
    assert is_known(name)
    assert not is_known(name.lower())


@given(st.integers(min_value=0, max_value=253_402_300_799), st.integers(min_value=0, max_value=10**9 - 1))
def test_a_whole_second_is_never_rounded_up(second: int, nanos: int) -> None:
    """The fraction is cut off, whatever its digits."""
    assert whole_second(f"{show(second)[:-1]}.{nanos:09d}Z") == second


ONE, OTHER = (Bundle("e", Range(start, start + 1800)) for start in (0, 1800))

PIECE = Bundle("e", Range(900, 1800))
"""A piece of the first one."""


def test_three_files_in_a_row_of_another_range_disable_the_check() -> None:
    """If they are of several bundles; the last one is accepted and the range is no longer checked."""
    refusals = RowRejections(60.0)
    found = [refusals.note_foreign(one) for one in (ONE, ONE, PIECE, ONE, OTHER, OTHER)]
    assert found == [True, True, True, True, False, False]
    assert not refusals.checks_range
    assert not RowRejections(60.0, was_off=True).note_foreign(ONE)


@pytest.mark.parametrize("text", [None, "", "{", "{}", "7", "null", "[7]"])
def test_an_unreadable_record_disables_no_check(text: str | None) -> None:
    """Text from another version is ignored, and what this version writes is read."""
    assert read_untimed(text) == frozenset()
    assert read_untimed(write_untimed({"b", "a"})) == {"a", "b"}


def test_a_file_with_rows_of_its_range_restarts_the_count() -> None:
    """A file whose rows have no readable time does not."""
    refusals = RowRejections(60.0)
    for _ in range(MOST_IN_A_ROW):
        assert refusals.note_foreign(ONE)
        assert refusals.note_foreign(OTHER)
        refusals.note_accepted(checked(INSIDE))
    refusals.note_foreign(ONE)
    refusals.note_foreign(OTHER)
    refusals.note_accepted(checked(UNTIMED))
    assert not refusals.note_foreign(OTHER)


def test_three_files_in_a_row_without_a_known_field_stop_an_export() -> None:
    """Without a hash that proves them they must span a minute, since a proxy in trouble spoils many files together."""
    refusals = RowRejections(60.0)
    for number in range(10):
        assert refusals.note_unknown((ONE, OTHER)[number % 2], now=100.0 + number, proved=False) is Repeated.NO
    assert refusals.note_unknown(ONE, now=160.0, proved=False) is Repeated.FOR_EXPORT
    refusals.note_accepted(checked({}))
    assert refusals.note_unknown(ONE, now=161.0, proved=False) is Repeated.FOR_EXPORT
    refusals.note_accepted(checked(INSIDE))
    assert refusals.note_unknown(Bundle("e", Range(3600, 5400)), now=162.0, proved=True) is Repeated.NO
    assert refusals.note_unknown(Bundle("e", Range(5400, 7200)), now=162.0, proved=True) is Repeated.NO
    assert refusals.note_unknown(Bundle("e", Range(7200, 9000)), now=162.0, proved=True) is Repeated.FOR_EXPORT


@given(accepted=st.lists(st.booleans(), min_size=3, max_size=3))
def test_one_bundle_alone_never_stops_an_export(accepted: list[bool]) -> None:
    """After three files of its own it is given up, however many files of other bundles were accepted in between."""
    refusals, found = RowRejections(60.0), []
    for number, is_accepted in enumerate(accepted):
        found.append(refusals.note_unknown(ONE, now=60.0 * number, proved=False))
        if is_accepted:
            refusals.note_accepted(checked(INSIDE))
    assert found == [Repeated.NO, Repeated.NO, Repeated.FOR_BUNDLE]
    assert refusals.note_unknown(ONE, now=200.0, proved=False) is Repeated.NO, "a new file begins anew"


@pytest.mark.parametrize(
    ("rows", "verdicts"),
    [
        ([INSIDE, OUTSIDE, INSIDE], [(0, False), (1, True), (2, False)]),
        ([OUTSIDE, OUTSIDE, INSIDE], [(0, True), (1, True), (2, False)]),
        ([OUTSIDE, UNTIMED, OUTSIDE], [(1, False), (0, True), (2, True)]),
        ([OUTSIDE, OUTSIDE, OUTSIDE, OUTSIDE], [(0, False), (1, False), (2, False), (3, False)]),
        ([OUTSIDE, OUTSIDE, UNTIMED, OUTSIDE], [(2, False), (0, False), (1, False), (3, False)]),
        ([OUTSIDE], [(0, True)]),
        ([STRANGE, INSIDE, OUTSIDE, STRANGE, STRANGE], [(0, True), (1, False), (2, False), (3, False), (4, False)]),
    ],
)
def test_stored_archives_are_judged_together_with_the_next_ones(
    rows: list[dict[str, Any]], verdicts: list[tuple[int, bool]]
) -> None:
    """If three in a row have rows of another range, neither they nor those after them are reported."""
    judged = RowVerdicts[int]()
    found: list[tuple[int, ArchiveError | None]] = []
    for number, row in enumerate(rows):
        look = RowCheck(ExpectedRows(span=SPAN), raises=False)
        look.add(row)
        look.close()
        found += judged.judge(number, look)
    assert [(number, why is not None) for number, why in [*found, *judged.close()]] == verdicts
