"""The range of time that a run covers."""

import pytest

from asyncexport.core.bundles import DAY, HOUR, Ago, Range
from asyncexport.core.exports import Export
from asyncexport.run.ranges import export_ranges, faults_of_dates, is_past, where_nights_begin
from asyncexport.run.spec import Backfill, Nightly, RunSpec, instructions

NOW = 100 * DAY + 4000.0
EXPORT = Export("e", settle_seconds=DAY)
SETTLED = 99 * DAY + 3600
"""The last whole half hour that was settled, with a settle time of a day."""


def ranges_of(exports: tuple[Export, ...], spec: RunSpec, *, now: float = NOW, night_start: int = 0, stored: int = 0):
    """The ranges, where all is stored up to a moment."""
    return export_ranges(
        exports,
        instructions(spec),
        now=now,
        night_start=night_start,
        is_stored=lambda _, span: span.end <= stored,
    )


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
    ranges = ranges_of((EXPORT,), Backfill((EXPORT,), start, end), night_start=5)
    assert ([span for _, span in ranges.spans], list(ranges.notes)) == (spans, notes)
    assert ranges.hang_on_clock == (end is None or bool(notes))


def test_each_export_has_a_range_of_its_own():
    """Exports may settle sooner or later, and be cut into wider bundles."""
    exports = (Export("a", settle_seconds=0), Export("b", bundle_seconds=DAY, settle_seconds=DAY))
    ranges = ranges_of(exports, Nightly(exports), night_start=DAY)
    assert dict(ranges.spans) == {exports[0]: Range(DAY, 100 * DAY + 3600), exports[1]: Range(DAY, 99 * DAY)}


@pytest.mark.parametrize("now", [-1e9, 0.0, NOW, 1e12])
def test_what_is_stored_up_to_the_end_is_done_whatever_the_clock_says(now):
    """Nothing is cut back, nothing is told, and no other time would change that."""
    end = SETTLED + 7
    ranges = ranges_of((EXPORT,), Backfill((EXPORT,), 0, end), now=now, stored=end)
    assert (ranges.spans, ranges.notes, ranges.hang_on_clock) == (((EXPORT, Range(0, end)),), (), False)
    less = ranges_of((EXPORT,), Backfill((EXPORT,), 0, end), now=now, stored=end - 1)
    assert less.hang_on_clock == (now < 1e12)


@pytest.mark.parametrize(
    ("start", "end", "span", "hangs"),
    [
        (Ago(3), Ago(2), Range(97 * DAY, 98 * DAY), True),
        (Ago(3), 98 * DAY, Range(97 * DAY, 98 * DAY), True),
        (97 * DAY, Ago(2), Range(97 * DAY, 98 * DAY), True),
        (97 * DAY, Ago(0), Range(97 * DAY, SETTLED), True),
        (Ago(73, HOUR), Ago(48, HOUR), Range(97 * DAY, 98 * DAY + HOUR), True),
        (97 * DAY, 98 * DAY, Range(97 * DAY, 98 * DAY), False),
    ],
)
def test_words_are_read_by_the_time_that_is_known(start, end, span, hangs):
    """And another time would make them other days."""
    ranges = ranges_of((EXPORT,), Backfill((EXPORT,), start, end))
    assert ([one for _, one in ranges.spans], ranges.hang_on_clock) == ([span], hangs)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (0, 1800, ""),
        (Ago(1), None, ""),
        (int(NOW) + 1, None, "--start: 1970-04-11T01:06:41Z lies in the future: it is 1970-04-11T01:06:40Z"),
        (Ago(0), 100 * DAY, "--end: 1970-04-11T00:00:00Z is not after the start, 1970-04-11T00:00:00Z"),
        (100 * DAY, Ago(1), "--end: 1970-04-10T00:00:00Z is not after the start, 1970-04-11T00:00:00Z"),
    ],
)
def test_dates_that_cannot_be_meant_are_told_once_the_time_is_known(start, end, told):
    """A start that lies ahead, and an end that is not after it."""
    faults = faults_of_dates(instructions(Backfill((EXPORT,), start, end)), now=NOW)
    assert "; ".join(map(str, faults)) == told


def test_a_night_may_begin_where_the_settings_do_not_say():
    """Or now, at the latest."""
    night = instructions(Nightly((EXPORT,)))
    assert list(faults_of_dates(night, now=NOW)) == []
    assert list(faults_of_dates(night, now=NOW, nights_since=int(NOW))) == []


def test_nights_cannot_begin_in_the_future():
    """A date that is years ahead would mean that there is never anything to do; other runs do not use it."""
    [fault] = faults_of_dates(instructions(Nightly((EXPORT,))), now=NOW, nights_since=int(NOW) + 1)
    assert str(fault) == "nightly.since: 1970-04-11T01:06:41Z is in the future: it is 1970-04-11T01:06:40Z"
    assert list(faults_of_dates(instructions(Backfill((EXPORT,), 0)), now=NOW, nights_since=int(NOW) + 1)) == []


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
