"""The service's time, computed from the clocks of this host."""

import asyncio
import logging
import time

import pytest

from asyncexport.client.clock import HostClock, ServiceClock
from asyncexport.core.service.requests import Kind
from asyncexport.core.service_time import ClockTrust
from tests.virtual_time import on_virtual_time


def is_ahead_by(clock: ServiceClock, seconds: float) -> bool:
    """Return whether the clock is `seconds` ahead of the host's, allowing for the time between the two readings."""
    before = time.time()
    shown = clock.now()
    return before + seconds - 0.1 <= shown <= time.time() + seconds + 0.1


def hear(clock: ServiceClock, seconds: float) -> None:
    """Three answers of two kinds show that the service's clock is `seconds` ahead."""
    for kind in (Kind.LIST, Kind.OTHER, Kind.LIST):
        clock.hear(kind, time.time() + seconds)


@pytest.mark.parametrize("seconds", [80_000.0, -80_000.0, 90.0, -90.0])
async def test_a_wrong_host_clock_is_corrected_and_reported(seconds, caplog):
    """One warning states by how much the host's clock is ahead or behind."""
    clock = ServiceClock()
    with caplog.at_level(logging.WARNING):
        hear(clock, seconds)
    assert is_ahead_by(clock, seconds)
    assert len(caplog.records) == 1
    assert ("behind" if seconds > 0 else "ahead of") in caplog.text


async def test_the_time_is_unknown_before_the_first_answer():
    """The time is only known after an answer in this run; an earlier run's answer counts as a check."""
    clock = ServiceClock()
    assert (clock.is_known, clock.was_checked, clock.check) == (False, False, "")
    hear(clock, 0.0)
    assert (clock.is_known, clock.was_checked) == (True, True)
    later = ServiceClock()
    later.recall(clock.check)
    assert (later.is_known, later.was_checked) == (False, True)


async def test_clocks_that_are_days_apart_are_a_conflict_unless_the_user_chose_one():
    """Without `[api] clock` the difference is a conflict; with it the chosen clock is used."""
    for trust, conflict in ((ClockTrust.NEITHER, True), (ClockTrust.SERVICE, False), (ClockTrust.HOST, False)):
        clock = ServiceClock(trust=trust)
        hear(clock, 200_000.0)
        assert (clock.conflict is not None) == conflict
        assert is_ahead_by(clock, 200_000.0 if trust is ClockTrust.SERVICE else 0.0)


async def test_the_host_reports_its_uptime_if_it_can():
    """Two readings have the same boot id, and the uptime does not decrease."""
    host = HostClock()
    first, second = host.read(), host.read()
    assert first.boot == second.boot
    assert second.uptime >= first.uptime
    assert bool(first.boot) == (first.uptime > 0)
    assert abs(first.wall - time.time()) < 60


@on_virtual_time
async def test_the_clock_for_waiting_is_not_corrected_once_work_has_begun():
    """Before work begins a correction applies to it; afterwards it runs on with the monotonic clock."""
    clock = ServiceClock()
    hear(clock, 3600.0)
    assert clock.steady() == clock.now()
    clock.begin()
    steady, behind = clock.steady(), asyncio.get_running_loop().time()
    hear(clock, 200_000.0)
    await asyncio.sleep(10)
    assert clock.steady() - steady == pytest.approx(asyncio.get_running_loop().time() - behind)
    assert clock.now() - clock.steady() == pytest.approx(196_400.0, abs=60)


@on_virtual_time
async def test_the_clock_advances_with_the_monotonic_clock():
    """Two readings differ by the time that passed in the event loop."""
    clock = ServiceClock()
    first, zero = clock.now(), clock.zero
    await asyncio.sleep(3600)
    assert clock.now() - first == pytest.approx(3600, abs=0.001)
    assert clock.zero == zero
