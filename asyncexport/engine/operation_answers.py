"""What the service's answer about one operation means: for those who wait for it, and for the estimate of durations.

1. COMPLETED, FAILED and ERROR settle an operation: its waiters are told. An unknown state counts as running. It is
   logged once, and the same deadline holds as for any other.
2. What a finished operation took is learned once, however many wait for it.
3. COMPLETED without an export id settles nothing yet: the id may come a poll later. Only what says so for a minute, or
   past a deadline, has come to nothing.
4. Durations are estimated again only when there is enough news to make a difference: estimating takes time.
"""

import logging
from collections.abc import Callable

from asyncexport.core.durations import Durations
from asyncexport.core.polling import FinishedOperation, believed_start
from asyncexport.core.service.refusals import CONFIRMATION_SECONDS
from asyncexport.core.service.resources import Completed, CompletedWithoutId, Ended, Operation
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.engine.watched_operations import WatchedOperation, WatchedOperations
from asyncexport.errors import OperationFailedError

log = logging.getLogger(__name__)

NEWS_SHARE = 0.05
"""Durations are estimated again when there is news of this share of the operations that the estimate rests on."""


class OperationAnswers:
    """Takes in answers about operations.

    Args:
        watched: The operations that are waited for.
        durations: What is learned of how long operations take.
        clock: Seconds since 1970 by the service's clock.
        learned: Told the duration of each finished operation: when it finished, and how many seconds it took.
    """

    def __init__(
        self,
        watched: WatchedOperations,
        *,
        durations: Durations,
        clock: Callable[[], float],
        learned: Callable[[float, float], None],
    ) -> None:
        self._watched = watched
        self._durations = durations
        self._clock = clock
        self._learned = learned
        self._learned_of: set[str] = set()  # operations whose duration is known
        self._unknown_states: set[str] = set()
        self._news = 0

    def settle(self, one: WatchedOperation, operation: Operation, *, is_last: bool = False) -> None:
        """Take in an answer about a watched operation; where it has ended, its waiters are told.

        `is_last`: a deadline has passed, so that nothing is waited for any more.
        """
        now = self._clock()
        try:
            if (
                isinstance(operation.progress, CompletedWithoutId)
                and not is_last
                and one.saw_nameless(now, believed_after=CONFIRMATION_SECONDS)
            ):
                return
            finished = self.read(one.operation_id, operation, one)
        except OperationFailedError as error:
            self._watched.tell(one, error, one.waiters)
            return
        if finished is None:
            one.saw_running(now)
            one.due = None
        else:
            self._watched.tell(one, finished, one.waiters)

    def read(
        self, operation_id: str, operation: Operation, watched: WatchedOperation | None = None
    ) -> FinishedOperation | None:
        """What an answer says of an operation, which may be one that is watched; None: it still runs.

        Raises:
            OperationFailedError: it ended as FAILED or ERROR, or as COMPLETED without an export id.
        """
        now = self._clock()
        match operation.progress:
            case Completed(export_id):
                created_at = operation.created_at or (watched.asked_at if watched else now)
                began = believed_start(created_at, asked_at=watched.asked_at if watched else created_at, now=now)
                ended = operation.finished_at
                is_told = ended is not None and began <= ended <= now + CLOCKS_APART_SECONDS
                finished_at = ended if ended is not None and is_told else now
                if watched is not None or is_told:
                    self._learn(operation_id, finished_at, finished_at - began)
                return FinishedOperation(export_id, created_at)
            case CompletedWithoutId():
                raise OperationFailedError("COMPLETED, but no export id came with it")
            case Ended(reason):
                raise OperationFailedError(reason)
            case running:
                self._note_state(running.state)
                return None

    def update_estimate(self) -> None:
        """Estimate durations again after a poll, once there is enough news to make a difference."""
        self._news += 1
        if self._news >= NEWS_SHARE * self._durations.known:
            self._news = 0
            self._durations.refit([one.seen for one in self._watched if one.seen > 0])

    def _learn(self, operation_id: str, finished_at: float, seconds: float) -> None:
        if operation_id in self._learned_of:
            return
        self._learned_of.add(operation_id)
        self._durations.learn(seconds)
        self._news += 1
        self._learned(finished_at, seconds)

    def _note_state(self, state: str) -> None:
        if state != "PENDING" and state not in self._unknown_states:
            self._unknown_states.add(state)
            log.warning("an operation is in the unknown state %r: taken for running", state[:40])
