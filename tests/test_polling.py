"""When a poll is due, as a pure function of numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.admission import Prefer
from asyncexport.core.durations import Durations
from asyncexport.core.polling import (
    CHANCE_AT_END,
    CHANCE_FOR_ROOM,
    CHANCE_WHEN_FREE,
    CHANCE_WHEN_PAID,
    FOUND_FOR_LATENCY,
    NEARLY_ALL_SHARE,
    OperationAge,
    PollingOutlook,
    chance_for_an_individual_poll,
    enough_for_a_list,
    list_is_due,
    page_is_due,
)

DURATIONS = Durations(expected_seconds=600, known=[600.0] * 100)
"""All operations so far took ten minutes, and later ones are expected to."""


def outlook(**changes: object) -> PollingOutlook:
    base: dict[str, object] = {
        "tokens": 0,
        "burst": 49,
        "refill_seconds": 30.0,
        "polls_cost": True,
        "uncontended": True,
        "more_to_create": True,
        "prefer": Prefer.THROUGHPUT,
    }
    return PollingOutlook(**{**base, **changes})  # type: ignore[arg-type]


def running(count: int, age: float = 0.0, seen: float = 0.0) -> list[OperationAge]:
    return [OperationAge(age, seen)] * count


def enough(count: int, **changes: object) -> float:
    return enough_for_a_list(running(count), DURATIONS, outlook(**changes))


def test_a_free_poll_is_due_for_the_first_finished_operations():
    """If polls cost no token, two expected operations suffice, and fewer if creates wait for the operation limit."""
    assert enough(80, polls_cost=False, uncontended=False) == 2.0
    assert enough(80, polls_cost=False) == 0.5
    assert enough(3, polls_cost=False) < 0.5


def test_free_lists_come_rarely_while_creates_wait_for_tokens():
    """Before any operation is expected to be done, they come after a tenth of the oldest age, and otherwise a fiftieth.

    Nothing but the download of files waits for a list then. When the last bundle is created, or when creates wait for
    slots, the end of the run waits for it.
    """
    young = [running(40, 200.0, 100.0)]
    for changes, gap in (
        ({"uncontended": False}, 20.0),
        ({"uncontended": False, "more_to_create": False}, 4.0),
        ({"uncontended": True}, 4.0),
        ({"uncontended": False, "prefer": Prefer.LATENCY}, 4.0),
    ):
        due = [
            list_is_due(young, DURATIONS, outlook(polls_cost=False, **changes), waited_seconds=gap + by)
            for by in (-0.1, 0)
        ]
        assert due == [False, True], changes


def test_a_poll_that_costs_a_token_waits_while_the_bucket_fills():
    """While the bucket is not about to overflow, a poll waits until nearly all operations should have finished."""
    for tokens in (0, 20, 45):
        assert enough(80, tokens=tokens) == pytest.approx(NEARLY_ALL_SHARE * 80)


def test_a_bucket_about_to_overflow_makes_a_poll_cheap():
    """A token that would be lost is spent on a poll, unless creates are waiting for it."""
    assert enough(80, tokens=48) < 1.0
    assert enough(80, tokens=48, uncontended=False, prefer=Prefer.LATENCY) == FOUND_FOR_LATENCY


def test_for_latency_a_poll_is_due_when_it_finds_enough():
    """With `latency`, a poll must find 14 operations, or nearly all if fewer are in flight and no creates wait."""
    assert enough(80, prefer=Prefer.LATENCY) == FOUND_FOR_LATENCY
    assert enough(10, prefer=Prefer.LATENCY) == pytest.approx(NEARLY_ALL_SHARE * 10)
    assert enough(10, prefer=Prefer.LATENCY, uncontended=False) == FOUND_FOR_LATENCY


def test_at_the_end_free_tokens_are_spent_on_polls():
    """At the end of a run, tokens that no results call will need are spent on polling the last operations."""
    few = enough(10, tokens=11, more_to_create=False)
    many = enough(10, tokens=40, more_to_create=False)
    assert many <= few < enough(10, tokens=11)
    assert enough(1, tokens=40, more_to_create=False) < 0.5


def test_at_the_end_a_poll_must_still_pay_if_tokens_are_scarce():
    """If the remaining results calls need all tokens, a poll waits for nearly all operations even at the end."""
    assert enough(100, more_to_create=False) == pytest.approx(NEARLY_ALL_SHARE * 100)


def test_polls_wait_for_creates_when_throughput_is_preferred():
    """A poll gives way to waiting creates only if `throughput` is preferred and polls cost tokens."""
    assert outlook(uncontended=False).gives_way
    assert not outlook(uncontended=False, prefer=Prefer.LATENCY).gives_way
    assert not outlook(uncontended=False, polls_cost=False).gives_way


def is_due(pages: list[list[OperationAge]], *, waited: float = 0.0, **changes: object) -> bool:
    return list_is_due(pages, DURATIONS, outlook(**changes), waited_seconds=waited)


def test_a_list_is_never_due_without_operations():
    """With no operation in flight no list poll is due, however full the bucket and however long ago the last one."""
    assert not is_due([[]], tokens=49, waited=1e9)


def test_a_list_is_due_once_enough_are_expected():
    """A list poll is due when enough operations should have finished, and not before."""
    assert not is_due([running(80, 500.0)])
    assert is_due([running(80, 1200.0)])


def test_very_long_operations_are_polled_at_intervals():
    """If a poll is free, a very long operation is polled again after a hundredth of its age."""
    seen_just_now = [running(1, 36_000.0, seen=35_990.0)]
    assert not is_due(seen_just_now, tokens=49, waited=300)
    assert is_due(seen_just_now, tokens=49, waited=400)
    assert not is_due(seen_just_now, tokens=20, waited=400)


def test_operations_on_a_second_page_count_half():
    """Operations on the second page of the list count half, because two requests are needed to see them."""
    late = Prefer.LATENCY
    assert is_due([running(15, 1200.0)], prefer=late, uncontended=False)
    assert not is_due([[], running(15, 1200.0)], prefer=late, uncontended=False)
    assert is_due([[], running(30, 1200.0)], prefer=late, uncontended=False)


def test_a_further_page_is_read_for_several_operations_or_half_of_the_remaining():
    """A token is not spent on a page where one operation among many may have finished, unless the token is free."""
    late = running(8, 1200.0)
    assert page_is_due(late, DURATIONS, outlook())
    assert page_is_due(running(3, 1200.0), DURATIONS, outlook())
    assert not page_is_due(running(1, 1200.0) + running(20, 60.0), DURATIONS, outlook())
    assert page_is_due(running(1, 1200.0) + running(20, 60.0), DURATIONS, outlook(tokens=49))


def chance(count: int, age: float = 0.0, **changes: object) -> float:
    return chance_for_an_individual_poll(running(count, age), DURATIONS, outlook(**changes))


def test_an_individual_poll_is_sent_when_it_is_likely_to_pay():
    """An individual poll needs a high chance of success if it costs a token, and less the cheaper it is."""
    assert chance(50) == chance(50, tokens=40) == CHANCE_WHEN_PAID
    assert chance(50, tokens=49) == CHANCE_AT_END
    assert chance(50, polls_cost=False) == CHANCE_FOR_ROOM
    assert chance(50, polls_cost=False, more_to_create=False) == CHANCE_AT_END
    assert chance(50, polls_cost=False, uncontended=False) == CHANCE_WHEN_FREE


def test_at_the_end_individual_polls_share_the_free_tokens():
    """The more free tokens there are for each operation in flight, the sooner it is polled."""
    assert chance(50, more_to_create=False) == CHANCE_WHEN_PAID
    assert (
        CHANCE_WHEN_FREE
        < chance(10, more_to_create=False, tokens=4)
        < chance(10, more_to_create=False, tokens=0)
        <= CHANCE_WHEN_PAID
    )
    assert chance(2, more_to_create=False, tokens=40) == CHANCE_WHEN_FREE


OUTLOOKS = st.builds(
    outlook,
    tokens=st.integers(0, 49),
    polls_cost=st.booleans(),
    uncontended=st.booleans(),
    more_to_create=st.booleans(),
    prefer=st.sampled_from(Prefer),
)


@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), max_size=40),
    OUTLOOKS,
    st.lists(st.floats(0.01, 1e5), max_size=10),
)
def test_every_situation_gets_a_decision_within_bounds(ages, situation, known):
    """No ages, tokens or history lead to an error, a chance out of bounds or a share that cannot be reached."""
    durations = Durations(expected_seconds=300, known=known)
    some = [OperationAge(max(pair), min(pair)) for pair in ages]
    assert CHANCE_FOR_ROOM <= chance_for_an_individual_poll(some, durations, situation) <= CHANCE_WHEN_PAID
    assert 0 <= enough_for_a_list(some, durations, situation) <= max(FOUND_FOR_LATENCY, NEARLY_ALL_SHARE * len(some))
    assert list_is_due([some], durations, situation, waited_seconds=10.0) in (True, False)
