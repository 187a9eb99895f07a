"""Interprets the service's answers about operations, for their waiters and for the estimate of durations.

1. COMPLETED, FAILED and ERROR end an operation: its waiters get the outcome. An unknown state counts as running. It is
   logged once, and the same deadline applies as for any other.
2. The duration of a finished operation is learned once, no matter how many bundles wait for it.
3. COMPLETED without an export id does not end it yet, since the id may come with a later poll. It counts as failed if
   this lasts for a minute, or if a deadline has passed.
4. Durations are estimated again only when enough has been learned to make a difference, because estimating takes time.
"""

import logging
from collections.abc import Callable

from asyncexport.core.durations import Durations
from asyncexport.core.polling import FinishedOperation, operation_start
from asyncexport.core.service.refusals import CONFIRMATION_SECONDS
from asyncexport.core.service.resources import Completed, CompletedWithoutId, Ended, Operation
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.engine.watched_operations import WatchedOperation, WatchedOperations
from asyncexport.errors import OperationFailedError

log = logging.getLogger(__name__)

REFIT_SHARE = 0.05
"""Durations are estimated again after this many polls and finished operations, as a share of the known durations."""


class OperationAnswers:
    """Processes answers about operations.

    Args:
        watched: The watched operations.
        durations: The distribution of operation durations, which the answers update.
        clock: Seconds since 1970 by the service's clock.
        learned: Called for each finished operation with its finishing time and its duration in seconds.
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
        self._since_refit = 0

    def settle(self, one: WatchedOperation, operation: Operation, *, is_last: bool = False) -> None:
        """Process an answer about a watched operation; if it has ended, its waiters get the outcome.

        `is_last`: whether a deadline has passed, so that no later answer is waited for.
        """
        now = self._clock()
        try:
            if (
                isinstance(operation.progress, CompletedWithoutId)
                and not is_last
                and one.saw_no_export_id(now, believed_after=CONFIRMATION_SECONDS)
            ):
                return
            finished = self.read(one.operation_id, operation, one)
        except OperationFailedError as error:
            self._watched.set_outcome(one, error, one.waiters)
            return
        if finished is None:
            one.saw_running(now)
            one.due = None
        else:
            self._watched.set_outcome(one, finished, one.waiters)

    def read(
        self, operation_id: str, operation: Operation, watched: WatchedOperation | None = None
    ) -> FinishedOperation | None:
        """Interpret an answer about an operation, which may be a watched one; None if it still runs.

        Raises:
            OperationFailedError: it ended as FAILED or ERROR, or as COMPLETED without an export id.
        """
        now = self._clock()
        match operation.progress:
            case Completed(export_id):
                created_at = operation.created_at or (watched.asked_at if watched else now)
                began = operation_start(created_at, asked_at=watched.asked_at if watched else created_at, now=now)
                ended = operation.finished_at
                is_plausible = ended is not None and began <= ended <= now + CLOCKS_APART_SECONDS
                finished_at = ended if ended is not None and is_plausible else now
                if watched is not None or is_plausible:
                    self._learn(operation_id, finished_at, finished_at - began)
                return FinishedOperation(export_id, created_at)
            case CompletedWithoutId():
                raise OperationFailedError("the operation is COMPLETED, but the answer has no export id")
            case Ended(reason):
                raise OperationFailedError(reason)
            case running:
                self._note_state(running.state)
                return None

    def update_estimate(self) -> None:
        """Estimate durations again after a poll, if enough has been learned since the last estimate."""
        self._since_refit += 1
        if self._since_refit >= REFIT_SHARE * self._durations.known:
            self._since_refit = 0
            self._durations.refit([one.seen for one in self._watched if one.seen > 0])

    def _learn(self, operation_id: str, finished_at: float, seconds: float) -> None:
        if operation_id in self._learned_of:
            return
        self._learned_of.add(operation_id)
        self._durations.learn(seconds)
        self._since_refit += 1
        self._learned(finished_at, seconds)

    def _note_state(self, state: str) -> None:
        if state != "PENDING" and state not in self._unknown_states:
            self._unknown_states.add(state)
            log.warning("an operation is in an unknown state, %r; treating it as still running", state[:40])
