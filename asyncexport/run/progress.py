"""How far a run has come, and how long it will still take."""

import asyncio
from dataclasses import dataclass

from asyncexport.config import Settings
from asyncexport.core.admission import BudgetScope, Down
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
    """Looks at a run that is going on."""

    settings: Settings
    counters: RunCounters
    engine: RunEngine

    def snapshot(self) -> Snapshot:
        """The run as it stands."""
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
        )

    def _scope(self) -> str:
        """Which requests are counted; with a question mark as long as that is not known, "" before any answer."""
        if not self.engine.budget.has_answered:
            return ""
        scope = self.engine.budget.scope
        undecided = self.settings.budget.scope is BudgetScope.AUTO and scope is BudgetScope.CREATE
        return f"{scope.value}?" if undecided else scope.value

    def _down_seconds(self) -> float | None:
        """For how long the service has not been reached; None where it can be."""
        line = self.engine.budget.connectivity
        return asyncio.get_running_loop().time() - line.since if isinstance(line, Down) else None

    def _expected_seconds(self) -> float | None:
        """Until the last file is there; None while files are to be fetched and nobody knows how long one takes."""
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
        """Until the last request is sent and the last operation is done."""
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
