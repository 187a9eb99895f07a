"""What is known of refusals: which calls of which export are refused, since when, and when to try one again.

1. Refusals are counted for each export and kind of call: the bundles of several exports are sent in turn, and creates
   may succeed while results calls are refused.
2. While calls of one kind are refused, only one of them is sent at a time: the probe. Probes go 30 s after the first
   refusal, then 1, 2, 4 and 8 minutes after the probe before, each time for another bundle. One success ends the
   refusal for all. After 15 minutes the refusals are taken as final ("believed").
3. Where all exports are refused, one of them probes for all. Where the service itself answers 403, the key may be at
   fault: until `/me` says that it is good, no call of any kind is sent but the probe. If a probe is not sent within a
   minute of its time, its export may have no bundle left, and the others probe for themselves.
4. A bundle that is refused while others succeed waits just as long between its tries, and holds up no other.
5. Creates that are refused with 400 or 404 go one at a time. After three in a row the newest bundle of the export is
   tried, ahead of its turn. If the service takes it, the data of the refused ones is too old, and they are parked. If
   not, the export is stopped. Where no bundle is left to be tried, the creates taken in this run decide: one that is
   newer than those refused, or any one where fewer than three were refused in a row.

All times are in seconds on one clock, which comes in as an argument. They hold for a `[retry] backoff_initial` of one
second, and scale with it.
"""

import math
from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle
from asyncexport.core.service.retrying import CREATES_IN_A_ROW, Call, CameBack

PROBE_WAITS = (30.0, 60.0, 120.0, 240.0, 480.0)
"""The pauses before the first probe, the second, and so on; the last one is repeated."""

BELIEVED_SECONDS = 900.0
"""Refusals that last this long are taken as final: a deployment is over sooner, a firewall rule is not."""

REPEATED_SECONDS = 60.0
"""The least time between two equal answers that are believed only when they come twice."""

EXPORT_LIFE_SECONDS = 7 * 86_400.0
"""The service keeps an export for about this long (reference section 4). An older one may have been deleted."""

EVERYBODY = ""
"""Stands in place of an export's name for calls that belong to no export, such as polls."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long refusals are waited out; `unit_seconds` is `[retry] backoff_initial`, a second by default."""

    unit_seconds: float = 1.0

    def probe_wait(self, refusals: int) -> float:
        """How long to wait after so many refusals in a row."""
        return self.unit_seconds * PROBE_WAITS[min(max(refusals, 1), len(PROBE_WAITS)) - 1]

    def believes(self, seconds: float) -> bool:
        """Whether refusals that have lasted so long are believed."""
        return seconds >= self.believed_seconds

    @property
    def believed_seconds(self) -> float:
        """How long refusals must last to be believed."""
        return self.unit_seconds * BELIEVED_SECONDS

    @property
    def repeated_seconds(self) -> float:
        """How long after the first time something must be said again to be believed."""
        return self.unit_seconds * REPEATED_SECONDS


@dataclass(slots=True)
class BundleTrouble:
    """The trouble of one bundle with one kind of call, or with its file.

    Attributes:
        since: When it began.
        tries: How many tries failed in a row.
        gone_since: When the service first said that what is asked for is gone; None: it does not say so.
    """

    since: float
    tries: int = 0
    gone_since: float | None = None

    def failed(self, came_back: CameBack, now: float) -> None:
        """One more try failed. That something is gone must be said twice in a row, with no other answer between."""
        self.tries += 1
        if came_back is not CameBack.GONE:
            self.gone_since = None
        elif self.gone_since is None:
            self.gone_since = now


@dataclass(slots=True)
class Doubt:
    """Calls of one kind, of one export, are refused.

    Attributes:
        since: When the first was refused.
        probe_at: When the next probe may go.
        refusals: How many probes were refused, the first refusal counted in.
        is_probing: Whether a probe is under way.
        may_be_the_key: Whether the service itself forbids it, and the key is not known to be good.
        key_is_good: Whether `/me` said so meanwhile.
        bundles: Whose calls were refused, where that is known.
        unreadable_since: When an answer first could not be read; None: none was so.
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
        """Whether this bundle's calls alone were refused so far: others may not have been sent yet."""
        return self.bundles == {bundle}

    def unreadable_for(self, now: float) -> float:
        """For how long answers could not be read; 0 where none was so."""
        return 0.0 if self.unreadable_since is None else now - self.unreadable_since

    def note(self, bundle: Bundle | None, *, unreadable_at: float | None) -> None:
        """Whose call was refused, and when, if its answer could not be read."""
        if bundle is not None:
            self.bundles.add(bundle)
        if self.unreadable_since is None:
            self.unreadable_since = unreadable_at

    def probe_failed(self, next_at: float, *, may_be_the_key: bool) -> None:
        """A probe was refused, too; when the next may go."""
        self.refusals += 1
        self.is_probing, self.probe_at = False, next_at
        self.may_be_the_key = may_be_the_key and not self.key_is_good


class Refusals:
    """Which calls are refused, and when one of them may be tried (rules 1 to 4)."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._doubts: dict[tuple[str, Call], Doubt] = {}
        self._well_at: dict[tuple[str, Call], float] = {}
        self._asked: dict[Call, set[str]] = {call: set() for call in Call}

    def ever_good(self, export: str, call: Call) -> bool:
        """Whether such a call ever went well."""
        return (export, call) in self._well_at

    def know_good(self, export: str, call: Call) -> None:
        """Such a call went well in an earlier run."""
        self._well_at.setdefault((export, call), -math.inf)

    def got_on_since(self, export: str, call: Call, since: float) -> bool:
        """Whether such a call went well after this moment."""
        return self._well_at.get((export, call), -math.inf) > since

    def anybody_got_on_since(self, call: Call, since: float) -> bool:
        """Whether such a call of any export went well after this moment."""
        return any(at > since for (_, one), at in self._well_at.items() if one is call)

    def doubt(self, export: str, call: Call) -> Doubt | None:
        """The doubt about such calls, if there is one."""
        return self._doubts.get((export, call)) if self._doubts else None

    def lasting(self, export: str, call: Call, now: float) -> bool:
        """Whether such calls have been refused for so long that it is believed."""
        doubt = self.doubt(export, call)
        return doubt is not None and self.patience.believes(now - doubt.since)

    def wait_seconds(self, export: str, call: Call, now: float, *, lets_others_go: bool = False) -> float:
        """How long until such a call may be sent; infinite: until something comes back.

        `lets_others_go`: it was refused to this bundle before, so that another is the next probe, if there is one.
        """
        if not self._doubts:
            # Nearly always.
            return 0.0
        doubt, key_doubt = self.doubt(export, call), self._key_doubt()
        if key_doubt is not None and key_doubt is not doubt and call is not Call.DOWNLOAD:
            # No key goes to the storage host.
            return self._wait_for_probe(key_doubt, now)
        if doubt is None:
            return 0.0
        if doubt.is_probing:
            return math.inf
        wait = max(0.0, doubt.probe_at - now + self.patience.unit_seconds * lets_others_go)
        first = self._first_of_all(call)
        return wait if first in (None, doubt) else max(wait, self._wait_for_probe(first, now))

    def _wait_for_probe(self, of: Doubt, now: float) -> float:
        """How long others wait for the probe of this doubt: there may be no bundle left to send it."""
        return math.inf if of.is_probing else max(0.0, of.probe_at + self.patience.repeated_seconds - now)

    def begin(self, export: str, call: Call) -> bool:
        """Such a call is about to be sent; whether it is a probe."""
        self._asked[call].add(export)
        doubt = self.doubt(export, call)
        if doubt is not None:
            doubt.is_probing = True
        return doubt is not None

    def drop_probe(self, export: str, call: Call) -> None:
        """A probe said nothing: it was not sent, or what came back is no refusal and no success."""
        doubt = self.doubt(export, call)
        if doubt is not None:
            doubt.is_probing = False

    def went_well(self, export: str, call: Call, now: float) -> None:
        """Such a call was done: nobody waits any longer."""
        self._well_at[export, call] = now
        self._doubts.pop((export, call), None)

    def key_is_good(self) -> None:
        """`/me` says so: what is refused holds back no other kind of call."""
        for doubt in self._doubts.values():
            doubt.key_is_good, doubt.may_be_the_key = True, False

    def unreadable_twice(self, export: str, call: Call, now: float) -> bool:
        """Whether answers to such calls could not be read for so long that it is believed, if none ever was read."""
        doubt = self.doubt(export, call)
        return doubt is not None and doubt.unreadable_for(now) >= self.patience.repeated_seconds

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
        """Such a call was refused; what was under way when the first was says nothing new.

        Args:
            export: Whose.
            call: Of this kind.
            now: When.
            is_probe: It was sent to see whether such calls are still refused.
            bundle: Whose it was, where that matters.
            least_wait: How long to wait at the least before the next probe.
            is_unreadable: It was answered, and the answer could not be read.
            may_be_the_key: The service itself forbids it.
        """
        doubt = self.doubt(export, call)
        if doubt is None:
            wait = max(self.patience.probe_wait(1), least_wait)
            doubt = self._doubts[export, call] = Doubt(now, now + wait, may_be_the_key=may_be_the_key)
        elif is_probe:
            wait = max(self.patience.probe_wait(doubt.refusals + 1), least_wait)
            doubt.probe_failed(now + wait, may_be_the_key=may_be_the_key)
        doubt.note(bundle, unreadable_at=now if is_unreadable else None)

    def forget(self, export: str, call: Call) -> None:
        """The export is stopped: nobody asks any more, and nobody waits for it."""
        self._doubts.pop((export, call), None)
        for asked in self._asked.values():
            asked.discard(export)

    def holds_all_but(self, export: str, call: Call) -> bool:
        """Whether the key may be refused, and another call is the probe."""
        doubt = self._key_doubt()
        return doubt is not None and doubt is not self.doubt(export, call)

    def _key_doubt(self) -> Doubt | None:
        """The doubt that holds all back (rule 3): the first of those that may be the key's, where no export is free."""
        if not self._doubts:
            return None
        doubts = {key: one for key, one in self._doubts.items() if one.may_be_the_key}
        if not doubts:
            return None
        exports = set[str]().union(*self._asked.values()) - {EVERYBODY}
        refused = {export for export, _ in doubts}
        is_everybodys = EVERYBODY in refused or exports <= refused
        return min(doubts.values(), key=lambda one: one.since) if is_everybodys else None

    def _first_of_all(self, call: Call) -> Doubt | None:
        """Rule 3: the first doubt about such calls, where those of all exports are refused; its export probes."""
        doubts = {one: self.doubt(one, call) for one in self._asked[call]}
        refused = {one: doubt for one, doubt in doubts.items() if doubt is not None}
        if len(refused) < len(doubts):
            return None
        return min(refused.items(), key=lambda one: (one[1].since, one[0]), default=("", None))[1]


@dataclass(slots=True)
class CreateRefusals:
    """The refused creates of one export (rule 5).

    Attributes:
        in_a_row: How many were refused one after another.
        undecided: Bundles whose create was refused, and how, while it is not known whose trouble that is.
        newest: The newest bundle, which is tried; None: it is not its turn.
        newest_refused: Whether it was refused, or there is none.
        newest_taken: The newest bundle whose create was taken in this run; None: none was.
    """

    in_a_row: int = 0
    undecided: dict[Bundle, str] = field(default_factory=dict)
    newest: Bundle | None = None
    newest_refused: bool = False
    newest_taken: Bundle | None = None

    @property
    def is_open(self) -> bool:
        """Whether creates go as they come; else they go one at a time."""
        return not self.in_a_row

    def needs_newest(self, *, others_wait: bool) -> bool:
        """Whether the newest bundle is to be tried next: enough were refused, or no other is at hand."""
        if not self.undecided or self.newest is not None or self.newest_refused:
            return False
        return self.in_a_row >= CREATES_IN_A_ROW or not others_wait

    def refuse(self, bundle: Bundle, reason: str) -> None:
        """A create was refused."""
        self.in_a_row += 1
        self.undecided[bundle] = reason
        if bundle == self.newest:
            self.newest, self.newest_refused = None, True

    def take(self, bundle: Bundle) -> None:
        """A create was taken: those that were refused before it are to blame themselves."""
        self.newest_taken = max(bundle, self.newest_taken or bundle)
        self._blame_bundles()

    def give_up(self, bundle: Bundle) -> None:
        """A bundle is parked: if it was being tried as the newest, that is still open."""
        if bundle == self.newest:
            self.newest = None

    def none_is_left(self) -> None:
        """There is no bundle left to try: what was taken in this run decides (rule 5)."""
        taken = self.newest_taken
        if taken is not None and (self.in_a_row < CREATES_IN_A_ROW or taken > max(self.undecided, default=taken)):
            self._blame_bundles()
        else:
            self.newest_refused = True

    def _blame_bundles(self) -> None:
        self.in_a_row = 0
        self.undecided.clear()
        self.newest, self.newest_refused = None, False
