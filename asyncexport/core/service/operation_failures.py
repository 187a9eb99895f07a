"""Failed operations: did the bundle cause the failure, or the service?

1. If one operation fails and others complete, the bundle is at fault: the failure counts as an attempt.
2. If five operations of different bundles fail in a row and none completes in between, the service is at fault: none of
   them counts. From then on only one create is sent at a time, the probe, with back-off between the probes, and each
   time for another bundle.
3. So it is not clear immediately whether a failure counts. The next operation that ends decides. If no other is
   running, or none ends for half an hour, the failure counts.
4. The first operation that completes shows that the service works again. Every bundle continues at the attempt it was
   at.
5. If the probes of three different bundles have failed, over half an hour or more, the bundles are at fault after all.
   Those that failed are parked: each has cost a create or two, and another attempt would cost one more. From then on
   the bundle of each failed probe is parked immediately, until an operation completes.
6. If no operation has completed for `[retry] outage`, the exports are stopped.
7. The pieces of a bundle that was split (`core.splitting`) count as that one bundle in rules 2 and 5: if its whole time
   cannot be exported, all of them fail although the service works.

All times are in seconds on one clock, which is passed in as an argument. They apply to a `[retry] backoff_initial` of
one second, and scale with it.
"""

import math
from dataclasses import dataclass, field
from enum import Enum

from asyncexport.core.bundles import Bundle

FAILED_IN_A_ROW = 5
"""After failures of this many different bundles in a row the service is at fault (rule 2)."""

PROBED_BUNDLES = 3
"""Probes of this many different bundles must fail before the bundles are at fault after all (rule 5)."""

PROBED_SECONDS = 1800.0
"""Seconds over which those probes must fail, at least (rule 5)."""

UNDECIDED_SECONDS = 1800.0
"""A failure counts if no other operation has ended for this many seconds (rule 3)."""


class Blame(Enum):
    """Which side caused a failed operation."""

    BUNDLE = "the bundle: an attempt is counted"
    SERVICE = "the service: no attempt is counted"
    PARKED = "the bundle: it is parked without another attempt in this run"


@dataclass(slots=True, eq=False)
class FailedOperation:
    """An operation that failed.

    Attributes:
        bundle: The operation's bundle.
        whole: The bundle that it is a piece of; the bundle itself if it is not a piece.
        reason: The service's reason.
        at: The time of the failure.
        blame: Which side caused it; None until that is decided.
    """

    bundle: Bundle
    whole: Bundle
    reason: str
    at: float
    blame: Blame | None = None


@dataclass(slots=True)
class OperationFailures:
    """Keeps track of failed operations and decides which side caused them.

    Args:
        unit_seconds: `[retry] backoff_initial`, a second by default.
        outage_seconds: `[retry] outage`: the longest time to wait while the service is at fault.

    Attributes:
        since: Since when the service has been at fault. None if it is not.
        parked: Bundles to park because they failed while no operation completed, with the reasons.
        given_up: The last failure's reason, once no operation has completed for `[retry] outage`; "" until then.
        failed_probes: How many probes failed in a row; sets the back-off.
    """

    unit_seconds: float
    outage_seconds: float
    since: float | None = None
    parked: dict[Bundle, str] = field(default_factory=dict)
    given_up: str = ""
    _in_a_row: dict[Bundle, FailedOperation] = field(default_factory=dict)
    _undecided: list[FailedOperation] = field(default_factory=list)
    _counts: bool = False
    _probed: dict[Bundle, Bundle] = field(default_factory=dict)
    _probe: Bundle | None = None
    _probe_at: float = -math.inf
    failed_probes: int = 0

    @property
    def undecided_seconds(self) -> float:
        """Longest time in seconds for which it may stay undecided which side caused a failure."""
        return self.unit_seconds * UNDECIDED_SECONDS

    def wait_seconds(self, bundle: Bundle, now: float) -> float:
        """Return the seconds until a create of this bundle may be sent; infinite while a probe's operation is running.

        Bundles that have sent a probe before let others go first.
        """
        if self.since is None:
            return 0.0
        if self._probe is not None:
            return math.inf
        return max(0.0, self._probe_at - now + self.unit_seconds * (bundle in self._probed))

    def holds(self, bundle: Bundle) -> bool:
        """Whether a create of this bundle has to wait although it had its turn."""
        return self.since is not None and self._probe != bundle

    def begin(self, bundle: Bundle) -> None:
        """Note that a create is about to be sent; while the service is at fault it is the probe."""
        if self.since is not None:
            self._probe = bundle

    def ended(self, bundle: Bundle) -> None:
        """Note that a bundle has no operation any more, and that its last one says nothing about the service."""
        if self._probe == bundle:
            self._probe = None

    def completed(self) -> None:
        """Note that an operation completed: the service works."""
        self._decide(Blame.BUNDLE)
        self.since, self._probe, self.failed_probes, self._counts = None, None, 0, False
        for known in (self.parked, self._in_a_row, self._probed):
            known.clear()

    def failed(
        self, bundle: Bundle, reason: str, *, now: float, backoff_seconds: float, whole: Bundle | None = None
    ) -> FailedOperation:
        """Note that an operation failed, and return it.

        Args:
            bundle: The operation's bundle.
            reason: The service's reason.
            now: The time.
            backoff_seconds: Seconds to wait before the next probe, if this was one.
            whole: The bundle that it is a piece of; None if it is not a piece.
        """
        failed = FailedOperation(bundle, whole or bundle, reason, now)
        self._in_a_row[bundle] = failed
        if self.since is not None:
            self._note_failed_probe(failed, backoff_seconds=backoff_seconds)
            failed.blame = Blame.PARKED if self._counts else Blame.SERVICE
            self.parked.pop(bundle, None)
            return failed
        self._undecided.append(failed)
        if len({one.whole for one in self._in_a_row.values()}) >= FAILED_IN_A_ROW:
            self.since, self._probe_at = now, now
            self._decide(Blame.SERVICE)
        return failed

    def expire(self, failed: FailedOperation, *, now: float, others_run: bool) -> None:
        """Blame the bundle if nothing else is running or nothing has ended for long (rule 3)."""
        too_long = now - failed.at >= self.undecided_seconds
        if failed.blame is None and (too_long or not others_run):
            failed.blame = Blame.BUNDLE
            self._undecided.remove(failed)

    def _note_failed_probe(self, failed: FailedOperation, *, backoff_seconds: float) -> None:
        """Apply rules 2, 5 and 6."""
        if failed.bundle != self._probe or self.since is None:
            return
        self._probe = None
        self._probed[failed.bundle] = failed.whole
        self.failed_probes += 1
        self._probe_at = failed.at + backoff_seconds
        lasted = failed.at - self.since
        is_long = lasted >= self.unit_seconds * PROBED_SECONDS
        if not self._counts and is_long and len(set(self._probed.values())) >= PROBED_BUNDLES:
            self._counts = True
            self.parked.update({one.bundle: one.reason for one in self._in_a_row.values()})
        if lasted >= self.outage_seconds:
            self.given_up = failed.reason

    def _decide(self, blame: Blame) -> None:
        for failed in self._undecided:
            failed.blame = blame
        self._undecided.clear()
