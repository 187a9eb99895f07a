"""Serves HTTP at an address while a run is in progress: what the metrics and the status page have in common.

1. Unless the address is public, the server only answers requests for a loopback name. Otherwise a page of another site
   could have its own name resolved to this address, and read the answers.
2. What clients do wrong is not in the log of the run. A port scanner, or a browser that tries HTTPS, sends what is no
   HTTP at all; aiohttp would log each such request as an error.
3. An answer that fails because of a bug of ours is one warning, however often it is asked for.
4. At the end of the run, connections that are still open are closed after `SHUTDOWN_SECONDS`.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from asyncexport.core.listen_address import ListenAddress
from asyncexport.core.service.urls import is_loopback

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 0.5

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _DebugLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that records everything at the level of debugging (rule 2)."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:  # noqa: ARG002 - its signature
        """Record a message, whatever its level."""
        super().log(logging.DEBUG, msg, *args, **options)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return a message as it is."""
        return msg, kwargs


@web.middleware
async def _refuse_other_names(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Refuse requests for a name that is not that of this machine (rule 1)."""
    try:
        host = request.url.host or ""
    except ValueError:
        raise web.HTTPBadRequest(text="the Host header is not valid\n") from None
    if not is_loopback(host):
        raise web.HTTPMisdirectedRequest(text="open this address with the host 127.0.0.1 or localhost\n")
    return await handler(request)


def _reporting_bugs(what: str) -> Any:
    """Return a middleware that logs the first answer that fails (rule 3); `what` is served."""
    has_failed = False

    @web.middleware
    async def report(request: web.Request, handler: Answer) -> web.StreamResponse:
        nonlocal has_failed
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            if not has_failed:
                log.warning("a request for %s could not be answered: unexpected %s", what, type(error).__name__)
            has_failed = True
            raise

    return report


@asynccontextmanager
async def serving(address: ListenAddress, routes: Iterable[web.RouteDef], *, what: str) -> AsyncIterator[str]:
    """Serve these routes and yield the URL of the server, without a slash at its end.

    Args:
        address: Where to listen.
        routes: What to answer.
        what: What is served, for messages.

    Raises:
        OSError: the address cannot be used.
    """
    app = web.Application(middlewares=[_reporting_bugs(what), *([] if address.is_public else [_refuse_other_names])])
    app.add_routes(routes)
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS, logger=_DebugLog(log, {})
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        await site.start()
        yield f"http://{ListenAddress(address.host, runner.addresses[0][1])}"
    finally:
        await runner.cleanup()
