"""The budget: how many requests it permits, in which order, and what 429s and outages do to all of them."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asyncexport.core.admission import HOPELESS_HITS, RELEARN_SECONDS, BudgetScope, Prefer, Priority, Quota
from asyncexport.core.bucket import Bucket, RequestHistory, SentRequest
from asyncexport.core.connectivity import LONGEST_PAUSE_SECONDS, Backoff, Down, Up
from asyncexport.core.service.requests import Kind
from asyncexport.engine.budget import Budget, NotWanted
from asyncexport.engine.dispatcher import PacingLimiter
from asyncexport.engine.permit import Permit
from asyncexport.errors import UnavailableError
from tests.virtual_time import at, on_virtual_time, settled

EPOCH = 1_700_000_000.0
REFILL = 30.0
OUTAGE = 6 * 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Journal:
    """Records the rows and their times; each write takes `takes` seconds."""

    takes: float = 0.0
    broken: Exception | None = None
    rows: list[tuple[float, str]] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)

    async def send(self, kind: str, *, at: float) -> int:
        """Write a row."""
        if self.takes:
            await asyncio.sleep(self.takes)
        if self.broken:
            raise self.broken
        self.rows.append((at, kind))
        return len(self.rows) - 1

    def answered(self, request_id: int, *, status: int) -> None:
        """Add the status of a request."""
        self.statuses[request_id] = status

    def remember(self, key: str, value: str) -> None:
        """Store a value."""
        self.learned[key] = value


@asynccontextmanager
async def a_budget(
    *,
    scope: BudgetScope = BudgetScope.CREATE,
    burst: int = 50,
    prefer: Prefer = Prefer.THROUGHPUT,
    history: RequestHistory | None = None,
    journal: Journal | None = None,
    jitter: float = 0.5,
    wall_offset: float = EPOCH,
    requests_per_minute: float = 2.0,
) -> AsyncIterator[Budget]:
    loop = asyncio.get_running_loop()
    budget = Budget(
        Quota(requests_per_minute, burst, scope),
        prefer=prefer,
        backoff=Backoff(1.0, 300.0, OUTAGE),
        journal=journal or Journal(),
        wall_clock=lambda: wall_offset + loop.time(),
        jitter=lambda: jitter,
    )
    await budget.open(history or RequestHistory())
    try:
        yield budget
    finally:
        await budget.close()


@dataclass
class Sent:
    """A request that was sent and has no answer yet."""

    permit: Permit
    block: AbstractAsyncContextManager[Permit]

    def answered(self, status: int | None, **more: Any) -> None:
        """Record the answer."""
        self.permit.answered(status, **more)
        self.given_up()

    def given_up(self) -> None:
        """Leave the permit, which never waits."""
        with pytest.raises(StopIteration):
            self.block.__aexit__(None, None, None).send(None)


async def sent(budget: Budget, kind: Kind, priority: Priority) -> Sent:
    """Send a request."""
    block = budget.permit(kind, priority)
    request = Sent(await block.__aenter__(), block)
    try:
        await request.permit.recorded()
    except BaseException:
        request.given_up()
        raise
    return request


async def create(budget: Budget) -> Sent:
    return await sent(budget, Kind.CREATE, Priority.CREATE)


async def answered(budget: Budget, status: int | None = 200, kind: Kind = Kind.CREATE, **more: Any) -> None:
    priority = {Kind.CREATE: Priority.CREATE, Kind.RESULTS: Priority.RESULTS}.get(kind, Priority.POLL)
    (await sent(budget, kind, priority)).answered(status, **more)


async def answered_until(
    budget: Budget, time: float, status: int | None, kind: Kind = Kind.CREATE, **more: Any
) -> None:
    while now() < time:
        await answered(budget, status, kind, **more)


# How many requests


@on_virtual_time
async def test_a_full_bucket_permits_all_but_one_request_immediately():
    """All tokens but the reserve token are used immediately, and then one request goes out per refill."""
    async with a_budget() as budget:
        assert budget.tokens == 49
        times = []
        for _ in range(52):
            await answered(budget)
            times.append(now())
        assert times[48] == pytest.approx(0, abs=0.1)
        assert times[49:] == pytest.approx([30, 60, 90], abs=0.1)


@on_virtual_time
async def test_requests_within_one_clock_tick_are_counted():
    """Requests that the clock is too coarse to tell apart take their tokens all the same."""
    async with a_budget(requests_per_minute=0.001) as budget:
        requests = [await create(budget) for _ in range(3)]
        for request in requests:
            request.answered(200)
        await answered(budget)
        assert budget.tokens == 45


@on_virtual_time
async def test_a_bucket_of_one_works():
    """A burst of 1 permits the first request immediately and then one per refill."""
    async with a_budget(burst=1) as budget:
        await answered(budget)
        assert now() == pytest.approx(0, abs=0.1)
        await answered(budget)
        assert now() == pytest.approx(30, abs=0.1)


@on_virtual_time
async def test_a_token_returns_only_after_the_answer():
    """The service may see a request as late as its answer, so its token cannot have returned before."""
    async with a_budget(burst=3) as budget:
        first, second = await create(budget), await create(budget)
        await at(1000)
        assert budget.tokens == 0
        first.answered(200)
        await at(1029)
        assert budget.tokens == 0
        await at(1031)
        assert budget.tokens == 1
        second.given_up()
        assert budget.tokens == 1
        await at(2000)
        assert budget.tokens == 2


@dataclass
class ServiceBucket:
    """The service's own bucket, which counts requests when they arrive."""

    burst: float
    level: float
    since: float = 0.0
    refused: int = 0

    def arrives(self, time: float) -> int:
        """Return the status of the answer."""
        self.level = min(self.burst, self.level + (time - self.since) / REFILL)
        self.since = time
        if self.level < 1 - 1e-6:
            self.refused += 1
            return 429
        self.level -= 1
        return 200


ARRIVALS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 5), st.floats(0, 4000)),  # seconds after the request before it
        st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 500)),  # until the service sees it
        st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 500)),  # from then until the answer arrives
        st.sampled_from([Kind.CREATE, Kind.POLL, Kind.LIST, Kind.RESULTS]),
    ),
    max_size=60,
)


@given(ARRIVALS, st.integers(1, 12), st.sampled_from([BudgetScope.ALL, BudgetScope.CREATE]))
@example(
    [(0.0, 100.0, 0.0, Kind.CREATE)] * 4 + [(30.0, 100.0, 0.0, Kind.CREATE)] * 3 + [(30.0, 0, 0, Kind.CREATE)],
    5,
    BudgetScope.ALL,
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_service_never_sends_a_429_if_both_count_the_same_requests(arrivals, burst, scope):
    """For any arrival times and latencies, the service's own bucket has a token for each request."""

    @on_virtual_time
    async def all_pass():
        service = ServiceBucket(burst, burst)
        passed: list[Kind] = []

        async def ask(delay: float, up: float, down: float, kind: Kind) -> None:
            await asyncio.sleep(delay)
            request = await sent(budget, kind, Priority.CREATE)
            counted = scope is BudgetScope.ALL or kind is Kind.CREATE
            await asyncio.sleep(up)
            status = service.arrives(now()) if counted else 200
            passed.append(kind)
            await asyncio.sleep(down)
            request.answered(status)

        async with a_budget(scope=scope, burst=burst) as budget, asyncio.TaskGroup() as group:
            when = 0.0
            for gap, up, down, kind in arrivals:
                when += gap
                group.create_task(ask(when, up, down, kind))
        assert service.refused == budget.refused == 0
        assert len(passed) == len(arrivals)

    all_pass()


PACED = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 2000)),  # seconds that pass
        st.sampled_from(["take", "arrived", "put back", "empty"]),
    ),
    max_size=60,
)


@given(PACED, st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_the_limiter_and_the_bucket_differ_by_one_token_at_most(steps, size):
    """This holds whenever a token is taken; and taking a token that the bucket has never waits."""

    @on_virtual_time
    async def agree():
        bucket, pace = Bucket(size, REFILL), PacingLimiter(size, REFILL)
        taken: list[float] = []
        for seconds, step in steps:
            await asyncio.sleep(seconds)
            if step == "empty":
                bucket.empty(now())
            elif step == "arrived" and taken:
                taken.pop()
                bucket.arrived(now())
            elif step == "put back" and taken:
                bucket.put_back(now(), taken_at=taken.pop())
            elif bucket.wait_seconds(now()) == 0:
                began = now()
                await pace.acquire(bucket.used)
                assert now() == pytest.approx(began, abs=1e-6)
                bucket.take(began)
                taken.append(began)
                left = size - bucket.used
                assert left <= 1 or pace._limiter.has_capacity(left - 1 - 1e-6)
                assert not pace._limiter.has_capacity(left + 1 + 1e-6)

    agree()


@given(
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300), st.booleans()), min_size=1, max_size=30),
    st.integers(2, 8),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_cancelled_waiters_cost_nothing(requests, burst):
    """Requests that stop waiting do not delay the others."""

    async def served(requests: list[tuple[float, float, bool]]) -> list[float]:
        times: list[float] = []

        async def wait(arrives_after: float, waits_for: float, *, waits_forever: bool) -> None:
            await asyncio.sleep(arrives_after)
            try:
                async with asyncio.timeout(None if waits_forever else waits_for):
                    request = await create(budget)
            except TimeoutError:
                return
            if waits_forever:
                times.append(now())
                request.answered(200)
            else:
                times.append(-1.0)  # it was served before it gave up, and used a token
                request.answered(200)

        async with a_budget(burst=burst) as budget, asyncio.TaskGroup() as group:
            for arrives_after, waits_for, waits_forever in requests:
                group.create_task(wait(arrives_after, waits_for, waits_forever=waits_forever))
        return times

    @on_virtual_time
    async def same():
        with_others = await served(requests)
        if -1.0 in with_others:
            return
        origin = now()
        without_others = await served([one for one in requests if one[2]])
        assert [t + origin for t in with_others] == pytest.approx(without_others, abs=0.01)

    same()


def test_a_request_cancelled_as_it_is_permitted_costs_nothing():
    """An unused permit goes to the next request immediately, at whichever turn of the event loop the cancel comes."""
    outcomes = set()

    async def cancel_after(turns: int) -> None:
        journal = Journal()
        async with a_budget(burst=2, journal=journal) as budget:
            await answered(budget)
            first, second = asyncio.create_task(create(budget)), asyncio.create_task(create(budget))
            await at(REFILL - 1e-6)
            await settled(turns)
            first.cancel()
            await asyncio.wait({first})
            if not first.cancelled():
                first.result().given_up()
            (await second).answered(200)
            used = not first.cancelled()
            assert now() == pytest.approx(REFILL * (1 + used), abs=0.01)
            outcomes.add((used, len(journal.rows) - 2))

    for turns in range(40):
        on_virtual_time(cancel_after)(turns)
    assert outcomes == {(False, 0), (False, 1), (True, 1)}


@on_virtual_time
async def test_a_request_cancelled_while_its_row_is_written_gives_its_token_back():
    """Nothing was sent; the row may exist, which costs the next process a token, but not this one."""
    journal = Journal(takes=5.0)
    async with a_budget(burst=2, journal=journal) as budget:
        first = asyncio.create_task(create(budget))
        await at(1)
        first.cancel()
        await asyncio.wait({first})
        assert budget.tokens == 1
        (await create(budget)).answered(200)
        assert now() == pytest.approx(1 + 5, abs=0.1)


@on_virtual_time
async def test_an_unsent_request_returns_no_token_after_a_429():
    """A 429 that arrives in between means an empty bucket."""
    async with a_budget(burst=4) as budget:
        refused = await create(budget)
        async with budget.permit(Kind.CREATE, Priority.CREATE):
            refused.answered(429, retry_after=1.0)
            await at(2)
        assert budget.tokens == 0
        await answered(budget)
        assert now() == pytest.approx(REFILL, abs=0.1)


@on_virtual_time
async def test_every_request_has_its_row_before_it_is_sent():
    """Kind and time are written once `recorded` returns, and the first status once the request is answered."""
    journal = Journal(takes=2.0)
    async with a_budget(journal=journal) as budget:
        async with budget.permit(Kind.CREATE, Priority.CREATE) as permit:
            assert journal.rows == []
            await permit.recorded()
            assert [kind for _, kind in journal.rows] == ["create"]
            permit.answered(404)
            permit.answered(200)
        (await sent(budget, Kind.POLL, Priority.POLL)).answered(None)
        assert journal.statuses == {0: 404, 1: 0}
        assert budget.sent[Kind.CREATE] == budget.sent[Kind.POLL] == 1


@on_virtual_time
@pytest.mark.parametrize("burst", [1, 50], ids=["one token", "many tokens"])
async def test_work_under_a_permit_runs_while_its_row_is_written(burst):
    """The row is being written when the block begins, and neither waits for the other."""
    journal = Journal(takes=5.0)
    async with (
        a_budget(burst=burst, journal=journal) as budget,
        budget.permit(Kind.CREATE, Priority.CREATE) as permit,
    ):
        await asyncio.sleep(4.0)
        await permit.recorded()
        assert now() == pytest.approx(5.0)
        assert len(journal.rows) == 1
        permit.answered(200)


async def fail_under_a_permit(budget: Budget, *, await_row: bool) -> None:
    async with budget.permit(Kind.CREATE, Priority.CREATE) as permit:
        await asyncio.sleep(1.0)
        if await_row:
            await permit.recorded()
        raise ZeroDivisionError


@on_virtual_time
@pytest.mark.parametrize("takes", [0.0, 5.0], ids=["after its row is written", "before its row is written"])
async def test_an_unused_permit_gives_its_token_back(takes):
    """Nothing was sent, whether its row is written or not, so the next request need not wait."""
    journal = Journal(takes=takes)
    async with a_budget(burst=2, journal=journal) as budget:
        with pytest.raises(ZeroDivisionError):
            await fail_under_a_permit(budget, await_row=False)
        assert budget.tokens == 1
        assert journal.statuses == {}


@on_virtual_time
async def test_an_abandoned_request_has_used_its_token():
    """The request may have arrived, so its token returns after a refill like any other."""
    async with a_budget(burst=2) as budget:
        with pytest.raises(ZeroDivisionError):
            await fail_under_a_permit(budget, await_row=True)
        assert budget.tokens == 0
        await asyncio.sleep(REFILL + 1)
        assert budget.tokens == 1


@pytest.mark.parametrize("takes", [0.0, 5.0])
def test_no_cancel_loses_a_token_or_hides_a_failure(takes):
    """At whichever turn a request is cancelled, the bucket is full again in the end and asyncio reports nothing."""

    async def cancel_after(turns: int) -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        journal = Journal(takes=takes, broken=OSError("no space") if turns % 2 else None)
        async with a_budget(burst=3, journal=journal) as budget:
            tasks = [asyncio.create_task(create(budget)) for _ in range(4)]
            await settled(turns)
            for task in tasks:
                task.cancel()
            done, _ = await asyncio.wait(tasks)
            for task in done:
                if not task.cancelled() and task.exception() is None:
                    task.result().given_up()
            await asyncio.sleep(3 * REFILL)
            assert budget.tokens == 2
        del tasks, done, task
        gc.collect()
        assert complaints == []

    for turns in range(20):
        on_virtual_time(cancel_after)(turns)


async def test_a_journal_that_cannot_write_stops_requests():
    """No request is sent without its row."""
    journal = Journal(broken=OSError("no space"))
    async with a_budget(journal=journal) as budget:
        with pytest.raises(OSError, match="no space"):
            await create(budget)


# Priorities


async def order_of_service(budget: Budget, asked: list[tuple[Kind, Priority, str]]) -> list[str]:
    """Return the order of service of requests that were all made while there was no token."""
    served: list[str] = []

    async def ask(kind: Kind, priority: Priority, name: str) -> None:
        request = await sent(budget, kind, priority)
        served.append(name)
        request.answered(200)

    tasks = [asyncio.create_task(ask(*one)) for one in asked]
    await settled()
    assert not served
    await asyncio.wait(tasks)
    return served


WAITING = [
    (Kind.OTHER, Priority.REST, "rest"),
    (Kind.LIST, Priority.POLL, "poll 1"),
    (Kind.CREATE, Priority.CREATE, "create 1"),
    (Kind.POLL, Priority.POLL, "poll 2"),
    (Kind.CREATE, Priority.CREATE, "create 2"),
    (Kind.RESULTS, Priority.RESULTS, "results 1"),
    (Kind.RESULTS, Priority.RESULTS, "results 2"),
]


@on_virtual_time
async def test_results_then_creates_then_polls_with_prefer_throughput():
    """A token goes to the request of the highest priority, and among equals to the first."""
    async with a_budget(scope=BudgetScope.ALL, burst=2) as budget:
        await answered(budget)
        served = await order_of_service(budget, WAITING)
    assert served == ["results 1", "results 2", "create 1", "create 2", "poll 1", "poll 2", "rest"]


@on_virtual_time
async def test_due_polls_pass_creates_with_prefer_latency():
    """`prefer = "latency"` swaps creates and due polls and changes nothing else."""
    async with a_budget(scope=BudgetScope.ALL, burst=2, prefer=Prefer.LATENCY) as budget:
        await answered(budget)
        served = await order_of_service(budget, WAITING)
    assert served == ["results 1", "results 2", "poll 1", "poll 2", "create 1", "create 2", "rest"]


@on_virtual_time
async def test_a_later_request_of_higher_priority_gets_the_token():
    """The order is decided when the token is available, not when the requests were made."""
    async with a_budget(scope=BudgetScope.ALL, burst=2) as budget:
        await answered(budget)
        poll = asyncio.create_task(answered(budget, kind=Kind.POLL))
        await at(29)
        results = asyncio.create_task(answered(budget, kind=Kind.RESULTS))
        await at(31)
        assert results.done()
        assert not poll.done()
        await poll


@on_virtual_time
async def test_a_request_that_does_not_count_needs_no_token():
    """With the scope `create`, polls and results calls pass an empty bucket."""
    async with a_budget(scope=BudgetScope.CREATE, burst=2) as budget:
        await answered(budget)
        waiting = asyncio.create_task(answered(budget))
        for kind in (Kind.POLL, Kind.LIST, Kind.RESULTS, Kind.OTHER):
            await answered(budget, kind=kind)
        assert now() == pytest.approx(0, abs=0.1)
        assert not waiting.done()
        await waiting


@on_virtual_time
async def test_the_budget_is_uncontended_if_no_results_call_and_no_create_waits():
    """A waiting poll makes no difference."""
    async with a_budget(scope=BudgetScope.ALL, burst=2) as budget:
        await answered(budget)
        tasks = [asyncio.create_task(answered(budget, kind=Kind.POLL))]
        await settled()
        assert budget.is_uncontended
        tasks.append(asyncio.create_task(answered(budget, kind=Kind.RESULTS)))
        await settled()
        assert not budget.is_uncontended
        assert budget.waiting(Priority.RESULTS) == 1
        await budget.wait_until_uncontended()
        assert now() == pytest.approx(30, abs=0.1)
        tasks[0].cancel()
        await asyncio.wait(tasks)


# 429s


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(17.0, 17.0), (None, REFILL), (0.0, REFILL), (-3.0, REFILL), (0.01, 1.0), (1e9, LONGEST_PAUSE_SECONDS)],
)
def test_a_429_pauses_all_requests(retry_after, pause):
    """The pause is Retry-After, at least a second and at most an hour, or one refill if the header is unusable."""

    @on_virtual_time
    async def all_wait():
        async with a_budget() as budget:
            await answered(budget, 429, **({} if retry_after is None else {"retry_after": retry_after}))
            assert budget.refused == 1
            assert budget.paused_seconds == pytest.approx(pause)
            poll = asyncio.create_task(answered(budget, kind=Kind.POLL))
            await at(pause * 0.99)
            assert not poll.done()
            await at(pause * 1.01)
            assert poll.done()

    all_wait()


@on_virtual_time
async def test_a_429_empties_the_bucket():
    """All tokens are gone, and they return one by one after the pause."""
    async with a_budget() as budget:
        await answered(budget, 429, retry_after=90.0)
        assert budget.tokens == 0
        times = []
        for _ in range(5):
            await answered(budget)
            times.append(now())
        assert times == pytest.approx([90, 90, 90, 120, 150], abs=0.1)


@pytest.mark.parametrize("retry_after", [None, 0.0, 0.5, 5.0])
def test_endless_429s_do_not_cause_a_busy_loop(retry_after):
    """If the same short Retry-After is repeated, requests are sent less and less often, without giving up early."""

    @on_virtual_time
    async def count_requests():
        more = {} if retry_after is None else {"retry_after": retry_after}
        async with a_budget() as budget:
            while now() < OUTAGE * 0.9:
                await answered(budget, 429, **more)
            assert HOPELESS_HITS < budget.refused < 330

    count_requests()


@on_virtual_time
async def test_a_service_that_only_sends_429s_is_given_up_after_the_outage():
    """Six hours of nothing but 429s count as an outage."""
    async with a_budget() as budget:
        with pytest.raises(UnavailableError, match="429") as failure:
            await answered_until(budget, 3 * OUTAGE, 429)
        assert not failure.value.transient
        assert OUTAGE <= now() <= OUTAGE + LONGEST_PAUSE_SECONDS


@on_virtual_time
async def test_one_success_between_429s_prevents_giving_up():
    """A service that accepts one request an hour is slow, not down."""
    async with a_budget() as budget:
        while now() < 3 * OUTAGE:
            await answered(budget, 429, retry_after=1800.0)
            await answered(budget, 200)


@on_virtual_time
async def test_429s_of_requests_in_flight_count_once():
    """If forty requests in flight all get a 429, the pause is what the service asked for, and no longer."""
    async with a_budget() as budget:
        requests = [await create(budget) for _ in range(40)]
        for request in requests:
            request.answered(429, retry_after=30.0)
        assert budget.paused_seconds == pytest.approx(30.0, abs=0.1)
        for _ in range(2):
            await answered(budget, 429, retry_after=30.0)
        assert budget.paused_seconds == pytest.approx(30.0, abs=0.1)


# What counts


@pytest.mark.parametrize("kind", [Kind.POLL, Kind.LIST, Kind.RESULTS])
def test_auto_learns_that_all_requests_count(kind):
    """A 429 on a poll, list or results call while tokens are left shows that all requests count."""

    @on_virtual_time
    async def learn():
        journal = Journal()
        async with a_budget(scope=BudgetScope.AUTO, journal=journal) as budget:
            scopes = [budget.scope]
            await answered(budget, 429, kind)
            scopes.append(budget.scope)
            assert scopes == [BudgetScope.CREATE, BudgetScope.ALL]
            assert budget.polls_cost
            assert float(journal.learned["all_counted_since"]) == pytest.approx(EPOCH, abs=1)

    learn()


@on_virtual_time
async def test_auto_learns_nothing_from_a_429_on_a_create():
    """The bucket was emptier than expected, which says nothing about what counts."""
    async with a_budget(scope=BudgetScope.AUTO) as budget:
        await answered(budget, 429, Kind.CREATE)
        assert budget.scope is BudgetScope.CREATE


@on_virtual_time
async def test_auto_learns_nothing_from_other_calls():
    """Other calls, such as listing segments, have a limit of their own."""
    async with a_budget(scope=BudgetScope.AUTO) as budget:
        await answered(budget, 429, Kind.OTHER)
        assert budget.scope is BudgetScope.CREATE


@on_virtual_time
async def test_auto_learns_nothing_while_the_create_bucket_is_empty():
    """The 429 may then be due to the creates."""
    async with a_budget(scope=BudgetScope.AUTO, burst=3) as budget:
        for _ in range(2):
            await answered(budget)
        await answered(budget, 429, Kind.LIST)
        assert budget.scope is BudgetScope.CREATE


@on_virtual_time
async def test_auto_learns_from_a_second_429_although_the_bucket_is_empty():
    """Creates keep the bucket empty in a long run; a second 429 after the pause is not due to them."""
    async with a_budget(scope=BudgetScope.AUTO, burst=3) as budget:
        for _ in range(2):
            await answered(budget)
        await answered(budget, 429, Kind.RESULTS, retry_after=30.0)
        await answered(budget)
        await answered(budget, 429, Kind.LIST, retry_after=30.0)
        assert budget.scope is BudgetScope.ALL


@pytest.mark.parametrize("scope", [BudgetScope.CREATE, BudgetScope.ALL])
def test_a_scope_set_by_the_user_is_never_overridden(scope):
    """Neither a 429 nor what an earlier run learned changes it."""

    @on_virtual_time
    async def stays():
        journal = Journal()
        async with a_budget(
            scope=scope, journal=journal, history=RequestHistory(all_counted_since=EPOCH - 60)
        ) as budget:
            assert budget.scope is scope
            await answered(budget, 429, Kind.LIST)
            assert budget.scope is scope
            assert not journal.learned

    stays()


@on_virtual_time
async def test_waiting_requests_count_once_the_scope_has_changed():
    """Polls that only waited for the end of the pause now wait for tokens."""
    async with a_budget(scope=BudgetScope.AUTO) as budget:
        first = await sent(budget, Kind.LIST, Priority.POLL)
        others = [asyncio.create_task(answered(budget, kind=Kind.POLL)) for _ in range(3)]
        first.answered(429, retry_after=30.0)
        await settled()
        await at(31)
        await settled()
        assert sum(task.done() for task in others) == 1
        await asyncio.wait(others)
        assert now() == pytest.approx(90, abs=0.1)


@pytest.mark.parametrize(
    ("ago", "scope"),
    [
        (0.0, BudgetScope.ALL),
        (6.9 * 86_400, BudgetScope.ALL),
        (7.1 * 86_400, BudgetScope.CREATE),
        (-3600.0, BudgetScope.CREATE),
    ],
)
def test_a_learned_scope_is_remembered_for_a_week(ago, scope):
    """The next run starts with it; after seven days, or if its date is in the future, it is forgotten."""

    @on_virtual_time
    async def recall():
        async with a_budget(scope=BudgetScope.AUTO, history=RequestHistory(all_counted_since=EPOCH - ago)) as budget:
            assert budget.scope is scope

    recall()


@on_virtual_time
async def test_a_run_of_more_than_a_week_forgets_what_it_learned():
    """The scope returns to `create` during the run, and a further 429 is learned from again."""
    journal = Journal()
    async with a_budget(scope=BudgetScope.AUTO, journal=journal) as budget:
        await answered(budget, 429, Kind.LIST)
        await at(RELEARN_SECONDS + 100)
        await answered(budget, 200, Kind.LIST)
        scopes = [budget.scope]
        await answered(budget, 429, Kind.LIST)
        scopes.append(budget.scope)
        assert scopes == [BudgetScope.CREATE, BudgetScope.ALL]
        assert float(journal.learned["all_counted_since"]) > EPOCH + RELEARN_SECONDS


# The level left by earlier runs


def on_record(count: int, *, ago: float, kind: str = "create", status: int = 200) -> tuple[SentRequest, ...]:
    return tuple(SentRequest(EPOCH - ago, kind, status) for _ in range(count))


async def tokens_after(scope: BudgetScope, history: RequestHistory) -> int:
    async with a_budget(scope=scope, history=history) as budget:
        return budget.tokens


@on_virtual_time
async def test_the_next_process_starts_with_the_level_of_the_last():
    """Earlier requests that count use tokens until they have refilled."""
    mixed = on_record(10, ago=60) + on_record(10, ago=60, kind="list")
    assert await tokens_after(BudgetScope.CREATE, RequestHistory()) == 49
    assert await tokens_after(BudgetScope.CREATE, RequestHistory(mixed)) == 49 - 10 + 2
    assert await tokens_after(BudgetScope.ALL, RequestHistory(mixed)) == 49 - 20 + 2
    assert await tokens_after(BudgetScope.CREATE, RequestHistory(on_record(1, ago=5, status=429))) == 0
    assert await tokens_after(BudgetScope.CREATE, RequestHistory(complete=False)) == 49
    steady = tuple(SentRequest(EPOCH - 2 * 86_400 + 30 * k, "create", 200) for k in range(5760))
    assert await tokens_after(BudgetScope.CREATE, RequestHistory(steady, complete=False)) <= 2


@given(st.lists(st.floats(-1e6, 1e6), max_size=120), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_clock_jump_leaves_the_level_within_bounds(offsets, complete):
    """Rows from the future or out of order never add tokens or cause an endless wait."""
    history = RequestHistory(tuple(SentRequest(EPOCH + o, "create", 200) for o in offsets), complete=complete)

    @on_virtual_time
    async def is_served():
        async with a_budget(history=history) as budget:
            assert 0 <= budget.tokens <= 49
            await answered(budget)
            assert now() <= REFILL + 0.1

    is_served()


@on_virtual_time
async def test_a_crash_loop_does_not_send_its_burst_each_time():
    """Ten processes that each die after a minute send no more than one would: 49 and two a minute."""
    rows: list[SentRequest] = []
    service = ServiceBucket(50, 50)
    for _ in range(10):
        journal = Journal()
        async with a_budget(history=RequestHistory(tuple(rows)), journal=journal) as budget:
            dies_at = now() + 60
            while True:
                try:
                    async with asyncio.timeout_at(dies_at):
                        request = await create(budget)
                except TimeoutError:
                    break
                request.answered(service.arrives(now()))
        rows += [SentRequest(when, kind, journal.statuses.get(key, 0)) for key, (when, kind) in enumerate(journal.rows)]
    assert service.refused == 0
    assert 49 + 18 <= len(rows) <= 50 + 20


# Outages


@pytest.mark.parametrize("status", [None, 408, 499, 500, 503])
def test_an_outage_pauses_all_requests(status):
    """After a failure nothing is sent until the back-off is over, and then a single probe until it is answered."""

    @on_virtual_time
    async def one_alone():
        async with a_budget() as budget:
            await answered(budget, status)
            assert isinstance(budget.connectivity, Down)
            begun: list[Sent] = []

            async def ask(kind: Kind) -> None:
                begun.append(await sent(budget, kind, Priority.POLL))

            tasks = [asyncio.create_task(ask(kind)) for kind in (Kind.POLL, Kind.CREATE, Kind.LIST)]
            await settled()
            assert not begun
            await at(1000)
            assert len(begun) == 1
            begun[0].answered(200)
            await settled()
            assert isinstance(budget.connectivity, Up)
            assert len(begun) == 3
            await asyncio.wait(tasks)

    one_alone()


@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.999])
def test_probes_wait_for_a_back_off_with_full_jitter(jitter):
    """Each wait is a random share of a ceiling that doubles up to the maximum."""

    @on_virtual_time
    async def probe():
        async with a_budget(jitter=jitter) as budget:
            times = []
            for _ in range(12):
                await answered(budget, 503, Kind.POLL)
                times.append(now())
            ceilings = [min(300.0, 2.0**k) for k in range(11)]
            gaps = [later - sooner for sooner, later in pairwise(times)]
            assert gaps == pytest.approx([jitter * ceiling for ceiling in ceilings], abs=0.01)

    probe()


@on_virtual_time
async def test_failures_of_requests_in_flight_count_once():
    """If forty requests in flight fail, the next probe is due after the first back-off, not after the longest."""
    async with a_budget(jitter=1.0) as budget:
        requests = [await create(budget) for _ in range(40)]
        for request in requests:
            request.answered(503)
        assert isinstance(budget.connectivity, Down)
        assert budget.connectivity.failures == 1
        await answered(budget, 200, Kind.POLL)
        assert now() == pytest.approx(1.0, abs=0.1)


@on_virtual_time
async def test_a_late_failure_does_not_release_a_second_probe():
    """While a probe is in flight, the failure of an older request changes nothing."""
    async with a_budget(jitter=0.5) as budget:
        old = await create(budget)
        await answered(budget, None)
        probe = await sent(budget, Kind.POLL, Priority.POLL)
        second = asyncio.create_task(answered(budget, kind=Kind.POLL))
        old.answered(None)
        await at(100)
        assert not second.done()
        probe.answered(200)
        await second


@on_virtual_time
async def test_a_cancelled_probe_is_replaced_by_the_next_request():
    """A probe that is abandoned does not block the others."""
    async with a_budget() as budget:
        await answered(budget, 503)
        probe = await sent(budget, Kind.POLL, Priority.POLL)
        waiting = asyncio.create_task(answered(budget, kind=Kind.POLL))
        await settled()
        assert not waiting.done()
        probe.given_up()
        await waiting


@on_virtual_time
async def test_the_service_is_given_up_after_the_outage():
    """All waiting requests fail, and so do later ones."""
    async with a_budget() as budget:
        waiting = [asyncio.create_task(create(budget)) for _ in range(60)]
        for task in waiting[:49]:
            (await task).answered(None)
        with pytest.raises(UnavailableError, match="could not be reached for 6 h"):
            await answered_until(budget, 2 * OUTAGE, 500, Kind.POLL)
        assert OUTAGE <= now() <= OUTAGE + 300
        done, _ = await asyncio.wait(waiting[49:])
        failures = [task.exception() for task in done]
        assert all(isinstance(failure, UnavailableError) and not failure.transient for failure in failures)
        with pytest.raises(UnavailableError):
            await create(budget)


@on_virtual_time
async def test_giving_up_reports_the_last_problem():
    """The error names the problem of the last failed request and has a hint."""
    async with a_budget() as budget:
        waiting = asyncio.create_task(create(budget))
        (await waiting).answered(None, problem="no route")
        with pytest.raises(UnavailableError, match=r"could not be reached for 6 h \(the name is unknown\)") as failure:
            await answered_until(budget, 2 * OUTAGE, None, problem="the name is unknown")
        assert failure.value.hint
        assert not failure.value.transient


@on_virtual_time
async def test_a_service_is_not_given_up_without_a_request():
    """After one failure and a day without requests, the next request is sent."""
    async with a_budget() as budget:
        await answered(budget, 500)
        await at(86_400)
        await answered(budget, 200)
        assert isinstance(budget.connectivity, Up)


@on_virtual_time
async def test_an_outage_of_an_hour_only_costs_time():
    """Requests are sent again once the service is back, after the longest back-off at most."""
    async with a_budget(jitter=0.999) as budget:
        failures = 0
        while True:
            request = await sent(budget, Kind.POLL, Priority.POLL)
            up = now() >= 3600
            request.answered(200 if up else 503)
            if up:
                break
            failures += 1
        assert now() <= 3900
        assert failures < 30


@on_virtual_time
async def test_a_bug_in_the_dispatcher_ends_the_run():
    """Waiting and later requests raise the error instead of waiting forever."""
    async with a_budget(burst=2) as budget:
        await answered(budget)
        waiting = asyncio.create_task(create(budget))
        await settled()
        budget._dispatcher._bucket = None  # type: ignore[assignment]
        await asyncio.wait({waiting})
        assert isinstance(waiting.exception(), AttributeError)
        with pytest.raises(AttributeError):
            await create(budget)


@on_virtual_time
async def test_closing_leaves_nothing_running():
    """Closing works even if a request is waiting."""
    async with a_budget(burst=2) as budget:
        await answered(budget)
        waiting = asyncio.create_task(create(budget))
        await settled()
    waiting.cancel()
    await asyncio.wait({waiting})
    await budget.close()


# When the key is in doubt


@on_virtual_time
async def test_after_a_401_only_the_key_check_is_sent():
    """Requests that wait for a token are paused as well until the key is found to be good."""
    async with a_budget(burst=3) as budget:
        await answered(budget, 401)
        waiting = [asyncio.create_task(answered(budget, kind=kind)) for kind in (Kind.CREATE, Kind.RESULTS, Kind.LIST)]
        await at(3600)
        assert not any(task.done() for task in waiting)
        await answered(budget, 200, Kind.OTHER)
        budget.key.trust()
        await asyncio.wait(waiting)
        assert budget.sent[Kind.CREATE] == 2


@on_virtual_time
async def test_a_waiting_create_is_paused_when_a_401_arrives():
    """A create that was requested before the 401 does not go out although its token is available."""
    async with a_budget(burst=2) as budget:
        first = await create(budget)
        second = asyncio.create_task(answered(budget))
        await at(1)
        first.answered(401)
        await at(3600)
        assert not second.done()
        assert budget.sent[Kind.CREATE] == 1
        budget.key.trust()
        await second


@on_virtual_time
async def test_a_request_that_is_no_longer_wanted_costs_nothing():
    """Whether it is wanted is checked when a token is available, and the token goes to the next request."""
    async with a_budget(burst=2) as budget:
        await answered(budget)
        wanted = True
        block = budget.permit(Kind.CREATE, Priority.CREATE, is_wanted=lambda: wanted)
        waiting = asyncio.create_task(block.__aenter__())
        following = asyncio.create_task(answered(budget))
        await at(10)
        wanted = False
        await at(31)
        with pytest.raises(NotWanted):
            await waiting
        await following
        assert budget.sent[Kind.CREATE] == 2


@on_virtual_time
async def test_a_limit_shared_with_another_program_is_logged_once(caplog):
    """After a 429 the bucket is known to be empty, so repeated 429s mean that another program uses the same limit."""
    async with a_budget() as budget:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(answered(budget, 429, Kind.CREATE, retry_after=60.0))
        await answered(budget, 429, Kind.CREATE, retry_after=60.0)
        assert caplog.messages == []
        for _ in range(5):
            await answered(budget, 429, Kind.CREATE, retry_after=60.0)
    [message] = caplog.messages
    assert "another directory" in message


@on_virtual_time
async def test_a_429_on_a_request_that_does_not_count_logs_nothing(caplog):
    """It may only mean that polls count, too."""
    async with a_budget() as budget:
        for _ in range(5):
            await answered(budget, 429, Kind.POLL, retry_after=60.0)
    assert caplog.messages == []
