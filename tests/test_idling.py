"""Tests that sleep for time they could skip are noticed."""

import asyncio
import threading

import pytest

from tests.idling import Idling, NotingLoop
from tests.virtual_time import on_virtual_time


def recorded_while(main) -> Idling:
    """Return what is recorded while a coroutine runs."""
    idling = Idling()
    with asyncio.Runner(loop_factory=lambda: NotingLoop(idling)) as runner:
        runner.run(main)
    return idling


def test_a_sleep_is_recorded_with_its_requested_duration():
    """A slow machine does not make the recorded duration longer."""
    idling = recorded_while(asyncio.sleep(0.02))
    assert 0.01 < idling.longest_seconds <= 0.02
    assert 0.01 < idling.total_seconds <= 0.03


def test_a_timeout_that_did_not_expire_is_not_recorded():
    """Waiting for something that happens is no sleep, however long the timeout."""

    async def main() -> None:
        happened = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Timer(0.02, loop.call_soon_threadsafe, [happened.set]).start()
        async with asyncio.timeout(100):
            await happened.wait()

    assert recorded_while(main()).total_seconds == 0


@pytest.mark.may_idle(0.01)
@pytest.mark.xfail(raises=pytest.fail.Exception, reason="it sleeps longer than allowed")
async def test_a_test_that_sleeps_too_long_fails():
    """Control: the check is active in this test suite."""
    await asyncio.sleep(0.05)


@on_virtual_time
async def test_a_sleep_on_virtual_time_is_free():
    """An hour is skipped, and nothing is recorded."""
    await asyncio.sleep(3600)
