"""Retries: shares between all bundles what is known about refused calls, and decides how long to wait.

The table in `core.service.retrying` decides what follows an answer. `core.service.refusals` and
`core.service.operation_failures` keep what is known about refusals and failed operations. This module adds the clock,
the waiting and the check of the key.

A call that keeps failing for one bundle while it succeeds for others is not an outage. After `[retry] outage` the
bundle of such a create is parked, and a file that cannot be fetched counts as a failed attempt; the run continues.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from asyncexport.core.bundles import Bundle
from asyncexport.core.connectivity import Backoff
from asyncexport.core.events import Listener
from asyncexport.core.service.operation_failures import OperationFailures
from asyncexport.core.service.refusals import ALL_EXPORTS, BundleFailures, Refusals, RefusalTimes
from asyncexport.core.service.retrying import Action, Call, Facts, Failure, KeyStatus, decide, failure_of
from asyncexport.core.text import show_duration
from asyncexport.engine.change_signal import ChangeSignal
from asyncexport.engine.export_state import ExportState
from asyncexport.engine.key_check import KeyCheck
from asyncexport.errors import ExportError, ServiceError

log = logging.getLogger(__name__)


class CallTurn:
    """Permission to make one call, which may be a probe. The caller ends it by reporting the result."""

    def __init__(self, call_turns: "CallTurns", export: str, call: Call, *, is_probe: bool) -> None:
        self._call_turns = call_turns
        self.key = export, call
        self._begun_at = call_turns.now()
        self._is_over = False
        self.is_probe = is_probe

    def succeeded(self) -> None:
        """Report that the call succeeded."""
        self._is_over = True
        self._call_turns.note_success(*self.key, begun_at=self._begun_at)

    def refused(self, error: ServiceError, *, bundle: Bundle | None = None, least_wait: float = 0.0) -> None:
        """Report a refusal that may concern all bundles; the next probe waits at least `least_wait` seconds."""
        self._is_over = True
        self._call_turns.note_refusal(self, error, bundle=bundle, least_wait=least_wait)

    def leave(self) -> None:
        """End the turn without a result that says anything about refusals; does nothing after a report."""
        if not self._is_over and self.is_probe:
            self._call_turns.refusals.drop_probe(*self.key)
            self._call_turns.changes.notify()


class CallTurns:
    """What all bundles of a run know about refused calls and failed operations.

    Args:
        backoff: The pauses between attempts, and how long an outage is waited out.
        jitter: Returns a random number in [0, 1).
        key: Checks the key.
        emit: Called with each event.
        key_has_worked: Whether a call with this key ever succeeded in this directory before this run.

    Attributes:
        refusals: The calls that are being refused.
        failures: The operations that failed.
        changes: Wakes waiters when either has changed.
        now: Returns the time in seconds on the monotonic clock.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        jitter: Callable[[], float],
        key: KeyCheck,
        emit: Listener,
        key_has_worked: bool = True,
    ) -> None:
        self._backoff = backoff
        self._jitter = jitter
        self._key = key
        self._emit = emit
        self._key_has_worked = key_has_worked
        self.refusals = Refusals(RefusalTimes(backoff.initial_seconds))
        self.failures = OperationFailures(backoff.initial_seconds, backoff.outage_seconds)
        self.changes = ChangeSignal()
        self.now = asyncio.get_running_loop().time

    @property
    def refusal_times(self) -> RefusalTimes:
        """How long refusals are waited out."""
        return self.refusals.refusal_times

    async def pause(self, failures: int, *, least_seconds: float = 0.0) -> None:
        """Wait before the next attempt, after this many failures in a row."""
        await asyncio.sleep(max(self.pause_seconds(failures), least_seconds))

    def pause_seconds(self, failures: int) -> float:
        """Seconds to wait before the next attempt, after this many failures in a row."""
        return self._backoff.wait_seconds(max(1, failures), jitter=self._jitter())

    def turn(self, export: str, call: Call, *, lets_others_go: bool = False) -> CallTurn | None:
        """Take a turn for such a call; None if it may not be made yet (`lets_others_go` as in `Refusals`)."""
        if self.wait_seconds(export, call, lets_others_go=lets_others_go) > 0:
            return None
        return CallTurn(self, export, call, is_probe=self.refusals.begin(export, call))

    def wait_seconds(self, export: str, call: Call, *, lets_others_go: bool = False) -> float:
        """Seconds until such a call may be made; infinite if that takes a change first."""
        return self.refusals.wait_seconds(export, call, self.now(), lets_others_go=lets_others_go)

    def note_success(self, export: str, call: Call, *, begun_at: float) -> None:
        """Note that such a call succeeded, which began at this time."""
        was_refused = self.refusals.ongoing(export, call) is not None
        self.refusals.succeeded(export, call, self.now(), begun_at=begun_at)
        if call is not Call.DOWNLOAD:
            self._key_has_worked = True
        if was_refused and self.refusals.ongoing(export, call) is None:
            log.warning("%s are accepted again", _named(export, call))
            self.changes.notify()

    def note_refusal(self, turn: CallTurn, error: ServiceError, *, bundle: Bundle | None, least_wait: float) -> None:
        """Note that such a call was refused, while none succeeds for another bundle."""
        export, call = turn.key
        is_first = self.refusals.ongoing(export, call) is None
        is_unreadable = failure_of(call, error) is Failure.UNREADABLE
        if is_unreadable and not self.refusals.successes.has_worked(export, call):
            # An unreadable answer is believed when a second one comes at least this much later.
            least_wait = max(least_wait, self.refusal_times.confirmation_seconds)
        self.refusals.refused(
            export,
            call,
            self.now(),
            is_probe=turn.is_probe,
            bundle=bundle,
            least_wait=least_wait,
            is_unreadable=is_unreadable,
            may_be_the_key=failure_of(call, error) is Failure.FORBIDDEN,
        )
        if is_first:
            wait = show_duration(max(self.refusal_times.probe_wait(1), least_wait))
            why = "an answer could not be read" if is_unreadable else "one was refused"
            log.warning("%s are paused because %s; next attempt in %s: %s", _named(export, call), why, wait, error)
        self.changes.notify()

    def stop(self, export: ExportState, error: ExportError, call: Call) -> None:
        """Stop an export and report it."""
        stopped = export.stop(error, call)
        if stopped is not None:
            self._emit(stopped)
        for one in (Call.CREATE, call):
            self.refusals.forget(export.export.name, one)
        self.changes.notify()

    async def next_after(
        self, error: ExportError, export: str, call: Call, failures: BundleFailures, known: Facts | None = None
    ) -> Action:
        """Decide what to do next, by the table; checks the key if the table asks for that.

        Raises:
            UnavailableError: the service was given up while the key was being checked.
        """
        known, failure = self._known(export, call, failures, known or Facts(has_worked=False)), failure_of(call, error)
        if failure is Failure.UNREADABLE and self.refusals.repeatedly_unreadable(export, call, self.now()):
            known = replace(known, repeated=True)
        if failure is Failure.UNAUTHORIZED:
            # `CheckedCalls` has already confirmed this.
            known = replace(known, key=KeyStatus.REFUSED)
        if failure is Failure.UNAVAILABLE:
            known = replace(known, others_succeed=self.refusals.successes.any_since(call, failures.since))
        next_step = decide(call, failure, known)
        if next_step is Action.CHECK_KEY:
            standing = await self._key.status()
            if standing is KeyStatus.GOOD:
                self.refusals.key_is_good()
                self.changes.notify()
            next_step = decide(call, failure, replace(known, key=standing))
        return next_step

    def _known(self, export: str, call: Call, failures: BundleFailures, known: Facts) -> Facts:
        """Complete the facts that the caller knows."""
        now, lasted = self.now(), self.now() - failures.since
        others = known.others_succeed or self.others_succeed(export, call, failures)
        gone = failures.gone_since
        return replace(
            known,
            key_has_worked=self._key_has_worked,
            has_worked=known.has_worked or self.refusals.successes.has_worked(export, call),
            others_succeed=others,
            lasting=known.lasting
            or self.refusals.is_lasting(export, call, now)
            or (others and self.refusal_times.is_lasting(lasted)),
            repeated=known.repeated or (gone is not None and now - gone >= self.refusal_times.confirmation_seconds),
            outage_exceeded=lasted >= self._backoff.outage_seconds,
        )

    def others_succeed(self, export: str, call: Call, failures: BundleFailures) -> bool:
        """Whether such a call succeeded for another bundle since the failures of this one began."""
        return self.refusals.successes.since(export, call, failures.since)


def _named(export: str, call: Call) -> str:
    return f"{export}: {call.value}" if export != ALL_EXPORTS else f"all {call.value}"
