"""Polls for all running operations: decides when to poll, and how.

1. One List Operations request covers up to 100 operations; nothing else in the exporter uses the list. `core.polling`
   decides when the request is worth sending, `engine.listing` what the list can be used for.
2. Operations that the list does not show are polled individually (`engine.individual_polls`).
3. An operation is polled as long as it has waiters, each with a deadline of its own (`engine.watched_operations`). Ages
   and deadlines are computed with the service's clock as it was first known. It is never corrected later: a clock that
   turns out to be wrong by days must neither end an operation nor keep it from being polled.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from asyncexport.core.admission import Priority
from asyncexport.core.durations import Durations
from asyncexport.core.polling import FinishedOperation, PollingMode, PollingOutlook, PollingRules
from asyncexport.core.service.refusals import CONFIRMATION_SECONDS
from asyncexport.core.service.resources import CompletedWithoutId
from asyncexport.engine.budget import Budget
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.calls import OperationCalls
from asyncexport.engine.individual_polls import IndividualPolls
from asyncexport.engine.listing import OperationListing
from asyncexport.engine.operation_answers import OperationAnswers
from asyncexport.engine.watched_operations import WatchedOperations

URGENT_CHECK_SECONDS = 60.0
"""Seconds after which a poll that gives way to other requests checks whether an urgent operation may be done."""


class OperationPoller:
    """Polls operations until they are done.

    Args:
        service: Makes the calls.
        budget: Its level decides when to poll; the requests themselves pass it elsewhere.
        durations: The distribution of operation durations, which the answers update.
        polling: The settings.
        clock: Seconds since 1970, without corrections (rule 3).
        service_time: Seconds since 1970 by the service's clock as it is known now; `asked_at` is on this clock.
        more_to_create: Returns whether there are bundles without an operation.
        learned: Called for each finished operation with its finishing time and its duration in seconds.
        call_turns: What is known about refused calls; shared with creates and downloads.
    """

    def __init__(
        self,
        service: OperationCalls,
        *,
        budget: Budget,
        durations: Durations,
        polling: PollingRules,
        clock: Callable[[], float],
        service_time: Callable[[], float],
        more_to_create: Callable[[], bool],
        learned: Callable[[float, float], None],
        call_turns: CallTurns,
    ) -> None:
        self._service = service
        self._service_time = service_time
        self._budget = budget
        self._rules = polling
        self._clock = clock
        self._more_to_create = more_to_create
        self._watched = WatchedOperations()
        self._answers = OperationAnswers(self._watched, durations=durations, clock=clock, learned=learned)
        self._individual = IndividualPolls(
            service,
            self._watched,
            self._answers,
            durations=durations,
            rules=polling,
            clock=clock,
            call_turns=call_turns,
        )
        self._listing = OperationListing(
            service,
            self._watched,
            self._answers,
            self._individual,
            durations=durations,
            rules=polling,
            clock=clock,
            call_turns=call_turns,
        )

    @property
    def mode(self) -> PollingMode:
        """How finished operations are currently found."""
        return self._listing.mode

    @property
    def ages(self) -> list[float]:
        """Seconds since the creates of the watched operations."""
        return [max(0.0, age) for age, _ in self._watched.ages(self._clock())]

    @property
    def waiters(self) -> int:
        """Number of waiters; more than the number of operations if some share one."""
        return self._watched.waiters

    async def prime(self) -> None:
        """Read the list once before the first create, to learn what it looks like and what the service's time is.

        Raises:
            UnauthorizedError: the key was refused.
            UnavailableError: the service could not be reached for `[retry] outage`.
        """
        await self._listing.prime()

    async def wait(self, operation_id: str, *, asked_at: float, is_urgent: bool = False) -> FinishedOperation | None:
        """Wait until an operation is done; None if it still runs at its deadline, counted from `asked_at`.

        Several bundles may wait for the same operation.

        Raises:
            OperationFailedError: it ended as FAILED or ERROR.
            GoneError: the service does not know it (any more).
        """
        correction = self._clock() - self._service_time()
        asked_at = min(asked_at + correction, self._clock())
        return await self._watched.outcome(operation_id, asked_at=asked_at, is_urgent=is_urgent)

    async def ask(self, operation_id: str) -> FinishedOperation | None:
        """Poll one operation now; None if it still runs.

        Raises:
            OperationFailedError, GoneError: as `wait` does.
            ServiceError: the request failed.
        """
        operation = await self._service.operation(operation_id, priority=Priority.POLL)
        if isinstance(operation.progress, CompletedWithoutId):
            await asyncio.sleep(CONFIRMATION_SECONDS)
            operation = await self._service.operation(operation_id, priority=Priority.POLL)
        return self._answers.read(operation_id, operation)

    async def run(self) -> None:
        """Poll whenever a poll is due, until cancelled.

        Raises:
            ServiceError: an error that a retry does not help.
        """
        while True:
            await self._watched.wait_for_first()
            outlook = self._outlook()
            if outlook.gives_way:
                await _until_uncontended(self._budget)
                # The task that was just served may request another token immediately, and goes first.
                await asyncio.sleep(0)
            elif not await self._poll(outlook):
                await asyncio.sleep(self._check_seconds)

    @property
    def _check_seconds(self) -> float:
        """Seconds until the next check whether a poll is due: the bucket refills and operations get older meanwhile."""
        interval, refill = self._rules.min_interval_seconds, self._rules.refill_seconds
        return max(interval, refill / 2) if self._budget.polls_cost else interval

    async def _poll(self, outlook: PollingOutlook) -> bool:
        """Send the polls that are due; return whether there were any."""
        if self._listing.is_due(outlook):
            await self._listing.poll(outlook)
            return True
        list_in_use = self.mode is not PollingMode.INDIVIDUAL
        return await self._individual.send_due(outlook, list_in_use=list_in_use)

    def _outlook(self) -> PollingOutlook:
        budget, more_to_create = self._budget, self._more_to_create()
        polls_cost, uncontended = budget.polls_cost, budget.is_uncontended
        return PollingOutlook(
            # The number of tokens makes no difference while other requests wait for the next one.
            tokens=budget.tokens if polls_cost and (uncontended or not more_to_create) else 0,
            burst=self._rules.burst,
            refill_seconds=self._rules.refill_seconds,
            polls_cost=polls_cost,
            uncontended=uncontended,
            more_to_create=more_to_create,
            prefer=self._rules.prefer,
            urgent_is_due=self._listing.urgent_is_due(),
        )


async def _until_uncontended(budget: Budget) -> None:
    """Wait until no request waits to which polls give way, or until it is time to check for urgent operations."""
    with suppress(TimeoutError):
        # Not `wait_for`: in Python 3.11 it may lose a cancellation.
        async with asyncio.timeout(URGENT_CHECK_SECONDS):
            await budget.wait_until_uncontended()
