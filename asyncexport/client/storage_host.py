"""The storage host: downloads from signed links. It is another service than the API, and never gets the key.

1. It is made without the key and without the user's headers, so they cannot go there. No cookies and no netrc entry go
   along either, and no redirect is followed.
2. A signed URL is a secret and goes out byte for byte; no message or log holds more of it than its host.
3. No bytes are inflated, and every wait has an end: connecting, the head of a download, the time between its bytes, and
   a floor on its rate. A download as a whole has none.
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
    """Where archives are downloaded from; an async context manager.

    Args:
        connection: Time-outs, proxy, certificates.
        min_rate: Bytes a second that a download must bring, over `rate_window_seconds` of waiting for it.

    Raises:
        ConfigError: on entering, the CA file cannot be read.
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
        """Close the session, and with it what is still under way."""
        await self._session.close()

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
            yield DownloadBody(
                response.content, head=head, floor=floor, stall_seconds=self._connection.read_timeout_seconds
            )
        finally:
            # A body read to its end has given its connection back already; any other takes it along.
            response.close()

    async def _fetch(self, location: DownloadLink, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        failure: ExportError
        try:
            # A head that drips never stalls, so the time between bytes does not end it.
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
            failure = ReplyError("the link is not a URL that can be followed")
        raise prefixed(transfer.DOING, failure)

    async def _start_of_error(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        """The text of an error, as far as it comes; nothing of a success, whose body is read later."""
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
            log.debug("the text of an error from %s was cut short", host)
        return bytes(body)


class DownloadBody:
    """The body of a download.

    `offset`: the first byte of the archive it holds. `length`: its bytes, where known. `etag`, `goog_hash`, `form`: see
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
        self.form = head.form
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
