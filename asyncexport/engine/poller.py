"""Polls for all running operations: when to look, and at what.

1. One List Operations request tells of up to 100 operations; nothing else of the exporter uses the list. When it is
   worth sending is decided in `core.polling`, and what the list can be used for in `engine.listing`.
2. What the list does not show is polled individually (`engine.individual_polls`).
3. An operation is polled as long as it has waiters, each with a deadline of its own (`engine.watched_operations`). Ages
   and
   deadlines go by a clock that is that of the service as it was known at first, and is never put right later: a time
   that turns out to be wrong by days must neither end an operation nor keep it from being polled.
"""

import asyncio
from collections.abc import Callable

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


class OperationPoller:
    """Polls operations until they are done.

    Args:
        service: What is asked.
        budget: Looked at, to decide when to poll; requests pass it elsewhere.
        durations: What is learned of how long operations take.
        polling: The settings.
        clock: Seconds since 1970; it goes on steadily (rule 3).
        service_time: Seconds since 1970 by the service's clock, which `asked_at` goes by.
        more_to_create: Whether bundles are left that have no operation yet.
        learned: Told the duration of each finished operation: when it finished, and how many seconds it took.
        call_turns: What is known of refusals, shared with those who create and fetch.
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
        """How finished operations are found at present."""
        return self._listing.mode

    @property
    def ages(self) -> list[float]:
        """How long ago the operations that are waited for were asked for, in seconds."""
        return [max(0.0, age) for age, _ in self._watched.ages(self._clock())]

    @property
    def waiters(self) -> int:
        """How many wait for operations: more than there are operations, where some share one."""
        return self._watched.waiters

    async def prime(self) -> None:
        """Read the list once before anything is created: what it is like is learned, and the service's clock with it.

        Raises:
            UnauthorizedError: the key was refused.
            UnavailableError: the service could not be reached for `[retry] outage`.
        """
        await self._listing.prime()

    async def wait(self, operation_id: str, *, asked_at: float) -> FinishedOperation | None:
        """Wait until an operation is done; None when it still runs at its deadline, counted from `asked_at`.

        Several may wait for the same operation.

        Raises:
            OperationFailedError: it ended as FAILED or ERROR.
            GoneError: the service does not know it (any more).
        """
        put_right = self._clock() - self._service_time()
        return await self._watched.outcome(operation_id, asked_at=min(asked_at + put_right, self._clock()))

    async def ask(self, operation_id: str) -> FinishedOperation | None:
        """Ask for one operation now; None where it still runs.

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
        """Poll whenever that is due, until cancelled.

        Raises:
            ServiceError: one that trying again does not help.
        """
        while True:
            await self._watched.wait_for_first()
            outlook = self._outlook()
            if outlook.gives_way:
                await self._budget.wait_until_uncontended()
                # Whoever has just been served may want another token at once: it comes first.
                await asyncio.sleep(0)
            elif not await self._poll(outlook):
                await asyncio.sleep(self._check_seconds)

    @property
    def _check_seconds(self) -> float:
        """How long until the next check whether a poll is due: tokens come in meanwhile, and operations get older."""
        interval, refill = self._rules.min_interval_seconds, self._rules.refill_seconds
        return max(interval, refill / 2) if self._budget.polls_cost else interval

    async def _poll(self, outlook: PollingOutlook) -> bool:
        """Send the polls that are due; whether there were any."""
        if self._listing.is_due(outlook):
            await self._listing.poll(outlook)
            return True
        list_in_use = self.mode is not PollingMode.INDIVIDUAL
        return await self._individual.send_due(outlook, list_in_use=list_in_use)

    def _outlook(self) -> PollingOutlook:
        budget, more_to_create = self._budget, self._more_to_create()
        polls_cost, uncontended = budget.polls_cost, budget.is_uncontended
        return PollingOutlook(
            # How many tokens there are makes no difference while others wait for the next one.
            tokens=budget.tokens if polls_cost and (uncontended or not more_to_create) else 0,
            burst=self._rules.burst,
            refill_seconds=self._rules.refill_seconds,
            polls_cost=polls_cost,
            uncontended=uncontended,
            more_to_create=more_to_create,
            prefer=self._rules.prefer,
        )
