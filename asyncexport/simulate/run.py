"""One simulated run: the real scheduler, runner, poller and budget, wired to memory."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asyncexport.core.admission import Backoff, BudgetScope, Prefer, Priority, Quota
from asyncexport.core.bucket import RequestHistory, SentRequest
from asyncexport.core.bundles import Bundle, Range, cut
from asyncexport.core.durations import Durations
from asyncexport.core.events import BundleMoved, BundleParked, BundleStored, Event
from asyncexport.core.exports import Export
from asyncexport.core.operation_limit import OperationLimit
from asyncexport.core.polling import PollingRules
from asyncexport.core.service.requests import Kind
from asyncexport.core.states import BundleRecord, Ready, Stored
from asyncexport.engine.budget import Budget
from asyncexport.engine.bundle_runner import BundleRunner
from asyncexport.engine.creates import ExportState
from asyncexport.engine.download import ArchiveDownloads
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

EXPORT = Export("simulated")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated; durations in seconds.

    Attributes:
        bundles: How many are to do.
        median_seconds, sigma: Of the operations' durations, which are lognormal.
        durations: What the operations take in the order they are made, in place of that; from the first again, once
            there are more operations.
        counts_all: Whether the service's limit counts all calls, or creates only.
        told: Whether `[budget] scope` says which of the two; else it is `auto`, and must be learned.
        lists: Whether List Operations is of use.
        prefer: `[polling] prefer`.
        operations, downloads: `[concurrency]`.
        expected_seconds: `[polling] expected`.
        known: Durations learned by earlier runs.
        fetch_seconds: How long one download takes.
        tokens_used: Of the bucket, at the start.
        slots: How many operations the service runs at once, while others queue; None: all.
        outage: From when to when the service cannot be reached.
        seed: Of all that is drawn.
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
    told: bool = True

    @property
    def allowance(self) -> Quota:
        """What the service grants, and what is counted."""
        scope = BudgetScope.AUTO if not self.told else BudgetScope.ALL if self.counts_all else BudgetScope.CREATE
        return Quota(self.requests_per_minute, self.burst, scope)

    @property
    def polling(self) -> PollingRules:
        """How operations are polled."""
        return PollingRules(
            self.min_interval_seconds,
            86_400.0,
            self.prefer,
            burst=self.allowance.usable_burst,
            refill_seconds=self.allowance.refill_seconds,
        )

    @property
    def behaviour(self) -> SimulatedBehaviour:
        """How the service behaves."""
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
    """What came of it; times in seconds from the start.

    Attributes:
        stored: How many bundles.
        operations: How many were made for them.
        makespan: When the last archive was stored.
        first_archive: When the first was.
        longest_wait: For how long the one that waited longest was done at the service before it was stored.
        most_running: How many operations were running at the service at once, or about to.
        requests: By kind.
        refused: How many 429s there were.
    """

    stored: int
    operations: int
    makespan: float
    first_archive: float
    longest_wait: float
    most_running: int
    requests: dict[str, int]
    refused: int

    @property
    def all_requests(self) -> int:
        """Of every kind, counted or not; downloads are none."""
        return sum(self.requests.values())


@dataclass(slots=True)
class Witness:
    """Notes when archives came; `note` is a listener."""

    now: Callable[[], float]
    running: Callable[[], int]
    stored_at: dict[Bundle, float] = field(default_factory=dict)
    exports: dict[Bundle, str] = field(default_factory=dict)
    most_running: int = 0

    def note(self, event: Event) -> None:
        """Note what bears on the result."""
        match event:
            case BundleStored(bundle=bundle):
                self.stored_at[bundle] = self.now()
            case BundleMoved(after=BundleRecord(bundle=bundle, state=Ready(export_id=export_id))):
                self.exports[bundle] = export_id
            case BundleMoved() | BundleParked():
                self.most_running = max(self.most_running, self.running())


class Wiring:
    """The engine, wired to memory as `run.wiring` wires it to the world; to be made on a jumping loop.

    Args:
        scenario: What is simulated.
        service: One that an earlier run left behind; None: a fresh one.
        ledger: The same.
    """

    def __init__(
        self, scenario: Scenario, *, service: MemoryService | None = None, ledger: MemoryLedger | None = None
    ) -> None:
        now = asyncio.get_running_loop().time
        jitter = random.Random(scenario.seed).random
        backoff = Backoff(1.0, 300.0, 6 * 3600.0)
        allowance = scenario.allowance
        self.scenario = scenario
        self.stop = Stop()
        self.ledger = ledger or MemoryLedger()
        self.budget = Budget(
            allowance, prefer=scenario.prefer, backoff=backoff, journal=self.ledger, wall_clock=now, jitter=jitter
        )
        self.service = service or MemoryService(scenario.behaviour, clock=now)
        self.service.gate = self.budget
        self.durations = Durations(expected_seconds=scenario.expected_seconds, known=scenario.known)
        self.poller = self._poller(now)
        self.witness = Witness(now, lambda: self.scheduler.lanes.running)
        runner = BundleRunner(
            gate=self.budget,
            service=self.service,
            poller=self.poller,
            downloads=ArchiveDownloads(MemoryStorageHost(lambda: scenario.fetch_seconds), MemoryPartFiles()),
            ledger=self.ledger,
            export_states={EXPORT.name: ExportState(EXPORT)},
            tell=self.witness.note,
            backoff=backoff,
            attempts=5,
            download_slots=scenario.downloads,
            clock=now,
            jitter=jitter,
        )
        operation_limit = OperationLimit(
            cap=scenario.operations,
            burst=scenario.burst,
            requests_per_minute=scenario.requests_per_minute,
            prefer=scenario.prefer,
        )
        self.scheduler = Scheduler(
            runner,
            self.poller,
            allowed=lambda: operation_limit.allowed(self.durations, polls_cost=self.budget.polls_cost),
            most_waiting=scenario.operations,
            stop=self.stop,
            grace_seconds=30.0,
        )

    def _poller(self, now: Callable[[], float]) -> OperationPoller:
        return OperationPoller(
            self.service,
            budget=self.budget,
            durations=self.durations,
            polling=self.scenario.polling,
            clock=now,
            more_to_create=lambda: self.scheduler.more_to_create or self.budget.waiting(Priority.CREATE) > 0,
            learned=lambda _at, _seconds: None,
        )

    async def run(self) -> None:
        """Carry all bundles to where they rest, from where the ledger has them."""
        now = asyncio.get_running_loop().time()
        used = tuple(SentRequest(now, Kind.CREATE, 200) for _ in range(self.scenario.tokens_used))
        await self.budget.open(RequestHistory(used))
        try:
            await self.poller.prime()
            await self.scheduler.run(self._work())
        finally:
            await self.budget.close()

    def result(self) -> Result:
        """What came of it."""
        stored_at = self.witness.stored_at
        return Result(
            stored=len(stored_at),
            operations=self.service.made,
            makespan=max(stored_at.values()),
            first_archive=min(stored_at.values()),
            longest_wait=max(
                at - self.service.finished_at(self.witness.exports[bundle]) for bundle, at in stored_at.items()
            ),
            most_running=self.witness.most_running,
            requests={kind.value: count for kind, count in self.budget.sent.items()},
            refused=self.budget.refused,
        )

    def _work(self) -> Iterator[BundleRecord]:
        width = EXPORT.bundle_seconds
        for piece in cut(Range(0, self.scenario.bundles * width), width):
            bundle = Bundle(EXPORT.name, piece)
            record = self.ledger.latest.get(bundle, BundleRecord(bundle))
            if not isinstance(record.state, Stored):
                yield record


def simulate(scenario: Scenario) -> Result:
    """Run it; takes about half a millisecond a bundle."""
    return clock.run(_simulate(scenario))


async def _simulate(scenario: Scenario) -> Result:
    wiring = Wiring(scenario)
    await wiring.run()
    return wiring.result()
