"""The poller finds finished operations by list polls or individual polls, and never concludes from absence alone."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from asyncexport.core.admission import Prefer, Priority
from asyncexport.core.connectivity import Backoff
from asyncexport.core.durations import Durations
from asyncexport.core.polling import LIST_SIZE, FinishedOperation, PollingMode, PollingRules
from asyncexport.core.service.refusals import CONFIRMATION_SECONDS
from asyncexport.core.service.resources import (
    Completed,
    CompletedWithoutId,
    Ended,
    Me,
    Operation,
    OperationsPage,
    Running,
)
from asyncexport.engine.budget import Budget
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.key_check import KeyCheck
from asyncexport.engine.listing import FORBIDDEN_SECONDS, MOST_IN_A_ROW
from asyncexport.engine.poller import OperationPoller
from asyncexport.errors import (
    GoneError,
    OperationFailedError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)
from tests.virtual_time import at, on_virtual_time, settled

INTERVAL = 10.0
DEADLINE = 86_400.0


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Job:
    """An operation at the service: when it was created, when it ends, and with which result."""

    id: str
    created_at: float
    ends_at: float
    ends_as: Completed | CompletedWithoutId | Ended | None = None
    state: str = "PENDING"

    def shown(self) -> Operation:
        """Return the operation as the service shows it now."""
        if now() < self.ends_at:
            return Operation(self.id, Running(self.state), created_at=self.created_at)
        end = self.ends_as or Completed(f"x-{self.id}")
        return Operation(self.id, end, created_at=self.created_at, finished_at=self.ends_at)


@dataclass
class Service:
    """A fake service with operations of ours and of others; it records what it was asked, and when.

    Attributes:
        order: How the list is sorted: "newest" or "oldest" first, or "shuffled".
        ids: Whether listed operations have an id.
        hides: Ids that the list leaves out; the list of pending operations leaves them out only if `hides_pending`.
        hides_pending: Whether the list of pending operations leaves out `hides`, too.
        key_fails: The error that `/me` returns, if any.
        list_fails: The error that every list poll returns, if any.
        fails: The error that every individual poll returns, if any.
        troubles: The errors of the next calls, in order; None for a call that succeeds.
        gone: Ids that an individual poll answers with 404.
        odd: "repeats its token", "has empty pages" or "".
        lists: The time, state filter and page token of each list poll.
        polls: The time and operation id of each individual poll.
        nameless: The times at which an operation was shown COMPLETED without an export id.
        priorities: The priority of each poll of either kind.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    order: str = "newest"
    ids: bool = True
    hides: set[str] = field(default_factory=set)
    hides_pending: bool = True
    key_fails: ServiceError | None = None
    list_fails: ServiceError | None = None
    fails: ServiceError | None = None
    troubles: list[ServiceError | None] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    odd: str = ""
    lists: list[tuple[float, str, str]] = field(default_factory=list)
    polls: list[tuple[float, str]] = field(default_factory=list)
    nameless: list[float] = field(default_factory=list)
    priorities: list[Priority] = field(default_factory=list)

    def add(self, number: int, *, takes: float, ours: bool = True, **more: Any) -> str:
        """Create a job now and return its id."""
        job = Job(f"{'op' if ours else 'theirs'}{number}", now(), now() + takes, **more)
        self.jobs[job.id] = job
        return job.id

    def add_history(self, count: int) -> None:
        """Add operations of others that finished long ago."""
        for number in range(count):
            self.jobs[f"old{number}"] = Job(f"old{number}", -1e6 + number, -1e6 + number)

    async def me(self) -> Me:
        """Return the owner of the key."""
        await self._answer(self.key_fails)
        return Me("owner@example.com", "ORG", "ADMIN")

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """Return one operation."""
        self.polls.append((now(), operation_id))
        self.priorities.append(priority)
        gone = operation_id in self.gone
        await self._answer(self.fails)
        if gone:
            raise GoneError("404")
        return self._shown(self.jobs[operation_id])

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """Return one page of the list."""
        self.lists.append((now(), state, token))
        self.priorities.append(priority)
        await self._answer(self.list_fails)
        hides = self.hides if state == "" or self.hides_pending else ()
        shown = self._in_order([job for job in self.jobs.values() if job.id not in hides])
        if state == "PENDING":
            shown = [job for job in shown if now() < job.ends_at]
        start = int(token or 0)
        if self.odd == "has empty pages":
            return OperationsPage((), str(start + LIST_SIZE))
        page = [self._shown(job) for job in shown[start : start + LIST_SIZE]]
        if not self.ids:
            page = [Operation(None, one.progress, one.created_at, one.finished_at) for one in page]
        following = "100" if self.odd == "repeats its token" else str(start + LIST_SIZE)
        more = self.odd or start + LIST_SIZE < len(shown)
        return OperationsPage(tuple(page), following if more else "")

    def _shown(self, job: Job) -> Operation:
        shown = job.shown()
        if isinstance(shown.progress, CompletedWithoutId):
            self.nameless.append(now())
        return shown

    def _in_order(self, jobs: list[Job]) -> list[Job]:
        if self.order == "shuffled":
            jobs = jobs.copy()
            random.Random(len(self.lists)).shuffle(jobs)
            return jobs
        return sorted(jobs, key=lambda job: job.created_at, reverse=self.order == "newest")

    async def _answer(self, record: ServiceError | None) -> None:
        await asyncio.sleep(0.1)
        error = (self.troubles.pop(0) if self.troubles else None) or record
        if error:
            raise error


class FixedBudget(Budget):
    """A budget whose level the test sets; it grants no permits and keeps no journal."""

    polls_cost = False
    tokens = 20

    def __init__(self, *, tokens: int = 20, polls_cost: bool = False) -> None:
        self.tokens, self.polls_cost = tokens, polls_cost
        self.nobody_waits = asyncio.Event()
        self.nobody_waits.set()

    @property
    def is_uncontended(self) -> bool:
        """Whether no request waits for a token."""
        return self.nobody_waits.is_set()

    async def wait_until_uncontended(self) -> None:
        """Wait until no request waits for a token."""
        await self.nobody_waits.wait()


@dataclass
class Scene:
    """A running poller and the tasks that wait for operations."""

    service: Service
    budget: FixedBudget
    poller: OperationPoller
    durations: Durations
    learned: list[tuple[float, float]]
    run: "asyncio.Task[None]"
    more_to_create: bool = True
    put_right: float = 0.0
    waiting: dict[str, "asyncio.Task[FinishedOperation | None]"] = field(default_factory=dict)

    def watch(self, *operation_ids: str, asked_at: float | None = None, by: str = "") -> None:
        """Start a task that waits for each operation; `by` distinguishes several tasks for the same one."""
        for operation_id in operation_ids:
            since = now() + self.put_right if asked_at is None else asked_at
            waits = self.poller.wait(operation_id, asked_at=since)
            self.waiting[f"{operation_id}{by}"] = asyncio.create_task(waits)

    def start(self, count: int, *, takes: float = 300.0, **more: Any) -> list[str]:
        """Create `count` operations and wait for them."""
        ids = [self.service.add(number, takes=takes, **more) for number in range(count)]
        self.watch(*ids)
        return ids

    async def polled(self, times: int) -> None:
        """Wait until that many individual polls have been sent or no task waits any more."""
        while self.open and len(self.service.polls) < times:  # noqa: ASYNC110 - the time is virtual
            await asyncio.sleep(1)

    @property
    def open(self) -> int:
        """How many tasks are still waiting."""
        return sum(not task.done() for task in self.waiting.values())

    def finished(self) -> list[FinishedOperation | None]:
        """Return the results of all waiting tasks."""
        return [task.result() for task in self.waiting.values()]


@asynccontextmanager
async def watching(
    service: Service | None = None,
    *,
    budget: FixedBudget | None = None,
    prefer: Prefer = Prefer.THROUGHPUT,
    interval: float = INTERVAL,
    deadline: float = DEADLINE,
    expected: float = 300.0,
) -> AsyncIterator[Scene]:
    service, budget = service or Service(), budget or FixedBudget()
    durations = Durations(expected_seconds=expected)
    learned: list[tuple[float, float]] = []
    poller = OperationPoller(
        service,
        budget=budget,
        durations=durations,
        polling=PollingRules(interval, deadline, prefer, burst=49, refill_seconds=30.0),
        clock=now,
        service_time=lambda: now() + scene.put_right,
        more_to_create=lambda: scene.more_to_create,
        learned=lambda at, seconds: learned.append((at, seconds)),
        call_turns=CallTurns(
            Backoff(1.0, 300.0, 6 * 3600.0), jitter=lambda: 0.5, key=KeyCheck(service.me), emit=lambda _: None
        ),
    )
    scene = Scene(service, budget, poller, durations, learned, asyncio.create_task(poller.run()))
    try:
        yield scene
    finally:
        tasks = [scene.run, *scene.waiting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


# List polls


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_the_list_finds_all_operations_in_any_order(order):
    """Our operations are found on a list page shared with others, in any order and without individual polls."""

    @on_virtual_time
    async def find():
        async with watching(Service(order=order)) as scene:
            for number in range(30):
                scene.service.add(number, takes=5.0, ours=False)
            ids = scene.start(40)
            await at(1000)
            assert scene.finished() == [FinishedOperation(f"x-{one}", pytest.approx(0, abs=0.1)) for one in ids]  # type: ignore[arg-type]
            assert not scene.service.polls
            assert scene.poller.mode is PollingMode.LIST

    find()


@pytest.mark.parametrize("days", [-30, -1, 1, 30])
@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_a_corrected_clock_neither_ends_nor_stalls_an_operation(ids, days):
    """If the clock is corrected by days, operations are still found when they finish, and the deadline still holds."""

    @on_virtual_time
    async def find():
        async with watching(Service(ids=ids), deadline=4000.0) as scene:
            scene.start(3, takes=300.0)
            await at(100)
            scene.put_right = days * 86_400.0
            scene.watch(scene.service.add(8, takes=300.0), scene.service.add(9, takes=1e9))
            await at(1000)
            assert scene.open == 1
            await at(3500)
            assert scene.open == 1
            await at(5000)
            assert scene.waiting["op9"].result() is None

    find()


@on_virtual_time
async def test_an_operation_requested_under_a_fast_clock_is_polled():
    """An operation whose recorded request time is in the future counts as requested just now."""
    async with watching() as scene:
        scene.watch(scene.service.add(0, takes=300.0), asked_at=now() + 30 * 86_400.0)
        await at(1000)
        assert scene.open == 0


@pytest.mark.parametrize(("end", "words"), [(Ended("too big"), "too big"), (Ended("ERROR"), "ERROR")])
@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_failed_and_error_are_failures(end, words, ids):
    """A task waiting for a failed operation gets the service's reason; the others keep waiting."""

    @on_virtual_time
    async def fail():
        async with watching(Service(ids=ids)) as scene:
            scene.start(3, takes=5000.0)
            scene.watch(scene.service.add(9, takes=100.0, ends_as=end))
            await at(2000)
            with pytest.raises(OperationFailedError, match=words):
                scene.waiting["op9"].result()
            assert scene.open == 3

    fail()


@on_virtual_time
async def test_durations_are_learned_from_the_times_of_the_service():
    """Durations come from `createdAt` and `finishedAt`, however late the poll, and are handed on to be recorded."""
    async with watching(expected=3000.0) as scene:
        scene.start(20, takes=120.0)
        await at(4000)
        assert scene.open == 0
        assert scene.learned == [(pytest.approx(120, abs=1), pytest.approx(120, abs=1))] * 20  # type: ignore[comparison-overlap]
        assert scene.durations.known == 20
        assert scene.durations.median_seconds == pytest.approx(120, rel=0.2)


@on_virtual_time
async def test_list_polls_keep_the_minimum_interval():
    """List polls are at least `min_interval` apart, however much there is to find."""
    async with watching() as scene:
        for number in range(50):
            scene.watch(scene.service.add(number, takes=60.0 + 7 * number))
        await at(1000)
        assert scene.open == 0
        gaps = [later - sooner for (sooner, *_), (later, *_) in pairwise(scene.service.lists)]
        assert min(gaps) >= INTERVAL
        assert len(scene.service.lists) <= 1000 / INTERVAL


@on_virtual_time
async def test_no_poll_is_sent_without_operations():
    """The poller is idle while no operation is in flight, and starts polling when the first one is added."""
    async with watching() as scene:
        await at(10_000)
        assert not scene.service.lists
        scene.start(1, takes=50.0)
        await at(11_000)
        assert scene.open == 0


@on_virtual_time
async def test_an_operation_of_an_earlier_run_is_polled_soon():
    """An operation of an earlier run may have finished long ago, so its age counts from its original request."""
    async with watching() as scene:
        await at(50_000)
        scene.service.jobs["op0"] = Job("op0", 100.0, 400.0)
        scene.watch("op0", asked_at=100.0)
        await at(50_030)
        assert scene.finished() == [FinishedOperation("x-op0", 100.0)]


@on_virtual_time
async def test_a_cancelled_wait_ends_the_polling():
    """Once the only task that waits for an operation is cancelled, the operation is not polled any more."""
    async with watching() as scene:
        scene.start(1, takes=1e9)
        await at(500)
        scene.waiting["op0"].cancel()
        await at(510)
        asked = len(scene.service.lists)
        await at(5000)
        assert len(scene.service.lists) == asked
        assert scene.poller.ages == []


@on_virtual_time
async def test_an_unknown_state_counts_as_running_and_is_logged_once(caplog):
    """An operation in an unknown state counts as running, and the state is logged once."""
    async with watching() as scene:
        scene.start(5, takes=2000.0, state="STATE_QUEUED")
        await at(5000)
        assert scene.open == 0
    assert len([record for record in caplog.records if "STATE_QUEUED" in record.getMessage()]) == 1


# Forms that the list may have


@on_virtual_time
async def test_a_long_history_behind_the_newest_is_not_read():
    """If the list starts with the newest operations, one page per poll is enough."""
    service = Service(order="newest")
    service.add_history(2000)
    async with watching(service) as scene:
        scene.start(40)
        await at(1000)
        assert scene.open == 0
        assert {token for _, _, token in service.lists} == {""}


@pytest.mark.parametrize("odd", ["repeats its token", "has empty pages"])
@pytest.mark.parametrize("hides", [True, False])
def test_an_endless_list_is_not_followed(odd, hides):
    """A list with a repeated token or empty pages costs at most two pages per poll, and the operations are found."""

    @on_virtual_time
    async def leave():
        async with watching(Service(odd=odd)) as scene:
            ids = scene.start(40)
            if hides:
                scene.service.hides.update(ids)
            await at(2000)
            assert scene.open == 0
            assert pages_a_poll(scene.service) <= 2

    leave()


def pages_a_poll(service: Service) -> int:
    """Return the highest number of pages read in one poll; each poll begins at the first page."""
    most = pages = 0
    for _, _, token in service.lists:
        pages = 1 if token == "" else pages + 1
        most = max(most, pages)
    return most


@pytest.mark.slow
@pytest.mark.parametrize(("running", "most"), [(1, 2), (100, 2), (101, 3), (250, 4)])
def test_the_number_of_pages_follows_the_operations_in_flight(running, most):
    """A poll reads at most ⌈in flight / 100⌉ + 1 pages, even if ours are scattered over a history of thousands."""

    @on_virtual_time
    async def read():
        service = Service(order="shuffled")
        service.add_history(3000)
        async with watching(service) as scene:
            scene.start(running, takes=20_000.0)
            await at(3000)
            assert 1 <= pages_a_poll(service) <= most

    read()


@pytest.mark.slow
@on_virtual_time
async def test_pending_operations_are_listed_if_the_first_pages_do_not_show_ours():
    """The poller falls back to listing pending operations, and polls each one that vanishes from it once."""
    service = Service(order="oldest")
    service.add_history(5000)
    async with watching(service) as scene:
        scene.start(40, takes=400.0)
        await at(2000)
        assert scene.poller.mode is PollingMode.PENDING
        assert scene.open == 0
        assert sorted(one for _, one in service.polls) == sorted(scene.waiting)
        assert {state for _, state, _ in service.lists[4:]} == {"PENDING"}


@on_virtual_time
async def test_an_incomplete_pending_list_is_abandoned():
    """If the pending list omits running operations, they do not fail but are polled individually to their end."""
    service = Service(order="oldest")
    service.add_history(5000)
    async with watching(service) as scene:
        ids = scene.start(10, takes=3000.0)
        service.hides.update(ids)
        await at(6000)
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_a_pending_list_that_is_too_long_is_abandoned():
    """If the pending list is full of others' operations, ours are polled individually."""
    service = Service(order="oldest")
    for number in range(500):
        service.jobs[f"theirs{number}"] = Job(f"theirs{number}", number - 1000.0, 1e6)
    async with watching(service) as scene:
        scene.start(10, takes=1000.0)
        await at(4000)
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert scene.open == 0


@on_virtual_time
async def test_a_list_without_ids_is_abandoned():
    """After one list poll without operation ids, operations are polled individually."""
    async with watching(Service(ids=False)) as scene:
        scene.start(5)
        await at(1500)
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert len(scene.service.lists) == 1
        assert scene.open == 0


@pytest.mark.parametrize("error", [RefusedError("400", status=400), RefusedError("403", status=403), GoneError("404")])
def test_a_refused_list_is_abandoned(error):
    """After one refused list poll, operations are polled individually for at least half an hour."""

    @on_virtual_time
    async def refuse():
        async with watching(Service(list_fails=error)) as scene:
            scene.start(5)
            await at(1500)
            assert scene.poller.mode is PollingMode.INDIVIDUAL
            assert len(scene.service.lists) == 1
            assert scene.open == 0

    refuse()


@on_virtual_time
async def test_a_forbidden_list_is_retried_after_half_an_hour():
    """A list answered with 403 is retried after half an hour, because a proxy may have sent it; one with 400 is not."""
    for status, mode in ((403, PollingMode.LIST), (400, PollingMode.INDIVIDUAL)):
        began = now()
        async with watching(Service(list_fails=RefusedError("no", status=status))) as scene:
            scene.start(5, takes=1e5)
            await asyncio.sleep(2 * FORBIDDEN_SECONDS - 100)
            asked = [when - began for when, _, _ in scene.service.lists]
            assert len(asked) <= (2 if status == 403 else 1)
            scene.service.list_fails = None
            await asyncio.sleep(2 * FORBIDDEN_SECONDS)
            assert scene.poller.mode is mode


@on_virtual_time
async def test_refused_polls_are_probed_and_then_resume():
    """While individual polls are refused only probes are sent, and once they succeed all operations are found."""
    async with watching(Service(ids=False)) as scene:
        scene.start(3, takes=100.0)
        await at(1)
        scene.service.fails = RefusedError("403", status=403)
        await at(400)
        assert len(scene.service.polls) <= 5
        scene.service.fails = None
        await at(2000)
        assert scene.open == 0
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_refused_polls_are_believed_in_the_end():
    """After a quarter of an hour of refused polls, all waiting tasks get the refusal."""
    async with watching(Service(ids=False)) as scene:
        scene.start(3, takes=1e6)
        scene.service.fails = RefusedError("403", status=403)
        await at(3000)
        assert scene.open == 0
        assert len(scene.service.polls) <= 7
        with pytest.raises(RefusedError):
            scene.finished()


@on_virtual_time
async def test_an_unreadable_list_is_retried_before_it_is_abandoned():
    """One unreadable list reply is ignored; after several in a row the list is abandoned."""
    async with watching() as scene:
        scene.service.troubles = [ReplyError("html"), None]
        scene.start(5)
        await at(1500)
        assert scene.poller.mode is PollingMode.LIST
        assert scene.open == 0
    async with watching(Service(list_fails=ReplyError("html"))) as scene:
        scene.start(5)
        await asyncio.sleep(2000)
        assert len(scene.service.lists) == MOST_IN_A_ROW
        assert scene.open == 0


@pytest.mark.parametrize(
    "error", [UnavailableError("503"), UnavailableError("gone", unanswered=True), RateLimitedError("429")]
)
def test_an_outage_does_not_discredit_the_list(error):
    """After an outage or a 429 the list is used as before."""

    @on_virtual_time
    async def endure():
        async with watching() as scene:
            scene.start(5)
            scene.service.troubles = [error] * 10
            await at(3000)
            assert scene.poller.mode is PollingMode.LIST
            assert scene.open == 0

    endure()


@on_virtual_time
async def test_a_list_that_keeps_omitting_an_operation_is_abandoned():
    """A list that repeatedly omits one of our operations is abandoned, but not immediately, because it may lag."""
    async with watching() as scene:
        scene.start(20, takes=3000.0)
        scene.service.hides, scene.service.hides_pending = {"op3"}, False
        await at(8000)
        assert scene.poller.mode is PollingMode.PENDING
        assert scene.open == 0


@pytest.mark.slow
@on_virtual_time
async def test_an_operation_near_a_page_boundary_is_not_missing():
    """An operation that could be on the next page does not count as omitted from the list."""
    async with watching(budget=FixedBudget(tokens=49, polls_cost=True)) as scene:
        ids = []
        for number in range(150):
            ids.append(scene.service.add(number, takes=1e5))
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        scene.watch(*ids)
        await at(20_000)
        assert scene.poller.mode is PollingMode.LIST


@pytest.mark.slow
@on_virtual_time
async def test_a_straggler_far_down_the_list_is_polled_individually():
    """An operation pushed far down the list is polled individually, and the list keeps finding the others."""
    budget = FixedBudget(tokens=49, polls_cost=True)
    async with watching(budget=budget) as scene:
        scene.watch(scene.service.add(10_000, takes=30_000.0))
        for round_ in range(40):
            scene.watch(*(scene.service.add(20 * round_ + n, takes=300.0) for n in range(20)))
            await asyncio.sleep(600)
        await at(60_000)
        assert scene.open == 0
        assert scene.poller.mode is PollingMode.LIST
        assert {one for _, one in scene.service.polls} == {"op10000"}


@on_virtual_time
async def test_a_burst_of_creates_during_a_list_poll_hides_no_operation():
    """Operations pushed to a later page by new creates are found by the next list poll, which reads more pages."""
    async with watching() as scene:
        first = [scene.service.add(number, takes=300.0) for number in range(50)]
        scene.watch(*first)
        while not scene.service.lists:  # noqa: ASYNC110 - the time is virtual
            await asyncio.sleep(0.01)
        scene.watch(*(scene.service.add(1000 + number, takes=300.0) for number in range(300)))
        await at(3000)
        assert scene.open == 0
        assert scene.service.polls == []


# Individual polls


@on_virtual_time
async def test_individual_polls_keep_the_minimum_interval():
    """Individual polls are at least a second apart, and those of one operation at least `min_interval`."""
    async with watching(Service(ids=False)) as scene:
        scene.start(60, takes=700.0)
        await at(3000)
        assert scene.open == 0
        gaps = [later - sooner for (sooner, _), (later, _) in pairwise(scene.service.polls)]
        assert min(gaps) >= 1.0
        for operation_id in scene.waiting:
            times = [when for when, one in scene.service.polls if one == operation_id]
            assert all(later - sooner >= INTERVAL for sooner, later in pairwise(times))
            assert len(times) < 15


@on_virtual_time
async def test_long_operations_are_polled_less_often():
    """The interval between polls of one operation grows with its age."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=40_000.0)
        await at(50_000)
        assert scene.open == 0
        assert len(scene.service.polls) < 250


@on_virtual_time
async def test_a_single_404_is_not_believed():
    """One 404 does not fail an operation, because the service may not know yet what it has just created."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=1000.0)
        scene.service.gone = {"op0"}
        await scene.polled(1)
        await asyncio.sleep(CONFIRMATION_SECONDS / 2)
        assert scene.open == 1
        scene.service.gone = set()
        await at(5000)
        assert scene.finished() == [FinishedOperation("x-op0", pytest.approx(0, abs=0.1))]  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [GoneError("404"), GoneError("410")])
def test_two_404s_a_minute_apart_are_believed(error):
    """After two answers of 404 or 410, at least a minute apart, the waiting task gets the error."""

    @on_virtual_time
    async def lose():
        async with watching(Service(ids=False)) as scene:
            scene.start(1, takes=1e6)
            await at(1)
            scene.service.fails = error
            await at(5000)
            times = [when for when, _ in scene.service.polls]
            assert len(times) == 2
            assert CONFIRMATION_SECONDS <= times[1] - times[0] <= CONFIRMATION_SECONDS + 2 * INTERVAL
            with pytest.raises(type(error)):
                scene.waiting["op0"].result()

    lose()


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("later", [INTERVAL / 2, 2 * INTERVAL])
def test_a_late_export_id_is_waited_for(ids, later):
    """An operation shown COMPLETED without an export id is polled again soon, until the id appears."""

    @on_virtual_time
    async def find():
        async with watching(Service(ids=ids)) as scene:
            scene.start(2, takes=300.0, ends_as=CompletedWithoutId())
            while not scene.service.nameless:  # noqa: ASYNC110 - the time is virtual
                await asyncio.sleep(0.5)
            await asyncio.sleep(later)
            for job in scene.service.jobs.values():
                job.ends_as = None
            await asyncio.sleep(3 * INTERVAL)
            assert {one.export_id for one in scene.finished() if one} == {"x-op0", "x-op1"}

    find()


@on_virtual_time
async def test_a_missing_export_id_fails_after_a_minute():
    """An operation that stays COMPLETED without an export id for a minute fails, after a few polls."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=300.0, ends_as=CompletedWithoutId())
        await at(5000)
        with pytest.raises(OperationFailedError, match="no export id"):
            scene.waiting["op0"].result()
        shown = scene.service.nameless
        assert CONFIRMATION_SECONDS <= shown[-1] - shown[0] <= CONFIRMATION_SECONDS + 2 * INTERVAL
        assert len(shown) <= 2 + CONFIRMATION_SECONDS / INTERVAL


@on_virtual_time
async def test_two_unreadable_polls_a_minute_apart_end_the_wait():
    """If no individual poll could ever be read, all waiting tasks fail at the second one, a minute later."""
    async with watching(Service(ids=False)) as scene:
        scene.start(5, takes=1e6)
        scene.service.fails = ReplyError("a page")
        await at(3000)
        assert scene.open == 0
        assert all(isinstance(task.exception(), ReplyError) for task in scene.waiting.values())
        first, second = (when for when, _ in scene.service.polls)
        assert second - first >= 60


@on_virtual_time
async def test_polls_that_become_unreadable_are_waited_out():
    """If polls were readable before, unreadable ones fail nothing, and waiting goes on until they recover."""
    async with watching(Service(ids=False)) as scene:
        scene.start(2, takes=3000.0)
        await scene.polled(1)
        scene.service.fails = ReplyError("a page")
        await at(2500)
        assert scene.open == 2
        scene.service.fails = None
        await at(9000)
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_an_overdue_operation_without_an_export_id_is_polled_twice():
    """An overdue operation that is COMPLETED without an export id is polled again after a minute, then fails."""
    async with watching() as scene:
        scene.service.add(0, takes=0.0, ends_as=CompletedWithoutId())
        with pytest.raises(OperationFailedError, match="no export id"):
            await scene.poller.ask("op0")
        first, second = scene.service.nameless
        assert second - first >= CONFIRMATION_SECONDS


@pytest.mark.slow
@on_virtual_time
async def test_a_404_between_two_good_answers_is_ignored():
    """Only two 404 answers in a row fail an operation."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=20_000.0)
        while scene.open:
            scene.service.gone ^= {"op0"}
            await scene.polled(len(scene.service.polls) + 1)
        assert isinstance(scene.finished()[0], FinishedOperation)
        assert len(scene.service.polls) > 5


@on_virtual_time
async def test_an_outage_fails_no_operation():
    """Polls that fail during an outage are sent again after it."""
    async with watching(Service(ids=False)) as scene:
        scene.start(5, takes=600.0)
        scene.service.fails = UnavailableError("503")
        await at(5000)
        assert scene.open == 5
        scene.service.fails = None
        await at(10_000)
        assert scene.open == 0


# The deadline


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_an_operation_is_polled_once_more_at_its_deadline(ids):
    """If an operation still runs at its deadline, the waiting task gets None, and polling stops."""

    @on_virtual_time
    async def expire():
        async with watching(Service(ids=ids), deadline=3600.0) as scene:
            scene.start(1, takes=1e6)
            await at(3599)
            assert scene.open == 1
            before = len([one for _, one in scene.service.polls])
            await at(3690)
            assert scene.finished() == [None]
            assert len(scene.service.polls) == before + 1
            await at(10_000)
            assert len(scene.service.polls) == before + 1

    expire()


@on_virtual_time
async def test_an_operation_finished_by_its_deadline_is_found():
    """The poll at the deadline finds a finished operation, even if no earlier poll saw it."""
    async with watching(Service(order="oldest", hides={"op0"}), deadline=3600.0, expected=3600.0) as scene:
        scene.start(1, takes=3599.0)
        await at(3650)
        assert isinstance(scene.finished()[0], FinishedOperation)


@on_virtual_time
async def test_a_404_at_the_deadline_is_believed():
    """A single 404 at the deadline fails the operation, because there is no time for a second poll."""
    async with watching(deadline=3600.0) as scene:
        scene.start(1, takes=1e6)
        scene.service.gone = {"op0"}
        await at(3665)
        with pytest.raises(GoneError):
            scene.waiting["op0"].result()


@on_virtual_time
async def test_a_deadline_during_an_outage_waits_for_its_end():
    """The poll at the deadline waits for a short outage to end; in a long one the operation counts as running."""
    for outage, outcome in ((300.0, FinishedOperation), (1e6, type(None))):
        async with watching(deadline=3600.0) as scene:
            began = now()
            scene.start(1, takes=3590.0)
            await asyncio.sleep(3580)
            scene.service.fails = scene.service.list_fails = UnavailableError("no route")
            await asyncio.sleep(20 + min(outage, 600.0))
            if outage < 600:
                scene.service.fails = scene.service.list_fails = None
            await asyncio.sleep(100)
            assert isinstance(scene.finished()[0], outcome)
            assert now() - began < 4400


# Several tasks that wait for the same operation


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_all_waiting_tasks_learn_that_an_operation_is_done(ids):
    """Several tasks that wait for one operation cost no more polls than one, and its duration is learned once."""

    @on_virtual_time
    async def share():
        polls = []
        for others in (0, 3):
            async with watching(Service(ids=ids)) as scene:
                began = now()
                scene.start(1, takes=300.0)
                for number in range(others):
                    scene.watch("op0", by=f" {number}")
                await asyncio.sleep(2000)
                assert scene.finished() == [FinishedOperation("x-op0", pytest.approx(began, abs=0.1))] * (1 + others)  # type: ignore[arg-type]
                assert len(scene.learned) == scene.durations.known == 1
                polls.append(len(scene.service.lists) + len(scene.service.polls))
        assert polls[0] == polls[1]

    share()


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
@pytest.mark.parametrize("end", [Ended("too big"), "gone"])
def test_all_waiting_tasks_learn_that_an_operation_failed(end, ids):
    """Every task that waits for an operation learns that it failed, or that the service no longer knows it."""

    @on_virtual_time
    async def fail():
        async with watching(Service(ids=ids)) as scene:
            is_gone = end == "gone"
            scene.service.add(0, takes=300.0, ends_as=None if is_gone else end)
            scene.watch("op0")
            scene.watch("op0", by=" again")
            if is_gone:
                scene.service.gone, scene.service.hides = {"op0"}, {"op0"}
            await at(5000)
            for task in scene.waiting.values():
                with pytest.raises(GoneError if is_gone else OperationFailedError):
                    task.result()

    fail()


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
@pytest.mark.parametrize("order", [(0.0, 1000.0), (1000.0, 0.0)], ids=["older first", "younger first"])
def test_each_waiting_task_has_its_own_deadline(order, ids):
    """Each task's deadline holds, whichever began to wait first, and polling stops after the last one."""

    @on_virtual_time
    async def expire():
        async with watching(Service(ids=ids), deadline=3600.0) as scene:
            scene.service.add(0, takes=1e6)
            await at(1000)
            for asked_at in order:
                scene.watch("op0", asked_at=asked_at, by=f" {asked_at:.0f}")
            await at(3599)
            assert scene.open == 2
            await at(3650)
            assert scene.waiting["op0 0"].result() is None
            assert not scene.waiting["op0 1000"].done()
            await at(4599)
            assert scene.open == 1
            await at(4700)
            assert scene.waiting["op0 1000"].result() is None
            asked = len(scene.service.lists) + len(scene.service.polls)
            await at(20_000)
            assert len(scene.service.lists) + len(scene.service.polls) == asked

    expire()


@on_virtual_time
async def test_an_operation_is_found_between_two_deadlines():
    """After one task's deadline has passed, the list still finds the operation for the other, without extra polls."""
    async with watching(deadline=3600.0) as scene:
        scene.service.add(0, takes=5000.0)
        scene.watch("op0")
        await at(3000)
        scene.watch("op0", by=" again")
        await at(6000)
        first, second = scene.finished()
        assert first is None
        assert second == FinishedOperation("x-op0", pytest.approx(0, abs=0.1))  # type: ignore[arg-type]
        assert len(scene.service.polls) == 1
        assert [seconds for _, seconds in scene.learned] == [pytest.approx(5000, abs=1)]


@on_virtual_time
async def test_a_404_at_one_deadline_is_not_yet_believed_for_the_other():
    """A task whose deadline is later gets the error only after a second 404, a minute after the first."""
    async with watching(Service(ids=False), deadline=3600.0) as scene:
        scene.service.add(0, takes=1e6)
        scene.watch("op0")
        await at(1000)
        scene.watch("op0", by=" again")
        await at(3599.5)
        scene.service.gone = {"op0"}
        with pytest.raises(GoneError):
            await scene.waiting["op0"]
        assert 3600 <= now() < 3700
        assert not scene.waiting["op0 again"].done()
        await asyncio.sleep(150)
        with pytest.raises(GoneError):
            scene.waiting["op0 again"].result()


@on_virtual_time
async def test_a_404_before_another_create_was_answered_is_ignored():
    """If a later create names the operation again, 404 answers from before no longer count."""
    async with watching(Service(ids=False)) as scene:
        scene.service.add(0, takes=2000.0)
        scene.watch("op0")
        scene.service.gone = {"op0"}
        await scene.polled(1)
        await asyncio.sleep(CONFIRMATION_SECONDS / 2)
        scene.watch("op0", by=" again")
        await scene.polled(2)
        scene.service.gone = set()
        await at(5000)
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_an_outage_at_two_deadlines_releases_each_task():
    """In a long outage each waiting task is released some time after its own deadline."""
    async with watching(deadline=3600.0) as scene:
        scene.service.add(0, takes=1e6)
        scene.watch("op0")
        await at(1000)
        scene.watch("op0", by=" again")
        await at(3000)
        scene.service.fails = scene.service.list_fails = UnavailableError("no route")
        await at(4200)
        assert scene.waiting["op0"].result() is None
        assert scene.open == 1
        await at(5200)
        assert scene.finished() == [None, None]


@pytest.mark.parametrize("leaves", ["op0", "op0 again"])
def test_a_cancelled_task_does_not_affect_the_others(leaves):
    """If one waiting task is cancelled, the other still gets its result; after the last one, polling stops."""

    @on_virtual_time
    async def leave():
        async with watching() as scene:
            scene.start(1, takes=300.0)
            scene.watch("op0", by=" again")
            await at(50)
            scene.waiting.pop(leaves).cancel()
            await settled()
            assert (len(scene.poller.ages), scene.poller.waiters) == (1, 1)
            await at(1000)
            assert isinstance(scene.finished()[0], FinishedOperation)
        async with watching() as scene:
            scene.start(1, takes=1e6)
            scene.watch("op0", by=" again")
            await settled()
            for task in scene.waiting.values():
                task.cancel()
            await settled()
            assert (scene.poller.ages, scene.poller.waiters) == ([], 0)

    leave()


@on_virtual_time
async def test_an_operation_with_many_waiting_tasks_counts_once():
    """Ages and the number of list pages depend on the number of operations, not of waiting tasks."""
    service = Service(order="shuffled")
    service.add_history(3000)
    async with watching(service) as scene:
        ids = scene.start(100, takes=20_000.0)
        for by in (" b", " c"):
            scene.watch(*ids, by=by)
        await settled()
        assert (len(scene.poller.ages), scene.poller.waiters) == (100, 300)
        await at(3000)
        assert 1 <= pages_a_poll(service) <= 2


@on_virtual_time
async def test_the_age_of_an_operation_counts_from_its_first_create():
    """An operation that answered several creates is as old as the first one, in whichever order tasks wait for it."""
    async with watching() as scene:
        scene.service.add(0, takes=1e6)
        await at(500)
        scene.watch("op0", asked_at=400.0)
        await at(600)
        scene.watch("op0", asked_at=100.0, by=" again")
        await settled()
        assert scene.poller.ages == [pytest.approx(500, abs=1)]


@on_virtual_time
async def test_a_task_that_begins_to_wait_late_gets_the_result():
    """A task that begins to wait while or after the others get the result gets it too."""
    async with watching() as scene:
        scene.service.jobs["op0"] = job = Job("op0", 1.0, 100.0)
        show = job.shown

        def shown() -> Operation:
            if now() > 100 and "op0 again" not in scene.waiting:
                scene.watch("op0", by=" again")
            return show()

        job.shown = shown  # type: ignore[method-assign]
        scene.watch("op0")
        await at(1000)
        scene.watch("op0", by=" later")
        await at(2000)
        assert scene.finished() == [FinishedOperation("x-op0", 1.0)] * 3
        assert len(scene.learned) == 1


@pytest.mark.parametrize("seed", range(6))
def test_no_task_waits_past_its_deadline(seed):
    """However many tasks come and go, none waits past its deadline, and no operation is left over."""

    @on_virtual_time
    async def crowd():
        rng = random.Random(seed)
        async with watching(Service(ids=seed % 2 == 0), deadline=3600.0) as scene:
            for number in range(6):
                end = rng.choice([None, Ended("no")])
                scene.service.add(number, takes=rng.choice([200.0, 2000.0, 1e6]), ends_as=end)
            for by in range(60):
                scene.watch(f"op{rng.randrange(6)}", asked_at=now() - rng.uniform(0, 900), by=f" {by}")
                if rng.random() < 0.3:
                    rng.choice(list(scene.waiting.values())).cancel()
                await asyncio.sleep(rng.uniform(0, 120))
            await asyncio.sleep(3600 * 1.05)
            assert scene.open == 0
            assert scene.poller.ages == []
            assert len(scene.learned) <= 6
            for task in scene.waiting.values():
                if not task.cancelled() and (error := task.exception()):
                    assert isinstance(error, OperationFailedError)

    crowd()


# The cost of polls


@on_virtual_time
async def test_for_throughput_no_poll_is_sent_while_other_requests_wait():
    """With `throughput`, results calls and creates come first, and a due poll is sent once none of them waits."""
    budget = FixedBudget(polls_cost=True)
    async with watching(budget=budget) as scene:
        budget.nobody_waits.clear()
        scene.start(40)
        await at(5000)
        assert not scene.service.lists
        budget.nobody_waits.set()
        await at(5060)
        assert scene.open == 0
        assert len(scene.service.lists) == 1


@pytest.mark.parametrize("ids", [True, False], ids=["list", "single"])
def test_an_urgent_operation_is_polled_while_other_requests_wait(ids):
    """It is found with urgent polls within the hour, with at most two lists an hour."""

    @on_virtual_time
    async def find():
        budget = FixedBudget(polls_cost=True)
        async with watching(Service(ids=ids), budget=budget) as scene:
            budget.nobody_waits.clear()
            for number in range(100, 103):
                operation_id = scene.service.add(number, takes=600.0)
                waiting = asyncio.create_task(scene.poller.wait(operation_id, asked_at=now(), is_urgent=True))
                begun = now()
                scene.waiting[operation_id] = waiting
                await waiting
                assert now() - begun <= 600 + 1800 + 120
            lists, polls = scene.service.lists, scene.service.polls
            assert all(later - earlier >= 1800 for (earlier, *_), (later, *_) in pairwise(lists))
            assert 3 <= len(lists) + len(polls) <= 9
            assert set(scene.service.priorities) == {Priority.URGENT}
            scene.start(1)
            await at(now() + 5000)
            assert scene.open == 1, "other operations still give way"

    find()


@on_virtual_time
async def test_for_latency_a_due_poll_does_not_wait():
    """With `latency`, a due poll is sent even while creates wait for tokens."""
    budget = FixedBudget(polls_cost=True)
    async with watching(budget=budget, prefer=Prefer.LATENCY) as scene:
        budget.nobody_waits.clear()
        scene.start(40)
        await at(1000)
        assert scene.open == 0
        assert len(scene.service.lists) < 5


@on_virtual_time
async def test_a_poll_waits_for_the_bucket_to_fill_and_no_longer():
    """A poll waits while the bucket fills, and is sent when the bucket is about to overflow."""
    budget = FixedBudget(tokens=10, polls_cost=True)
    async with watching(budget=budget) as scene:
        for number in range(60):
            scene.watch(scene.service.add(number, takes=200.0 if number % 2 else 1e5))
        await at(600)
        assert not scene.service.lists
        budget.tokens = 48
        await at(640)
        assert scene.open == 30


@on_virtual_time
async def test_the_operation_most_likely_finished_is_polled_first():
    """If individual polls cost tokens, the operation most likely to be finished is polled first."""
    budget = FixedBudget(tokens=20, polls_cost=True)
    async with watching(Service(ids=False), budget=budget, prefer=Prefer.LATENCY) as scene:
        for number in range(5):
            scene.watch(scene.service.add(number, takes=1e5))
            await asyncio.sleep(200)
        await at(50_000)
        first_asked = list(dict.fromkeys(one for _, one in scene.service.polls))
        assert first_asked[:3] == ["op0", "op1", "op2"]


# The first list poll, and polling on demand


@on_virtual_time
async def test_the_first_list_poll_learns_the_form_of_the_list():
    """One list page, read before anything is created, shows whether the list can be used."""
    async with watching(Service(ids=False)) as scene:
        scene.service.add_history(3)
        await scene.poller.prime()
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert len(scene.service.lists) == 1


@on_virtual_time
async def test_the_first_list_poll_waits_for_the_service():
    """The first list poll is repeated until the service answers; a refused list is an answer, too."""
    for answer, mode in ((None, PollingMode.LIST), (RefusedError("no", status=400), PollingMode.INDIVIDUAL)):
        async with watching() as scene:
            scene.service.troubles = [UnavailableError("503"), RateLimitedError("429"), ReplyError("html"), answer]
            await scene.poller.prime()
            assert scene.poller.mode is mode
            assert len(scene.service.lists) == 4


@pytest.mark.parametrize("error", [UnauthorizedError("401"), UnavailableError("six hours", lasting=True)])
def test_a_fatal_error_ends_the_first_list_poll(error):
    """A refused key or a lasting outage is raised by the first list poll."""

    @on_virtual_time
    async def end():
        async with watching(Service(list_fails=error)) as scene:
            with pytest.raises(type(error)):
                await scene.poller.prime()

    end()


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
@pytest.mark.parametrize("error", [UnauthorizedError("401"), UnavailableError("six hours", lasting=True)])
def test_a_fatal_error_ends_the_poller(error, ids):
    """A refused key or a lasting outage is raised by the poller's task."""

    @on_virtual_time
    async def end():
        async with watching(Service(ids=ids)) as scene:
            scene.start(3)
            await at(20)
            scene.service.fails = scene.service.list_fails = error
            with pytest.raises(type(error)):
                await scene.run
            assert now() < 3000

    end()


@on_virtual_time
async def test_an_operation_can_be_polled_on_demand():
    """`ask` returns the finished operation, returns None if it runs, and raises if it failed or is gone."""
    async with watching() as scene:
        service = scene.service
        service.add(0, takes=10.0)
        service.add(1, takes=1e6)
        service.add(2, takes=10.0, ends_as=Ended("no"))
        await at(20)
        assert await scene.poller.ask("op0") == FinishedOperation("x-op0", pytest.approx(0, abs=0.1))  # type: ignore[arg-type]
        assert await scene.poller.ask("op1") is None
        with pytest.raises(OperationFailedError):
            await scene.poller.ask("op2")
        service.gone = {"op1"}
        with pytest.raises(GoneError):
            await scene.poller.ask("op1")
        assert len(scene.learned) == 1


@on_virtual_time
async def test_an_operation_without_times_is_dated_by_our_own_requests():
    """If the service reports no times, the create request counts as the start and the poll as the end."""
    async with watching() as scene:
        job = Job("op0", 0.0, 100.0)
        job.shown = lambda: Operation("op0", Completed("x") if now() > 100 else Running("PENDING"))  # type: ignore[method-assign]
        scene.service.jobs["op0"] = job
        scene.watch("op0", asked_at=-5.0)
        await at(1000)
        assert scene.finished() == [FinishedOperation("x", -5.0)]
        assert 95 <= scene.learned[0][1] <= 400
        await settled()
