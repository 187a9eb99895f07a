"""No test sleeps for time it could skip, and whoever forgets the virtual clock is told."""

import asyncio
import threading

import pytest

from tests.idling import Idling, NotingLoop
from tests.virtual_time import on_virtual_time


def noted(main) -> Idling:
    """What is noted while a coroutine runs."""
    idling = Idling()
    with asyncio.Runner(loop_factory=lambda: NotingLoop(idling)) as runner:
        runner.run(main)
    return idling


def test_a_sleep_is_noted_as_long_as_it_was_asked_for():
    """However long the machine takes over it."""
    idling = noted(asyncio.sleep(0.02))
    assert 0.01 < idling.longest_seconds <= 0.02
    assert 0.01 < idling.total_seconds <= 0.03


def test_a_limit_that_did_not_come_to_pass_is_not_noted():
    """A wait for something that happens is no sleep, even if somebody would have waited for long."""

    async def main() -> None:
        happened = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Timer(0.02, loop.call_soon_threadsafe, [happened.set]).start()
        async with asyncio.timeout(100):
            await happened.wait()

    assert noted(main()).total_seconds == 0


@pytest.mark.may_idle(0.01)
@pytest.mark.xfail(raises=pytest.fail.Exception, reason="it sleeps for longer than it may")
async def test_a_test_that_sleeps_for_too_long_fails():
    """Control: the check is at work in this suite."""
    await asyncio.sleep(0.05)


@on_virtual_time
async def test_on_virtual_time_any_sleep_is_free():
    """An hour is skipped, and nothing is noted."""
    await asyncio.sleep(3600)
