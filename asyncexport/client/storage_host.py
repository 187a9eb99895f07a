"""Downloads archives from signed URLs at the storage host, which is not the API and never gets the key.

1. The client is created without the key and the user's headers, so it cannot send them. It sends no cookies and no
   netrc credentials either, and follows no redirect.
2. A signed URL is a secret and is sent byte for byte; messages and logs contain only its host.
3. Nothing is decompressed, and every wait is limited: connecting, the headers of a download, and the time between its
   chunks. A download has a minimum rate instead of a total timeout.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self

import aiohttp
from yarl import URL

from asyncexport.client.faults import BODY_FAULTS, FAULTS, prefixed, translated
from asyncexport.client.session import ConnectionSettings, open_storage_session
from asyncexport.core.service import transfer
from asyncexport.core.service.replies import MAX_ERROR_BYTES, Reply
from asyncexport.core.service.resources import DownloadLink
from asyncexport.errors import ExportError, IncompleteError, ReplyError

log = logging.getLogger(__name__)


class StorageHost:
    """Downloads archives; an async context manager.

    Args:
        connection: Timeouts, proxy, certificates.
        min_rate: Minimum rate of a download in bytes per second, over `rate_window_seconds` of waiting for data.

    Raises:
        ConfigError: on entering, the CA file cannot be read, or a proxy from the environment cannot be used.
    """

    def __init__(
        self,
        connection: ConnectionSettings | None = None,
        *,
        min_rate: float = 1024.0,
        rate_window_seconds: float = transfer.RATE_WINDOW_SECONDS,
    ) -> None:
        self._connection = connection or ConnectionSettings()
        self._min_rate = min_rate
        self._rate_window_seconds = rate_window_seconds

    async def __aenter__(self) -> Self:
        """Open the session; nothing is sent yet."""
        self._session = await open_storage_session(self._connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session and abort what is still in flight."""
        await self._session.close()

    @asynccontextmanager
    async def open(self, location: DownloadLink, *, offset: int = 0, etag: str = "") -> AsyncIterator["DownloadBody"]:
        """Begin a download, or resume one that was cut off after `offset` bytes and had this `etag`.

        Check the `offset` of the body: it is 0 if the server sends the file from the beginning instead.

        Raises:
            IncompleteError: the download cannot be resumed: begin at 0.
            UnavailableError: no answer came, or the storage host is in trouble.
            ServiceError: everything else that `transfer.judge_download` raises.
        """
        response = await self._fetch(location, transfer.range_headers(offset, etag))
        try:
            reply = Reply(response.status, response.headers, await self._start_of_error(response, location.host))
            log.debug("GET from %s: %d", location.host, reply.status)
            transfer.judge_download(reply)
            hashes = response.headers.getall("x-goog-hash", [])
            head = transfer.read_head(reply, goog_hash=hashes, offset=offset, etag=etag)
            floor = transfer.RateFloor(self._min_rate, window_seconds=self._rate_window_seconds)
            yield DownloadBody(
                response.content, head=head, floor=floor, stall_seconds=self._connection.read_timeout_seconds
            )
        finally:
            # A body read to its end has already released its connection for reuse; otherwise the connection is closed.
            response.close()

    async def _fetch(self, location: DownloadLink, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        failure: ExportError
        try:
            # Headers that arrive byte by byte never stall, so only a total timeout ends the wait for them.
            async with asyncio.timeout(self._connection.reply_timeout_seconds):
                return await self._session.get(
                    URL(location.url, encoded=True),
                    headers={"Accept-Encoding": "gzip", **headers},
                    allow_redirects=False,
                    proxy=self._connection.proxy_for(location.url),
                )
        except ExportError as error:
            failure = error
        except FAULTS as error:
            failure = translated(error, location.host)
        except ValueError:
            failure = ReplyError("the signed URL is not valid")
        raise prefixed(transfer.DOING, failure)

    async def _start_of_error(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        """Return the text of an error reply as far as it arrives; nothing of a success, whose body is read later."""
        if response.status in (200, 206):
            return b""
        body = bytearray()
        try:
            async with asyncio.timeout(self._connection.read_timeout_seconds):
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_ERROR_BYTES:
                        break
        except BODY_FAULTS:
            log.debug("the error reply of %s was cut off", host)
        return bytes(body)


class DownloadBody:
    """The body of a download.

    Attributes:
        offset: The position of its first byte in the archive.
        length: Its number of bytes, if known.
        etag, goog_hash, form: See `transfer.DownloadHead`.
        received: The number of bytes received so far.
        end_proved: Whether `chunks` has ended, and the end is proved to be that of the archive.
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
        self.form = head.form
        self.received = 0
        self.end_proved = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as sent, in chunks as they arrive.

        Raises:
            IncompleteError: the body was cut off, stalled, or arrived too slowly.
        """
        while chunk := await self._next():
            yield chunk
        self.end_proved = self._head.proves_end(self.received)

    async def _next(self) -> bytes:
        clock = asyncio.get_running_loop().time
        began = clock()
        failure: IncompleteError
        try:
            chunk = self._buffered()
            if chunk is None:
                # aiohttp's own timeout is not reliable: a malformed chunk cancels it.
                async with asyncio.timeout(self._stall_seconds):
                    chunk = await self._content.readany()
        except TimeoutError:
            failure = IncompleteError(f"{transfer.DOING}: the body stalled after {self.received} bytes")
        except BODY_FAULTS:
            failure = IncompleteError(f"{transfer.DOING}: the body was cut off after {self.received} bytes")
        else:
            self.received += len(chunk)
            if self._floor.holds(len(chunk), waited_seconds=clock() - began):
                return chunk
            failure = IncompleteError(f"{transfer.DOING}: too slow, stopped after {self.received} bytes")
        raise failure

    def _buffered(self) -> bytes | None:
        """Return what has already arrived, which needs no timeout; None if there is nothing, or after a fault."""
        if self._content.exception() is not None:
            return None
        buffered = self._content.read_nowait()
        return buffered if buffered or self._content.at_eof() else None
