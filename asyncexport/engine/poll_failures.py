"""Decides what follows a failed poll of one operation, by the table in `core.service.retrying`.

1. A 404 right after the create does not prove that the operation does not exist: it must come again a minute later.
2. After a refusal, polls are paused and probed (`core.service.refusals`). Once refusals count as lasting, the waiters
   get the error. The same holds for unreadable answers as long as no poll was ever answered readably.
"""

from collections.abc import Callable

from asyncexport.core.polling import PollingRules
from asyncexport.core.service.refusals import ALL_EXPORTS, CONFIRMATION_SECONDS, BundleFailures
from asyncexport.core.service.retrying import REFUSALS, Action, Call, Failure, failure_of
from asyncexport.engine.call_turns import CallTurn, CallTurns
from asyncexport.engine.watched_operations import Waiter, WatchedOperation, WatchedOperations
from asyncexport.errors import ServiceError

MOST_FINAL_POLLS = 3
"""Number of failed polls past a deadline after which waiting for an operation may end (see `LONG_PAST`)."""

LONG_PAST = 1.1
"""Multiple of the deadline at which the wait for an operation that could not be polled ends."""


class PollFailures:
    """Decides what follows failed polls; arguments as for `IndividualPolls`."""

    def __init__(
        self,
        watched: WatchedOperations,
        *,
        rules: PollingRules,
        clock: Callable[[], float],
        call_turns: CallTurns,
    ) -> None:
        self._watched = watched
        self._rules = rules
        self._clock = clock
        self._call_turns = call_turns

    async def after(self, one: WatchedOperation, error: ServiceError, turn: CallTurn, *, overdue: list[Waiter]) -> None:
        """Do what the table says."""
        failure = failure_of(Call.POLL, error)
        if failure is Failure.GONE:
            turn.succeeded()
            self._note_gone(one, error, overdue=overdue)
            return
        failures = self._count_refusal(one, error, failure, turn)
        match await self._call_turns.next_after(error, ALL_EXPORTS, Call.POLL, failures):
            case Action.STOP_RUN:
                raise error
            case Action.PARK:
                self._watched.set_outcome(one, error, one.waiters)
            case Action.STOP_EXPORT:
                self._call_turns.refusals.forget(ALL_EXPORTS, Call.POLL)
                for each in list(self._watched):
                    self._watched.set_outcome(each, error, each.waiters)
        if one.final_polls >= MOST_FINAL_POLLS:
            # It could not be polled for so long that it no longer matters whether it still runs.
            self._watched.set_outcome(one, None, one.overdue(self._clock(), LONG_PAST * self._rules.deadline_seconds))

    def _count_refusal(
        self, one: WatchedOperation, error: ServiceError, failure: Failure, turn: CallTurn
    ) -> BundleFailures:
        """Count a refusal (rule 2); the budget waits out an outage of the service."""
        now = self._call_turns.now()
        if failure is Failure.UNREADABLE and not self._call_turns.refusals.successes.has_worked(ALL_EXPORTS, Call.POLL):
            turn.refused(error)
        if failure not in REFUSALS:
            return BundleFailures(now)
        one.refused_since = now if one.refused_since is None else one.refused_since
        one.refusals += 1
        failures = BundleFailures(one.refused_since, one.refusals)
        if not self._call_turns.others_succeed(ALL_EXPORTS, Call.POLL, failures):
            turn.refused(error)
        return failures

    def _note_gone(self, one: WatchedOperation, error: ServiceError, *, overdue: list[Waiter]) -> None:
        """Count a 404 (rule 1). Past a deadline there is no time to ask again: that waiter gets the first 404."""
        now = self._clock()
        one.saw_running(now)
        if one.gone_since is None:
            one.gone_since = now
        believed = now - one.gone_since >= CONFIRMATION_SECONDS
        self._watched.set_outcome(one, error, one.waiters if believed else overdue)
