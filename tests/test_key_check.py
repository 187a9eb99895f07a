"""Asking whose key it is: one question for all who doubt it."""

import asyncio

from asyncexport.core.service.resources import Me
from asyncexport.core.service.retrying import KeyStatus
from asyncexport.engine.key_check import KeyCheck
from tests.virtual_time import on_virtual_time, settled


class Service:
    """Answers `/me` when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.dropped = 0
        self.answer = asyncio.Event()

    async def me(self) -> Me:
        """Whose key it is."""
        self.asked += 1
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        return Me("owner@example.com", "ORG", "ADMIN")


@on_virtual_time
async def test_one_that_is_cancelled_leaves_the_answer_to_the_others():
    """The question goes on as long as anybody waits for its answer, and is asked once."""
    service = Service()
    key = KeyCheck(service.me)
    first, second = (asyncio.create_task(key.status()) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    service.answer.set()
    assert await second is KeyStatus.GOOD
    assert (first.cancelled(), service.asked, service.dropped) == (True, 1, 0)


@on_virtual_time
async def test_a_question_that_nobody_waits_for_is_dropped():
    """The next to doubt the key asks anew, even while the old question is being dropped."""
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
    assert (service.asked, service.dropped) == (2, 1)
