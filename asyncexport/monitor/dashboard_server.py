"""Serves the status page during a run, and sends changes to the pages that are open (server-sent events).

1. A reader cannot delay a run. At most once a second, a reader gets one message with everything that changed since its
   last one. A message is only made when the reader has taken the one before, so at most one waits; a reader that takes
   longer than `STALL_SECONDS` is dropped. It may connect again, and then gets what it missed.
2. Messages and pages are made once for all readers, and not at all if nobody reads.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from aiohttp import web

from asyncexport.core.listen_address import ListenAddress
from asyncexport.monitor.live_changes import LiveChanges
from asyncexport.monitor.live_page import LivePages
from asyncexport.monitor.web_server import serving

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""The time between two messages."""

STALL_SECONDS = 10.0
"""How long a reader may take to accept a message."""

SEND_BUFFER_BYTES = 128 * 1024
"""What the system keeps for a reader that does not read; the default may be megabytes."""

KEEPALIVE_TICKS = 15
"""After so many ticks without a change, a comment is sent, which shows whether the reader is still there."""

MOST_READERS = 50

LAST_PAGE_SECONDS = 10.0
"""How long making the last page may delay the end of a run that has readers."""

END_SECONDS = 1.0
"""How long the last message may take at the end of a run."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class DashboardServer:
    """Answers requests and sends messages.

    Args:
        changes: The changes of bundles.
        pages: The pages.
        progress: Returns the progress of the run in one line.
        stall_seconds: How long a reader may take to accept a message.
        tick_seconds: The time between two messages.
    """

    def __init__(
        self,
        changes: LiveChanges,
        pages: LivePages,
        progress: Callable[[], str],
        *,
        stall_seconds: float = STALL_SECONDS,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._changes = changes
        self._pages = pages
        self._progress = progress
        self._stall_seconds = stall_seconds
        self._tick_seconds = tick_seconds
        self._tick = asyncio.Event()
        self._is_read, self._is_unread = asyncio.Event(), asyncio.Event()
        self._readers = 0
        self._messages: dict[tuple[int, int, str], tuple[bytes, tuple[int, int]]] = {}
        self._ended = False

    async def front(self, _request: web.Request) -> web.Response:
        """Answer with the page."""
        page = await self._pages.present()
        return web.Response(text=page.html, content_type="text/html", headers=HEADERS)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send messages until the reader or the run is gone, or the reader does not take one."""
        if self._readers >= MOST_READERS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n")
        if request.transport is not None and (sending := request.transport.get_extra_info("socket")) is not None:
            with suppress(OSError):
                sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        known = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        self._readers += 1
        self._is_read.set()
        self._is_unread.clear()
        try:
            await response.prepare(request)
            await self._send_messages(response, self._pages.read(known))
        except TimeoutError:
            log.debug("a reader of the dashboard has stalled and is dropped")
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            log.debug("a reader of the dashboard is gone")
        finally:
            self._readers -= 1
            if not self._readers:
                self._is_read.clear()
                self._is_unread.set()
        return response

    async def tick(self) -> None:
        """Let all readers get a message, at intervals, while there are readers (rule 2)."""
        while True:
            await self._is_read.wait()
            await asyncio.sleep(self._tick_seconds)
            self._pages.refresh()
            self._let_send()

    async def end(self) -> None:
        """Send the last message: the run has ended, and what the page shows then."""
        if not self._readers:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_PAGE_SECONDS):
                await self._pages.newest()
        self._ended = True
        self._let_send()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._is_unread.wait()

    def _let_send(self) -> None:
        self._messages.clear()
        self._tick.set()
        self._tick = asyncio.Event()

    async def _send_messages(self, response: web.StreamResponse, known: tuple[int, int]) -> None:
        """Send messages to a reader that has this version of the page and the changes up to this number."""
        shown, quiet = "", 0
        while True:
            tick, ended = self._tick, self._ended
            text = self._progress()
            message, known = await self._message(known, text if text != shown else "")
            shown, quiet = text, 0 if message else quiet + 1
            if not message and quiet % KEEPALIVE_TICKS == 0:
                message = b": nothing has changed\n\n"
            if ended:
                message += b"event: ended\ndata: \n\n"
            if message:
                async with asyncio.timeout(self._stall_seconds):
                    await response.write(message)
            if ended:
                return
            await tick.wait()

    async def _message(self, known: tuple[int, int], text: str) -> tuple[bytes, tuple[int, int]]:
        """Return what has changed for a reader, b"" if nothing has, and what it knows then."""
        made = self._messages.get((*known, text))
        if made is None:
            made = self._messages[(*known, text)] = await self._new_message(known, text)
        return made

    async def _new_message(self, known: tuple[int, int], text: str) -> tuple[bytes, tuple[int, int]]:
        version, number = known
        data: dict[str, Any] = {"progress": text} if text else {}
        page = self._pages.current or await self._pages.present()
        changes = self._changes.after(number if page.version == version else page.includes)
        if changes is None:
            page = await self._pages.newest()
            changes = self._changes.after(page.includes)
        if page.version != version:
            data["page"] = page.html
        if changes:
            data["bundles"] = changes
        if not data:
            return b"", known
        number = self._changes.number
        name = self._pages.name(page, number)
        return b"id: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data)), (page.version, number)


@asynccontextmanager
async def serving_dashboard(address: ListenAddress, server: DashboardServer) -> AsyncIterator[str]:
    """Serve the page and yield its URL.

    Args:
        address: Where to listen.
        server: Answers the requests.

    Raises:
        OSError: the address cannot be used.
    """
    routes = [web.get("/", server.front), web.get("/events", server.events)]
    ticking = asyncio.create_task(server.tick(), name="dashboard")
    try:
        async with serving(address, routes, what="the status page") as url:
            yield f"{url}/"
    finally:
        ticking.cancel()
        await asyncio.wait({ticking})
