"""Failed operations: is the bundle at fault, or the service?

1. Where one operation fails and others complete, the bundle is at fault: the failure counts as an attempt.
2. Where five operations of different bundles fail in a row, and none completes in between, the service is at fault:
   none of them counts. From then on only one create is sent at a time, the probe, with back-off between the probes, and
   each time for another bundle.
3. So it is not known at once whether a failure counts. The next operation that ends decides. If no other is running,
   or none ends for half an hour, the failure counts.
4. The first operation that completes ends the service's trouble. Every bundle goes on at the attempt it was at.
5. Where the probes of three different bundles have failed, over half an hour or more, the bundles are at fault after
   all. Those that failed are parked: each has cost a create or two, and another attempt would cost one more. From then
   on the bundle of each probe that fails is parked at once, until an operation completes.
6. Where no operation has completed for `[retry] outage`, the exports are stopped.

All times are in seconds on one clock, which comes in as an argument. They hold for a `[retry] backoff_initial` of one
second, and scale with it.
"""

import math
from dataclasses import dataclass, field
from enum import Enum

from asyncexport.core.bundles import Bundle

FAILED_IN_A_ROW = 5
"""Failures of this many different bundles in a row are the service's trouble (rule 2)."""

PROBED_BUNDLES = 3
"""Probes of this many different bundles must fail before the bundles are at fault after all (rule 5)."""

PROBED_SECONDS = 1800.0
"""The least time over which those probes must fail (rule 5)."""

UNDECIDED_SECONDS = 1800.0
"""A failure counts if no other operation has ended for this long (rule 3)."""


class Blame(Enum):
    """Whose trouble a failed operation is."""

    BUNDLE = "the bundle's: it counts an attempt"
    SERVICE = "the service's: it counts for nothing"
    PARKED = "the bundle's, and no other attempt is made in this run"


@dataclass(slots=True, eq=False)
class FailedOperation:
    """One that failed; `blame` is None until it is known whose trouble that is."""

    bundle: Bundle
    reason: str
    at: float
    blame: Blame | None = None


@dataclass(slots=True)
class OperationFailures:
    """What is known of failed operations.

    Args:
        unit_seconds: `[retry] backoff_initial`, a second by default.
        outage_seconds: `[retry] outage`: for how long the service's trouble is waited out at the most.

    Attributes:
        since: Since when it is the service's trouble; None: it is not.
        parked: Bundles that failed while nothing completed, and why; they are to be parked.
        given_up: Why the last operation failed, once none completed for so long that it is given up; "" until then.
        tries: How many probes failed in a row; back-off goes by it.
    """

    unit_seconds: float
    outage_seconds: float
    since: float | None = None
    parked: dict[Bundle, str] = field(default_factory=dict)
    given_up: str = ""
    _in_a_row: dict[Bundle, str] = field(default_factory=dict)
    _undecided: list[FailedOperation] = field(default_factory=list)
    _counts: bool = False
    _probed: set[Bundle] = field(default_factory=set)
    _probe: Bundle | None = None
    _probe_at: float = -math.inf
    tries: int = 0

    @property
    def undecided_seconds(self) -> float:
        """For how long it may stay open whose trouble a failure is."""
        return self.unit_seconds * UNDECIDED_SECONDS

    def wait_seconds(self, bundle: Bundle, now: float) -> float:
        """How long until a create of this bundle may be sent; infinite: until the probe's operation has ended.

        Those that were probes before let others go first.
        """
        if self.since is None:
            return 0.0
        if self._probe is not None:
            return math.inf
        return max(0.0, self._probe_at - now + self.unit_seconds * (bundle in self._probed))

    def holds(self, bundle: Bundle) -> bool:
        """Whether a create of this bundle has to wait, though it had its turn."""
        return self.since is not None and self._probe != bundle

    def begin(self, bundle: Bundle) -> None:
        """A create is about to be sent; in the service's trouble it is the probe."""
        if self.since is not None:
            self._probe = bundle

    def ended(self, bundle: Bundle) -> None:
        """A bundle has no operation under way, and its last one says nothing."""
        if self._probe == bundle:
            self._probe = None

    def completed(self) -> None:
        """An operation completed: the service is well."""
        self._decide(Blame.BUNDLE)
        self.since, self._probe, self.tries, self._counts = None, None, 0, False
        for known in (self.parked, self._in_a_row, self._probed):
            known.clear()

    def failed(self, bundle: Bundle, reason: str, *, now: float, backoff_seconds: float) -> FailedOperation:
        """An operation failed; `backoff_seconds`: how long to wait before the next probe, if this was one."""
        failed = FailedOperation(bundle, reason, now)
        self._in_a_row[bundle] = reason
        if self.since is not None:
            self._failed_in_trouble(bundle, reason, now=now, backoff_seconds=backoff_seconds)
            failed.blame = Blame.PARKED if self._counts else Blame.SERVICE
            self.parked.pop(bundle, None)
            return failed
        self._undecided.append(failed)
        if len(self._in_a_row) >= FAILED_IN_A_ROW:
            self.since, self._probe_at = now, now
            self._decide(Blame.SERVICE)
        return failed

    def expire(self, failed: FailedOperation, *, now: float, others_run: bool) -> None:
        """Where nothing else runs, or nothing has ended for long, a failure is the bundle's own (rule 3)."""
        too_long = now - failed.at >= self.undecided_seconds
        if failed.blame is None and (too_long or not others_run):
            failed.blame = Blame.BUNDLE
            self._undecided.remove(failed)

    def _failed_in_trouble(self, bundle: Bundle, reason: str, *, now: float, backoff_seconds: float) -> None:
        """Rules 2, 5 and 6."""
        if bundle != self._probe or self.since is None:
            return
        self._probe = None
        self._probed.add(bundle)
        self.tries += 1
        self._probe_at = now + backoff_seconds
        lasted = now - self.since
        is_long = lasted >= self.unit_seconds * PROBED_SECONDS
        if not self._counts and is_long and len(self._probed) >= PROBED_BUNDLES:
            self._counts = True
            self.parked.update(self._in_a_row)
        if lasted >= self.outage_seconds:
            self.given_up = reason

    def _decide(self, blame: Blame) -> None:
        for failed in self._undecided:
            failed.blame = blame
        self._undecided.clear()
