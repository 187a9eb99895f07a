"""Priorities, back-off, pauses, outages, what counts, and durations."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.admission import (
    HOPELESS_REFUSALS,
    LONGEST_PAUSE_SECONDS,
    RELEARN_SECONDS,
    Admission,
    Answer,
    Backoff,
    BudgetScope,
    Consequence,
    Down,
    Grant,
    Prefer,
    Priority,
    Quota,
    Up,
    backoff_seconds,
    counts,
    is_outage,
    is_still_learned,
    pause_seconds,
    rank,
)
from asyncexport.core.durations import Durations
from asyncexport.core.service.requests import Kind

OUTAGE = 3600.0
WALL = 1_700_000_000.0


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


def test_an_outage_counts_from_its_first_failure():
    """Patience runs out after `outage`, not after so many tries."""
    backoff = Backoff(1.0, 300.0, 3600.0)
    line = backoff.after_failure(Up(), now=0.0, jitter=0.5)
    for now in range(60, 3600, 60):
        line = backoff.after_failure(line, now=float(now), jitter=0.5)
        assert not backoff.is_over(line, now=float(now))
    assert backoff.is_over(line, now=3600.0)


def test_a_service_that_never_answered_here_is_given_up_sooner():
    """Its address, a proxy or the network is likelier to be wrong; one answer, even of trouble, and it is an outage."""
    backoff = Backoff(1.0, 300.0, OUTAGE, first_contact_seconds=60.0)
    for answers, seconds in (((None,), 60.0), ((503, None), OUTAGE)):
        admission = Admission(Quota(2.0, 50, BudgetScope.CREATE), backoff)
        admission.has_answered = False
        for status in answers:
            answer(admission, status, now=0.0)
        assert not answer(admission, None, now=seconds - 1).given_up
        gone = answer(admission, None, now=seconds)
        assert gone.given_up
        assert gone.never_answered is (seconds == 60.0)


@given(
    status=st.sampled_from([500, 502, 503, 599]), asked=st.floats(0.0, 1e6, allow_nan=False), jitter=st.floats(0, 0.999)
)
def test_a_retry_after_counts_on_a_503_as_on_a_429(status, asked, jitter):
    """Never sooner than asked, an hour at most, and never sooner than the back-off."""
    admission = an_admission()
    grant = admission.grant(Kind.CREATE, counted=True, now=0.0)
    admission.answered(grant, Answer(status, asked), now=0.0, wall_time=WALL, jitter=jitter, tokens=0)
    assert admission.closed_seconds(0.0) == max(min(asked, 3600.0), jitter)


# What an answer means to whoever comes next


def an_admission(scope: BudgetScope = BudgetScope.CREATE) -> Admission:
    return Admission(Quota(2.0, 50, scope), Backoff(1.0, 300.0, OUTAGE))


def answer(
    admission: Admission,
    status: int | None,
    *,
    now: float,
    kind: Kind = Kind.CREATE,
    grant: Grant | None = None,
    tokens: int = 0,
    retry_after: float | None = None,
) -> Consequence:
    """One request, granted and answered at this moment."""
    counted = counts(admission.learning.scope, kind)
    grant = grant or admission.grant(kind, counted=counted, now=now)
    return admission.answered(
        grant,
        Answer(status, retry_after),
        now=now,
        wall_time=WALL + now,
        jitter=0.5,
        tokens=tokens,
    )


def test_nothing_follows_from_a_plain_answer():
    """The way is open, and stays open."""
    admission = an_admission()
    assert answer(admission, 200, now=0.0) == Consequence()
    assert admission.closed_seconds(0.0) == 0.0
    assert admission.is_open(0.0)


def test_a_refusal_closes_the_way_and_empties_the_bucket():
    """For as long as it asks."""
    admission = an_admission()
    assert answer(admission, 429, now=10.0, retry_after=40.0) == Consequence(empties=True)
    assert [admission.closed_seconds(now) for now in (10.0, 30.0, 50.0)] == [40.0, 20.0, 0.0]


def test_while_the_line_is_down_one_at_a_time_tries_it():
    """First after the back-off; while it tries, nobody else may; when nothing comes of it, the next one may."""
    admission = an_admission()
    answer(admission, None, now=0.0)
    assert admission.closed_seconds(0.0) == 0.5
    probe = admission.grant(Kind.POLL, counted=False, now=0.5)
    assert probe.probes
    assert math.isinf(admission.closed_seconds(0.5))
    admission.settled(probe)
    assert admission.closed_seconds(0.5) == 0.0
    answer(admission, 200, now=0.5, grant=probe)
    assert admission.is_open(0.5)


def test_what_is_given_up_is_said_with_the_reason():
    """The last answer's, where there was one."""
    admission = an_admission()
    grant = admission.grant(Kind.POLL, counted=False, now=0.0)
    for now, problem in ((0.0, "no name"), (OUTAGE, "no route")):
        follows = admission.answered(
            grant, Answer(None, problem=problem), now=now, wall_time=WALL, jitter=0.5, tokens=0
        )
    assert follows.given_up == "the service could not be reached for 1 h (no route)"


@pytest.mark.parametrize(
    ("kind", "tokens", "times", "learned"),
    [
        (Kind.POLL, 1, 1, True),
        (Kind.LIST, 1, 1, True),
        (Kind.RESULTS, 1, 1, True),
        (Kind.RESULTS, 0, 1, False),
        (Kind.RESULTS, 0, 2, True),
        (Kind.CREATE, 1, 9, False),
        (Kind.OTHER, 1, 9, False),
    ],
)
def test_a_refusal_of_what_should_not_count_tells_that_all_does(kind, tokens, times, learned):
    """At once where creates had tokens left, else the second time; never a create, nor a call with its own limit."""
    admission = an_admission(BudgetScope.AUTO)
    follows = [answer(admission, 429, now=1000.0 * n, kind=kind, tokens=tokens) for n in range(times)]
    assert [one.all_count for one in follows] == [False] * (times - 1) + [learned]
    assert admission.learning.scope is (BudgetScope.ALL if learned else BudgetScope.CREATE)


def test_what_was_learned_holds_for_a_week():
    """And not for what was learned in the future."""
    for ago, holds in ((0.0, True), (RELEARN_SECONDS - 1, True), (RELEARN_SECONDS, False), (-1.0, False)):
        assert is_still_learned(WALL - ago, now=WALL) is holds
    assert not is_still_learned(None, now=WALL)


ANSWERS = st.lists(
    st.tuples(
        st.floats(0, 600),
        st.sampled_from([200, 404, 429, 429, 500, None, "left"]),
        st.sampled_from(list(Kind)),
        st.one_of(st.none(), st.floats(-10, 1e5)),
        st.integers(0, 4),
    ),
    max_size=80,
)


@given(ANSWERS, st.sampled_from(BudgetScope))
def test_whatever_is_answered_the_way_opens_again(answers, scope):
    """Once nothing is in flight, no order of answers keeps it closed for more than an hour, or changes a set scope."""
    admission, now, wall = an_admission(scope), 0.0, WALL
    in_flight: list[Grant] = []
    for seconds, status, kind, retry_after, older in answers:
        now += seconds
        counted = counts(admission.learning.scope, kind)
        if admission.closed_seconds(now) <= 0:
            in_flight.append(admission.grant(kind, counted=counted, now=now))
        if in_flight:
            grant = in_flight.pop(max(0, len(in_flight) - 1 - older))
            if status == "left":
                admission.settled(grant)
            else:
                admission.answered(
                    grant, Answer(status, retry_after), now=now, wall_time=wall + now, jitter=0.999, tokens=older
                )
        assert sum(grant.probes for grant in in_flight) <= 1 or isinstance(admission.line, Up)
    for grant in in_flight:
        admission.settled(grant)
    # `until - now` is rounded, so that a pause of an hour may come out a hair longer.
    assert 0 <= admission.closed_seconds(now) <= LONGEST_PAUSE_SECONDS + 1e-6
    if scope is not BudgetScope.AUTO:
        assert admission.learning.scope is scope


@given(st.lists(st.floats(0, OUTAGE / 2), min_size=1, max_size=60), st.sampled_from([429, 503]))
def test_a_service_is_given_up_after_the_outage_and_not_before(gaps, status):
    """Where each answer is a refusal, or says that the service is in trouble: once that has lasted long enough."""
    admission, now = an_admission(), 0.0
    answer(admission, status, now=now)
    for number, gap in enumerate(gaps, start=2):
        now += gap
        follows = answer(admission, status, now=now)
        enough = number >= HOPELESS_REFUSALS or status == 503
        assert bool(follows.given_up) == (now >= OUTAGE and enough)
    assert isinstance(admission.line, Down if status == 503 else Up)


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
