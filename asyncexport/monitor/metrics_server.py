"""Serves the metrics over HTTP while a run is in progress.

A reader cannot delay a run: answers are short, and nothing is kept for slow readers.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from asyncexport.core.listen_address import ListenAddress
from asyncexport.monitor.web_server import serving

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

    routes = [web.get("/metrics", metrics), web.get("/", front)]
    async with serving(address, routes, what="the metrics") as url:
        yield f"{url}/metrics"
