"""When a nightly run retries a parked bundle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.parking import LEEWAY_SECONDS, MOVED_ASIDE, ParkedTimes, next_try, pause_end
from asyncexport.core.states import BundleRecord, Created, Failed, FewerRows, Overdue, Planned, Ready, Refused, Stored

BUNDLE = Bundle("events", Range(0, 1800))
FAILED = BundleRecord(BUNDLE, 0, Failed("why"))
KEPT = BundleRecord(BUNDLE, 1, FewerRows(120, 0), Stored("events/a.gz", 9, 120, "0" * 64, 0.0))


@pytest.mark.parametrize(("times", "days"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (100, 8)])
def test_the_pauses_between_retries_grow(times, days):
    """The pauses are 1, 2, 4 and then always 8 days, each shortened by the leeway for an earlier start."""
    assert next_try(FAILED, ParkedTimes(times, 1000.0)) == 1000.0 + days * DAY - LEEWAY_SECONDS


@pytest.mark.parametrize(("times", "days"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, None), (100, None)])
def test_a_kept_archive_has_the_same_pauses_but_only_four(times, days):
    """After the fifth export with far fewer rows, the rows were probably deleted, and no pause ends."""
    due = None if days is None else 1000.0 + days * DAY - LEEWAY_SECONDS
    assert next_try(KEPT, ParkedTimes(times, 1000.0)) == due


def test_a_bundle_that_always_fails_is_retried_every_eight_nights():
    """If each attempt fails an hour after the night starts, the retries are in nights 1, 3, 7, 15, 23, 31 and 39."""
    parked, tried = ParkedTimes(1, 3600.0), []
    for night in range(1, 40):
        now = float(night * DAY)
        if pause_end(FAILED, parked, now=now) is None:
            tried.append(night)
            parked = ParkedTimes(parked.times + 1, now + 3600)
    assert tried == [1, 3, 7, 15, 23, 31, 39]


@given(st.integers(1, 20), st.floats(0, 3e11), st.floats(0, 3e11))
def test_a_parked_bundle_waits_exactly_until_it_is_due(times, last_at, now):
    """A bundle waits until it is due, but not at all if a wrong clock parked it in the future."""
    parked = ParkedTimes(times, last_at)
    due = pause_end(FAILED, parked, now=now)
    end = next_try(FAILED, parked)
    assert end is not None
    assert due == (end if last_at <= now < end else None)


@pytest.mark.parametrize(
    ("state", "has_pause"),
    [
        (Failed("why"), True),
        (Failed(MOVED_ASIDE), False),
        (Overdue(1, 0.0, "op"), True),
        (Refused("403", Ready(1, 0.0, "x")), False),
        (Refused("403", Created(1, 0.0, "op")), False),
        (FewerRows(120, 0), False),
        (Planned(2), False),
    ],
)
def test_only_failed_and_overdue_bundles_wait(state, has_pause):
    """A refused bundle does not wait because its file expires, nor one whose archive a rebuild moved aside."""
    stored = Stored("p", 1, 1, "s", 0.0) if isinstance(state, FewerRows) else None
    one = BundleRecord(BUNDLE, 0, state, stored)
    assert (pause_end(one, ParkedTimes(1, 0.0), now=1.0) is not None) is has_pause
    assert pause_end(one, None, now=1.0) is None
