"""The columns of the flat table, and the receipts of days."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.exports import Format, Type
from asyncexport.core.row_names import EVENT_FIELDS, INDIVIDUAL_FIELDS
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.core.warehouse.columns import EVENT_KEY, FIELDS, STANDARD, ColumnKind, Layout, custom_column
from asyncexport.core.warehouse.columns import missing_key_fields as missing
from asyncexport.core.warehouse.days import DaySource, SourceArchive, day_sources


def test_each_documented_field_has_a_column():
    """No documented field is missing from the table of columns, and none is there that no type has."""
    assert set(STANDARD) == {*EVENT_FIELDS, *INDIVIDUAL_FIELDS}


@pytest.mark.parametrize("type_", Type)
def test_the_columns_of_a_type_have_different_names(type_):
    """No two columns share a name, case aside, since many databases ignore case."""
    names = [column.name.lower() for column in Layout(type_, ("evt_a_str",)).columns]
    assert len(names) == len(set(names))
    assert [column.name for column in Layout(type_).standard] == list(FIELDS[type_])


def test_the_suffix_of_a_custom_variable_says_its_kind():
    """A known suffix gives a typed column; lists and unknown suffixes are kept as JSON."""
    kinds = {name: custom_column(name).kind for name in ("evt_a_int", "user_b_str", "evt_c_strs", "page_d")}
    assert kinds == {
        "evt_a_int": ColumnKind.INTEGER,
        "user_b_str": ColumnKind.TEXT,
        "evt_c_strs": ColumnKind.JSON,
        "page_d": ColumnKind.JSON,
    }
    with pytest.raises(ValueError, match="not a custom variable"):
        custom_column("EventType")


def test_an_export_without_key_fields_is_recognized():
    """Fields that the key of an event needs are named; a wildcard stands for all names it matches."""
    assert missing(()) == ()
    assert missing((*EVENT_KEY, "evt_*")) == ()
    assert missing(("Event*", "UserId", "SessionId", "PageId", "Req*", "e*")) == ()
    assert missing(("Event*", "UserId", "PageId", "ReqUrl", "ReqMethod", "evt_*")) == ("SessionId", "ReqStatus")


def test_an_export_that_asks_for_some_variables_of_events_lacks_the_others():
    """The ids of events must not depend on which variables were asked for, so all have to be."""
    assert missing((*EVENT_KEY, "evt_price_real", "evt_p*")) == ("evt_*",)


def stored(start: int, end: int, *, rows: int = 1, exported: float = 10 * DAY, sha: str = "0") -> BundleRecord:
    """Return a stored bundle with a settle time of a day."""
    archive = Stored(f"e/{start}", 9, rows, sha, exported_at=exported, settle_seconds=DAY)
    return BundleRecord(Bundle("e", Range(start, end)), 1, archive, archive)


def test_archives_that_were_not_settled_are_left_out():
    """A day is made only from archives that were exported after their data had settled."""
    records = [stored(0, 3600), stored(3600, 7200, exported=7200), stored(DAY, DAY + 60)]
    days = list(day_sources("e", Format.NDJSON, records))
    assert [(one.date, [archive.path for archive in one.archives]) for one in days] == [
        ("1970-01-01", ["e/0"]),
        ("1970-01-02", [f"e/{DAY}"]),
    ]


def test_overlapping_archives_are_found():
    """Both archives that hold the same time are named."""
    (day,) = day_sources("e", Format.NDJSON, [stored(0, 3600), stored(1800, 7200), stored(7200, 9000)])
    assert day.overlaps == (("e/0", "e/1800"),)


archives = st.lists(
    st.builds(
        SourceArchive,
        path=st.sampled_from(["a", "b", "c"]),
        sha256=st.sampled_from(["00", "11"]),
        rows=st.integers(0, 3),
        range=st.just(Range(0, 60)),
        exported_at=st.just(0.0),
        revision=st.just(1),
    ),
    max_size=3,
    unique_by=lambda one: one.path,
)


@given(archives, archives)
def test_two_days_share_a_receipt_exactly_if_their_archives_are_equal(one, other):
    """The receipt depends on the set of archives, not on their order."""

    def receipt(found):
        return DaySource("e", 0, Format.NDJSON, tuple(found)).receipt(Layout(Type.EVENT), max_row=1)

    assert (receipt(one) == receipt(other)) == (set(one) == set(other))


def test_settings_that_change_rows_change_the_receipt():
    """Another list of columns or another limit for rows makes another receipt."""
    day = DaySource("e", 0, Format.NDJSON, ())
    layouts = [Layout(Type.EVENT), Layout(Type.INDIVIDUAL), Layout(Type.EVENT, ("evt_a_str",))]
    receipts = {day.receipt(layout, max_row=limit) for layout in layouts for limit in (1, 2)}
    assert len(receipts) == 6
