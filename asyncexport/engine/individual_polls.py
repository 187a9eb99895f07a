"""Polls single operations that the list does not show, one request each.

1. The operation most likely to be done is polled first, and only when that is likely enough (`core.polling`). Polls
   are at least a second apart overall. Polls of the same operation are apart by `min_interval` or a share of its age.
2. A 404 right after the create does not prove that the operation does not exist: it must come again a minute later.
3. After a waiter's deadline its operation is polled once more; if it still runs, that waiter gets its deadline as the
   outcome.
4. After a refusal, polls are paused and probed (`core.service.refusals`). Once refusals count as lasting, the waiters
   get the error.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

from asyncexport.core.admission import Priority
from asyncexport.core.durations import Durations
from asyncexport.core.polling import (
    CHANCE_FOR_URGENT,
    PollingOutlook,
    PollingRules,
    chance_for_an_individual_poll,
    is_overdue,
)
from asyncexport.core.service.refusals import ALL_EXPORTS, CONFIRMATION_SECONDS
from asyncexport.core.service.retrying import Call
from asyncexport.engine.call_turns import CallTurn, CallTurns
from asyncexport.engine.calls import OperationCalls
from asyncexport.engine.operation_answers import OperationAnswers
from asyncexport.engine.poll_failures import PollFailures
from asyncexport.engine.watched_operations import DueAge, WatchedOperation, WatchedOperations
from asyncexport.errors import ServiceError

SPACING_SECONDS = 1.0
"""Least time between two individual polls, of any operations."""

LEAST_AGE_SHARE = 0.02
"""Polls of one operation are apart by at least this share of its age: old operations are polled less often."""


class IndividualPolls:
    """Polls operations one by one.

    Args:
        service: Makes the calls.
        watched: The watched operations.
        answers: Processes the answers.
        durations: The distribution of operation durations.
        rules: The settings.
        clock: Seconds since 1970 by the service's clock.
        call_turns: What is known about refused calls.
    """

    def __init__(
        self,
        service: OperationCalls,
        watched: WatchedOperations,
        answers: OperationAnswers,
        *,
        durations: Durations,
        rules: PollingRules,
        clock: Callable[[], float],
        call_turns: CallTurns,
    ) -> None:
        self._call_turns = call_turns
        self._failures = PollFailures(watched, rules=rules, clock=clock, call_turns=call_turns)
        self._service = service
        self._watched = watched
        self._answers = answers
        self._durations = durations
        self._rules = rules
        self._clock = clock
        self._last_at = -math.inf

    async def send_due(self, outlook: PollingOutlook, *, list_in_use: bool) -> bool:
        """Send the polls that are due (only the most promising one if polls cost tokens); return whether any was due.

        `list_in_use`: whether operations that the list shows are left to the list.

        Raises:
            ServiceError: an error that a retry does not help.
        """
        if self._call_turns.wait_seconds(ALL_EXPORTS, Call.POLL) > 0:
            return False
        due = self._due(outlook, list_in_use=list_in_use)
        for one in due[:1] if outlook.polls_cost else due:
            if one.waiters:
                await self._poll_and_pause(one)
        return bool(due)

    async def count_running(self, operations: Sequence[WatchedOperation]) -> int:
        """Poll all of these; return how many still have waiters afterwards."""
        running = 0
        for one in operations:
            await self._poll_and_pause(one)
            running += bool(one.waiters)
        return running

    def _due(self, outlook: PollingOutlook, *, list_in_use: bool) -> list[WatchedOperation]:
        """Return the operations to poll, the most likely to be done first."""
        now = self._clock()
        candidates = [one for one in self._watched if self._may_be_polled(one, now, list_in_use=list_in_use)]
        if not candidates:
            return []
        if outlook.urgent_is_due and not list_in_use:
            urgent = [one for one in candidates if one.is_urgent]
            return [one for one in urgent if now - one.asked_at >= self._due_age(one, CHANCE_FOR_URGENT)]
        ages = self._watched.ages(now)
        chance = chance_for_an_individual_poll(ages, self._durations, outlook)
        due = [one for one in candidates if now - one.asked_at >= self._due_age(one, chance)]
        overdue = not due and is_overdue(ages, self._durations, outlook, waited_seconds=now - self._last_at)
        most_likely = sorted(
            candidates if overdue else due,
            key=lambda one: self._durations.done_since(one.seen, now - one.asked_at),
            reverse=True,
        )
        return most_likely[:1] if overdue else most_likely

    def _may_be_polled(self, one: WatchedOperation, now: float, *, list_in_use: bool) -> bool:
        """Whether it is found by individual polls at all, and the last poll was long enough ago."""
        if now - one.waiting_since < self._rules.deadline_seconds:
            if one.listed and list_in_use:
                return False
            if one.gone_since is not None:
                return now >= one.gone_since + CONFIRMATION_SECONDS
        if one.refused_since is not None:
            return now >= one.polled_at + self._call_turns.refusal_times.probe_wait(one.refusals)
        if one.without_export_since is not None:
            return now >= one.polled_at + self._rules.min_interval_seconds
        age = min(now - one.asked_at, self._rules.deadline_seconds)
        least = max(self._rules.min_interval_seconds, LEAST_AGE_SHARE * age)
        return now >= one.polled_at + least

    def _due_age(self, one: WatchedOperation, chance: float) -> float:
        """Return the age at which it is done with this probability, or at which it must be polled in any case."""
        if one.gone_since is not None or one.without_export_since is not None or one.refused_since is not None:
            return 0.0
        due = one.due
        if due is None or due.estimates != self._durations.estimates or due.chance != chance:
            next_deadline = one.waiting_since - one.asked_at + self._rules.deadline_seconds
            seconds = min(self._durations.due_age_seconds(one.seen, chance), next_deadline)
            due = one.due = DueAge(self._durations.estimates, chance, seconds)
        return due.seconds

    async def _poll_and_pause(self, one: WatchedOperation) -> None:
        turn = self._call_turns.turn(ALL_EXPORTS, Call.POLL)
        if turn is None:
            return
        try:
            await self._poll(one, turn)
        finally:
            turn.leave()
        await asyncio.sleep(min(SPACING_SECONDS, self._rules.min_interval_seconds))

    async def _poll(self, one: WatchedOperation, turn: CallTurn) -> None:
        now = one.polled_at = self._last_at = self._clock()
        overdue = one.overdue(now, self._rules.deadline_seconds)
        one.final_polls += bool(overdue)
        try:
            priority = Priority.URGENT if one.is_urgent else Priority.POLL
            operation = await self._service.operation(one.operation_id, priority=priority)
        except ServiceError as error:
            await self._failures.after(one, error, turn, overdue=overdue)
        else:
            turn.succeeded()
            one.gone_since = one.refused_since = None
            one.refusals = 0
            self._answers.settle(one, operation, is_last=bool(overdue))
            self._answers.update_estimate()
            self._watched.set_outcome(one, None, overdue)
