"""One simulated run: the real scheduler, carrier, watcher and budget, wired to memory."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asyncexport.budget import Allowance, Budget, History
from asyncexport.carrier import Carrier, Stream
from asyncexport.core.bundles import Bundle, Range, cut
from asyncexport.core.durations import Durations
from asyncexport.core.exports import Export
from asyncexport.core.pacing import Patience, Prefer, Priority, Scope
from asyncexport.core.states import Standing, Stored
from asyncexport.core.summary import Tally
from asyncexport.core.watching import operations_allowed
from asyncexport.scheduler import Scheduler, Stop
from asyncexport.simulate import clock
from asyncexport.simulate.service import (
    Behaviour,
    MemoryDownloads,
    MemoryLedger,
    MemoryService,
    lognormal_seconds,
)
from asyncexport.watcher import Polling, Watcher


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated; durations in seconds.

    Attributes:
        bundles: How many are to do.
        median_seconds, sigma: Of the operations' durations, which are lognormal.
        counts_all: Whether the service's limit counts all calls, or creates only; `[budget] scope` is set to match.
        lists: Whether List Operations is of use.
        prefer: `[polling] prefer`.
        operations, downloads: `[concurrency]`.
        expected_seconds: `[polling] expected`.
        known: Durations learned by earlier runs.
        fetch_seconds: How long one download takes.
        tokens_used: Of the bucket, at the start.
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
    outage: tuple[float, float] | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it: bundles stored, operations made for them; times in seconds from the start."""

    stored: int
    operations: int
    makespan: float
    first_archive: float
    requests: dict[str, int]
    refused: int

    @property
    def counted(self) -> int:
        """All requests, downloads apart."""
        return sum(self.requests.values())


@dataclass(slots=True)
class _Times:
    """A listener that notes when archives came."""

    tally: Tally
    now: Callable[[], float]
    stored_at: list[float] = field(default_factory=list)

    def moved(self, before: Standing, after: Standing) -> None:
        self.tally.moved(before, after)
        if isinstance(after.state, Stored):
            self.stored_at.append(self.now())

    def __getattr__(self, name: str) -> object:
        return getattr(self.tally, name)


def simulate(scenario: Scenario) -> Result:
    """Run it; takes about a millisecond a bundle."""
    return clock.run(_simulate(scenario))


async def _simulate(scenario: Scenario) -> Result:
    loop = asyncio.get_running_loop()
    jitter = random.Random(scenario.seed).random
    ledger = MemoryLedger()
    patience = Patience(1.0, 300.0, 6 * 3600.0)
    allowance = Allowance(
        scenario.requests_per_minute, scenario.burst, Scope.ALL if scenario.counts_all else Scope.CREATE
    )
    budget = Budget(
        allowance, prefer=scenario.prefer, patience=patience, journal=ledger, wall_clock=loop.time, jitter=jitter
    )
    await budget.open(History())
    behaviour = Behaviour(
        take_seconds=lognormal_seconds(scenario.median_seconds, scenario.sigma, scenario.seed),
        counts_all=scenario.counts_all,
        lists=scenario.lists,
        requests_per_minute=scenario.requests_per_minute,
        burst=scenario.burst,
        outage=scenario.outage,
    )
    service = MemoryService(behaviour, budget, wall_clock=loop.time)
    durations = Durations(expected_seconds=scenario.expected_seconds, known=scenario.known)
    times = _Times(Tally(planned=scenario.bundles), loop.time)
    scheduler: Scheduler
    watcher = Watcher(
        service,
        purse=budget,
        durations=durations,
        polling=Polling(
            scenario.min_interval_seconds,
            86_400.0,
            scenario.prefer,
            burst=allowance.usable_burst,
            refill_seconds=allowance.refill_seconds,
        ),
        clock=loop.time,
        more_to_create=lambda: scheduler.more_to_create or budget.waiting(Priority.CREATE) > 0,
        learned=lambda _at, _seconds: None,
    )
    export = Export("simulated")
    carrier = Carrier(
        service=service,
        watch=watcher,
        downloads=MemoryDownloads(lambda: scenario.fetch_seconds),
        ledger=ledger,
        streams={export.name: Stream(export)},
        listener=times,  # type: ignore[arg-type]
        patience=patience,
        attempts=5,
        download_slots=scenario.downloads,
        clock=loop.time,
        jitter=jitter,
    )
    scheduler = Scheduler(
        carrier,
        watcher,
        allowed=lambda: operations_allowed(
            durations,
            cap=scenario.operations,
            creates_per_minute=scenario.requests_per_minute / (2 if scenario.counts_all else 1),
            burst=scenario.burst,
        ),
        most_waiting=scenario.operations,
        stop=Stop(),
        grace_seconds=30.0,
    )
    await watcher.prime()
    await scheduler.run(_bundles(export, scenario.bundles))
    await budget.close()
    return Result(
        stored=times.tally.stored,
        operations=service.made,
        makespan=max(times.stored_at),
        first_archive=min(times.stored_at),
        requests={kind.value: count for kind, count in budget.sent.items()},
        refused=budget.refused,
    )


def _bundles(export: Export, count: int) -> Iterator[Standing]:
    for piece in cut(Range(0, count * export.bundle_seconds), export.bundle_seconds):
        yield Standing(Bundle(export.name, piece))
