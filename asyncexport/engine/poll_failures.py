"""What follows from a failed poll of one operation, as the table has it (`core.service.retrying`).

1. A 404 right after the create is no proof that the operation does not exist: it must be said again, a minute later.
2. Refused polls are held back and probed (`core.service.refusals`). When they are believed, those who wait are told.
   So are polls that cannot be read as long as none ever could.
"""

from collections.abc import Callable

from asyncexport.core.polling import PollingRules
from asyncexport.core.service.refusals import ALL_EXPORTS, CONFIRMATION_SECONDS, BundleFailures
from asyncexport.core.service.retrying import REFUSALS, Action, Call, Failure, failure_of
from asyncexport.engine.call_turns import CallTurn, CallTurns
from asyncexport.engine.watched_operations import Waiter, WatchedOperation, WatchedOperations
from asyncexport.errors import ServiceError

MOST_FINAL_POLLS = 3
"""After so many polls past a deadline, an operation that cannot be asked for is given up (see `LONG_PAST`)."""

LONG_PAST = 1.1
"""Multiple of the deadline at which a waiter gives up an operation that could not be asked for in all that time."""


class PollFailures:
    """What follows from failed polls; arguments as for `IndividualPolls`."""

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
        """What the table says."""
        failure = failure_of(Call.POLL, error)
        if failure is Failure.GONE:
            turn.succeeded()
            self._note_gone(one, error, overdue=overdue)
            return
        trouble = self._note_trouble(one, error, failure, turn)
        match await self._call_turns.next_after(error, ALL_EXPORTS, Call.POLL, trouble):
            case Action.STOP_RUN:
                raise error
            case Action.PARK:
                self._watched.tell(one, error, one.waiters)
            case Action.STOP_EXPORT:
                self._call_turns.refusals.forget(ALL_EXPORTS, Call.POLL)
                for each in list(self._watched):
                    self._watched.tell(each, error, each.waiters)
        if one.final_polls >= MOST_FINAL_POLLS:
            # It could not be asked for during so long that it no longer matters whether it still runs.
            self._watched.tell(one, None, one.overdue(self._clock(), LONG_PAST * self._rules.deadline_seconds))

    def _note_trouble(
        self, one: WatchedOperation, error: ServiceError, failure: Failure, turn: CallTurn
    ) -> BundleFailures:
        """Rule 2; trouble of the service is waited out by the gate."""
        now = self._call_turns.now()
        if failure is Failure.UNREADABLE and not self._call_turns.refusals.has_worked(ALL_EXPORTS, Call.POLL):
            turn.refused(error)
        if failure not in REFUSALS:
            return BundleFailures(now)
        one.refused_since = now if one.refused_since is None else one.refused_since
        one.refusals += 1
        trouble = BundleFailures(one.refused_since, one.refusals)
        if not self._call_turns.others_succeed(ALL_EXPORTS, Call.POLL, trouble):
            turn.refused(error)
        return trouble

    def _note_gone(self, one: WatchedOperation, error: ServiceError, *, overdue: list[Waiter]) -> None:
        """Rule 1. Past a deadline there is no time to ask again: that waiter is told after the first time."""
        now = self._clock()
        one.saw_running(now)
        if one.gone_since is None:
            one.gone_since = now
        believed = now - one.gone_since >= CONFIRMATION_SECONDS
        self._watched.tell(one, error, one.waiters if believed else overdue)
