"""Priorities, back-off, pauses, outages, what counts, and durations."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.admission import (
    HOPELESS_HITS,
    RELEARN_SECONDS,
    Admission,
    Answer,
    BudgetScope,
    Consequence,
    Grant,
    Prefer,
    Priority,
    Quota,
    counts,
    is_still_learned,
    pause_seconds,
    rank,
)
from asyncexport.core.connectivity import LONGEST_PAUSE_SECONDS, Backoff, Down, Up, backoff_seconds, is_outage
from asyncexport.core.durations import Durations
from asyncexport.core.service.requests import Kind

OUTAGE = 3600.0
WALL = 1_700_000_000.0


def test_urgent_requests_and_results_calls_always_go_first():
    """Urgent requests come before results calls, and those before every other, for throughput and for latency."""
    for prefer in Prefer:
        assert sorted(Priority, key=lambda p: rank(p, prefer))[:2] == [Priority.URGENT, Priority.RESULTS]


def test_preferring_latency_lets_polls_pass_creates():
    """`[polling] prefer = "latency"` swaps creates and due polls and changes nothing else."""
    assert sorted(Priority, key=lambda p: rank(p, Prefer.THROUGHPUT)) == list(Priority)
    assert sorted(Priority, key=lambda p: rank(p, Prefer.LATENCY)) == [
        Priority.URGENT,
        Priority.RESULTS,
        Priority.POLL,
        Priority.CREATE,
        Priority.REST,
    ]


@given(st.integers(1, 2000), st.floats(0, 0.999))
def test_back_off_has_a_ceiling_and_full_jitter(attempts, jitter):
    """The back-off is never negative and never longer than the maximum, however many attempts failed."""
    assert 0 <= backoff_seconds(attempts, initial_seconds=1, max_seconds=300, jitter=jitter) <= 300


@pytest.mark.parametrize("retry_after", [None, 0.0, -5.0, 1e12, 0.001])
def test_no_retry_after_makes_a_caller_spin_or_sleep_forever(retry_after):
    """A missing, zero, negative, tiny or absurd Retry-After results in a pause between a second and an hour."""
    assert 1.0 <= pause_seconds(retry_after, refill_seconds=30.0) <= LONGEST_PAUSE_SECONDS


def test_retry_after_is_obeyed():
    """A sensible Retry-After is used unchanged."""
    assert pause_seconds(17.0, refill_seconds=30.0) == 17.0


def test_the_duration_of_an_outage_counts_from_its_first_failure():
    """A service is given up once the outage has lasted for `outage`, not after a number of attempts."""
    backoff = Backoff(1.0, 300.0, 3600.0)
    line = backoff.after_failure(Up(), now=0.0, jitter=0.5)
    for now in range(60, 3600, 60):
        line = backoff.after_failure(line, now=float(now), jitter=0.5)
        assert not backoff.is_over(line, now=float(now))
    assert backoff.is_over(line, now=3600.0)


def test_a_service_that_never_answered_is_given_up_sooner():
    """Before its first answer the shorter `first_contact` applies; after any answer, even an error, `outage` does."""
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
def test_retry_after_is_obeyed_on_a_503_as_on_a_429(status, asked, jitter):
    """The pause is never shorter than Retry-After or the back-off, and never longer than an hour."""
    admission = an_admission()
    grant = admission.grant(Kind.CREATE, counted=True, now=0.0)
    admission.answered(grant, Answer(status, asked), now=0.0, wall_time=WALL, jitter=jitter, tokens=0)
    assert admission.closed_seconds(0.0) == max(min(asked, 3600.0), jitter)


# What an answer means for later requests


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
    """Send one request and answer it at the time `now`."""
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


def test_a_successful_answer_has_no_consequence():
    """After a 200 the next request may go out immediately."""
    admission = an_admission()
    assert answer(admission, 200, now=0.0) == Consequence()
    assert admission.closed_seconds(0.0) == 0.0
    assert admission.is_open(0.0)


def test_a_429_pauses_requests_and_empties_the_bucket():
    """A 429 pauses all requests until Retry-After is over."""
    admission = an_admission()
    assert answer(admission, 429, now=10.0, retry_after=40.0) == Consequence(empties=True)
    assert [admission.closed_seconds(now) for now in (10.0, 30.0, 50.0)] == [40.0, 20.0, 0.0]


def test_during_an_outage_one_probe_goes_out_at_a_time():
    """After the back-off a single probe goes out; if it is cancelled, the next request becomes the probe."""
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


def test_giving_up_reports_the_reason():
    """The message contains the problem of the last failed request."""
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
def test_a_429_on_a_request_that_takes_no_token_shows_that_all_requests_count(kind, tokens, times, learned):
    """One 429 is enough while tokens are left, otherwise two; a create or a call with its own limit proves nothing."""
    admission = an_admission(BudgetScope.AUTO)
    follows = [answer(admission, 429, now=1000.0 * n, kind=kind, tokens=tokens) for n in range(times)]
    assert [one.all_count for one in follows] == [False] * (times - 1) + [learned]
    assert admission.learning.scope is (BudgetScope.ALL if learned else BudgetScope.CREATE)


def test_a_refused_create_does_not_hide_the_429_of_a_list():
    """Creates may be refused first in each pause; two lists that are refused, a pause apart, tell all the same."""
    admission, learned = an_admission(BudgetScope.AUTO), list[bool]()
    for now in (0.0, 1000.0):
        grants = [admission.grant(kind, counted=kind is Kind.CREATE, now=now) for kind in (Kind.CREATE, Kind.LIST)]
        grants.append(admission.grant(Kind.RESULTS, counted=False, now=now))
        for number, grant in enumerate(grants):
            after = now + 0.01 * (number + 1)
            follows = admission.answered(grant, Answer(429), now=after, wall_time=WALL, jitter=0.5, tokens=0)
            learned.append(follows.all_count)
    assert learned == [False, False, False, False, True, False]


def test_a_learned_scope_is_kept_for_a_week():
    """It expires after seven days, and a date in the future is ignored."""
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
def test_requests_resume_after_any_sequence_of_answers(answers, scope):
    """With nothing in flight, no sequence of answers pauses requests for over an hour or changes a configured scope."""
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
    # `until - now` is rounded, so a pause of an hour may come out slightly longer.
    assert 0 <= admission.closed_seconds(now) <= LONGEST_PAUSE_SECONDS + 1e-6
    if scope is not BudgetScope.AUTO:
        assert admission.learning.scope is scope


@given(st.lists(st.floats(0, OUTAGE / 2), min_size=1, max_size=60), st.sampled_from([429, 503]))
def test_a_service_is_given_up_after_the_outage_and_not_before(gaps, status):
    """A service that only sends errors or 429s is given up once this has lasted for `outage`."""
    admission, now = an_admission(), 0.0
    answer(admission, status, now=now)
    for number, gap in enumerate(gaps, start=2):
        now += gap
        follows = answer(admission, status, now=now)
        enough = number >= HOPELESS_HITS or status == 503
        assert bool(follows.given_up) == (now >= OUTAGE and enough)
    assert isinstance(admission.line, Down if status == 503 else Up)


@pytest.mark.parametrize(("status", "outage"), [(None, True), (408, True), (499, True), (500, True), (503, True)])
def test_no_answer_or_a_server_error_is_an_outage(status, outage):
    """No answer, 408, 499 and 5xx count as an outage of the service."""
    assert is_outage(status) is outage


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429])
def test_other_statuses_are_no_outage(status):
    """A success and other 4xx statuses, 429 included, show that the service can be reached."""
    assert not is_outage(status)


@pytest.mark.parametrize(("median", "spread"), [(120.0, 0.5), (600.0, 0.5), (1800.0, 1.0), (7200.0, 0.3)])
def test_durations_are_learned_from_what_finished(median, spread):
    """The estimate matches the observed durations even if the configured guess is off by a factor of ten."""
    draw = random.Random(7)
    learned = Durations(expected_seconds=300, known=[median * draw.lognormvariate(0, spread) for _ in range(150)])
    assert learned.median_seconds == pytest.approx(median, rel=0.15)
    assert learned.spread == pytest.approx(spread, rel=0.35)


def test_operations_still_running_raise_the_estimate():
    """The estimate also uses operations that are still running, so that it is not biased towards the fast ones."""
    draw = random.Random(3)
    all_of_them = [600 * draw.lognormvariate(0, 0.7) for _ in range(60)]
    done = [s for s in all_of_them if s < 400]
    biased = Durations(expected_seconds=300, known=done)
    fitted = Durations(expected_seconds=300, known=done)
    fitted.refit([400.0] * (60 - len(done)))
    assert biased.median_seconds < 350
    assert fitted.median_seconds == pytest.approx(600, rel=0.3)


@given(st.floats(1, 1e5), st.floats(1, 1e5), st.lists(st.floats(0.01, 1e6), max_size=20))
def test_a_probability_is_between_0_and_1(seen, more, known):
    """It stays in this range for all known durations and elapsed times."""
    durations = Durations(expected_seconds=300, known=known)
    assert 0 <= durations.done_since(seen, seen + more) <= 1


@given(st.floats(0, 1e4), st.floats(0.05, 0.95))
def test_the_due_age_has_the_requested_probability(seen, chance):
    """At the returned age, an operation that was seen running has finished with the requested probability."""
    durations = Durations(expected_seconds=300)
    age = durations.due_age_seconds(seen, chance)
    assert age >= seen
    assert durations.done_since(seen, age) == pytest.approx(chance, abs=0.02)
