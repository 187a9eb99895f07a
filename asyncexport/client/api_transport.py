"""Sends one request to the API with the key and reads its complete reply, without interpreting it.

1. Only this module adds the key and the user's headers to a request. They go to the API alone, and no redirect is
   followed. The user's headers never replace the key.
2. A successful reply is read completely, up to a limit. Of an error reply, what arrives is enough.
3. A reply is passed on as received. Secrets that the service echoes are masked later, in error messages (`api`).
"""

import logging
import time
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from asyncexport.client.faults import BODY_FAULTS, FAULTS, before_sending, prefixed, translated
from asyncexport.client.session import ConnectionSettings, Sending, open_api_session
from asyncexport.core.service.replies import MAX_ERROR_BYTES, MAX_REPLY_BYTES, Reply
from asyncexport.core.service.requests import REFUSED_HEADERS, Request, authorization
from asyncexport.core.text import one_line
from asyncexport.errors import ConfigError, ExportError, Problem, ReplyError, UnavailableError

log = logging.getLogger(__name__)


class ApiTransport:
    """Sends requests and returns their replies; an async context manager.

    Args:
        base_url: The URL of the API; https, or http on loopback.
        key: The API key, unmodified.
        connection: Timeouts, proxy, certificates.
        headers: The user's headers, sent with each request; they never replace the key.

    Raises:
        ConfigError: the key or a header cannot be sent; on entering, also if the CA file cannot be read or a proxy from
            the environment cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        connection: ConnectionSettings,
        headers: Mapping[str, str],
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._host = urlsplit(base_url).hostname or ""
        self._connection = connection
        self._headers = _api_headers(key, connection.user_agent, headers)

    async def __aenter__(self) -> Self:
        """Open the session; nothing is sent yet."""
        self._session = await open_api_session(self._connection, base_url=self._base_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session and abort what is still in flight."""
        await self._session.close()

    async def exchange(self, request: Request) -> Reply:
        """Send a request once and read its complete reply, of any status.

        Raises:
            UnavailableError: no complete reply came; `unanswered` if the request may have arrived.
            ReplyError: the reply is not HTTP or is far too long.
            ServiceError: the certificate cannot be trusted, or the proxy requires a password.
        """
        url = f"{self._base_url}{request.path}" + (f"?{request.query}" if request.query else "")
        began = time.monotonic()
        response = await self._send(request, url)
        try:
            head_at = time.monotonic()
            body = await self._read_body(request, response)
        finally:
            response.close()
        log.debug("%s %s: %d in %.3f s", request.method, request.path, response.status, time.monotonic() - began)
        return Reply(response.status, response.headers, body, body_seconds=time.monotonic() - head_at)

    async def _send(self, request: Request, url: str) -> aiohttp.ClientResponse:
        failure: ExportError
        sending = Sending()
        content_type = {"Content-Type": "application/json"} if request.body is not None else {}
        try:
            return await self._session.request(
                request.method,
                URL(url, encoded=True),
                data=request.body,
                headers={**self._headers, **content_type},
                allow_redirects=False,
                proxy=self._connection.proxy_for(url),
                trace_request_ctx=sending,
            )
        except ExportError as error:
            failure = error
        except FAULTS as error:
            failure = translated(error, self._host)
        if not sending.has_begun:
            failure = before_sending(failure)
        raise prefixed(request.doing, failure)

    async def _read_body(self, request: Request, response: aiohttp.ClientResponse) -> bytes:
        """Return all of a successful reply, or the beginning of an error reply as far as it arrives."""
        is_success = 200 <= response.status < 300
        limit = MAX_REPLY_BYTES if is_success else MAX_ERROR_BYTES
        body = bytearray()
        failure: ExportError | None = None
        try:
            while chunk := await response.content.readany():
                body += chunk
                if len(body) > limit:
                    break
        except BODY_FAULTS:
            failure = UnavailableError(f"{request.doing}: the answer of {self._host} was cut off", unanswered=True)
        if is_success:
            if failure is not None:
                raise failure
            if len(body) > limit:
                message = f"{request.doing}: the answer of {self._host} is longer than {limit >> 20} MiB"
                raise ReplyError(message, status=response.status)
        return bytes(body[:limit])


def _is_refused(name: str) -> bool:
    """Whether a header would break a request. `Authorization` would not: it is left out when headers are merged."""
    return name.lower() in REFUSED_HEADERS and name.lower() != "authorization"


def _api_headers(key: str, user_agent: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Merge the user's headers with ours. Theirs win, except for `Authorization` and `Accept-Encoding`."""
    faults = [
        Problem("api.headers", f"{one_line(name, limit=60)!r} cannot be sent as a header")
        for name, value in extra.items()
        if not name.isascii() or not name.strip() or not (name + value).isprintable() or _is_refused(name)
    ]
    if faults:
        raise ConfigError(faults)
    fixed = {"Authorization": authorization(key), "Accept-Encoding": "identity"}
    defaults = {"User-Agent": user_agent, "Accept": "application/json"}
    fixed_names = {name.lower() for name in fixed}
    users_names = {name.lower() for name in extra}
    return {
        **{name: value for name, value in defaults.items() if name.lower() not in users_names},
        **{name: value for name, value in extra.items() if name.lower() not in fixed_names},
        **fixed,
    }
