"""Connections to the API and to the storage host: timeouts, TLS, the proxy, and aiohttp's sessions.

1. A session has no header but User-Agent: aiohttp also sends a session's headers to the proxy, unencrypted, in the
   CONNECT request for a tunnel, where it turns `Authorization` into `Proxy-Authorization`.
2. A session keeps no cookies, reads no netrc and decompresses nothing: aiohttp accepts a truncated gzip body as if it
   were complete.
3. No request is sent twice. aiohttp would silently repeat a GET when its connection drops; a middleware translates the
   fault before aiohttp sees it.
4. Plain http is only used on this machine. It never goes through a proxy on another machine, which could read the key.
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
"""aiohttp's read buffer: a download may receive twice this much ahead of its reader. With a third of it, the transport
pauses for nearly every chunk, which costs a tenth of the time; with more, eight downloads take 10 MiB more memory."""

MAX_HEADER_BYTES = 256 << 10
"""The longest header line or value that is accepted: gateways send policies and cookies of many kilobytes."""

MAX_HEADERS = 1024
"""The number of headers that a reply may have."""

KEEPALIVE_SECONDS = 5.0
"""Seconds that an idle storage connection is kept: less than servers keep it, so that they do not close it first."""


def own_user_agent() -> str:
    """Return `asyncexport/<version>`."""
    return f"asyncexport/{__version__}"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How both hosts are reached. The only secret in it may be a password in the proxy's URL.

    Args:
        connect_timeout_seconds: Timeout for name lookup, connection and TLS together.
        read_timeout_seconds: Timeout for a complete API reply, for the headers of a download, and between two chunks of
            a download.
        proxy: The proxy's URL; "environment" to use the environment's proxies; "" for none.
        ca_file: Certificates to trust in addition to the system's; None for no others.
        user_agent: The User-Agent, sent to both hosts and to a proxy.
    """

    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    proxy: str = field(default="", repr=False)
    ca_file: Path | None = None
    user_agent: str = field(default_factory=own_user_agent)

    @property
    def reply_timeout_seconds(self) -> float:
        """Timeout for a request until its complete reply, or the headers of a download, have arrived."""
        return self.connect_timeout_seconds + self.read_timeout_seconds

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords of the proxies that requests may go through, in the spellings of URLs and headers."""
        urls = getproxies().values() if self.proxy == "environment" else (self.proxy,)
        return tuple(secret for proxy in urls for secret in secrets_of_url(proxy))

    def check_proxies(self, *schemes: str) -> None:
        """If the environment's proxies are configured, make sure that they can be used for URLs of these schemes.

        Raises:
            ConfigError: one of them cannot be used.
        """
        problems = list(proxies.faults(getproxies(), schemes=schemes)) if self.proxy == "environment" else []
        if problems:
            raise ConfigError(problems, hint=proxies.HINT)

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy that a request goes through, or None (rule 4)."""
        proxy = _proxy_of_environment(url) if self.proxy == "environment" else self.proxy
        if not proxy or (urlsplit(url).scheme == "http" and not is_loopback(host_of(proxy))):
            return None
        return proxy


async def open_api_session(connection: ConnectionSettings, *, base_url: str) -> aiohttp.ClientSession:
    """Open a session for the API at this URL. It does not keep connections, since there are two calls a minute.

    Raises:
        ConfigError: the CA file cannot be read, or a proxy from the environment cannot be used.
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
        traces=[_sending_trace()],
    )


async def open_storage_session(connection: ConnectionSettings) -> aiohttp.ClientSession:
    """Open a session for downloads. It sets no total timeout and does not limit the number of connections.

    Raises:
        ConfigError: the CA file cannot be read, or a proxy from the environment cannot be used.
    """
    connection.check_proxies("https")
    trust = await _trust(connection.ca_file)
    connector = aiohttp.TCPConnector(limit=0, ssl=trust, keepalive_timeout=KEEPALIVE_SECONDS, resolver=open_resolver())
    return _session(connection, connector, host="the storage host", total_seconds=None)


async def open_ping_session(connection: ConnectionSettings, *, url: str) -> aiohttp.ClientSession:
    """Open a session for a request to a monitoring service. The caller limits its time.

    Raises:
        ConfigError: the CA file cannot be read, or a proxy from the environment cannot be used.
    """
    parts = urlsplit(url)
    connection.check_proxies(parts.scheme)
    trust = await _trust(connection.ca_file)
    connector = aiohttp.TCPConnector(limit=0, ssl=trust, force_close=True, resolver=open_resolver())
    return _session(connection, connector, host=parts.hostname or "", total_seconds=None)


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
        # A proxy sees these headers: nothing else belongs here (rule 1).
        headers={"User-Agent": connection.user_agent},
        # No `sock_read` timeout: callers limit each wait themselves, and aiohttp would reset its timer at every byte.
        timeout=aiohttp.ClientTimeout(total=total_seconds, connect=connection.connect_timeout_seconds),
        middlewares=(_fault_translator(host),),
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
    """Records whether sending a request has begun; passed along with the request as its trace context."""

    def __init__(self) -> None:
        self.has_begun = False


def _sending_trace() -> aiohttp.TraceConfig:
    """Return a trace that marks a request as begun once its headers are sent.

    A request that fails before that, for example at the proxy, cannot have reached the service.
    """

    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _sent: Any) -> None:
        if isinstance(sending := context.trace_request_ctx, Sending):
            sending.has_begun = True

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(note)
    return config


def _fault_translator(host: str) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that translates a fault before aiohttp sees it: aiohttp would repeat a GET (rule 3)."""

    async def send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except FAULTS as error:
            failure = translated(error, request.url.host or host)
        raise failure

    return send_once


def _proxy_of_environment(url: str) -> str:
    """Return the environment's proxy for a URL. aiohttp's `trust_env` would also take credentials from netrc."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    # `proxy_bypass` also asks the system settings on macOS.
    return "" if proxy_bypass(host) else proxies.proxy_of(getproxies(), scheme=parts.scheme, host=host, port=parts.port)


async def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Return the TLS context that trusts the CA file; True for the system's certificates."""
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
