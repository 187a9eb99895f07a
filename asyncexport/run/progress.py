"""Computes the progress of a run and its expected end."""

import asyncio
from dataclasses import dataclass

from asyncexport.config import Settings
from asyncexport.core.admission import BudgetScope
from asyncexport.core.connectivity import Down
from asyncexport.core.covered_range import covering
from asyncexport.core.forecast import (
    ALL_WITH_LIST,
    ALL_WITHOUT_LIST,
    CREATES_ONLY,
    Pace,
    RequestCost,
    seconds_of_downloads,
    seconds_to_end,
)
from asyncexport.core.polling import PollingMode
from asyncexport.core.summary import Snapshot
from asyncexport.run.counters import RunCounters
from asyncexport.run.wiring import RunEngine


@dataclass(frozen=True, slots=True)
class Progress:
    """Takes snapshots of a run in progress."""

    settings: Settings
    counters: RunCounters
    engine: RunEngine

    def snapshot(self) -> Snapshot:
        """Return the current progress of the run."""
        tally, seconds = self.counters.tally, self.counters.seconds
        budget, scheduler, runner = self.engine.budget, self.engine.scheduler, self.engine.runner
        down_seconds = self._down_seconds()
        problems = self.counters.problems.open(service_is_well=down_seconds is None and not budget.paused_seconds)
        return Snapshot(
            seconds=seconds,
            done=tally.stored,
            stored_before=tally.stored_before,
            planned=tally.planned,
            running=scheduler.in_flight.at_service,
            queued=scheduler.in_flight.queued,
            fetching=scheduler.in_flight.waiting,
            downloading=len(runner.fetching.downloading),
            received=runner.fetching.received,
            parked=tally.failed,
            tokens=budget.tokens,
            burst=self.settings.budget.burst,
            scope=self._scope(),
            next_request_seconds=budget.next_token_seconds,
            paused_seconds=budget.paused_seconds,
            down_seconds=down_seconds,
            rows=tally.rows,
            bytes=tally.bytes,
            expected_seconds=None if down_seconds is not None else self._expected_seconds(),
            problems=tuple(problem.text for problem in problems),
            problem_ages=tuple(max(0.0, seconds - problem.at) for problem in problems),
            covered=covering(tally.ranges.values()),
        )

    def _scope(self) -> str:
        """Return which requests the limit counts: with a question mark if not certain, "" before the first answer."""
        if not self.engine.budget.has_answered:
            return ""
        scope = self.engine.budget.scope
        undecided = self.settings.budget.scope is BudgetScope.AUTO and scope is BudgetScope.CREATE
        return f"{scope.value}?" if undecided else scope.value

    def _down_seconds(self) -> float | None:
        """Return how long the service has been unreachable; None if it is reachable."""
        connectivity = self.engine.budget.connectivity
        return asyncio.get_running_loop().time() - connectivity.since if isinstance(connectivity, Down) else None

    def _expected_seconds(self) -> float | None:
        """Return the seconds until the last file is stored; None while the duration of downloads is unknown."""
        scheduler, runner = self.engine.scheduler, self.engine.runner
        each_seconds = runner.fetching.seconds_each
        if each_seconds is None and scheduler.in_flight.waiting:
            return None
        unfinished = self.counters.tally.unfinished
        finished = min(scheduler.in_flight.waiting, unfinished)
        fetching = seconds_of_downloads(
            unfinished,
            slots=self.settings.concurrency.downloads,
            each_seconds=each_seconds or 0.0,
            ages=runner.fetching.ages,
        )
        last_file = (each_seconds or 0.0) * (finished < unfinished)
        return max(self._expected_seconds_of_requests() + last_file, fetching)

    def _expected_seconds_of_requests(self) -> float:
        """Return the seconds until the last request is sent and the last operation is finished."""
        budget, durations, poller = self.engine.budget, self.engine.durations, self.engine.poller
        unfinished = self.counters.tally.unfinished
        cost: RequestCost = CREATES_ONLY
        if budget.polls_cost:
            cost = ALL_WITHOUT_LIST if poller.mode is PollingMode.INDIVIDUAL else ALL_WITH_LIST
        pace = Pace(
            tokens=budget.tokens,
            requests_per_minute=self.settings.budget.requests_per_minute,
            in_flight=self.settings.concurrency.operations,
            operation_seconds=durations.median_seconds,
        )
        return seconds_to_end(
            cost,
            pace,
            bundles=unfinished,
            created=min(poller.waiters + self.engine.scheduler.in_flight.waiting, unfinished),
            remaining_seconds=durations.remaining_seconds(poller.ages),
        )
