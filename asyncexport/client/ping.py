"""Tells a monitoring service that a run begins, and how it ended, in the form of healthchecks.io.

1. A ping is a POST to the configured URL, with `/start` or `/fail` at the end of its path, or without for a success.
2. The URL is a secret: no message contains more of it than the host. The API key is never sent along.
3. A ping has one time limit. A first attempt gets half of it; if it fails for a reason that may pass, a second one gets
   the rest.
"""

import asyncio
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from yarl import URL

from asyncexport.client.faults import FAULTS, translated
from asyncexport.client.session import ConnectionSettings, open_ping_session
from asyncexport.core.service.urls import host_of
from asyncexport.errors import ExportError, RefusedError, UnavailableError

PAUSE_SECONDS = 0.5
"""The pause before the second attempt, at most a tenth of the time limit."""

TRANSIENT = (408, 429)
"""Refusals after which a second attempt may succeed, in addition to 5xx."""


class Ping(StrEnum):
    """What a ping says; the values are what is added to the path of the URL."""

    START = "start"
    SUCCESS = ""
    FAILURE = "fail"


async def send_ping(
    url: str, ping: Ping, body: bytes, *, connection: ConnectionSettings, timeout_seconds: float
) -> None:
    """Send a ping, twice if necessary.

    Args:
        url: The configured URL.
        ping: What to say.
        body: The details, as JSON.
        connection: The proxy and the certificates.
        timeout_seconds: Time limit for both attempts together.

    Raises:
        ExportError: neither attempt was answered with a success.
    """
    full = _address(url, ping)
    try:
        await _attempt(full, body, connection=connection, timeout_seconds=timeout_seconds / 2)
    except UnavailableError:
        pause = min(PAUSE_SECONDS, timeout_seconds / 10)
        await asyncio.sleep(pause)
        await _attempt(full, body, connection=connection, timeout_seconds=timeout_seconds / 2 - pause)


def _address(url: str, ping: Ping) -> str:
    """Return the URL of a ping; a query stays behind the path."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + f"/{ping.value}" if ping.value else parts.path
    return urlunsplit(parts._replace(path=path))


async def _attempt(url: str, body: bytes, *, connection: ConnectionSettings, timeout_seconds: float) -> None:
    host, failure = host_of(url), None
    try:
        async with asyncio.timeout(timeout_seconds):
            status = await _post(url, body, connection)
    except ExportError as error:
        failure = error
    except FAULTS as error:
        # Raised below, so that its context with the complete URL is not kept.
        failure = translated(error, host)
    if failure is not None:
        raise failure
    if status >= 500 or status in TRANSIENT:
        raise UnavailableError(f"{host} answered {status}")
    if not 200 <= status < 300:
        raise RefusedError(f"{host} answered {status}", status=status, from_service=False)


async def _post(url: str, body: bytes, connection: ConnectionSettings) -> int:
    session = await open_ping_session(connection, url=url)
    try:
        response = await session.post(
            URL(url, encoded=True),
            data=body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
            proxy=connection.proxy_for(url),
        )
        response.close()
        return response.status
    finally:
        await session.close()
