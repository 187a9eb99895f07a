"""Connections to the API and to the storage host: time-outs, TLS, the proxy, and aiohttp's sessions.

1. A session has no header but User-Agent: aiohttp sends a session's headers to the proxy too, in the CONNECT that asks
   for a tunnel, which is not encrypted, and turns `Authorization` into `Proxy-Authorization` there.
2. A session keeps no cookies, reads no netrc, and inflates nothing: aiohttp takes a truncated gzip body for whole.
3. Nothing is sent twice. aiohttp would send a GET again when its connection drops, unseen; a middleware translates the
   fault before aiohttp sees it.
4. Plain http is for this machine alone, and so no other machine's proxy gets it: it could read the key.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from asyncexport import __version__
from asyncexport.client.faults import FAULTS, translated
from asyncexport.client.resolver import open_resolver
from asyncexport.core.masking import secrets_of_url
from asyncexport.core.service import proxies
from asyncexport.core.service.urls import host_of, is_loopback
from asyncexport.errors import ConfigError, Problem

READ_BUFFER_BYTES = 384 << 10
"""Bytes a download may run ahead of its reader while that one writes, twice over. With a third of it the transport is
stopped and started again for nearly every piece, a tenth of the time; with more, eight downloads take 10 MiB more."""

MAX_HEADER_BYTES = 256 << 10
"""The longest line, or value, of a reply's head that is read: gateways send policies and cookies of many kilobytes."""

MAX_HEADERS = 1024
"""How many headers a reply may have."""

KEEPALIVE_SECONDS = 5.0
"""How long a storage connection waits for the next download: less than servers do, who close it under our feet."""


def own_user_agent() -> str:
    """`asyncexport/<version>`."""
    return f"asyncexport/{__version__}"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How either host is reached. There is no secret in it but what a proxy's URL may hold.

    Args:
        connect_timeout_seconds: For name, connection and TLS together.
        read_timeout_seconds: For a whole API reply, a download's head, and between two pieces of a download.
        proxy: A URL; "environment" for what the environment says; "" for none.
        ca_file: Certificates to trust besides the system's; None: no others.
        user_agent: Sent to both hosts, and to a proxy.
    """

    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    proxy: str = field(default="", repr=False)
    ca_file: Path | None = None
    user_agent: str = field(default_factory=own_user_agent)

    @property
    def reply_timeout_seconds(self) -> float:
        """How long a request may take until its reply, or a download's head, is there."""
        return self.connect_timeout_seconds + self.read_timeout_seconds

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords of the proxies that requests may go through, as they may be spelt in a URL or a header."""
        urls = getproxies().values() if self.proxy == "environment" else (self.proxy,)
        return tuple(secret for proxy in urls for secret in secrets_of_url(proxy))

    def check_proxies(self, *schemes: str) -> None:
        """Make sure that the environment's proxies can be used, where they are asked for, for URLs of these schemes.

        Raises:
            ConfigError: one of them cannot.
        """
        problems = list(proxies.faults(getproxies(), schemes=schemes)) if self.proxy == "environment" else []
        if problems:
            raise ConfigError(problems, hint=proxies.HINT)

    def proxy_for(self, url: str) -> str | None:
        """The proxy that a request goes through, or None (rule 4)."""
        proxy = _proxy_of_environment(url) if self.proxy == "environment" else self.proxy
        if not proxy or (urlsplit(url).scheme == "http" and not is_loopback(host_of(proxy))):
            return None
        return proxy


async def open_api_session(connection: ConnectionSettings, *, base_url: str) -> aiohttp.ClientSession:
    """A session for the API at this URL. At two calls a minute, connections are not kept.

    Raises:
        ConfigError: the CA file cannot be read, or a proxy of the environment cannot be used.
    """
    parts = urlsplit(base_url)
    connection.check_proxies(parts.scheme)
    trust = await _trust(connection.ca_file)
    connector = aiohttp.TCPConnector(limit=0, ssl=trust, force_close=True, resolver=open_resolver())
    return _session(
        connection,
        connector,
        host=parts.hostname or "",
        total_seconds=connection.reply_timeout_seconds,
        traces=[_noting_what_was_sent()],
    )


async def open_storage_session(connection: ConnectionSettings) -> aiohttp.ClientSession:
    """A session for downloads, which as a whole have no time-out. How many connections there are is decided elsewhere.

    Raises:
        ConfigError: the CA file cannot be read, or a proxy of the environment cannot be used.
    """
    connection.check_proxies("https")
    trust = await _trust(connection.ca_file)
    connector = aiohttp.TCPConnector(limit=0, ssl=trust, keepalive_timeout=KEEPALIVE_SECONDS, resolver=open_resolver())
    return _session(connection, connector, host="the storage host", total_seconds=None)


def _session(
    connection: ConnectionSettings,
    connector: aiohttp.TCPConnector,
    *,
    host: str,
    total_seconds: float | None,
    traces: list[aiohttp.TraceConfig] | None = None,
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        # A proxy gets to see these: nothing else belongs here (rule 1).
        headers={"User-Agent": connection.user_agent},
        # No time-out between two reads: each wait has one of its own, and another would be set anew at every byte.
        timeout=aiohttp.ClientTimeout(total=total_seconds, connect=connection.connect_timeout_seconds),
        middlewares=(_sending_once(host),),
        trace_configs=traces,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=READ_BUFFER_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
    )


class Sending:
    """Whether a request has begun to leave this machine; it is given along with the request."""

    def __init__(self) -> None:
        self.has_begun = False


def _noting_what_was_sent() -> aiohttp.TraceConfig:
    """A request that fails before its head is sent, with the proxy for one, has asked for nothing."""

    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _sent: Any) -> None:
        if isinstance(sending := context.trace_request_ctx, Sending):
            sending.has_begun = True

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(note)
    return config


def _sending_once(host: str) -> aiohttp.ClientMiddlewareType:
    """A middleware that translates a fault before aiohttp sees it, which would send a GET again (rule 3)."""

    async def send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except FAULTS as error:
            failure = translated(error, request.url.host or host)
        raise failure

    return send_once


def _proxy_of_environment(url: str) -> str:
    """Read by hand: aiohttp's `trust_env` would take credentials from netrc along with the proxy."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    # On macOS the system has a say, too.
    return "" if proxy_bypass(host) else proxies.proxy_of(getproxies(), scheme=parts.scheme, host=host, port=parts.port)


async def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Whose certificates are trusted; True: those that the system trusts."""
    return await asyncio.to_thread(_ssl_context, ca_file) if ca_file is not None else True


def _ssl_context(ca_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:
        why = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror or "it cannot be read"
        raise ConfigError([Problem("api.ca_file", f"{ca_file}: {why}")]) from None
    return context
