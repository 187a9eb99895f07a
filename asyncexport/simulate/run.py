"""Simulates one run: the real scheduler, bundle runner, poller and budget, wired to a service in memory."""

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from asyncexport.core.admission import BudgetScope, Prefer, Priority, Quota
from asyncexport.core.bucket import RequestHistory, SentRequest
from asyncexport.core.bundles import Bundle
from asyncexport.core.connectivity import Backoff
from asyncexport.core.durations import Durations
from asyncexport.core.events import BundleMoved, BundleParked, BundleStored, Event
from asyncexport.core.exports import Export
from asyncexport.core.operation_limit import OperationLimit
from asyncexport.core.polling import PollingRules
from asyncexport.core.service.requests import Kind
from asyncexport.core.splitting import AttemptRules
from asyncexport.core.states import BundleRecord, Ready
from asyncexport.engine.budget import Budget
from asyncexport.engine.bundle_runner import BundleRunner
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.download import ArchiveDownloads, Source
from asyncexport.engine.export_state import ExportState
from asyncexport.engine.key_check import CheckedCalls
from asyncexport.engine.poller import OperationPoller
from asyncexport.engine.scheduler import Scheduler, Stop
from asyncexport.simulate import clock
from asyncexport.simulate.service import (
    MemoryLedger,
    MemoryPartFiles,
    MemoryService,
    MemoryStorageHost,
    SimulatedBehaviour,
    lognormal_seconds,
)
from asyncexport.simulate.work import EXPORT, SimulatedWork

BACKOFF = Backoff(1.0, 300.0, 6 * 3600.0)
"""The default settings of `[retry]`."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The settings and assumptions of one simulation; durations are in seconds.

    Attributes:
        bundles: Number of bundles to export.
        median_seconds, sigma: Median and spread of the operations' durations, which are lognormal.
        durations: Durations of the operations, used instead of the distribution, in the order in which operations are
            created; the sequence repeats if there are more operations.
        counts_all: Whether the service's rate limit counts all calls, or creates only.
        scope_is_known: Whether `[budget] scope` says which calls count; if not, it is `auto`, and the run has to learn
            it.
        lists: Whether List Operations is available.
        prefer: `[polling] prefer`.
        operations, downloads: `[concurrency]`.
        expected_seconds: `[polling] expected`.
        min_interval_seconds: `[polling] min_interval`.
        requests_per_minute, burst: `[budget]`, and the service's rate limit.
        known: Durations learned by earlier runs.
        fetch_seconds: Duration of one download.
        second_looks: Share of files that are empty and need a second check.
        second_look_seconds: `[download] second_look`.
        tokens_used: Tokens missing from the bucket at the start.
        slots: Number of operations that the service runs at the same time while others queue; None for no limit.
        outage: Start and end of an outage of the service.
        seed: Seed of all random numbers.
        settles: Whether the run follows the present: another bundle settles each time a bundle's width has passed.
        audits: Number of stored bundles of each export that are audited when all others are stored.
    """

    bundles: int
    median_seconds: float = 600.0
    sigma: float = 0.5
    counts_all: bool = True
    lists: bool = True
    prefer: Prefer = Prefer.THROUGHPUT
    operations: int = 100
    downloads: int = 4
    expected_seconds: float = 300.0
    min_interval_seconds: float = 10.0
    requests_per_minute: float = 2.0
    burst: int = 50
    known: tuple[float, ...] = ()
    fetch_seconds: float = 2.0
    tokens_used: int = 0
    slots: int | None = None
    outage: tuple[float, float] | None = None
    seed: int = 1
    durations: tuple[float, ...] = ()
    scope_is_known: bool = True
    second_looks: float = 0.0
    second_look_seconds: float = 60.0
    settles: bool = False
    audits: int = 0

    @property
    def allowance(self) -> Quota:
        """The settings of `[budget]`."""
        scope = BudgetScope.ALL if self.counts_all else BudgetScope.CREATE
        return Quota(self.requests_per_minute, self.burst, scope if self.scope_is_known else BudgetScope.AUTO)

    @property
    def polling(self) -> PollingRules:
        """The settings of `[polling]`."""
        return PollingRules(
            self.min_interval_seconds,
            86_400.0,
            self.prefer,
            burst=self.allowance.usable_burst,
            refill_seconds=self.allowance.refill_seconds,
        )

    @property
    def behaviour(self) -> SimulatedBehaviour:
        """How the service in memory behaves."""
        return SimulatedBehaviour(
            take_seconds=self._take_seconds(),
            counts_all=self.counts_all,
            lists=self.lists,
            requests_per_minute=self.requests_per_minute,
            burst=self.burst,
            level=self.burst - self.tokens_used,
            slots=self.slots,
            outage=self.outage,
        )

    def _take_seconds(self) -> Callable[[], float]:
        if self.durations:
            return itertools.cycle(self.durations).__next__
        return lognormal_seconds(self.median_seconds, self.sigma, self.seed)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a simulation; times are in seconds from the start.

    Attributes:
        stored: Number of stored bundles.
        operations: Number of operations created for them.
        makespan: When the last archive was stored.
        first_archive: When the first archive was stored.
        longest_wait: The longest time between the end of an operation and the storing of its archive.
        most_running: Greatest number of bundles that had, or were about to have, an operation at the same time.
        requests: Number of requests, by kind.
        refused: Number of requests refused with 429.
        planned_makespan: When the last archive was stored of the bundles that were planned at the start.
        settled_waits: For each bundle that settled during the run: how long after that its archive was stored, less the
            duration of its operation.
    """

    stored: int
    operations: int
    makespan: float
    first_archive: float
    longest_wait: float
    most_running: int
    requests: dict[str, int]
    refused: int
    planned_makespan: float = 0.0
    settled_waits: tuple[float, ...] = ()

    @property
    def all_requests(self) -> int:
        """Number of requests of every kind, counted or not; downloads are not requests in this sense."""
        return sum(self.requests.values())


@dataclass(slots=True)
class Recorder:
    """Records when archives were stored; `note` is a listener."""

    now: Callable[[], float]
    running: Callable[[], int]
    stored_at: dict[Bundle, float] = field(default_factory=dict)
    exports: dict[Bundle, str] = field(default_factory=dict)
    most_running: int = 0

    def note(self, event: Event) -> None:
        """Record an event that matters for the result."""
        match event:
            case BundleStored(bundle=bundle):
                self.stored_at[bundle] = self.now()
            case BundleMoved(after=BundleRecord(bundle=bundle, state=Ready(export_id=export_id))):
                self.exports[bundle] = export_id
            case BundleMoved() | BundleParked():
                self.most_running = max(self.most_running, self.running())


class Wiring:
    """The engine, wired to memory as `run.wiring` wires it to the real service; must be created on a jumping loop.

    Args:
        scenario: The settings and assumptions.
        service: The service that an earlier run left behind; None for a new one.
        ledger: The ledger that an earlier run left behind; None for a new one.
        exports: The exports, each with as many bundles as the scenario says.
        key_has_worked: Whether a call with the key ever succeeded in this directory.
        storage: The storage host; None for one that never fails.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        service: MemoryService | None = None,
        ledger: MemoryLedger | None = None,
        exports: tuple[Export, ...] = (EXPORT,),
        key_has_worked: bool = True,
        storage: Source | None = None,
    ) -> None:
        now = asyncio.get_running_loop().time
        jitter = random.Random(scenario.seed).random
        allowance = scenario.allowance
        self.scenario = scenario
        self.exports = {export.name: ExportState(export) for export in exports}
        self.stop = Stop()
        self.ledger = ledger or MemoryLedger()
        self.work = SimulatedWork(scenario.bundles, self.exports, self.ledger, settles=scenario.settles)
        self.budget = Budget(
            allowance, prefer=scenario.prefer, backoff=BACKOFF, journal=self.ledger, wall_clock=now, jitter=jitter
        )
        self.service = service or MemoryService(scenario.behaviour, clock=now)
        self.service.gate = self.budget
        self._calls = CheckedCalls(self.service, self.budget)
        self.call_turns = CallTurns(
            BACKOFF, jitter=jitter, key=self._calls.key, emit=self._emit, key_has_worked=key_has_worked
        )
        self.durations = Durations(expected_seconds=scenario.expected_seconds, known=scenario.known)
        self.poller = self._poller(now)
        self.recorder = Recorder(now, lambda: self.scheduler.in_flight.running)
        self.scheduler = self._scheduler(now, storage or MemoryStorageHost(lambda: scenario.fetch_seconds))

    def _scheduler(self, now: Callable[[], float], storage: Source) -> Scheduler:
        scenario = self.scenario
        runner = BundleRunner(
            gate=self.budget,
            service=self._calls,
            poller=self.poller,
            downloads=ArchiveDownloads(storage, MemoryPartFiles(scenario.second_looks)),
            ledger=self.ledger,
            export_states=self.exports,
            emit=self._emit,
            call_turns=self.call_turns,
            rules=AttemptRules(),
            download_slots=scenario.downloads,
            clock=now,
            second_look_seconds=scenario.second_look_seconds,
        )
        operation_limit = OperationLimit(
            cap=scenario.operations,
            burst=scenario.burst,
            requests_per_minute=scenario.requests_per_minute,
            prefer=scenario.prefer,
        )
        return Scheduler(
            runner,
            self.poller,
            allowed=lambda: operation_limit.allowed(self.durations, polls_cost=self.budget.polls_cost),
            most=scenario.operations,
            most_waiting=scenario.operations,
            stop=self.stop,
            grace_seconds=30.0,
        )

    def _poller(self, now: Callable[[], float]) -> OperationPoller:
        return OperationPoller(
            self._calls,
            budget=self.budget,
            durations=self.durations,
            polling=self.scenario.polling,
            clock=now,
            service_time=now,
            more_to_create=lambda: self.scheduler.more_to_create or self.budget.waiting(Priority.CREATE) > 0,
            learned=lambda _at, _seconds: None,
            call_turns=self.call_turns,
        )

    async def run(self) -> None:
        """Process all bundles, starting from the states that the ledger has for them."""
        now = asyncio.get_running_loop().time()
        used = tuple(SentRequest(now, Kind.CREATE, 200) for _ in range(self.scenario.tokens_used))
        await self.budget.open(RequestHistory(used))
        try:
            await self.poller.prime()
            newly_due = self._newly_due if self.scenario.settles else None
            await self.scheduler.run(self.work.planned(), newest=self.work.newest, newly_due=newly_due)
            if self.scenario.audits:
                await self.scheduler.run(self.work.audited(self.scenario.audits), newly_due=newly_due)
        finally:
            await self.budget.close()

    def result(self) -> Result:
        """Return the result of the simulation."""
        stored_at = self.recorder.stored_at
        return Result(
            stored=len(stored_at),
            operations=self.service.made,
            makespan=max(stored_at.values()),
            first_archive=min(stored_at.values()),
            longest_wait=max(
                at - self.service.finished_at(self.recorder.exports[bundle]) for bundle, at in stored_at.items()
            ),
            most_running=self.recorder.most_running,
            requests={kind.value: count for kind, count in self.budget.sent.items()},
            refused=self.budget.refused,
            planned_makespan=max(at for bundle, at in stored_at.items() if bundle not in self.work.settled_at),
            settled_waits=tuple(
                stored_at[bundle] - at - self.service.seconds_taken(self.recorder.exports[bundle])
                for bundle, at in self.work.settled_at.items()
            ),
        )

    def _emit(self, event: Event) -> None:
        self.recorder.note(event)

    async def _newly_due(self) -> list[BundleRecord]:
        return self.work.newly_due(asyncio.get_running_loop().time())


def simulate(scenario: Scenario) -> Result:
    """Simulate a run; takes about half a millisecond per bundle."""
    return clock.run(_simulate(scenario))


async def _simulate(scenario: Scenario) -> Result:
    wiring = Wiring(scenario)
    await wiring.run()
    return wiring.result()
