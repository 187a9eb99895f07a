"""When a poll is due, and how many operations to have running: functions of numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.durations import Durations
from asyncexport.core.pacing import Prefer
from asyncexport.core.watching import (
    LIKELY,
    LIST_SIZE,
    NEARLY_ALL,
    PAYS_ITSELF,
    UNLIKELY,
    Outlook,
    Running,
    chance_for_a_single,
    enough_for_a_list,
    list_is_due,
    operations_allowed,
    page_is_due,
)

DURATIONS = Durations(expected_seconds=600, known=[600.0] * 100)
"""All took ten minutes, and are expected to go on so."""


def outlook(**changes: object) -> Outlook:
    base: dict[str, object] = {
        "tokens": 0,
        "burst": 49,
        "refill_seconds": 30.0,
        "polls_cost": True,
        "calm": True,
        "more_to_create": True,
        "prefer": Prefer.THROUGHPUT,
    }
    return Outlook(**{**base, **changes})  # type: ignore[arg-type]


def running(count: int, age: float = 0.0, seen: float = 0.0) -> list[Running]:
    return [Running(age, seen)] * count


def enough(count: int, **changes: object) -> float:
    return enough_for_a_list(running(count), DURATIONS, outlook(**changes))


def test_a_poll_that_costs_nothing_is_due_at_the_first_expected():
    """Where the limit does not count polls, one finished operation is enough."""
    assert enough(80, polls_cost=False) == 1.0
    assert enough(3, polls_cost=False) < 1.0


def test_a_poll_that_costs_a_token_waits_as_long_as_nothing_is_lost():
    """While the bucket fills, waiting finds more for the same token."""
    for tokens in (0, 20, 45):
        assert enough(80, tokens=tokens) == pytest.approx(NEARLY_ALL * 80)


def test_a_bucket_about_to_run_over_makes_a_poll_cheap():
    """Tokens that would be lost may as well look; while creates still wait for them, they are not lost."""
    assert enough(80, tokens=48) < 1.0
    assert enough(80, tokens=48, calm=False, prefer=Prefer.LATENCY) == PAYS_ITSELF


def test_for_latency_a_poll_is_due_when_it_pays_by_itself():
    """A fourteenth of a request for each, or all there are where these are fewer."""
    assert enough(80, prefer=Prefer.LATENCY) == PAYS_ITSELF
    assert enough(10, prefer=Prefer.LATENCY) == pytest.approx(NEARLY_ALL * 10)


def test_at_the_end_the_last_are_not_left_waiting():
    """Tokens that no result will need are shared out over the operations still running."""
    few = enough(10, tokens=6, more_to_create=False)
    many = enough(10, tokens=40, more_to_create=False)
    assert many <= few < enough(10, tokens=6)
    assert enough(1, tokens=40, more_to_create=False) < 0.5


def test_at_an_end_that_the_tokens_set_a_poll_must_still_pay():
    """A hundred results cost more than what comes in while the last operation runs: none is free."""
    assert enough(100, more_to_create=False) == pytest.approx(NEARLY_ALL * 100)


def test_polls_wait_for_creates_when_throughput_is_preferred():
    """And only then, and only where they cost."""
    assert outlook(calm=False).waits_for_calm
    assert not outlook(calm=False, prefer=Prefer.LATENCY).waits_for_calm
    assert not outlook(calm=False, polls_cost=False).waits_for_calm


def test_a_list_of_nobody_is_never_due():
    """Whatever the bucket holds."""
    assert not list_is_due([[]], DURATIONS, outlook(tokens=49))


def test_a_list_is_due_once_enough_are_expected():
    """Not before, and certainly when they are well past what they take."""
    assert not list_is_due([running(80, 500.0)], DURATIONS, outlook())
    assert list_is_due([running(80, 1200.0)], DURATIONS, outlook())


def test_those_on_a_second_page_count_half():
    """It takes two requests to see them."""
    look = outlook(prefer=Prefer.LATENCY)
    assert list_is_due([running(15, 1200.0)], DURATIONS, look)
    assert not list_is_due([[], running(15, 1200.0)], DURATIONS, look)
    assert list_is_due([[], running(30, 1200.0)], DURATIONS, look)


def test_a_further_page_is_read_for_several_or_for_half_of_the_rest():
    """One token is not spent on one straggler among many that surely run on."""
    late = running(8, 1200.0)
    assert page_is_due(late, DURATIONS, outlook())
    assert page_is_due(running(3, 1200.0), DURATIONS, outlook())
    assert not page_is_due(running(1, 1200.0) + running(20, 60.0), DURATIONS, outlook())
    assert page_is_due(running(1, 1200.0) + running(20, 60.0), DURATIONS, outlook(tokens=49))


def chance(count: int, age: float = 0.0, **changes: object) -> float:
    return chance_for_a_single(running(count, age), DURATIONS, outlook(**changes))


def test_a_single_poll_is_sent_when_it_is_likely_to_pay():
    """Unless it costs nothing, or what would be lost anyway."""
    assert chance(50) == LIKELY
    assert chance(50, polls_cost=False) == UNLIKELY
    assert chance(50, tokens=49) == UNLIKELY
    assert UNLIKELY < chance(50, tokens=40) < LIKELY


def test_at_the_end_single_polls_share_what_is_free():
    """The more tokens there are for those still running, the sooner one looks."""
    assert chance(50, more_to_create=False) == LIKELY
    assert chance(10, more_to_create=False, tokens=30) < chance(10, more_to_create=False, tokens=10) <= LIKELY
    assert chance(2, more_to_create=False, tokens=49) == UNLIKELY


LOOKS = st.builds(
    outlook,
    tokens=st.integers(0, 49),
    polls_cost=st.booleans(),
    calm=st.booleans(),
    more_to_create=st.booleans(),
    prefer=st.sampled_from(Prefer),
)


@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), max_size=40),
    LOOKS,
    st.lists(st.floats(0.01, 1e5), max_size=10),
)
def test_whatever_comes_a_decision_is_made(ages, look, known):
    """No age, no level and no history leads to an error, a chance out of bounds or a share that cannot be reached."""
    durations = Durations(expected_seconds=300, known=known)
    some = [Running(max(pair), min(pair)) for pair in ages]
    assert UNLIKELY <= chance_for_a_single(some, durations, look) <= LIKELY
    assert 0 <= enough_for_a_list(some, durations, look) <= max(1.0, NEARLY_ALL * len(some))
    assert list_is_due([some], durations, look) in (True, False)


def allowed(expected: float, *, cap: int = 100, polls_cost: bool = True, prefer: Prefer = Prefer.LATENCY) -> int:
    return operations_allowed(
        Durations(expected_seconds=expected),
        cap=cap,
        requests_per_minute=2.0,
        burst=50,
        polls_cost=polls_cost,
        prefer=prefer,
    )


def test_operations_follow_their_durations_up_to_the_cap():
    """Quick ones need few at once; slow ones are held back by the cap; the burst is always used."""
    assert allowed(60) == 50
    assert allowed(7200) == 100
    assert allowed(7200, cap=8) == 8


def test_creates_that_alone_are_counted_need_twice_the_room():
    """They go out twice as fast as where every bundle has a results call, too."""
    assert allowed(1800, cap=10_000, polls_cost=False) == pytest.approx(2 * allowed(1800, cap=10_000), abs=2)


def test_what_is_done_and_not_yet_found_needs_room_as_well():
    """Where polls are put off, a page of the list more than those that run."""
    assert allowed(1800, cap=1000, prefer=Prefer.THROUGHPUT) - allowed(1800, cap=1000) == LIST_SIZE
    assert allowed(60, prefer=Prefer.THROUGHPUT) == 100
