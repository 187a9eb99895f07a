"""Trying again: what all bundles know of what goes well and what is refused, and how long to wait.

Nothing is decided here. What follows from what came back is decided by the table (`core.service.retrying`). What is
known of refusals and of failed operations is kept by `core.service.refusals` and `core.service.operation_failures`.
Here is the clock, the waiting, and whom to ask about the key.

What fails for one bundle while it goes well for others all the time is no outage. After `[retry] outage` a create that
fails so is parked, and a file that cannot be had so counts as a failed attempt; the run goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from asyncexport.core.admission import Backoff
from asyncexport.core.bundles import Bundle
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
    """Leave to make one call, which may be a probe; to be ended by what came back."""

    def __init__(self, call_turns: "CallTurns", export: str, call: Call, *, is_probe: bool) -> None:
        self._call_turns = call_turns
        self.key = export, call
        self._is_over = False
        self.is_probe = is_probe

    def succeeded(self) -> None:
        """It was done."""
        self._is_over = True
        self._call_turns.note_success(*self.key)

    def refused(self, error: ServiceError, *, bundle: Bundle | None = None, least_wait: float = 0.0) -> None:
        """It was refused, maybe not to this bundle alone; the next probe waits `least_wait` seconds at the least."""
        self._is_over = True
        self._call_turns.note_refusal(self, error, bundle=bundle, least_wait=least_wait)

    def leave(self) -> None:
        """What came back says nothing of refusals, or nothing came; does nothing where it was said what did."""
        if not self._is_over and self.is_probe:
            self._call_turns.refusals.drop_probe(*self.key)
            self._call_turns.changes.notify()


class CallTurns:
    """What all bundles know.

    Args:
        backoff: How long between tries, and after how long a trouble has lasted long enough.
        jitter: A number in [0, 1), anew at each call.
        key: Asks whose key it is.
        tell: Called with each event.
        key_has_worked: Whether the service ever did what was asked with this key in this directory, before this run.

    Attributes:
        refusals: What is refused.
        failures: Which operations failed.
        changes: Tells when either has changed.
        now: The time, in seconds on the monotonic clock.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        jitter: Callable[[], float],
        key: KeyCheck,
        tell: Listener,
        key_has_worked: bool = True,
    ) -> None:
        self._backoff = backoff
        self._jitter = jitter
        self._key = key
        self._tell = tell
        self._key_has_worked = key_has_worked
        self.refusals = Refusals(RefusalTimes(backoff.initial_seconds))
        self.failures = OperationFailures(backoff.initial_seconds, backoff.outage_seconds)
        self.changes = ChangeSignal()
        self.now = asyncio.get_running_loop().time

    @property
    def refusal_times(self) -> RefusalTimes:
        """How long refusals are waited out."""
        return self.refusals.refusal_times

    async def pause(self, tries: int, *, least_seconds: float = 0.0) -> None:
        """Wait before the next try, after so many in a row that failed."""
        await asyncio.sleep(max(self.pause_seconds(tries), least_seconds))

    def pause_seconds(self, tries: int) -> float:
        """How long to wait before the next try, after so many in a row that failed."""
        return self._backoff.wait_seconds(max(1, tries), jitter=self._jitter())

    def turn(self, export: str, call: Call, *, lets_others_go: bool = False) -> CallTurn | None:
        """Leave to make such a call now; None: not yet. The last argument as `Refusals.wait_seconds` has it."""
        if self.wait_seconds(export, call, lets_others_go=lets_others_go) > 0:
            return None
        return CallTurn(self, export, call, is_probe=self.refusals.begin(export, call))

    def wait_seconds(self, export: str, call: Call, *, lets_others_go: bool = False) -> float:
        """How long until such a call may be made; infinite: until something has changed."""
        return self.refusals.wait_seconds(export, call, self.now(), lets_others_go=lets_others_go)

    def note_success(self, export: str, call: Call) -> None:
        """Such a call went well."""
        was_refused = self.refusals.ongoing(export, call) is not None
        self.refusals.succeeded(export, call, self.now())
        if call is not Call.DOWNLOAD:
            self._key_has_worked = True
        if was_refused:
            log.warning("%s are taken again", _named(export, call))
            self.changes.notify()

    def note_refusal(self, turn: CallTurn, error: ServiceError, *, bundle: Bundle | None, least_wait: float) -> None:
        """Such a call was refused, and no other bundle gets on."""
        export, call = turn.key
        is_news = self.refusals.ongoing(export, call) is None
        is_unreadable = failure_of(call, error) is Failure.UNREADABLE
        if is_unreadable and not self.refusals.has_worked(export, call):
            # What cannot be read is believed when it comes twice, so long apart.
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
        if is_news:
            wait = show_duration(max(self.refusal_times.probe_wait(1), least_wait))
            why = "an answer could not be read" if is_unreadable else "one was refused"
            log.warning("%s are held back, since %s; tried again in %s: %s", _named(export, call), why, wait, error)
        self.changes.notify()

    def stop(self, export: ExportState, error: ExportError, call: Call) -> None:
        """Stop an export, and tell so."""
        stopped = export.stop(error, call)
        if stopped is not None:
            self._tell(stopped)
        for one in (Call.CREATE, call):
            self.refusals.forget(export.export.name, one)
        self.changes.notify()

    async def next_after(
        self, error: ExportError, export: str, call: Call, trouble: BundleFailures, known: Facts | None = None
    ) -> Action:
        """What to do next, by the table; the key is asked for where the table wants to know.

        Raises:
            UnavailableError: the service was given up while the key was asked for.
        """
        known, failure = self._known(export, call, trouble, known or Facts(has_worked=False)), failure_of(call, error)
        if failure is Failure.UNREADABLE and self.refusals.repeatedly_unreadable(export, call, self.now()):
            known = replace(known, repeated=True)
        if failure is Failure.UNAUTHORIZED:
            # `CheckedCalls` has confirmed it.
            known = replace(known, key=KeyStatus.REFUSED)
        if failure is Failure.UNAVAILABLE:
            known = replace(known, others_succeed=self.refusals.any_succeeded_since(call, trouble.since))
        next_step = decide(call, failure, known)
        if next_step is Action.CHECK_KEY:
            standing = await self._key.standing()
            if standing is KeyStatus.GOOD:
                self.refusals.key_is_good()
                self.changes.notify()
            next_step = decide(call, failure, replace(known, key=standing))
        return next_step

    def _known(self, export: str, call: Call, trouble: BundleFailures, known: Facts) -> Facts:
        """What is known besides what the caller knows."""
        now, lasted = self.now(), self.now() - trouble.since
        others = known.others_succeed or self.others_succeed(export, call, trouble)
        gone = trouble.gone_since
        return replace(
            known,
            key_has_worked=self._key_has_worked,
            has_worked=known.has_worked or self.refusals.has_worked(export, call),
            others_succeed=others,
            lasting=known.lasting
            or self.refusals.is_lasting(export, call, now)
            or (others and self.refusal_times.is_lasting(lasted)),
            repeated=known.repeated or (gone is not None and now - gone >= self.refusal_times.confirmation_seconds),
            outage_exceeded=lasted >= self._backoff.outage_seconds,
        )

    def others_succeed(self, export: str, call: Call, trouble: BundleFailures) -> bool:
        """Whether such a call of another bundle went well since this one's trouble began."""
        return self.refusals.succeeded_since(export, call, trouble.since)


def _named(export: str, call: Call) -> str:
    return f"{export}: {call.value}" if export != ALL_EXPORTS else f"all {call.value}"
