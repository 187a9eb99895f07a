"""What time it is at the service, as far as this host's clock and the dates of the service's replies tell.

1. UTC comes from this host's clock, and goes on with the monotonic one: a clock that is set in the middle of a run does
   not matter.
2. A date up to five minutes off is followed at once. It is compared with the time as it has gone on, and with this
   host's clock read anew: where the machine slept its monotonic clock stood still, and no clock is wrong.
3. A date that is further off is followed once three such dates agree within a minute, and came with two kinds of call,
   or ten seconds apart. A lone one is ignored, and one that confirms the time as it is ends the doubt. A date that
   stands still came from a store of replies, and is nobody's opinion.
4. If the three are more than a day from this host's clock, somebody has to say whom to trust (`[api] clock`). At the
   start of a run nothing is done until then; later the service is followed, and that is told.
5. What was found is kept for a day (`ClockCheck`), as long as this host's clock has gone on by less than that.

All moments are seconds since 1970 UTC; monotonic ones count from anywhere.
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
"""What a date may be off by: the second it is cut to, and its way here. Within that the time is left as it is, since
requests on record must not seem to have been sent earlier than they were."""

CLOCKS_APART_SECONDS = 300.0
"""A date no further off is followed at once (rule 2); so much two clocks may be apart wherever times are compared."""

WORTH_A_WARNING_SECONDS = 60.0
"""A difference below this is corrected without a word."""

AGREEING_DATES = 3

AGREEING_SECONDS = 60.0

APART_SECONDS = 10.0
"""Dates that all came with one kind of call agree only if the first and the last are so far apart."""

DATES_KEPT = 8
"""Of the dates that are doubted the latest are kept."""

FAR_SECONDS = DAY + UNCERTAIN_SECONDS
"""A difference beyond this is not followed without a word from the user (rule 4)."""

CHECK_HOLDS_SECONDS = float(DAY)


class ClockTrust(StrEnum):
    """`[api] clock`: whose clock counts where this host's and the service's are more than a day apart."""

    NEITHER = ""
    SERVICE = "service"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class HostReading:
    """This host's clocks, read together.

    Attributes:
        wall: Its time of day.
        monotonic: What waiting goes by; it may stand still while the machine sleeps.
        uptime: How long the machine has been up, sleep included.
        boot: What tells this start of the machine from others; "": nothing does, and `uptime` means nothing.
    """

    wall: float
    monotonic: float
    uptime: float = 0.0
    boot: str = ""


@dataclass(frozen=True, slots=True)
class ClockCheck:
    """Both clocks at the moment they were last compared; later runs go by it for a day (rule 5).

    Attributes:
        service: The time at the service.
        wall: This host's clock at that moment.
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
        """Whether this host's clock has gone on since, by less than a day, and by no more than the machine was up."""
        went_on = reading.wall - self.wall
        if not 0 < went_on < CHECK_HOLDS_SECONDS:
            return False
        if not self.boot and not reading.boot:
            return True
        return self.boot == reading.boot and abs(reading.uptime - self.uptime - went_on) <= CLOCKS_APART_SECONDS

    def to_json(self) -> str:
        """As the ledger keeps it."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """What `to_json` wrote; None where it cannot be read, since the clocks can be compared anew."""
        try:
            values = orjson.loads(text or "")
            return cls(float(values["service"]), float(values["wall"]), float(values["uptime"]), str(values["boot"]))
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class ClockConflict:
    """Two clocks that are more than a day apart, and nobody said which counts: both times, at the same moment."""

    host: float
    service: float

    def __str__(self) -> str:
        """As a person is told."""
        apart = show_duration(abs(self.host - self.service))
        return f"this machine's clock says {show(self.host)}, the service's {show(self.service)}: {apart} apart"


@dataclass(frozen=True, slots=True)
class _Date:
    """A date that differs from the time as we have it; `base` is the time at which the monotonic clock said 0."""

    kind: Kind
    moment: float
    heard_at: float

    @property
    def base(self) -> float:
        return self.moment - self.heard_at

    def repeats(self, other: "_Date") -> bool:
        """Whether it says the same as one that came well before it."""
        later = self.heard_at - other.heard_at
        return later > UNCERTAIN_SECONDS and abs(self.moment - other.moment) < later / 2


class ServiceTime:
    """Reckons the time at the service from what is heard.

    Args:
        reading: This host's clocks at present.
        trust: Whose clock counts where they are more than a day apart.

    Attributes:
        is_known: Whether the service has said what time it is, and that was believed or overruled. Until then the time
            is this host's word.
        checked: Both clocks when they were last compared, in this run or in an earlier one whose word still holds.
        conflict: Why nothing may be done (rule 4); None: nothing is in the way.
    """

    def __init__(self, reading: HostReading, *, trust: ClockTrust = ClockTrust.NEITHER) -> None:
        self._trust = trust
        self._base = reading.wall - reading.monotonic
        self._ahead = 0.0  # of this host's clock, when they were last compared
        self._doubted: list[_Date] = []
        self._starting = True
        self._told_ahead = 0.0
        self._overruled = False
        self.is_known = False
        self.checked: ClockCheck | None = None
        self.conflict: ClockConflict | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether a date differs by more than is followed at once, and it takes others to know which is right."""
        return bool(self._doubted)

    def now(self, monotonic: float) -> float:
        """The time at the service."""
        return self._base + monotonic

    def earliest(self, monotonic: float) -> float:
        """The earliest time that it may be: what is in doubt may turn out to be right."""
        return min(self.now(monotonic), *(one.base + monotonic for one in self._doubted), math.inf)

    def recall(self, check: ClockCheck | None, reading: HostReading) -> None:
        """Go by what an earlier run found, if that still holds; before anything is heard."""
        if check is None or not check.holds(reading):
            return
        if abs(check.ahead) > FAR_SECONDS and self._trust is not ClockTrust.SERVICE:
            return
        self.checked = check
        self._set(check.service + reading.wall - check.wall, reading)

    def begin(self) -> None:
        """The run does its work from here on: what is found now stops it no more."""
        self._starting = False

    def hear(self, kind: Kind, date: float, reading: HostReading) -> str:
        """Take in the date of a successful reply.

        Args:
            kind: The kind of call.
            date: What the reply said.
            reading: This host's clocks when the reply came.

        Returns:
            What the user should be told, in a sentence; "" where nothing is new.
        """
        going_on, by_host = self.now(reading.monotonic), reading.wall + self._ahead
        if min(abs(date - going_on), abs(date - by_host)) > CLOCKS_APART_SECONDS:
            return self._doubt(_Date(kind, date, reading.monotonic), reading)
        self._doubted.clear()
        known = (time for time in (going_on, by_host) if abs(date - time) <= UNCERTAIN_SECONDS)
        return self._follow(next(known, date), reading)

    def _doubt(self, date: _Date, reading: HostReading) -> str:
        """Rules 3 and 4."""
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
        """The user says that this host's clock counts."""
        self._doubted.clear()
        self._note(reading.wall, reading)
        told, self._overruled = self._overruled, True
        by = _difference(service - reading.wall)
        return (
            "" if told else f"this machine's clock is {by} the service's; going by this machine's, as [api] clock says"
        )

    def _follow(self, service: float, reading: HostReading) -> str:
        self._note(service, reading)
        news = abs(self._ahead - self._told_ahead)
        if news <= (CLOCKS_APART_SECONDS if self._told_ahead else WORTH_A_WARNING_SECONDS):
            return ""
        self._told_ahead = self._ahead
        if abs(self._ahead) <= WORTH_A_WARNING_SECONDS:
            return ""
        return f"this machine's clock is {_difference(self._ahead)} the service's; going by the service's"

    def _note(self, service: float, reading: HostReading) -> None:
        """The time at the service is known."""
        self._set(service, reading)
        self.is_known = True
        self.checked = ClockCheck(service, reading.wall, reading.uptime, reading.boot)

    def _set(self, service: float, reading: HostReading) -> None:
        self._base, self._ahead = service - reading.monotonic, service - reading.wall


def _agreed(dates: Iterable[_Date], newest: _Date) -> float | None:
    """What three dates or more agree on, the newest among them (rule 3); None where they do not."""
    ordered = sorted(dates, key=lambda one: one.base)
    for first in ordered:
        group = [one for one in ordered if 0 <= one.base - first.base <= AGREEING_SECONDS]
        heard = [one.heard_at for one in group]
        independent = len({one.kind for one in group}) > 1 or max(heard) - min(heard) >= APART_SECONDS
        if newest in group and len(group) >= AGREEING_DATES and independent:
            return group[len(group) // 2].base
    return None


def _difference(ahead: float) -> str:
    """How far this host's clock is from the service's, which is so far ahead of it."""
    return f"{show_duration(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'}"
