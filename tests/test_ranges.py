"""The range of time that a run covers."""

import pytest

from asyncexport.core.bundles import DAY, Range
from asyncexport.core.exports import Export
from asyncexport.run.ranges import export_ranges, is_past, where_nights_begin
from asyncexport.run.spec import Backfill, Nightly, instructions

NOW = 100 * DAY + 4000.0
EXPORT = Export("e")
SETTLED = 99 * DAY + 3600
"""The last whole half hour that was settled, with a settle time of a day."""


@pytest.mark.parametrize(
    ("start", "end", "spans", "notes"),
    [
        (0, 1800, [Range(0, 1800)], []),
        (0, None, [Range(0, SETTLED)], []),
        (0, SETTLED, [Range(0, SETTLED)], []),
        (
            0,
            SETTLED + 1,
            [Range(0, SETTLED)],
            ["e: data is settled up to 1970-04-10T01:00:00Z; the end is cut back to that"],
        ),
        (
            SETTLED,
            None,
            [],
            ["e: nothing to do from 1970-04-10T01:00:00Z on; data is settled up to 1970-04-10T01:00:00Z"],
        ),
    ],
)
def test_a_range_ends_where_data_is_settled(start, end, spans, notes):
    """At a whole bundle; an end that is cut back, or a range without anything in it, is told."""
    ranges = export_ranges((EXPORT,), instructions(Backfill((EXPORT,), start, end)), now=NOW, night_start=5)
    assert ([span for _, span in ranges.spans], list(ranges.notes)) == (spans, notes)


def test_each_export_has_a_range_of_its_own():
    """Exports may settle sooner or later, and be cut into wider bundles."""
    exports = (Export("a", settle_seconds=0), Export("b", bundle_seconds=DAY))
    ranges = export_ranges(exports, instructions(Nightly(exports)), now=NOW, night_start=DAY)
    assert dict(ranges.spans) == {exports[0]: Range(DAY, 100 * DAY + 3600), exports[1]: Range(DAY, 99 * DAY)}


@pytest.mark.parametrize(
    ("chosen", "remembered", "start"),
    [
        (7, "9", 7),
        (None, "9", 9),
        (None, None, 93 * DAY),
        (None, str(200 * DAY), 93 * DAY),  # it was fixed with a clock that was fast
    ],
)
def test_where_nights_begin(chosen, remembered, start):
    """Where the settings say, else where the first night began, else a week back."""
    assert where_nights_begin(chosen, remembered, now=NOW) == start


def test_a_remembered_moment_may_lie_ahead_or_be_unknown():
    """Then the clock is wrong, or nothing was ever heard."""
    assert [is_past(text, now=5.0) for text in ("4.5", "5.0", "6", "", None)] == [True, True, False, False, False]
