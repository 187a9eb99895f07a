"""Wakes all waiters when something has changed; each then checks for itself whether it may continue.

A waiter checks again after each change. There must be no `await` between its check and its `wait`: a change in between
would be missed.
"""

import asyncio


class ChangeSignal:
    """A signal that something has changed, with the tasks that wait for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Future[None], None] = {}

    def notify(self) -> None:
        """Wake all waiters."""
        for one in self._waiting:
            _wake(one)
        self._waiting.clear()

    async def wait(self, seconds: float) -> None:
        """Wait for the next change, at most this many seconds (which may be infinite)."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting[waiter] = None
        timer = None if seconds == float("inf") else self._loop.call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)
            if timer is not None:
                timer.cancel()


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
