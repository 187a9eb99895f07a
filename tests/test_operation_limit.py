"""How many operations may be in flight, and that a queue at the service does not raise the limit without bound."""

import random

import pytest

from asyncexport.core.admission import Prefer
from asyncexport.core.durations import Durations
from asyncexport.core.operation_limit import ENOUGH_SEEN, FIRST_LIMIT, MOST_UNFOUND, OperationLimit

HOUR = 3600.0


def limit_for(*, cap: int = 100, burst: int = 50, prefer: Prefer = Prefer.LATENCY) -> OperationLimit:
    return OperationLimit(cap=cap, burst=burst, requests_per_minute=2.0, prefer=prefer)


def allowed(expected: float, *, polls_cost: bool = True, cap: int = 100, prefer: Prefer = Prefer.LATENCY) -> int:
    operation_limit = limit_for(cap=cap, prefer=prefer)
    return operation_limit.allowed(Durations(expected_seconds=expected), polls_cost=polls_cost)


def test_operations_follow_their_durations_up_to_the_cap():
    """The limit grows with the expected duration, is at least the burst, and is at most the configured cap."""
    assert allowed(60) == 50
    assert allowed(7200) == 100
    assert allowed(7200, cap=8) == 8
    assert 50 < allowed(600) < 100


def test_the_limit_doubles_where_only_creates_cost_tokens():
    """Where results calls cost no token, creates go out twice as fast, so twice as many operations may be in flight."""
    assert allowed(300, polls_cost=False) == pytest.approx(2 * allowed(300), abs=50)
    assert allowed(300, polls_cost=False) > allowed(300)


def test_operations_finished_but_not_yet_found_raise_the_limit():
    """Where polls are delayed for throughput, half a list page more operations may be in flight."""
    assert allowed(600, prefer=Prefer.THROUGHPUT, cap=1000) - allowed(600, cap=1000) == min(
        MOST_UNFOUND, FIRST_LIMIT - allowed(600)
    )


def learn(durations: Durations, seconds: float, count: int) -> None:
    for _ in range(count):
        durations.learn(seconds)
    durations.refit(())


def test_the_limit_for_slow_operations_grows_step_by_step():
    """The limit doubles step by step up to what is needed, as long as a step does not slow operations down."""
    durations = Durations(expected_seconds=300)
    operation_limit = limit_for(cap=10_000)
    learn(durations, 6 * HOUR, ENOUGH_SEEN)
    steps = [operation_limit.allowed(durations, polls_cost=False)]
    for _ in range(8):
        learn(durations, 6 * HOUR, steps[-1])
        steps.append(operation_limit.allowed(durations, polls_cost=False))
    assert steps[:3] == [200, 400, 800]
    assert steps[-1] == pytest.approx(6 * 60 * 2, rel=0.6)


@pytest.mark.parametrize("slots", [1, 8, 30])
def test_a_queue_at_the_service_does_not_raise_the_limit_without_bound(slots):
    """Where more operations in flight only make each one slower, the limit stays below twice its starting value."""
    draw = random.Random(1)
    durations = Durations(expected_seconds=300)
    operation_limit = limit_for(cap=100_000)
    running, widest = 50, 0
    for _ in range(5000):
        durations.learn(max(1, running / slots) * 600 * draw.lognormvariate(0, 0.5))
        if durations.learned % 20 == 0:
            durations.refit(())
        running = operation_limit.allowed(durations, polls_cost=False)
        widest = max(widest, running)
    assert widest <= 2 * FIRST_LIMIT
