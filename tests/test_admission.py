"""Priorities, back-off, the bucket's arithmetic, outages, and durations."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.admission import (
    HISTORY_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Backoff,
    Prefer,
    Priority,
    SentRequest,
    Up,
    backoff_seconds,
    is_outage,
    pause_seconds,
    rank,
    tokens_used,
)
from asyncexport.core.durations import Durations

NOW = 1_000_000.0


def test_results_go_first_whatever_is_preferred():
    """An export at hand is worth more than one to come."""
    for prefer in Prefer:
        assert sorted(Priority, key=lambda p: rank(p, prefer))[0] is Priority.RESULTS


def test_preferring_latency_lets_polls_pass_creates():
    """`[polling] prefer` turns the order of creates and due polls round, and no other."""
    assert sorted(Priority, key=lambda p: rank(p, Prefer.THROUGHPUT)) == list(Priority)
    assert sorted(Priority, key=lambda p: rank(p, Prefer.LATENCY)) == [
        Priority.RESULTS,
        Priority.POLL,
        Priority.CREATE,
        Priority.REST,
    ]


@given(st.integers(1, 2000), st.floats(0, 0.999))
def test_back_off_has_a_ceiling_and_full_jitter(tries, jitter):
    """Never longer than the maximum, never negative, however many the tries."""
    assert 0 <= backoff_seconds(tries, initial_seconds=1, max_seconds=300, jitter=jitter) <= 300


@pytest.mark.parametrize("retry_after", [None, 0.0, -5.0, 1e12, 0.001])
def test_no_retry_after_makes_a_caller_spin_or_sleep_for_ever(retry_after):
    """Missing, zero, negative, tiny and absurd values all end up between a second and an hour."""
    assert 1.0 <= pause_seconds(retry_after, refill_seconds=30.0) <= LONGEST_PAUSE_SECONDS


def test_retry_after_is_obeyed():
    """A sensible value is taken as it is."""
    assert pause_seconds(17.0, refill_seconds=30.0) == 17.0


def bucket(sent: list[SentRequest], *, oldest_known: bool = True) -> float:
    return tokens_used(sent, now=NOW, burst=50, requests_per_minute=2, oldest_known=oldest_known)


def test_a_crash_loop_cannot_send_its_burst_again():
    """Fifty requests a moment ago are fifty tokens gone."""
    assert bucket([SentRequest(NOW, "create", 200)] * 50) == 50


def test_tokens_come_back_with_time():
    """Fifty requests ten minutes ago have got twenty tokens back since."""
    assert bucket([SentRequest(NOW - 600, "create", 200)] * 50) == pytest.approx(30)


def test_a_refusal_empties_the_bucket():
    """After a 429 nothing is left, whatever our own count said."""
    assert bucket([SentRequest(NOW, "create", 429)]) == 50


def test_an_unknown_past_is_taken_for_an_empty_bucket():
    """Steady sending for longer than the record reaches leaves no token unaccounted for."""
    steady = [SentRequest(NOW - HISTORY_SECONDS + 30 * k, "create", 200) for k in range(int(HISTORY_SECONDS / 30))]
    assert bucket(steady, oldest_known=False) > 48
    assert bucket([], oldest_known=False) == 0


@given(st.lists(st.floats(-1e5, 1e5), max_size=80), st.booleans())
def test_no_clock_jump_puts_the_level_out_of_bounds(offsets, oldest_known):
    """Records from the future, or out of order, never make more tokens than there are."""
    assert 0 <= bucket([SentRequest(NOW + o, "create", 200) for o in offsets], oldest_known=oldest_known) <= 50


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=120))
def test_the_level_is_that_of_a_bucket_that_counted_along(gaps):
    """Replaying the record gives what a bucket that was there all the time would hold."""
    at, level, sent = NOW - sum(gaps), 0.0, []
    for gap in gaps:
        sent.append(SentRequest(at, "create", 200))
        level = min(50.0, level + 1)
        at += gap
        level = max(0.0, level - gap / 30)
    assert bucket(sent) == pytest.approx(level, abs=1e-6)


def test_an_outage_counts_from_its_first_failure():
    """Patience runs out after `outage`, not after so many tries."""
    backoff = Backoff(1.0, 300.0, 3600.0)
    line = backoff.after_failure(Up(), now=0.0, jitter=0.5)
    for now in range(60, 3600, 60):
        line = backoff.after_failure(line, now=float(now), jitter=0.5)
        assert not backoff.is_over(line, now=float(now))
    assert backoff.is_over(line, now=3600.0)


@pytest.mark.parametrize(("status", "outage"), [(None, True), (408, True), (499, True), (500, True), (503, True)])
def test_the_services_own_trouble_is_an_outage(status, outage):
    """No answer, 408, 499 and 5xx are nobody's fault here."""
    assert is_outage(status) is outage


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429])
def test_an_answer_is_no_outage(status):
    """Whoever answers is there."""
    assert not is_outage(status)


@pytest.mark.parametrize(("median", "spread"), [(120.0, 0.5), (600.0, 0.5), (1800.0, 1.0), (7200.0, 0.3)])
def test_durations_are_learned_from_what_finished(median, spread):
    """A guess that is off by a factor of ten does not stand in the way."""
    draw = random.Random(7)
    learned = Durations(expected_seconds=300, known=[median * draw.lognormvariate(0, spread) for _ in range(150)])
    assert learned.median_seconds == pytest.approx(median, rel=0.15)
    assert learned.spread == pytest.approx(spread, rel=0.35)


def test_those_still_running_say_that_it_takes_longer():
    """Learning from the first to finish alone would make all look quick."""
    draw = random.Random(3)
    all_of_them = [600 * draw.lognormvariate(0, 0.7) for _ in range(60)]
    done = [s for s in all_of_them if s < 400]
    naive = Durations(expected_seconds=300, known=done)
    wise = Durations(expected_seconds=300, known=done)
    wise.refit([400.0] * (60 - len(done)))
    assert naive.median_seconds < 350
    assert wise.median_seconds == pytest.approx(600, rel=0.3)


@given(st.floats(1, 1e5), st.floats(1, 1e5), st.lists(st.floats(0.01, 1e6), max_size=20))
def test_a_chance_is_a_chance(seen, more, known):
    """Between 0 and 1, whatever was learned and however long it has been."""
    durations = Durations(expected_seconds=300, known=known)
    assert 0 <= durations.done_since(seen, seen + more) <= 1


@given(st.floats(0, 1e4), st.floats(0.05, 0.95))
def test_the_due_age_has_the_chance_asked_for(seen, chance):
    """At the age named, an operation seen running is done with that chance."""
    durations = Durations(expected_seconds=300)
    age = durations.due_age_seconds(seen, chance)
    assert age >= seen
    assert durations.done_since(seen, age) == pytest.approx(chance, abs=0.02)
