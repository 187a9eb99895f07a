"""The check whom the key belongs to: one request for all bundles that doubt it."""

import asyncio

from asyncexport.core.service.resources import Me
from asyncexport.core.service.retrying import KeyStatus
from asyncexport.engine.key_check import KeyCheck
from tests.virtual_time import on_virtual_time, settled


class Service:
    """Answers `/me` once `answer` is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = 0
        self.answer = asyncio.Event()

    async def me(self) -> Me:
        """Return the owner of the key."""
        self.asked += 1
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Me("owner@example.com", "ORG", "ADMIN")


@on_virtual_time
async def test_a_cancelled_waiter_leaves_the_answer_to_the_others():
    """The request goes on as long as one caller waits for its answer, and is sent once."""
    service = Service()
    key = KeyCheck(service.me)
    first, second = (asyncio.create_task(key.status()) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    service.answer.set()
    assert await second is KeyStatus.GOOD
    assert (first.cancelled(), service.asked, service.cancelled) == (True, 1, 0)


@on_virtual_time
async def test_a_check_that_no_caller_waits_for_is_cancelled():
    """The next caller sends a new request, even while the old one is being cancelled."""
    service = Service()
    key = KeyCheck(service.me)
    first = asyncio.create_task(key.status())
    await settled()
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.create_task(key.status())
    await settled()
    service.answer.set()
    assert await second is KeyStatus.GOOD
    assert (service.asked, service.cancelled) == (2, 1)
