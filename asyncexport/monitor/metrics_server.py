"""Serves the metrics over HTTP while a run is in progress.

A reader cannot delay a run: answers are short, nothing is kept for slow readers, and at the end of the run connections
that are still open are closed after `SHUTDOWN_SECONDS`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from asyncexport.core.listen_address import ListenAddress

SHUTDOWN_SECONDS = 0.5

PAGE = """<!doctype html><title>asyncexport</title><p>The metrics are at <a href="/metrics">/metrics</a>.</p>
"""


@asynccontextmanager
async def serving_metrics(
    address: ListenAddress, text: Callable[[], Awaitable[bytes]], *, content_type: str
) -> AsyncIterator[str]:
    """Serve `/metrics` and yield its URL.

    Args:
        address: Where to listen.
        text: Returns the present metrics.
        content_type: The type of the metrics.

    Raises:
        OSError: the address cannot be used.
    """

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await text(), headers={"Content-Type": content_type})

    async def front(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/", front)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://{ListenAddress(address.host, port)}/metrics"
    finally:
        await runner.cleanup()
