"""Estimates the time at the service, from this host's clock and the dates of the service's replies.

1. UTC comes from this host's clock and is carried forward with the monotonic one: setting the clock in the middle of a
   run does not matter.
2. A date up to five minutes off is followed immediately. It is compared with the time as carried forward, and with this
   host's clock as read again: while the machine slept its monotonic clock may have stood still, and neither clock is
   wrong.
3. A date that is further off is followed once three such dates agree within a minute, and came with two kinds of call,
   or ten seconds apart. A single one is ignored, and one that confirms the current time ends the doubt. A date that
   stands still comes from a cache, and is ignored.
4. If the three are more than a day from this host's clock, the user has to decide which one to trust (`[api] clock`).
   At the start of a run nothing is done until then; later the service is followed, with a warning.
5. The result is remembered for a day (`ClockCheck`), as long as this host's clock has advanced by less than that.

All times are seconds since 1970 UTC; monotonic ones count from any point.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

import orjson

from asyncexport.core.bundles import DAY, show
from asyncexport.core.service.requests import Kind
from asyncexport.core.text import show_duration

UNCERTAIN_SECONDS = 3.0
"""How far a date may be off: it is cut to the second, and takes time to arrive. Within that the time is left unchanged,
since recorded requests must not seem to have been sent earlier than they were."""

CLOCKS_APART_SECONDS = 300.0
"""A date no further off is followed immediately (rule 2). Two clocks may differ by this much wherever times are
compared."""

WORTH_A_WARNING_SECONDS = 60.0
"""A smaller difference is corrected without a warning."""

AGREEING_DATES = 3

AGREEING_SECONDS = 60.0

APART_SECONDS = 10.0
"""Dates that all came with one kind of call agree only if the first and the last are this far apart."""

DATES_KEPT = 8
"""The number of doubted dates that are kept, the latest ones."""

FAR_SECONDS = DAY + UNCERTAIN_SECONDS
"""A larger difference is not followed unless the user has decided (rule 4)."""

CHECK_HOLDS_SECONDS = float(DAY)


class ClockTrust(StrEnum):
    """The values of `[api] clock`: the clock to trust if this host's and the service's are more than a day apart."""

    NEITHER = ""
    SERVICE = "service"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class HostReading:
    """This host's clocks, read together.

    Attributes:
        wall: The time of day.
        monotonic: The clock for waiting; it may stand still while the machine sleeps.
        uptime: How long the machine has been up, sleep included.
        boot: Identifies this start of the machine. "" if it is unknown; then `uptime` means nothing.
    """

    wall: float
    monotonic: float
    uptime: float = 0.0
    boot: str = ""


@dataclass(frozen=True, slots=True)
class ClockCheck:
    """Both clocks at their last comparison; later runs use it for a day (rule 5).

    Attributes:
        service: The time at the service.
        wall: This host's clock at that time.
        uptime, boot: As in `HostReading`.
    """

    service: float
    wall: float
    uptime: float = 0.0
    boot: str = ""

    @property
    def ahead(self) -> float:
        """How far the service's clock was ahead of this host's."""
        return self.service - self.wall

    def holds(self, reading: HostReading) -> bool:
        """Whether this host's clock has since advanced by less than a day, and as far as the machine was up."""
        went_on = reading.wall - self.wall
        if not 0 < went_on < CHECK_HOLDS_SECONDS:
            return False
        if not self.boot and not reading.boot:
            return True
        return self.boot == reading.boot and abs(reading.uptime - self.uptime - went_on) <= CLOCKS_APART_SECONDS

    def to_json(self) -> str:
        """Return it as the ledger stores it."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Read what `to_json` wrote. None if it cannot be read; the clocks can be compared again."""
        try:
            values = orjson.loads(text or "")
            return cls(float(values["service"]), float(values["wall"]), float(values["uptime"]), str(values["boot"]))
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class ClockConflict:
    """Two clocks more than a day apart, without a decision which one counts: both times, read together."""

    host: float
    service: float

    def __str__(self) -> str:
        """Return the conflict for messages."""
        apart = show_duration(abs(self.host - self.service))
        return f"this machine's clock says {show(self.host)}, the service's {show(self.service)}: {apart} apart"


@dataclass(frozen=True, slots=True)
class _Date:
    """A date that differs from the current estimate. `base` is the time at which the monotonic clock was 0."""

    kind: Kind
    moment: float
    heard_at: float

    @property
    def base(self) -> float:
        return self.moment - self.heard_at

    def repeats(self, other: "_Date") -> bool:
        """Whether it has not advanced since an earlier one that came well before."""
        later = self.heard_at - other.heard_at
        return later > UNCERTAIN_SECONDS and abs(self.moment - other.moment) < later / 2


class ServiceTime:
    """Estimates the time at the service from the dates it sends.

    Args:
        reading: This host's clocks now.
        trust: The clock to trust if they are more than a day apart.

    Attributes:
        is_known: Whether the service has reported its time, and that was believed or overruled. Until then the time is
            this host's.
        checked: Both clocks at their last comparison, in this run or in an earlier one that still counts.
        conflict: Why nothing may be done (rule 4). None if there is no conflict.
    """

    def __init__(self, reading: HostReading, *, trust: ClockTrust = ClockTrust.NEITHER) -> None:
        self._trust = trust
        self._base = reading.wall - reading.monotonic
        self._ahead = 0.0  # service's clock minus this host's, at the last comparison
        self._doubted: list[_Date] = []
        self._starting = True
        self._reported_ahead = 0.0
        self._overruled = False
        self.is_known = False
        self.checked: ClockCheck | None = None
        self.conflict: ClockConflict | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether a date differs so much that more dates are needed to decide which is right."""
        return bool(self._doubted)

    def now(self, monotonic: float) -> float:
        """Return the time at the service."""
        return self._base + monotonic

    def earliest(self, monotonic: float) -> float:
        """Return the earliest time it may be, if one of the doubted dates turns out to be right."""
        return min(self.now(monotonic), *(one.base + monotonic for one in self._doubted), math.inf)

    def recall(self, check: ClockCheck | None, reading: HostReading) -> None:
        """Use what an earlier run found, if that still holds; called before any date is taken in."""
        if check is None or not check.holds(reading):
            return
        if abs(check.ahead) > FAR_SECONDS and self._trust is not ClockTrust.SERVICE:
            return
        self.checked = check
        self._set(check.service + reading.wall - check.wall, reading)

    def begin(self) -> None:
        """Note that the run starts its work: what is found from now on no longer stops it."""
        self._starting = False

    def hear(self, kind: Kind, date: float, reading: HostReading) -> str:
        """Take in the date of a successful reply.

        Args:
            kind: The kind of call.
            date: The date of the reply.
            reading: This host's clocks when the reply came.

        Returns:
            A sentence to warn the user with; "" if there is nothing new.
        """
        going_on, by_host = self.now(reading.monotonic), reading.wall + self._ahead
        if min(abs(date - going_on), abs(date - by_host)) > CLOCKS_APART_SECONDS:
            return self._doubt(_Date(kind, date, reading.monotonic), reading)
        self._doubted.clear()
        known = (time for time in (going_on, by_host) if abs(date - time) <= UNCERTAIN_SECONDS)
        return self._follow(next(known, date), reading)

    def _doubt(self, date: _Date, reading: HostReading) -> str:
        """Apply rules 3 and 4."""
        if any(date.repeats(one) for one in self._doubted):
            return ""
        self._doubted = [*self._doubted[1 - DATES_KEPT :], date]
        base = _agreed(self._doubted, date)
        if base is None:
            return ""
        service = base + reading.monotonic
        is_far = abs(service - reading.wall) > FAR_SECONDS
        if is_far and self._trust is ClockTrust.HOST:
            return self._overrule(service, reading)
        if is_far and self._trust is ClockTrust.NEITHER and self._starting:
            self.conflict = ClockConflict(reading.wall, service)
            return ""
        self._doubted.clear()
        return self._follow(service, reading)

    def _overrule(self, service: float, reading: HostReading) -> str:
        """Keep this host's clock, as the user has decided."""
        self._doubted.clear()
        self._note(reading.wall, reading)
        was_reported, self._overruled = self._overruled, True
        by = _difference(service - reading.wall)
        return (
            ""
            if was_reported
            else f"this machine's clock is {by} the service's; using this machine's, as [api] clock says"
        )

    def _follow(self, service: float, reading: HostReading) -> str:
        self._note(service, reading)
        change = abs(self._ahead - self._reported_ahead)
        if change <= (CLOCKS_APART_SECONDS if self._reported_ahead else WORTH_A_WARNING_SECONDS):
            return ""
        self._reported_ahead = self._ahead
        if abs(self._ahead) <= WORTH_A_WARNING_SECONDS:
            return ""
        return f"this machine's clock is {_difference(self._ahead)} the service's; using the service's"

    def _note(self, service: float, reading: HostReading) -> None:
        """Note that the time at the service is known."""
        self._set(service, reading)
        self.is_known = True
        self.checked = ClockCheck(service, reading.wall, reading.uptime, reading.boot)

    def _set(self, service: float, reading: HostReading) -> None:
        self._base, self._ahead = service - reading.monotonic, service - reading.wall


def _agreed(dates: Iterable[_Date], newest: _Date) -> float | None:
    """Return the time that three dates or more agree on, the newest among them (rule 3). None if they do not."""
    ordered = sorted(dates, key=lambda one: one.base)
    for first in ordered:
        group = [one for one in ordered if 0 <= one.base - first.base <= AGREEING_SECONDS]
        heard = [one.heard_at for one in group]
        independent = len({one.kind for one in group}) > 1 or max(heard) - min(heard) >= APART_SECONDS
        if newest in group and len(group) >= AGREEING_DATES and independent:
            return group[len(group) // 2].base
    return None


def _difference(ahead: float) -> str:
    """Return how far this host's clock is from the service's, which is `ahead` of it, in words."""
    return f"{show_duration(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'}"
