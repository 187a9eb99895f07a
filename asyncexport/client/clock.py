"""The time at the service, computed by `core.service_time` from this host's clocks and the dates of the replies."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from asyncexport.core.service.requests import Kind
from asyncexport.core.service_time import ClockCheck, ClockConflict, ClockTrust, HostReading, ServiceTime

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The file in which Linux keeps an id of the current boot."""


class HostClock:
    """The clocks of this host.

    Args:
        monotonic: The monotonic clock. None: the time of the running event loop.
    """

    def __init__(self, monotonic: Callable[[], float] | None = None) -> None:
        self._monotonic = monotonic or asyncio.get_running_loop().time
        try:
            self._boot = BOOT_ID.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            self._boot = ""

    def read(self) -> HostReading:
        """Read all clocks together."""
        return HostReading(time.time(), self._monotonic(), self._uptime(), self._boot)

    def _uptime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if self._boot else 0.0


def checked_time(check: str | None, *, trust: ClockTrust, host: HostClock) -> float | None:
    """Return the time at the service if `check` is still valid, for commands that send no request; None otherwise.

    Args:
        check: The clock check that the newest run stored; None or "" if there is none.
        trust: Whose clock counts if the two are more than a day apart.
        host: The clocks of this host.
    """
    reading = host.read()
    service_time = ServiceTime(reading, trust=trust)
    service_time.recall(ClockCheck.read(check), reading)
    return service_time.now(reading.monotonic) if service_time.checked is not None else None


def time_by(check: str | None, *, trust: ClockTrust) -> float:
    """Return the time at the service for commands that send no request: this host's clock, corrected by `check`.

    Args:
        check: The clock check that the newest run stored; None or "" if there is none.
        trust: Whose clock counts if the two are more than a day apart.
    """
    reading = HostClock(time.monotonic).read()
    service_time = ServiceTime(reading, trust=trust)
    service_time.recall(ClockCheck.read(check), reading)
    return service_time.now(reading.monotonic)


class ServiceClock:
    """Tells the time at the service, in seconds since 1970 UTC, as far as it is known.

    Args:
        host: The clocks of this host.
        trust: Whose clock counts if the two are more than a day apart.
    """

    def __init__(self, *, host: HostClock | None = None, trust: ClockTrust = ClockTrust.NEITHER) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host or HostClock()
        self._steady_zero: float | None = None
        self._time = ServiceTime(self._host.read(), trust=trust)

    @property
    def is_known(self) -> bool:
        """Whether a reply in this run has confirmed the time; until then it comes from this host or an earlier run."""
        return self._time.is_known

    @property
    def was_checked(self) -> bool:
        """Whether the clocks were compared in this run, or in an earlier one whose result is still valid.

        Times computed without a comparison are not stored for later runs.
        """
        return self._time.checked is not None

    @property
    def in_doubt(self) -> bool:
        """Whether a reply's date differs from the expected time and further replies have to decide which is right."""
        return self._time.in_doubt

    @property
    def conflict(self) -> ClockConflict | None:
        """The two clocks if they are too far apart for the run to begin; None otherwise."""
        return self._time.conflict

    @property
    def check(self) -> str:
        """The clock check to store for later runs; "" if there is none."""
        checked = self._time.checked
        return "" if checked is None else checked.to_json()

    @property
    def zero(self) -> float:
        """The time at the service when the monotonic clock was 0; it changes only when the time is corrected."""
        return self._time.now(0.0)

    def now(self) -> float:
        """The time at the service."""
        return self._time.now(self._loop.time())

    def earliest(self) -> float:
        """The earliest time that is possible at the service while the time is in doubt."""
        return self._time.earliest(self._loop.time())

    def steady(self) -> float:
        """The time at the service as known when the run began, plus the time since; it never jumps."""
        return (self.zero if self._steady_zero is None else self._steady_zero) + self._loop.time()

    def recall(self, check: str | None) -> None:
        """Use the clock check of an earlier run, if it is still valid."""
        self._time.recall(ClockCheck.read(check), self._host.read())

    def begin(self) -> None:
        """Mark the start of the run's work: from here on, a wrong clock is corrected and no longer stops the run."""
        self._time.begin()
        self._steady_zero = self.zero

    def hear(self, kind: Kind, date: float) -> None:
        """Take the `date` of a successful reply to a call of this kind as the time at the service."""
        warning = self._time.hear(kind, date, self._host.read())
        if warning:
            log.warning("%s", warning)
