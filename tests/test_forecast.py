"""The estimates of `plan` and of the expected end of a run."""

import pytest

from asyncexport.core.durations import Durations
from asyncexport.core.forecast import (
    ALL_WITH_LIST,
    ALL_WITHOUT_LIST,
    CREATES_ONLY,
    Pace,
    seconds_for,
    seconds_of_downloads,
    seconds_to_end,
)
from asyncexport.core.second_looks import SecondLooks

HOUR = 3600.0

DAY_OF_HALF_HOURS, MONTH, QUARTER, YEAR = 48, 1440, 4320, 17_520


def pace(*, tokens: float = 50, in_flight: int = 10_000, operation_seconds: float = 0.0) -> Pace:
    return Pace(tokens, requests_per_minute=2, in_flight=in_flight, operation_seconds=operation_seconds)


@pytest.mark.parametrize(
    ("bundles", "creates_only", "create_and_results", "with_a_poll"),
    [
        (DAY_OF_HALF_HOURS, 0.0, 0.4, 0.8),
        (MONTH, 11.6, 23.6, 35.6),
        (QUARTER, 35.6, 71.6, 107.6),
        (YEAR, 145.6, 291.6, 437.6),
    ],
)
def test_hours_for_a_day_a_month_a_quarter_and_a_year(bundles, creates_only, create_and_results, with_a_poll):
    """From a full bucket, the last request goes out after the hours given by two requests a minute."""

    def hours(requests: int) -> float:
        return seconds_for(requests, tokens=50, requests_per_minute=2) / HOUR

    assert hours(CREATES_ONLY.requests(bundles)) == pytest.approx(creates_only, abs=0.06)
    assert hours(2 * bundles) == pytest.approx(create_and_results, abs=0.06)
    assert hours(ALL_WITHOUT_LIST.requests(bundles)) == pytest.approx(with_a_poll, abs=0.06)
    lists = ALL_WITH_LIST.requests(bundles) - 2 * bundles
    assert lists == -(-bundles // 100)


def test_bundles_with_an_operation_cost_no_create():
    """They only cost their results call, and nothing if only creates count."""
    assert CREATES_ONLY.requests(96, created=96) == 0
    assert ALL_WITH_LIST.requests(96, created=96) == 97


def test_a_run_ends_when_its_last_operation_is_done():
    """The duration of an operation is added to the time of the last create."""
    assert seconds_to_end(CREATES_ONLY, pace(operation_seconds=300), bundles=48) == 300
    assert seconds_to_end(CREATES_ONLY, pace(operation_seconds=300), bundles=60) == 10 * 30 + 300


def test_slow_operations_limit_the_pace():
    """With 100 operations of two hours in flight, a thousand bundles take ten rounds, even with a full bucket."""
    slow = pace(tokens=1000, in_flight=100, operation_seconds=2 * HOUR)
    assert seconds_to_end(CREATES_ONLY, slow, bundles=1000) == pytest.approx(20 * HOUR)


def test_after_the_last_create_only_the_running_operations_count():
    """If all requests count, the results calls may take longer."""
    assert seconds_to_end(CREATES_ONLY, pace(), bundles=7, created=7, remaining_seconds=42) == 42
    assert seconds_to_end(ALL_WITH_LIST, pace(tokens=0), bundles=7, created=7, remaining_seconds=42) == 8 * 30


def test_the_remaining_time_of_older_operations_is_shorter():
    """An operation that already ran for a while is expected sooner, and the last of many later than a single one."""
    durations = Durations(expected_seconds=300, known=[280, 300, 320] * 30)
    assert durations.remaining_seconds([]) == 0
    assert durations.remaining_seconds([0.0]) == pytest.approx(300, rel=0.1)
    assert durations.remaining_seconds([200.0]) < durations.remaining_seconds([0.0]) - 150
    assert durations.remaining_seconds([0.0] * 100) > durations.remaining_seconds([0.0]) + 30


def test_downloads_are_limited_by_their_slots():
    """Each file takes its time in a slot, which adds to the expected end."""
    assert seconds_of_downloads(0, slots=4, each_seconds=10, ages=[]) == 0
    assert seconds_of_downloads(40, slots=4, each_seconds=10, ages=[]) == 100
    assert seconds_of_downloads(1, slots=4, each_seconds=10, ages=[2.0]) == 10


def test_a_slow_download_is_expected_to_take_as_long_again():
    """A download slower than all before is not expected to finish at any time now."""
    assert seconds_of_downloads(3, slots=4, each_seconds=10, ages=[2.0, 70.0]) == 70


def test_second_looks_cost_results_calls_if_these_count():
    """The last second check adds its delay to the expected end."""
    assert CREATES_ONLY.requests(96, second_looks=24) == 96
    assert ALL_WITH_LIST.requests(96, second_looks=24) == ALL_WITH_LIST.requests(96) + 24
    without, with_looks = (
        seconds_to_end(CREATES_ONLY, pace(), bundles=7, second_looks=looks, second_look_seconds=60) for looks in (0, 2)
    )
    assert with_looks - without == 60


def test_second_looks_are_expected_as_often_as_before():
    """The share follows recent runs, and unreadable text in the ledger is ignored."""
    learned = SecondLooks.read(None).plus(96, 24)
    assert SecondLooks.read(learned.to_json()) == learned
    assert learned.expected(48) == 12
    assert learned.expected(1) == 1
    assert SecondLooks().expected(48) == 0
    for _ in range(1000):
        learned = learned.plus(96, 0)
    assert learned.expected(1000) == 0
    for text in ("", "[", "[1]", "[1,2]", "{}", "[null,1]", "7"):
        assert SecondLooks.read(text) == SecondLooks()
