"""The token bucket: never ahead of the service's own, and restored from what earlier runs sent."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.admission import BudgetScope, Quota
from asyncexport.core.bucket import HISTORY_SECONDS, Bucket, RequestHistory, SentRequest, tokens_used

NOW = 1_000_000.0
REFILL = 30.0


def test_one_token_returns_per_refill_time():
    """Tokens return from the time a request is answered, up to the size of the bucket."""
    bucket = Bucket(3, REFILL)
    for _ in range(2):
        bucket.take(0.0)
        bucket.arrived(0.0)
    assert [bucket.tokens(now) for now in (0.0, 29.9, 30.0, 59.9, 60.0, 1e6)] == [1, 1, 2, 2, 3, 3]


def test_a_request_in_flight_keeps_its_token():
    """The token only starts to return with the answer, since the service may see the request as late as that."""
    bucket = Bucket(3, REFILL)
    bucket.take(0.0)
    bucket.take(0.0)
    assert bucket.tokens(1000.0) == 1
    bucket.arrived(1000.0)
    assert (bucket.tokens(1029.0), bucket.tokens(1030.0), bucket.tokens(2000.0)) == (1, 2, 2)


def test_the_wait_for_the_next_token():
    """The wait lasts until a whole token is available, and is infinite while all tokens are in flight."""
    bucket = Bucket(2, REFILL)
    assert bucket.wait_seconds(0.0) == 0.0
    bucket.take(0.0)
    bucket.take(0.0)
    assert math.isinf(bucket.wait_seconds(10.0))
    bucket.arrived(10.0)
    assert bucket.wait_seconds(10.0) == pytest.approx(30.0)
    assert bucket.wait_seconds(25.0) == pytest.approx(15.0)


def test_an_unsent_request_returns_its_token():
    """The level is the same as if the token had never been taken, however long it was held."""
    bucket = Bucket(3, REFILL)
    bucket.take(0.0)
    bucket.take(0.0)
    bucket.arrived(0.0)
    assert bucket.tokens(15.0) == 1
    bucket.put_back(15.0, taken_at=0.0)
    assert bucket.used == pytest.approx(0.5)


def test_an_emptied_bucket_stays_empty_when_a_token_is_put_back():
    """After a 429 an unsent request does not add a token."""
    bucket = Bucket(3, REFILL)
    bucket.take(0.0)
    bucket.empty(1.0)
    bucket.put_back(2.0, taken_at=0.0)
    assert (bucket.tokens(2.0), bucket.tokens(31.0)) == (0, 1)


def test_the_level_never_falls_below_empty():
    """Earlier processes cannot have used more tokens than the bucket holds."""
    bucket = Bucket(49, REFILL)
    bucket.drop(0.0, 50.0)
    assert (bucket.tokens(0.0), bucket.tokens(30.0)) == (0, 1)


@dataclass
class ServiceBucket:
    """The service's bucket, which may see a request at any time between its sending and its answer."""

    level: float
    burst: float
    since: float = 0.0

    def arrives(self, time: float) -> None:
        """Take a token, which must be available."""
        self.level = min(self.burst, self.level + (time - self.since) / REFILL)
        self.since = time
        assert self.level >= 1 - 1e-6
        self.level -= 1


STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 5), st.floats(0, 1000)),
        st.sampled_from(["take", "take", "arrived", "put back", "empty"]),
        st.floats(0, 1),
        st.integers(0, 5),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 12))
def test_no_order_of_events_puts_the_bucket_ahead_of_the_services(steps, size):
    """The service has a token for each request that was sent, whenever it sees the request before its answer.

    The invariants hold throughout: requests in flight are in use, and the level is never below empty or above full.
    """
    bucket, now = Bucket(size, REFILL), 0.0
    in_flight: list[float] = []
    arrivals: list[float] = []
    empties: list[float] = []
    for seconds, step, share, which in steps:
        now += seconds
        if step == "take" and bucket.wait_seconds(now) == 0:
            bucket.take(now)
            in_flight.append(now)
        elif step in ("arrived", "put back") and in_flight:
            taken_at = in_flight.pop(which % len(in_flight))
            if step == "arrived":
                bucket.arrived(now)
                arrivals.append(taken_at + share * (now - taken_at))
            else:
                bucket.put_back(now, taken_at=taken_at)
        elif step == "empty" and which == 0:
            bucket.empty(now)
            empties.append(now)
        assert bucket.in_flight == len(in_flight)
        assert bucket.in_flight <= bucket.used <= size + 1e-6
        assert 0 <= bucket.tokens(now) <= size - bucket.in_flight
    service = ServiceBucket(size, size)
    if not empties:
        for seen_at in sorted(arrivals):
            service.arrives(seen_at)


@given(STEPS, st.integers(1, 12), st.integers(0, 5))
def test_taking_and_putting_back_makes_no_difference(steps, size, held):
    """Once a token is put back, the level is the same as if it had never been taken."""
    plain, other, now = Bucket(size + 6, REFILL), Bucket(size + 6, REFILL), 0.0
    for _ in range(held):
        other.take(0.0)
    taken = 0
    for seconds, step, _, _ in steps:
        now += seconds
        if step == "take" and plain.wait_seconds(now) == other.wait_seconds(now) == 0:
            plain.take(now)
            other.take(now)
            taken += 1
        elif step == "arrived" and taken:
            plain.arrived(now)
            other.arrived(now)
            taken -= 1
    for _ in range(held):
        other.put_back(now, taken_at=0.0)
    assert plain.wait_seconds(now) == pytest.approx(other.wait_seconds(now), abs=1e-6)
    assert plain.used == pytest.approx(other.used, abs=1e-6)


# What earlier runs sent


def level(sent: list[SentRequest], *, oldest_known: bool = True) -> float:
    return tokens_used(sent, now=NOW, burst=50, requests_per_minute=2, oldest_known=oldest_known)


def test_a_crash_loop_cannot_send_its_burst_again():
    """No token is left right after a burst of fifty requests, even in a new process."""
    assert level([SentRequest(NOW, "create", 200)] * 50) == 50


def test_tokens_return_with_time():
    """Of fifty tokens used ten minutes ago, twenty have returned."""
    assert level([SentRequest(NOW - 600, "create", 200)] * 50) == pytest.approx(30)


def test_a_429_in_the_record_empties_the_bucket():
    """After a 429 no token is left, even if fewer requests were counted."""
    assert level([SentRequest(NOW, "create", 429)]) == 50


def test_a_long_steady_record_leaves_hardly_a_token():
    """With requests sent steadily for longer than the record reaches, almost all tokens count as used."""
    steady = [SentRequest(NOW - HISTORY_SECONDS + 30 * k, "create", 200) for k in range(int(HISTORY_SECONDS / 30))]
    assert level(steady, oldest_known=False) > 48
    assert level([], oldest_known=False) == 0


@given(st.lists(st.floats(-1e5, 1e5), max_size=80), st.booleans())
def test_no_clock_jump_puts_the_level_out_of_bounds(offsets, oldest_known):
    """Rows dated in the future or out of order never produce a level outside the bucket."""
    assert 0 <= level([SentRequest(NOW + o, "create", 200) for o in offsets], oldest_known=oldest_known) <= 50


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=120))
def test_the_level_equals_that_of_a_bucket_that_was_there_all_the_time(gaps):
    """Replaying the record gives the level of a bucket that counted each request as it was sent."""
    at, used, sent = NOW - sum(gaps), 0.0, []
    for gap in gaps:
        sent.append(SentRequest(at, "create", 200))
        used = min(50.0, used + 1)
        at += gap
        used = max(0.0, used - gap / 30)
    assert level(sent) == pytest.approx(used, abs=1e-6)


def on_record(count: int, *, ago: float, kind: str = "create") -> list[SentRequest]:
    return [SentRequest(NOW - ago, kind, 200)] * count


def test_the_history_is_read_as_the_ledger_keeps_it():
    """The learning date may be missing, and the time of the first request tells whether the record is complete."""
    sent = on_record(1, ago=5)
    assert RequestHistory.read(sent, first_at=NOW - 5, all_counted_since=None, now=NOW) == RequestHistory(tuple(sent))
    assert RequestHistory.read([], first_at=None, all_counted_since="12.5", now=NOW).all_counted_since == 12.5
    for first_at, complete in ((NOW - HISTORY_SECONDS, True), (NOW - HISTORY_SECONDS - 1, False), (0.0, False)):
        assert RequestHistory.read([], first_at=first_at, all_counted_since=None, now=NOW).complete is complete


def test_only_requests_that_count_use_tokens():
    """Depending on the scope, only creates or all requests use tokens."""
    history = RequestHistory((*on_record(10, ago=60), *on_record(5, ago=60, kind="list")))
    assert history.tokens_used(Quota(), BudgetScope.CREATE, now=NOW) == pytest.approx(8)
    assert history.tokens_used(Quota(), BudgetScope.ALL, now=NOW) == pytest.approx(13)
