"""What time it is at the service: this host's clocks, and what `core.service_time` makes of the service's dates."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from asyncexport.core.service.requests import Kind
from asyncexport.core.service_time import ClockCheck, ClockConflict, ClockTrust, HostReading, ServiceTime

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Where Linux says which start of the machine this is."""


class HostClock:
    """The clocks of this host.

    Args:
        monotonic: The monotonic one. None: the time of the event loop that it is made in.
    """

    def __init__(self, monotonic: Callable[[], float] | None = None) -> None:
        self._monotonic = monotonic or asyncio.get_running_loop().time
        try:
            self._boot = BOOT_ID.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            self._boot = ""

    def read(self) -> HostReading:
        """All of them at once."""
        return HostReading(time.time(), self._monotonic(), self._uptime(), self._boot)

    def _uptime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if self._boot else 0.0


def time_by(check: str | None, *, trust: ClockTrust) -> float:
    """The time at the service for commands that ask nothing: this host's clock, put right by the `check` of a run.

    Args:
        check: What the newest run kept; None or "": nothing.
        trust: Whose clock counts where the two are more than a day apart.
    """
    reading = HostClock(time.monotonic).read()
    reckoned = ServiceTime(reading, trust=trust)
    reckoned.recall(ClockCheck.read(check), reading)
    return reckoned.now(reading.monotonic)


class ServiceClock:
    """Seconds since 1970 UTC, by the service's clock as far as it is known.

    Args:
        host: The clocks of this host.
        trust: Whose clock counts where the two are more than a day apart.
    """

    def __init__(self, *, host: HostClock | None = None, trust: ClockTrust = ClockTrust.NEITHER) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host or HostClock()
        self._steady_zero: float | None = None
        self._time = ServiceTime(self._host.read(), trust=trust)

    @property
    def is_known(self) -> bool:
        """Whether the service has said in this run what time it is; until then it is another's word."""
        return self._time.is_known

    @property
    def was_checked(self) -> bool:
        """Whether this run, or one before it whose word still holds, has compared the clocks.

        What is reckoned without that is not kept for later runs.
        """
        return self._time.checked is not None

    @property
    def in_doubt(self) -> bool:
        """Whether a date differs, and others have to say which time is right."""
        return self._time.in_doubt

    @property
    def conflict(self) -> ClockConflict | None:
        """Two clocks that are too far apart for the run to begin; None: they are not."""
        return self._time.conflict

    @property
    def check(self) -> str:
        """What later runs may go by; "": nothing."""
        checked = self._time.checked
        return "" if checked is None else checked.to_json()

    @property
    def zero(self) -> float:
        """The time at the service when the monotonic clock said 0; it changes only where the time is put right."""
        return self._time.now(0.0)

    def now(self) -> float:
        """The time at the service."""
        return self._time.now(self._loop.time())

    def earliest(self) -> float:
        """The earliest time that it may be at the service, as long as others have to say which is right."""
        return self._time.earliest(self._loop.time())

    def steady(self) -> float:
        """The time at the service as it was known when the run began, going on: it never jumps after that."""
        return (self.zero if self._steady_zero is None else self._steady_zero) + self._loop.time()

    def recall(self, check: str | None) -> None:
        """Go by the `check` of an earlier run, if it still holds."""
        self._time.recall(ClockCheck.read(check), self._host.read())

    def begin(self) -> None:
        """The run does its work from here on: what is found now is followed, and stops it no more."""
        self._time.begin()
        self._steady_zero = self.zero

    def hear(self, kind: Kind, date: float) -> None:
        """A successful reply to a call of this kind says that it is `date` at the service."""
        told = self._time.hear(kind, date, self._host.read())
        if told:
            log.warning("%s", told)
