"""Keeps track of refusals: which calls of which export are refused, since when, and when to probe again.

1. Refusals are tracked for each export and kind of call: the bundles of several exports are sent in turn, and creates
   may succeed while results calls are refused.
2. While calls of one kind are refused, only one of them is sent at a time: the probe. The first probe is sent 30 s
   after the first refusal, the next ones 1, 2, 4 and 8 minutes after the probe before, each for another bundle. One
   success ends the refusal for all. After 15 minutes the refusals are taken as final ("lasting").
3. If all exports are refused, one of them probes for all. If the service itself answers 403, the key may be the cause:
   until `/me` says that the key is good, no call of any kind is sent except the probe. If a probe is not sent within a
   minute of its time, its export may have no bundle left, and the others probe for themselves.
4. A bundle that is refused while others succeed waits just as long between its attempts, and holds up no other.
5. After a create was refused with 400 or 404, creates of that export are sent one at a time. After three in a row the
   newest bundle of the export is tried, ahead of its turn. If the service accepts it, the data of the refused ones is
   too old, and they are parked. If not, the export is stopped. If no bundle is left to try, the creates accepted in
   this run decide: one that is newer than those refused, or any one if fewer than three were refused in a row.
6. A run may start newer bundles before older ones. If the newest one left is refused but a newer one was accepted in
   this run, the refused ones are parked as well. After `MOST_PARKED` of them without one that is accepted, the export
   is stopped after all: it may have been deleted meanwhile, and if not, all that is left is too old.

All times are in seconds on one clock, which is passed in as an argument. They apply to a `[retry] backoff_initial` of
one second, and scale with it.
"""

import math
from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle
from asyncexport.core.service.retrying import CREATES_IN_A_ROW, Call, Failure

PROBE_WAITS = (30.0, 60.0, 120.0, 240.0, 480.0)
"""The waits before the first probe, the second, and so on. The last one repeats."""

LASTING_SECONDS = 900.0
"""Refusals that last this long are taken as final: a deployment is over sooner, a firewall rule is not."""

CONFIRMATION_SECONDS = 60.0
"""A surprising answer of the service is believed when it comes again at least this long after the first time."""

EXPORT_LIFE_SECONDS = 7 * 86_400.0
"""The service keeps an export for about this long (API reference, section 4). It may have deleted an older one."""

MOST_PARKED = 50
"""Refused bundles that are parked in a row because a newer one was accepted before (rule 6); each costs a create."""

ALL_EXPORTS = ""
"""Used instead of an export's name for calls that belong to no single export, such as polls."""


@dataclass(frozen=True, slots=True)
class RefusalTimes:
    """How long to wait after refusals. `unit_seconds` is `[retry] backoff_initial`, a second by default."""

    unit_seconds: float = 1.0

    def probe_wait(self, refusals: int) -> float:
        """Return the wait before the next probe, after this many refusals in a row."""
        return self.unit_seconds * PROBE_WAITS[min(max(refusals, 1), len(PROBE_WAITS)) - 1]

    def is_lasting(self, seconds: float) -> bool:
        """Whether refusals that have gone on for this long are taken as final."""
        return seconds >= self.lasting_seconds

    @property
    def lasting_seconds(self) -> float:
        """Seconds that refusals must go on to be taken as final."""
        return self.unit_seconds * LASTING_SECONDS

    @property
    def confirmation_seconds(self) -> float:
        """Seconds after which a surprising answer must be repeated to be believed."""
        return self.unit_seconds * CONFIRMATION_SECONDS


@dataclass(slots=True)
class BundleFailures:
    """The failures in a row of one bundle's calls of one kind.

    Attributes:
        since: When the first of them failed.
        count: How many failed in a row.
        gone_since: When the service first answered that the operation or export does not exist. None if its last answer
            was another one.
    """

    since: float
    count: int = 0
    gone_since: float | None = None

    def failed(self, failure: Failure, now: float) -> None:
        """Note another failure. Only answers in a row, with no other in between, confirm that something is gone."""
        self.count += 1
        if failure is not Failure.GONE:
            self.gone_since = None
        elif self.gone_since is None:
            self.gone_since = now


@dataclass(slots=True)
class OngoingRefusal:
    """The service refuses calls of one kind, of one export.

    Attributes:
        since: When the first call was refused.
        probe_at: When the next probe may be sent.
        refusals: How many were refused: the first call, and the probes after it.
        is_probing: Whether a probe is in flight.
        may_be_the_key: Whether the service itself answered 403, and the key is not known to be good.
        key_is_good: Whether `/me` has said since then that the key is good.
        bundles: The bundles whose calls were refused, as far as that is known.
        unreadable_since: When the first answer came that could not be read. None if all could be read.
    """

    since: float
    probe_at: float
    refusals: int = 1
    is_probing: bool = False
    may_be_the_key: bool = False
    key_is_good: bool = False
    bundles: set[Bundle] = field(default_factory=set)
    unreadable_since: float | None = None

    def is_of(self, bundle: Bundle) -> bool:
        """Whether only this bundle's calls were refused so far; those of others may not have been sent yet."""
        return self.bundles == {bundle}

    def unreadable_for(self, now: float) -> float:
        """Return how long answers could not be read, or 0 if all could be read."""
        return 0.0 if self.unreadable_since is None else now - self.unreadable_since

    def note(self, bundle: Bundle | None, *, unreadable_at: float | None) -> None:
        """Note whose call was refused, and when, if its answer could not be read."""
        if bundle is not None:
            self.bundles.add(bundle)
        if self.unreadable_since is None:
            self.unreadable_since = unreadable_at

    def probe_failed(self, next_at: float, *, may_be_the_key: bool) -> None:
        """Note that a probe was refused, too, and when the next one may be sent."""
        self.refusals += 1
        self.is_probing, self.probe_at = False, next_at
        self.may_be_the_key = may_be_the_key and not self.key_is_good


class CallSuccesses:
    """When calls of each export and kind last succeeded."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, Call], float] = {}

    def note(self, export: str, call: Call, now: float) -> None:
        """Note that such a call succeeded now."""
        self._at[export, call] = now

    def recall(self, export: str, call: Call) -> None:
        """Note that such a call succeeded some time ago, perhaps in an earlier run."""
        self._at.setdefault((export, call), -math.inf)

    def has_worked(self, export: str, call: Call) -> bool:
        """Whether such a call has ever succeeded."""
        return (export, call) in self._at

    def since(self, export: str, call: Call, since: float) -> bool:
        """Whether such a call has succeeded since this time."""
        return self._at.get((export, call), -math.inf) > since

    def any_since(self, call: Call, since: float) -> bool:
        """Whether such a call of any export has succeeded since this time."""
        return any(at > since for (_, one), at in self._at.items() if one is call)


class Refusals:
    """Tracks which calls are refused, and when to probe them (rules 1 to 4)."""

    def __init__(self, refusal_times: RefusalTimes) -> None:
        self.refusal_times = refusal_times
        self._ongoing: dict[tuple[str, Call], OngoingRefusal] = {}
        self.successes = CallSuccesses()
        self._asked: dict[Call, set[str]] = {call: set() for call in Call}

    def ongoing(self, export: str, call: Call) -> OngoingRefusal | None:
        """Return the refusal of such calls that is going on, if there is one."""
        return self._ongoing.get((export, call)) if self._ongoing else None

    def is_lasting(self, export: str, call: Call, now: float) -> bool:
        """Whether such calls have been refused long enough to take the refusal as final."""
        refusal = self.ongoing(export, call)
        return refusal is not None and self.refusal_times.is_lasting(now - refusal.since)

    def wait_seconds(self, export: str, call: Call, now: float, *, lets_others_go: bool = False) -> float:
        """Return the seconds until such a call may be sent; infinite if that depends on an answer.

        `lets_others_go`: whether it was refused to this bundle before, so that another bundle should send the next
        probe.
        """
        if not self._ongoing:  # the usual case, kept fast
            return 0.0
        refusal, by_key = self.ongoing(export, call), self._refusal_by_key()
        if by_key is not None and by_key is not refusal and call is not Call.DOWNLOAD:
            # The key is never sent to the storage host, so downloads do not depend on it.
            return self._wait_for_probe(by_key, now)
        if refusal is None:
            return 0.0
        if refusal.is_probing:
            return math.inf
        wait = max(0.0, refusal.probe_at - now + self.refusal_times.unit_seconds * lets_others_go)
        first = self._first_of_all(call)
        return wait if first in (None, refusal) else max(wait, self._wait_for_probe(first, now))

    def _wait_for_probe(self, of: OngoingRefusal, now: float) -> float:
        """Return how long others wait for the probe of this refusal: there may be no bundle left to send it."""
        return math.inf if of.is_probing else max(0.0, of.probe_at + self.refusal_times.confirmation_seconds - now)

    def begin(self, export: str, call: Call) -> bool:
        """Note that such a call is about to be sent, and return whether it is a probe."""
        self._asked[call].add(export)
        refusal = self.ongoing(export, call)
        if refusal is not None:
            refusal.is_probing = True
        return refusal is not None

    def drop_probe(self, export: str, call: Call) -> None:
        """Note that a probe was inconclusive: it was not sent, or its answer is neither a refusal nor a success."""
        refusal = self.ongoing(export, call)
        if refusal is not None:
            refusal.is_probing = False

    def succeeded(self, export: str, call: Call, now: float, *, begun_at: float) -> None:
        """Note that such a call, begun at this time, succeeded: no call has to wait any longer.

        The success of a call that was in flight at the first refusal does not show that calls are accepted again.
        """
        refusal = self.ongoing(export, call)
        if refusal is not None and begun_at < refusal.since:
            self.successes.recall(export, call)
            return
        self.successes.note(export, call, now)
        self._ongoing.pop((export, call), None)

    def key_is_good(self) -> None:
        """Note that `/me` accepts the key: refused calls no longer hold up other kinds of calls."""
        for refusal in self._ongoing.values():
            refusal.key_is_good, refusal.may_be_the_key = True, False

    def repeatedly_unreadable(self, export: str, call: Call, now: float) -> bool:
        """Whether answers to such calls have been unreadable for `CONFIRMATION_SECONDS`."""
        refusal = self.ongoing(export, call)
        return refusal is not None and refusal.unreadable_for(now) >= self.refusal_times.confirmation_seconds

    def refused(
        self,
        export: str,
        call: Call,
        now: float,
        *,
        is_probe: bool,
        bundle: Bundle | None = None,
        least_wait: float = 0.0,
        is_unreadable: bool = False,
        may_be_the_key: bool = False,
    ) -> None:
        """Note that such a call was refused. Calls that were in flight at the first refusal add nothing new.

        Args:
            export: The call's export.
            call: The kind of call.
            now: The time.
            is_probe: Whether it was a probe.
            bundle: The call's bundle, where that matters.
            least_wait: The least wait before the next probe, in seconds.
            is_unreadable: Whether the answer could not be read.
            may_be_the_key: Whether the service itself answered 403.
        """
        refusal = self.ongoing(export, call)
        if refusal is None:
            wait = max(self.refusal_times.probe_wait(1), least_wait)
            refusal = self._ongoing[export, call] = OngoingRefusal(now, now + wait, may_be_the_key=may_be_the_key)
        elif is_probe:
            wait = max(self.refusal_times.probe_wait(refusal.refusals + 1), least_wait)
            refusal.probe_failed(now + wait, may_be_the_key=may_be_the_key)
        refusal.note(bundle, unreadable_at=now if is_unreadable else None)

    def forget(self, export: str, call: Call) -> None:
        """Forget an export that was stopped: it sends no more calls, and no other export waits for it."""
        self._ongoing.pop((export, call), None)
        for asked in self._asked.values():
            asked.discard(export)

    def blocks_all_but(self, export: str, call: Call) -> bool:
        """Whether the key may be refused, and another call than this is the probe."""
        refusal = self._refusal_by_key()
        return refusal is not None and refusal is not self.ongoing(export, call)

    def _refusal_by_key(self) -> OngoingRefusal | None:
        """Return the refusal that blocks all calls (rule 3): the oldest the key may cause, if no export is free."""
        if not self._ongoing:
            return None
        candidates = {key: one for key, one in self._ongoing.items() if one.may_be_the_key}
        if not candidates:
            return None
        exports = set[str]().union(*self._asked.values()) - {ALL_EXPORTS}
        refused = {export for export, _ in candidates}
        concerns_all = ALL_EXPORTS in refused or exports <= refused
        return min(candidates.values(), key=lambda one: one.since) if concerns_all else None

    def _first_of_all(self, call: Call) -> OngoingRefusal | None:
        """Return the oldest refusal of such calls if all exports are refused (rule 3): its export probes."""
        by_export = {one: self.ongoing(one, call) for one in self._asked[call]}
        refused = {one: refusal for one, refusal in by_export.items() if refusal is not None}
        if len(refused) < len(by_export):
            return None
        return min(refused.items(), key=lambda one: (one[1].since, one[0]), default=("", None))[1]


@dataclass(slots=True)
class CreateRefusals:
    """The refused creates of one export (rule 5).

    Attributes:
        in_a_row: How many were refused one after another.
        undecided: Bundles whose create was refused, with the error, as long as the cause is not known.
        newest: The newest bundle, while it is being tried. None if it is not being tried.
        newest_refused: Whether the newest bundle was refused, or none is left to try.
        newest_accepted: The newest bundle whose create was accepted in this run. None if none was.
        parked_in_a_row: How many were parked by rule 6 since one was accepted.
    """

    in_a_row: int = 0
    undecided: dict[Bundle, str] = field(default_factory=dict)
    newest: Bundle | None = None
    newest_refused: bool = False
    newest_accepted: Bundle | None = None
    parked_in_a_row: int = 0

    @property
    def is_open(self) -> bool:
        """Whether creates may be sent freely. Otherwise they are sent one at a time."""
        return not self.in_a_row

    def needs_newest(self, *, others_wait: bool) -> bool:
        """Whether to try the newest bundle next: enough were refused, or no other bundle waits."""
        if not self.undecided or self.newest is not None or self.newest_refused:
            return False
        return self.in_a_row >= CREATES_IN_A_ROW or not others_wait

    def refused(self, bundle: Bundle, reason: str) -> None:
        """Note that a create was refused."""
        self.in_a_row += 1
        self.undecided[bundle] = reason
        if bundle != self.newest:
            return
        parked = self.parked_in_a_row + len(self.undecided)
        if self._are_older_than_accepted() and parked <= MOST_PARKED:
            self.parked_in_a_row = parked
            self._blame_bundles()
        else:
            self.newest, self.newest_refused = None, True

    def accepted(self, bundle: Bundle) -> None:
        """Note that a create was accepted: those refused before it failed for reasons of their own."""
        self.newest_accepted = max(bundle, self.newest_accepted or bundle)
        self.parked_in_a_row = 0
        self._blame_bundles()

    def parked(self, bundle: Bundle) -> None:
        """Note that a bundle was parked. If it was being tried as the newest, the question stays open."""
        if bundle == self.newest:
            self.newest = None

    def no_bundle_left(self) -> None:
        """Note that no bundle is left to try: the creates accepted in this run decide (rule 5)."""
        if self._are_older_than_accepted() or (self.newest_accepted and self.in_a_row < CREATES_IN_A_ROW):
            self._blame_bundles()
        else:
            self.newest_refused = True

    def _are_older_than_accepted(self) -> bool:
        """Whether a create of a newer bundle than those refused was accepted in this run."""
        newest = self.newest_accepted
        return newest is not None and newest > max(self.undecided, default=newest)

    def _blame_bundles(self) -> None:
        self.in_a_row = 0
        self.undecided.clear()
        self.newest, self.newest_refused = None, False
