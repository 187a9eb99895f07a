"""What time it is at the service: the clocks of this host."""

import asyncio
import logging
import time

import pytest

from asyncexport.client.clock import HostClock, ServiceClock
from asyncexport.core.service.requests import Kind
from asyncexport.core.service_time import ClockTrust
from tests.virtual_time import on_virtual_time


def is_ahead_by(clock: ServiceClock, seconds: float) -> bool:
    """Whether it shows the host's time and so much more, however long it takes to look at one after the other."""
    before = time.time()
    shown = clock.now()
    return before + seconds - 0.1 <= shown <= time.time() + seconds + 0.1


def hear(clock: ServiceClock, seconds: float) -> None:
    """Three answers of two kinds say that the service's clock is so far ahead."""
    for kind in (Kind.LIST, Kind.OTHER, Kind.LIST):
        clock.hear(kind, time.time() + seconds)


@pytest.mark.parametrize("seconds", [80_000.0, -80_000.0, 90.0, -90.0])
async def test_a_wrong_host_clock_is_corrected_and_told(seconds, caplog):
    """By how much, and in which direction, is said once it is worth a word."""
    clock = ServiceClock()
    with caplog.at_level(logging.WARNING):
        hear(clock, seconds)
    assert is_ahead_by(clock, seconds)
    assert len(caplog.records) == 1
    assert ("behind" if seconds > 0 else "ahead of") in caplog.text


async def test_nothing_is_known_until_something_was_heard():
    """Of the service, or by an earlier run."""
    clock = ServiceClock()
    assert (clock.is_known, clock.was_checked, clock.check) == (False, False, "")
    hear(clock, 0.0)
    assert (clock.is_known, clock.was_checked) == (True, True)
    later = ServiceClock()
    later.recall(clock.check)
    assert (later.is_known, later.was_checked) == (False, True)


async def test_clocks_that_are_days_apart_are_a_conflict_unless_somebody_is_trusted():
    """The user is asked before anything is done."""
    for trust, conflict in ((ClockTrust.NEITHER, True), (ClockTrust.SERVICE, False), (ClockTrust.HOST, False)):
        clock = ServiceClock(trust=trust)
        hear(clock, 200_000.0)
        assert (clock.conflict is not None) == conflict
        assert is_ahead_by(clock, 200_000.0 if trust is ClockTrust.SERVICE else 0.0)


async def test_the_host_says_how_long_it_has_been_up_where_it_can():
    """With the name of this start of the machine, two looks at it go on."""
    host = HostClock()
    first, second = host.read(), host.read()
    assert first.boot == second.boot
    assert second.uptime >= first.uptime
    assert bool(first.boot) == (first.uptime > 0)
    assert abs(first.wall - time.time()) < 60


@on_virtual_time
async def test_what_waiting_goes_by_is_not_put_right_once_work_has_begun():
    """Before that it is: nothing waits yet."""
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
async def test_it_goes_on_with_the_monotonic_clock():
    """Two looks are as far apart as the loop's time."""
    clock = ServiceClock()
    first, zero = clock.now(), clock.zero
    await asyncio.sleep(3600)
    assert clock.now() - first == pytest.approx(3600, abs=0.001)
    assert clock.zero == zero
