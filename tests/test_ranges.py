"""The time range that a run covers."""

import pytest

from asyncexport.core.bundles import DAY, HOUR, Ago, Range
from asyncexport.core.exports import Export
from asyncexport.run.ranges import date_problems, export_ranges, is_past, nightly_start
from asyncexport.run.spec import Backfill, Nightly, RunSpec, instructions

NOW = 100 * DAY + 4000.0
EXPORT = Export("e", settle_seconds=DAY)
SETTLED = 99 * DAY + 3600
"""The end of the last settled half hour, with a settle time of a day."""


def ranges_of(exports: tuple[Export, ...], spec: RunSpec, *, now: float = NOW, night_start: int = 0, stored: int = 0):
    """Return the ranges, if archives cover everything up to `stored`."""
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
            ["e: data is only settled up to 1970-04-10T01:00:00Z, so the range ends there"],
        ),
        (
            SETTLED,
            None,
            [],
            ["e: nothing to do from 1970-04-10T01:00:00Z on; data is only settled up to 1970-04-10T01:00:00Z"],
        ),
    ],
)
def test_a_range_ends_where_data_is_settled(start, end, spans, notes):
    """A range ends at the last settled bundle boundary, and a shortened or empty range is reported."""
    ranges = ranges_of((EXPORT,), Backfill((EXPORT,), start, end), night_start=5)
    assert ([span for _, span in ranges.spans], list(ranges.notes)) == (spans, notes)
    assert ranges.depend_on_clock == (end is None or bool(notes))


def test_each_export_has_its_own_range():
    """The range of each export depends on its own settle time and bundle width."""
    exports = (Export("a", settle_seconds=0), Export("b", bundle_seconds=DAY, settle_seconds=DAY))
    ranges = ranges_of(exports, Nightly(exports), night_start=DAY)
    assert dict(ranges.spans) == {exports[0]: Range(DAY, 100 * DAY + 3600), exports[1]: Range(DAY, 99 * DAY)}


@pytest.mark.parametrize("now", [-1e9, 0.0, NOW, 1e12])
def test_a_stored_range_is_done_whatever_the_clock_says(now):
    """A range that archives cover completely is not shortened or reported, and does not depend on the clock."""
    end = SETTLED + 7
    ranges = ranges_of((EXPORT,), Backfill((EXPORT,), 0, end), now=now, stored=end)
    assert (ranges.spans, ranges.notes, ranges.depend_on_clock) == (((EXPORT, Range(0, end)),), (), False)
    less = ranges_of((EXPORT,), Backfill((EXPORT,), 0, end), now=now, stored=end - 1)
    assert less.depend_on_clock == (now < 1e12)


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
def test_relative_dates_depend_on_the_clock(start, end, span, hangs):
    """Relative dates are resolved against the current time, and the ranges are marked as dependent on the clock."""
    ranges = ranges_of((EXPORT,), Backfill((EXPORT,), start, end))
    assert ([one for _, one in ranges.spans], ranges.depend_on_clock) == ([span], hangs)


@pytest.mark.parametrize(
    ("start", "end", "reported"),
    [
        (0, 1800, ""),
        (Ago(1), None, ""),
        (int(NOW) + 1, None, "--start: 1970-04-11T01:06:41Z is in the future: it is now 1970-04-11T01:06:40Z"),
        (Ago(0), 100 * DAY, "--end: 1970-04-11T00:00:00Z is not after the start, 1970-04-11T00:00:00Z"),
        (100 * DAY, Ago(1), "--end: 1970-04-10T00:00:00Z is not after the start, 1970-04-11T00:00:00Z"),
    ],
)
def test_impossible_dates_are_reported(start, end, reported):
    """A start in the future and an end that is not after the start are faults."""
    faults = date_problems(instructions(Backfill((EXPORT,), start, end)), now=NOW)
    assert "; ".join(map(str, faults)) == reported


def test_nightly_runs_may_start_now_or_at_an_unset_date():
    """It is no fault if `[nightly] since` is not set or is the current time."""
    night = instructions(Nightly((EXPORT,)))
    assert list(date_problems(night, now=NOW)) == []
    assert list(date_problems(night, now=NOW, nights_since=int(NOW))) == []


def test_nightly_runs_cannot_start_in_the_future():
    """A `[nightly] since` in the future is a fault of a nightly run, and other runs ignore it."""
    [fault] = date_problems(instructions(Nightly((EXPORT,))), now=NOW, nights_since=int(NOW) + 1)
    assert str(fault) == "nightly.since: 1970-04-11T01:06:41Z is in the future: it is now 1970-04-11T01:06:40Z"
    assert list(date_problems(instructions(Backfill((EXPORT,), 0)), now=NOW, nights_since=int(NOW) + 1)) == []


@pytest.mark.parametrize(
    ("chosen", "remembered", "start"),
    [
        (7, "9", 7),
        (None, "9", 9),
        (None, None, 93 * DAY),
        (None, str(200 * DAY), 93 * DAY),  # recorded while the clock was fast
    ],
)
def test_start_of_nightly_runs(chosen, remembered, start):
    """Nightly runs start at the configured date, else where the first one started, else a week ago."""
    assert nightly_start(chosen, remembered, now=NOW) == start


def test_only_a_valid_remembered_time_is_past():
    """A remembered time that is in the future, empty or missing does not count as past."""
    assert [is_past(text, now=5.0) for text in ("4.5", "5.0", "6", "", None)] == [True, True, False, False, False]
