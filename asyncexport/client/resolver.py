"""Names of hosts, looked up in threads that nobody waits for.

The system's look-up cannot be interrupted, and may hang for minutes. The event loop's own threads are waited for when
the loop ends, and so a look-up that hangs would hold up the end of the program, whatever asked for it.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import aiohttp


def open_resolver() -> aiohttp.abc.AbstractResolver:
    """A resolver for one session."""
    # It asks a loop for nothing but these look-ups.
    return aiohttp.ThreadedResolver(loop=cast("asyncio.AbstractEventLoop", NameLookups()))


class NameLookups:
    """Looks names up as an event loop does, by threads that end with the program; the same question is asked once."""

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
        # One that is cancelled leaves the others their answer.
        return await asyncio.shield(answer)

    def _ask(self, answer: "asyncio.Future[Any]", function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            found = function(*arguments)
        except (OSError, UnicodeError) as error:
            self._tell(answer.set_exception, error)
        else:
            self._tell(answer.set_result, found)

    def _tell(self, tell: Callable[[Any], None], what: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(tell, what)
        except RuntimeError:
            # The loop has ended meanwhile.
            return

    def _forget(self, question: tuple[Any, ...], answer: "asyncio.Future[Any]") -> None:
        self._running.pop(question, None)
        if not answer.cancelled():
            # Looked at, for when nobody waits any more: asyncio would complain.
            answer.exception()
