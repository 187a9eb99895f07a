"""The service client: makes the calls that `core.wire` describes, and decides nothing.

1. Each call is one request on the wire, and each API request passes the gate first. There are no retries here, and
   aiohttp's own (a GET whose connection drops is sent again, unseen) never happen: `_once` translates the fault before
   aiohttp sees it.
2. Two sessions, and neither follows a redirect. Only API requests carry the key and the user's headers. A download
   carries no key, no cookies, no netrc and none of the user's headers, and its signed URL goes out byte for byte.
   A session has no header but User-Agent: aiohttp sends a session's headers to the proxy too, in the CONNECT that asks
   for a tunnel, which is not encrypted, and turns `Authorization` into `Proxy-Authorization` there.
3. No bytes are inflated by aiohttp: it takes a truncated gzip body for a whole one.
4. aiohttp's exceptions end here. Their text holds whole URLs, signatures included, so none of it is passed on, not even
   as the context of ours. Garbage on the wire pretends to be a status of 400 there: a status counts only on a real
   reply.
5. Every wait has an end: connecting, the whole of an API reply, the head of a download, the time between its bytes,
   and a floor on its rate. A download as a whole has none.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition
from asyncexport.core.service import replies, requests, resources, statuses, transfer
from asyncexport.core.service.replies import Reply
from asyncexport.core.service.requests import Kind, Request
from asyncexport.core.service.resources import DownloadLink, Me, Operation, OperationsPage, Segment
from asyncexport.core.service.urls import host_of, is_loopback
from asyncexport.core.text import one_line
from asyncexport.errors import (
    ConfigError,
    ExportError,
    IncompleteError,
    Problem,
    ReplyError,
    ServiceError,
    UnavailableError,
)

log = logging.getLogger(__name__)

READ_BUFFER_BYTES = 384 << 10
"""Bytes a download may run ahead of its reader while that one writes, twice over. With a third of it the transport is
stopped and started again for nearly every piece, a tenth of the time; with more, eight downloads take 10 MiB more."""

KEEPALIVE_SECONDS = 5.0
"""How long a storage connection waits for the next download: less than servers do, who close it under our feet."""

WORTH_A_WARNING_SECONDS = 30.0
"""Out of reach for so long is more than a hiccup, which nobody needs to hear of."""

EMPTY_PAGES = 3
"""So many pages of segments in a row with nothing on them: the list has no end."""

FAULTS = (aiohttp.ClientError, OSError)
"""All that aiohttp raises for what happens on the wire; `TimeoutError` and `ssl.SSLError` are `OSError`s."""


BODY_FAULTS = (*FAULTS, RuntimeError)
"""The same while a body is read: aiohttp calls a connection that went after a broken chunk a `RuntimeError`."""


class Pass(Protocol):
    """Leave to send one request; exactly one of the two is called afterwards."""

    def leave(self, status: int | None, *, retry_after: float | None = None) -> None:
        """Say what came back: a status, or None where nothing did; `retry_after` in seconds."""
        ...

    def abandon(self) -> None:
        """Say that what came of it tells nothing of the service."""
        ...


class Gate(Protocol):
    """What every API request passes through."""

    async def enter(
        self, kind: Kind, priority: Priority, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> Pass:
        """Wait for leave to send one request; `before` is awaited once it is certain."""
        ...


class Client:
    """Fullstory's API and its storage; an async context manager.

    Args:
        base_url: Of the API; https, or http on loopback.
        key: The API key, as it is.
        gate: What every API request passes through.
        connect_timeout_seconds: For name, connection and TLS together.
        read_timeout_seconds: For a whole API reply, a download's head, and between two pieces of a download.
        min_rate: Bytes a second that a download must bring, over `rate_window_seconds` of waiting for it.
        proxy: A URL; "environment" for what the environment says; "" for none. Used for both hosts.
        ca_file: Certificates to trust besides the system's.
        headers: Sent with API requests; they never replace the key.
        on_date: Told once, by the first reply with a date, how many seconds the service's clock is ahead of ours.
        wall_clock: Seconds since 1970.
        user_agent: Defaults to `asyncexport/<version>`.

    Raises:
        ConfigError: the key or a header cannot be sent as it is, or, on entering, the CA file cannot be read.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        gate: Gate,
        connect_timeout_seconds: float = 10.0,
        read_timeout_seconds: float = 60.0,
        min_rate: float = 1024.0,
        rate_window_seconds: float = transfer.RATE_WINDOW_SECONDS,
        proxy: str = "",
        ca_file: str = "",
        headers: Mapping[str, str] | None = None,
        on_date: Callable[[float], None] | None = None,
        wall_clock: Callable[[], float] = time.time,
        user_agent: str = "",
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._host = urlsplit(base_url).hostname or ""
        self._gate = gate
        self._connect_seconds = connect_timeout_seconds
        self._read_seconds = read_timeout_seconds
        self._min_rate = min_rate
        self._rate_window_seconds = rate_window_seconds
        self._proxy = proxy
        self._ca_file = ca_file
        self._agent = {"User-Agent": user_agent or f"asyncexport/{_version()}"}
        self._headers = _api_headers(key, self._agent, headers or {})
        self._secrets = _spellings(key)
        self._on_date = on_date
        self._wall_clock = wall_clock
        self._trouble = ""
        self._trouble_since = 0.0
        self._trouble_told = False

    async def __aenter__(self) -> Self:
        """Open both sessions; nothing is sent yet."""
        context = await asyncio.to_thread(_ssl_context, self._ca_file) if self._ca_file else True
        async with AsyncExitStack() as stack:
            self._api = await stack.enter_async_context(
                self._session(ssl_context=context, is_api=True, total=self._reply_seconds)
            )
            self._storage = await stack.enter_async_context(
                self._session(ssl_context=context, is_api=False, total=None)
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close both sessions, and with them what is still under way."""
        await self._stack.aclose()

    async def create(
        self,
        definition: Definition,
        span: Range,
        *,
        priority: Priority = Priority.CREATE,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> str:
        """Start the export of one range; its operation's id. Not idempotent.

        `before` is awaited once the gate lets us through, beside what the gate itself does before the request is sent.

        Raises:
            UnavailableError: no answer, or one that the service is in trouble; `unanswered` where it may have arrived.
            ServiceError: what else `statuses.judge` and `resources.read_created` raise.
        """
        reply = await self._call(requests.create(definition, span), priority, before=before)
        return resources.read_created(reply)

    async def operation(self, operation_id: str, *, priority: Priority = Priority.POLL) -> Operation:
        """How one operation stands.

        Raises:
            GoneError: the service does not know it (any more).
            ServiceError: what else `statuses.judge` and `resources.read_operation` raise.
        """
        return resources.read_operation(await self._call(requests.operation(operation_id), priority))

    async def operations(
        self, *, state: str = "", token: str = "", priority: Priority = Priority.POLL
    ) -> OperationsPage:
        """One page of the list of operations.

        Raises:
            ServiceError: what `statuses.judge` and `resources.read_operations` raise.
        """
        return resources.read_operations(await self._call(requests.operations(state=state, token=token), priority))

    async def locate(self, export_id: str, *, priority: Priority = Priority.RESULTS) -> DownloadLink:
        """A fresh link to the archive of a completed export; it lives for minutes.

        Raises:
            GoneError: the export is gone.
            ServiceError: what else `statuses.judge` and `resources.read_location` raise.
        """
        return resources.read_location(await self._call(requests.results(export_id), priority))

    async def segments(self, *, priority: Priority = Priority.REST) -> AsyncIterator[Segment]:
        """Every segment once, page by page.

        Raises:
            ReplyError: the list has no end.
            ServiceError: what else `statuses.judge` and `resources.read_segments` raise.
        """
        token, tokens, ids, empty = "", {""}, set[str](), 0
        while True:
            page = resources.read_segments(await self._call(requests.segments(token=token), priority))
            for segment in page.segments:
                if segment.id not in ids:
                    ids.add(segment.id)
                    yield segment
            token, empty = page.next_token, 0 if page.segments else empty + 1
            if not token:
                return
            if token in tokens or empty >= EMPTY_PAGES:
                raise ReplyError("listing segments: the service's list has no end; what it holds has been shown")
            tokens.add(token)

    async def segment(self, segment_id: str, *, priority: Priority = Priority.REST) -> Segment:
        """Look one segment up.

        Raises:
            ServiceError: what `statuses.judge` and `resources.read_segment` raise.
        """
        return resources.read_segment(await self._call(requests.segment(segment_id), priority))

    async def me(self, *, priority: Priority = Priority.REST) -> Me:
        """Whose key it is.

        Raises:
            ServiceError: what `statuses.judge` and `resources.read_me` raise.
        """
        return resources.read_me(await self._call(requests.me(), priority))

    @asynccontextmanager
    async def open(self, location: DownloadLink, *, offset: int = 0, etag: str = "") -> AsyncIterator["DownloadBody"]:
        """Begin a download, or go on with one that was cut after `offset` bytes and had this `etag`.

        Look at the body's `offset`: it is 0 where the rest alone was not to be had.

        Raises:
            IncompleteError: it cannot go on where it was cut: begin at 0.
            ServiceError: what else `transfer.judge_download` raises, and `UnavailableError` where no answer came.
        """
        response = await self._fetch(location, transfer.range_headers(offset, etag))
        try:
            reply = Reply(response.status, response.headers, await self._start_of_error(response, location.host))
            log.debug("GET from %s: %d", location.host, reply.status)
            transfer.judge_download(reply)
            hashes = response.headers.getall("x-goog-hash", [])
            head = transfer.read_head(reply, goog_hash=hashes, offset=offset, etag=etag)
            floor = transfer.RateFloor(self._min_rate, window_seconds=self._rate_window_seconds)
            yield DownloadBody(response.content, head=head, floor=floor, stall_seconds=self._read_seconds)
        finally:
            # A body read to its end has given its connection back already; any other takes it along.
            response.close()

    @property
    def _reply_seconds(self) -> float:
        return self._connect_seconds + self._read_seconds

    def _session(
        self, *, ssl_context: ssl.SSLContext | bool, is_api: bool, total: float | None
    ) -> aiohttp.ClientSession:
        host = self._host if is_api else "the storage host"
        return aiohttp.ClientSession(
            connector=_connector(ssl_context=ssl_context, is_api=is_api),
            # A proxy gets to see these: nothing else belongs here (rule 2).
            headers=self._agent,
            # No time-out between two reads: each wait has one of its own, and another would be set anew at every byte.
            timeout=aiohttp.ClientTimeout(total=total, connect=self._connect_seconds),
            middlewares=(_once(host),),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
        )

    async def _call(
        self, request: Request, priority: Priority, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> Reply:
        """One request. A service that stays out of reach is told of with the reason, and so is its return."""
        try:
            reply = await self._call_once(request, priority, before=before)
        except UnavailableError as error:
            if not error.transient and self._trouble:
                raise UnavailableError(f"{error} ({self._trouble})", lasting=True, hint=error.hint) from error
            self._note_trouble(error)
            raise
        if self._trouble_told:
            log.warning("the service answers again")
        self._trouble, self._trouble_told = "", False
        return reply

    def _note_trouble(self, error: UnavailableError) -> None:
        now = self._wall_clock()
        self._trouble_since = self._trouble_since if self._trouble else now
        self._trouble = str(error)
        lasts = now - self._trouble_since >= WORTH_A_WARNING_SECONDS and not self._trouble_told
        self._trouble_told = self._trouble_told or lasts
        log.log(logging.WARNING if lasts else logging.INFO, "%s; it is tried again and again", error)

    async def _call_once(
        self, request: Request, priority: Priority, *, before: Callable[[], Awaitable[None]] | None
    ) -> Reply:
        leave = await self._gate.enter(request.kind, priority, before=before)
        answered: int | None = None
        tells = False
        retry_after = None
        try:
            try:
                reply = await self._exchange(request)
            except (UnavailableError, ReplyError):
                tells = True
                raise
            tells, answered = True, reply.status
            retry_after = statuses.retry_after(reply.headers, now=self._wall_clock())
        finally:
            if tells:
                leave.leave(answered, retry_after=retry_after)
            else:
                leave.abandon()
        statuses.judge(request, reply, now=self._wall_clock())
        return replies.decoded(reply)

    async def _exchange(self, request: Request) -> Reply:
        """One request and its whole reply, without the key should it be echoed."""
        url = f"{self._base_url}{request.path}" + (f"?{request.query}" if request.query else "")
        began = time.monotonic()
        response = await self._ask(request, url)
        try:
            self._note_date(response)
            body = await self._whole_reply(request, response)
        finally:
            response.close()
        log.debug("%s %s: %d in %.3f s", request.method, request.path, response.status, time.monotonic() - began)
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return Reply(response.status, response.headers, body)

    async def _ask(self, request: Request, url: str) -> aiohttp.ClientResponse:
        failure: ExportError
        content_type = {"Content-Type": "application/json"} if request.body is not None else {}
        try:
            return await self._api.request(
                request.method,
                URL(url, encoded=True),
                data=request.body,
                headers={**self._headers, **content_type},
                allow_redirects=False,
                proxy=self._proxy_for(url),
            )
        except ExportError as error:
            failure = error
        except FAULTS as error:
            failure = _translated(error, self._host)
        raise _about(request.doing, failure)

    async def _whole_reply(self, request: Request, response: aiohttp.ClientResponse) -> bytes:
        """All of a success; as much of an error as there is and is of use."""
        limit = replies.MAX_REPLY_BYTES if response.status == 200 else replies.MAX_ERROR_BYTES
        body = bytearray()
        failure: ExportError | None = None
        try:
            while chunk := await response.content.readany():
                body += chunk
                if len(body) > limit:
                    break
        except BODY_FAULTS:
            failure = UnavailableError(f"{request.doing}: the answer of {self._host} was cut short", unanswered=True)
        if response.status == 200:
            if failure is not None:
                raise failure
            if len(body) > limit:
                raise ReplyError(f"{request.doing}: the answer of {self._host} is longer than {limit >> 20} MiB")
        return bytes(body[:limit])

    def _note_date(self, response: aiohttp.ClientResponse) -> None:
        if self._on_date is None:
            return
        date = replies.read_date(response.headers)
        if date is not None:
            told, self._on_date = self._on_date, None
            told(date - self._wall_clock())

    async def _fetch(self, location: DownloadLink, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        failure: ExportError
        try:
            # A head that drips never stalls, so the time between bytes does not end it.
            async with asyncio.timeout(self._reply_seconds):
                return await self._storage.get(
                    URL(location.url, encoded=True),
                    headers={"Accept-Encoding": "gzip", **headers},
                    allow_redirects=False,
                    proxy=self._proxy_for(location.url),
                )
        except ExportError as error:
            failure = error
        except FAULTS as error:
            failure = _translated(error, location.host)
        except ValueError:
            failure = ReplyError("the link is not a URL that can be followed")
        raise _about(transfer.DOING, failure)

    async def _start_of_error(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        """The text of an error, as far as it comes; nothing of a success, whose body is read later."""
        if response.status in (200, 206):
            return b""
        body = bytearray()
        try:
            async with asyncio.timeout(self._read_seconds):
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > replies.MAX_ERROR_BYTES:
                        break
        except BODY_FAULTS:
            log.debug("the text of an error from %s was cut short", host)
        return bytes(body)

    def _proxy_for(self, url: str) -> str | None:
        """The proxy that a request goes through, or None.

        Plain http is for this machine alone, and a proxy reads it, the key included: no other machine's proxy gets it.
        """
        proxy = _proxy_of_environment(url) if self._proxy == "environment" else self._proxy
        if not proxy or (urlsplit(url).scheme == "http" and not is_loopback(host_of(proxy))):
            return None
        return proxy


class DownloadBody:
    """The body of a download.

    `offset`: the first byte of the archive it holds. `length`: its bytes, where known. `etag`, `goog_hash`: see
    `transfer.DownloadHead`. `end_proved`: true only once `chunks` has ended, and ended where it should.
    """

    def __init__(
        self,
        content: aiohttp.StreamReader,
        *,
        head: transfer.DownloadHead,
        floor: transfer.RateFloor,
        stall_seconds: float,
    ) -> None:
        self._content = content
        self._head = head
        self._floor = floor
        self._stall_seconds = stall_seconds
        self.offset = head.offset
        self.length = head.length
        self.etag = head.etag
        self.goog_hash = head.goog_hash
        self.received = 0
        self.end_proved = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they were sent, in pieces as they come.

        Raises:
            IncompleteError: the body was cut, stalled, or came too slowly.
        """
        while chunk := await self._next():
            yield chunk
        self.end_proved = self._head.proves_end(self.received)

    async def _next(self) -> bytes:
        clock = asyncio.get_running_loop().time
        began = clock()
        failure: IncompleteError
        try:
            chunk = self._at_hand()
            if chunk is None:
                # Not left to aiohttp: a broken chunk drops its time-out and ends nothing.
                async with asyncio.timeout(self._stall_seconds):
                    chunk = await self._content.readany()
        except TimeoutError:
            failure = IncompleteError(f"{transfer.DOING}: nothing more came after {self.received} bytes")
        except BODY_FAULTS:
            failure = IncompleteError(f"{transfer.DOING}: it was cut after {self.received} bytes")
        else:
            self.received += len(chunk)
            if self._floor.holds(len(chunk), waited_seconds=clock() - began):
                return chunk
            failure = IncompleteError(f"{transfer.DOING}: it came too slowly, and was left after {self.received} bytes")
        raise failure

    def _at_hand(self) -> bytes | None:
        """What has come already, for which no time-out need be set; None where there is nothing, or a fault."""
        if self._content.exception() is not None:
            return None
        at_hand = self._content.read_nowait()
        return at_hand if at_hand or self._content.at_eof() else None


def _proxy_of_environment(url: str) -> str:
    """Read by hand: aiohttp's `trust_env` would take credentials from netrc along with the proxy."""
    parts = urlsplit(url)
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or proxy_bypass(parts.hostname or ""):
        return ""
    return found if "://" in found else f"http://{found}"


def _connector(*, ssl_context: ssl.SSLContext | bool, is_api: bool) -> aiohttp.TCPConnector:
    """How many connections there are is decided elsewhere; at two calls a minute, those to the API are not kept."""
    if is_api:
        return aiohttp.TCPConnector(limit=0, ssl=ssl_context, force_close=True)
    return aiohttp.TCPConnector(limit=0, ssl=ssl_context, keepalive_timeout=KEEPALIVE_SECONDS)


def _once(host: str) -> aiohttp.ClientMiddlewareType:
    """Translate a fault before aiohttp sees it, which would send a GET again."""

    async def once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except FAULTS as error:
            failure = _translated(error, request.url.host or host)
        raise failure

    return once


def _translated(error: BaseException, host: str) -> ExportError:
    """What a fault before the reply means. Where the request may have gone out, it is `unanswered`."""
    if why := _certificate_fault(error):
        return ServiceError(
            f"the certificate of {host} cannot be trusted: {why}",
            hint="if an authority of your own stands in between, name its certificates in [api] ca_file",
        )
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return ServiceError("the proxy wants a name and a password (407)", hint="put them into [api] proxy")
        case aiohttp.ClientHttpProxyError(status=status):
            return UnavailableError(f"the proxy would not connect to {host} ({status})")
        case aiohttp.ClientProxyConnectionError():
            return UnavailableError("the proxy could not be reached", hint="check [api] proxy")
        case aiohttp.ClientConnectorDNSError():
            return UnavailableError(f"the name {host} could not be resolved")
        case aiohttp.ClientConnectorSSLError():
            return UnavailableError(f"no secure connection to {host} came about")
        case aiohttp.ConnectionTimeoutError():
            return UnavailableError(f"{host} could not be reached in time")
        case aiohttp.ClientConnectorError(errno=number):
            return UnavailableError(f"{host} could not be reached" + (f": {os.strerror(number)}" if number else ""))
        case aiohttp.ClientResponseError():
            return ReplyError(f"{host} answered with something that is not HTTP")
        case aiohttp.InvalidURL():
            return ReplyError("that is not a URL that can be followed")
        case TimeoutError():
            return UnavailableError(f"{host} did not answer in time", unanswered=True)
        case _:
            return UnavailableError(f"the connection to {host} was lost before its answer came", unanswered=True)


def _certificate_fault(error: BaseException | None) -> str:
    """OpenSSL's reason, where a certificate is at the bottom of it."""
    while error is not None:
        # aiohttp's own class of that name is one, too, but without the reason.
        if isinstance(error, ssl.SSLCertVerificationError) and hasattr(error, "verify_message"):
            return one_line(error.verify_message) or "it does not verify"
        error = getattr(error, "certificate_error", None) or error.__cause__
    return ""


def _about(doing: str, failure: ExportError) -> ExportError:
    """The same failure, with what was tried in front; no other exception is in its context."""
    failure.args = (f"{doing}: {failure}",)
    return failure.with_traceback(None)


def _api_headers(key: str, agent: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The user's headers over ours, but for the key and for what we can read."""
    faults = [
        Problem("api.headers", f"{one_line(name, limit=60)!r} cannot be sent as a header")
        for name, value in extra.items()
        if not name.isascii() or not name.strip() or not (name + value).isprintable() or name.lower() == "host"
    ]
    if faults:
        raise ConfigError(faults)
    ours = {"Authorization": requests.authorization(key), "Accept-Encoding": "identity"}
    names = {name.lower() for name in (*ours, *extra)}
    kept = {name: value for name, value in extra.items() if name.lower() not in {n.lower() for n in ours}}
    base = {n: v for n, v in {**agent, "Accept": "application/json"}.items() if n.lower() not in names}
    return {**base, **kept, **ours}


def _spellings(key: str) -> tuple[bytes, ...]:
    """The key as a service may echo it, with and without its prefix, slashes escaped or not."""
    bare = key.partition(".")[2]
    found = [part for part in (key, bare) if len(part) >= 8]
    return tuple(spelt.encode() for part in found for spelt in (part, part.replace("/", "\\/")))


def _ssl_context(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:
        why = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror or "it cannot be read"
        raise ConfigError([Problem("api.ca_file", f"{ca_file}: {why}")]) from None
    return context


def _version() -> str:
    try:
        return version("asyncexport")
    except PackageNotFoundError:
        return "0"
