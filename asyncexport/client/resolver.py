"""Looks up host names in daemon threads.

The system's lookup cannot be interrupted and may hang for minutes. `asyncio.run` waits for the event loop's own threads
when it ends, so a lookup that hangs in one of them would delay the end of the program.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import aiohttp


def open_resolver() -> aiohttp.abc.AbstractResolver:
    """Return a resolver for one session."""
    # The resolver calls no other methods of its loop than these two lookups.
    return aiohttp.ThreadedResolver(loop=cast("asyncio.AbstractEventLoop", NameLookups()))


class NameLookups:
    """Looks up names like an event loop, but in daemon threads. Identical lookups in progress share one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: dict[tuple[Any, ...], asyncio.Future[Any]] = {}

    async def getaddrinfo(
        self,
        host: str,
        port: int,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the loop's own signature
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """See `asyncio.AbstractEventLoop.getaddrinfo`."""
        return await self._look_up(socket.getaddrinfo, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """See `asyncio.AbstractEventLoop.getnameinfo`."""
        return await self._look_up(socket.getnameinfo, sockaddr, flags)

    async def _look_up(self, function: Callable[..., Any], *arguments: Any) -> Any:
        question = (function, *arguments)
        answer = self._running.get(question)
        if answer is None:
            answer = self._running[question] = self._loop.create_future()
            answer.add_done_callback(lambda done: self._forget(question, done))
            thread = threading.Thread(target=self._ask, args=(answer, function, arguments), name="name", daemon=True)
            thread.start()
        # Cancelling one waiter must not cancel the lookup for the others.
        return await asyncio.shield(answer)

    def _ask(self, answer: "asyncio.Future[Any]", function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            found = function(*arguments)
        except (OSError, UnicodeError) as error:
            self._deliver(answer.set_exception, error)
        else:
            self._deliver(answer.set_result, found)

    def _deliver(self, setter: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(setter, value)
        except RuntimeError:
            # The loop has ended in the meantime.
            return

    def _forget(self, question: tuple[Any, ...], answer: "asyncio.Future[Any]") -> None:
        self._running.pop(question, None)
        if not answer.cancelled():
            # Retrieve the exception, or asyncio would log it if no waiter is left.
            answer.exception()
