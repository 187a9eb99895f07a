"""From a link to a checked archive on the disk, going on where an earlier try was cut.

1. A cut body is resumed with `Range` and `If-Range` where the service gave an ETag; where it answers with the whole
   file all the same, what was written is thrown away and the file begun anew.
2. Whether the file is one whole export is decided by the draft's inspector (`core.archive`), never here; what is known
   only here is whether the end of the body was proved.
3. A file that arrived whole and is bad is begun anew by the next try.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from asyncexport.core.archive import Inspection, WireHashes, read_goog_hash
from asyncexport.core.bundles import Bundle
from asyncexport.core.exports import Definition, Format
from asyncexport.core.states import Archive
from asyncexport.core.wire import Location
from asyncexport.errors import CorruptError, IncompleteError


class Body(Protocol):
    """A download under way."""

    offset: int
    etag: str
    goog_hash: tuple[str, ...]

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come."""
        ...

    @property
    def end_proved(self) -> bool:
        """After the last chunk: whether that was proved to be the end."""
        ...


class Source(Protocol):
    """Where downloads come from."""

    def open(self, location: Location, *, offset: int = 0, etag: str = "") -> AbstractAsyncContextManager[Body]:
        """Begin to download, from a byte on where that is possible."""
        ...


class Kept(Protocol):
    """An archive under its final name."""

    @property
    def path(self) -> str:
        """Relative to the output directory."""
        ...

    @property
    def inspection(self) -> Inspection:
        """What was found in it."""
        ...


class Draft(Protocol):
    """A file being filled."""

    received: int

    async def write(self, chunk: bytes) -> None:
        """Take in what came."""
        ...

    async def commit(self, *, end_proved: bool) -> Kept:
        """Check the whole, make it durable, give it its final name."""
        ...

    async def discard(self) -> None:
        """Remove it."""
        ...


class Drafts(Protocol):
    """Where drafts are made."""

    async def draft(self, bundle: Bundle, container: Format, *, wire_hashes: WireHashes | None) -> Draft:
        """Begin a file."""
        ...


class Downloads:
    """Brings archives from the service to the disk."""

    def __init__(self, source: Source, drafts: Drafts) -> None:
        self._source = source
        self._drafts = drafts

    @asynccontextmanager
    async def begin(self, bundle: Bundle, definition: Definition) -> AsyncIterator["Download"]:
        """Begin one; what is half-made when left is removed."""
        download = Download(self._source, self._drafts, bundle, definition.format)
        try:
            yield download
        finally:
            await download.close()


class Download:
    """One archive on its way; `fetch` may be called again after an error that trying again may help."""

    def __init__(self, source: Source, drafts: Drafts, bundle: Bundle, container: Format) -> None:
        self._source = source
        self._drafts = drafts
        self._bundle = bundle
        self._format = container
        self._draft: Draft | None = None
        self._etag = ""
        self._goog_hash: Sequence[str] = ()

    @property
    def received(self) -> int:
        """How many bytes of the present file have come."""
        return self._draft.received if self._draft else 0

    async def fetch(self, location: Location) -> Archive:
        """Fetch the rest of the file, check the whole, and put it under its final name.

        Raises:
            IncompleteError: it was cut, stalled or its end was not proved; what came is kept for the next try.
            CorruptError: it is whole and wrong; the next try begins anew.
            GoneError: the link has expired, or there is nothing behind it.
            UnavailableError: the storage host is in trouble.
            StorageError: the disk is.
        """
        offset = self.received if self._etag else 0
        async with AsyncExitStack() as stack:
            try:
                body = await stack.enter_async_context(self._source.open(location, offset=offset, etag=self._etag))
            except IncompleteError:
                # It cannot go on from there: another file lies behind the link, or the range is refused.
                await self._begin_anew()
                raise
            draft = await self._draft_for(body)
            async for chunk in body.chunks():
                await draft.write(chunk)
            return await self._commit(draft, end_proved=body.end_proved)

    async def close(self) -> None:
        """Remove what is half-made."""
        if self._draft:
            await self._draft.discard()
            self._draft = None

    async def _draft_for(self, body: Body) -> Draft:
        """The draft that this body goes on with, or a new one where it does not go on with any."""
        if self._draft and (body.offset != self.received or not self.received):
            await self.close()
        if self._draft is None:
            self._etag, self._goog_hash = body.etag, body.goog_hash
            self._draft = await self._drafts.draft(
                self._bundle, self._format, wire_hashes=read_goog_hash(body.goog_hash) if body.goog_hash else None
            )
        return self._draft

    async def _begin_anew(self) -> None:
        self._etag = ""
        await self.close()

    async def _commit(self, draft: Draft, *, end_proved: bool) -> Archive:
        """What was refused here was read to its end: only beginning anew can help."""
        try:
            kept = await draft.commit(end_proved=end_proved)
        except (CorruptError, IncompleteError):
            await self._begin_anew()
            raise
        self._draft = None
        found = kept.inspection
        return Archive(kept.path, found.bytes, found.rows, found.sha256)
