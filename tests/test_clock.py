"""What time it is at the service."""

import asyncio
import logging
import time

import pytest

from asyncexport.client.clock import ServiceClock
from tests.virtual_time import on_virtual_time


def is_ahead_by(clock: ServiceClock, seconds: float) -> bool:
    """Whether it shows the host's time and so much more, however long it takes to look at one after the other."""
    before = time.time()
    shown = clock.now()
    return before + seconds - 0.1 <= shown <= time.time() + seconds + 0.1


@pytest.mark.parametrize("seconds", [86_400.0, -86_400.0, 90.0, -90.0])
async def test_a_wrong_host_clock_is_corrected_and_told(seconds, caplog):
    """By how much, and in which direction, is said once it is worth a word."""
    clock = ServiceClock()
    with caplog.at_level(logging.WARNING):
        clock.correct(seconds)
    assert is_ahead_by(clock, seconds)
    assert ("behind" if seconds > 0 else "ahead of") in caplog.text


async def test_a_few_seconds_are_corrected_without_a_word(caplog):
    """Below a minute nobody has to do anything about it."""
    clock = ServiceClock()
    with caplog.at_level(logging.WARNING):
        clock.correct(20.0)
    assert is_ahead_by(clock, 20.0)
    assert not caplog.text


@pytest.mark.parametrize("seconds", [-1.2, -0.4, 0.0, 1.0])
async def test_a_clock_that_is_right_is_left_alone(seconds):
    """A date is cut to whole seconds: going by it would make the record of requests jump from run to run."""
    clock = ServiceClock()
    clock.correct(seconds)
    assert is_ahead_by(clock, 0.0)


@pytest.mark.parametrize("seconds", [-1.2, 0.0, 86_400.0])
async def test_it_says_whether_the_service_was_heard(seconds):
    """A clock that turned out to be right is as good as one that was put right; an unheard one is neither."""
    clock = ServiceClock()
    assert not clock.is_known
    clock.correct(seconds)
    assert clock.is_known


@on_virtual_time
async def test_it_goes_on_with_the_monotonic_clock():
    """Two looks are as far apart as the loop's time."""
    clock = ServiceClock()
    first = clock.now()
    await asyncio.sleep(3600)
    assert clock.now() - first == pytest.approx(3600, abs=0.001)
