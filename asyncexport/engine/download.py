"""From a link to a checked archive on the disk, going on where an earlier try was cut.

1. A cut body is resumed with `Range` and `If-Range` where the service gave an ETag; where it answers with the whole
   file all the same, what was written is thrown away and the file begun anew.
2. Whether the file is one whole export is decided by the inspection (`core.archive`) when the body has ended, never
   here. Only here it is known whether the end of the body was proved.
3. A file is begun anew where more bytes cannot help: it is damaged, it came to its end and is not whole, it may not
   replace the archive that is there, or the service has another file by now.
4. Some files are believed only when they come again (`core.archive.proof`): what came before is remembered here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from asyncexport.core.archive.expected_rows import RowLook
from asyncexport.core.archive.proof import BodyForm, BodyProof
from asyncexport.core.archive.wire_hash import WireHashes, read_goog_hash
from asyncexport.core.bundles import Bundle
from asyncexport.core.exports import Definition, Format
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.states import Archive
from asyncexport.errors import (
    ArchiveError,
    CorruptError,
    FewerRowsError,
    IncompleteError,
    OtherHashError,
    UnprovedEmptyError,
)


class DownloadStream(Protocol):
    """A download under way."""

    offset: int
    etag: str
    goog_hash: tuple[str, ...]
    form: BodyForm

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come."""
        ...

    @property
    def end_proved(self) -> bool:
        """After the last chunk: whether that was proved to be the end."""
        ...


class Source(Protocol):
    """Where downloads come from."""

    def open(
        self, location: DownloadLink, *, offset: int = 0, etag: str = ""
    ) -> AbstractAsyncContextManager[DownloadStream]:
        """Begin to download, from a byte on where that is possible."""
        ...


class PartFile(Protocol):
    """A file being filled."""

    received: int

    async def write(self, chunk: bytes) -> None:
        """Take in what came."""
        ...

    async def commit(self, proof: BodyProof, *, least_rows: int | None) -> Archive:
        """Check the whole, make it durable, give it its final name."""
        ...

    async def discard(self) -> None:
        """Remove it; nothing happens to one that was committed."""
        ...


class PartFiles(Protocol):
    """Where part files are begun."""

    def new_part(
        self, bundle: Bundle, container: Format, *, wire_hashes: WireHashes | None, rules: RowLook | None
    ) -> PartFile:
        """Begin a file."""
        ...


class ArchiveDownloads:
    """Brings archives from the service to the disk."""

    def __init__(self, source: Source, parts: PartFiles) -> None:
        self._source = source
        self._parts = parts

    def begin(
        self,
        bundle: Bundle,
        definition: Definition,
        *,
        least_rows: int | None = 0,
        new_look: Callable[[], RowLook] | None = None,
    ) -> "ArchiveDownload":
        """Begin one; with fewer than `least_rows` it does not replace a sound archive (None: none is on record).

        `new_look` gives what looks at the rows of a file that begins to come.
        """
        return ArchiveDownload(
            self._source, self._parts, bundle, definition.format, least_rows=least_rows, new_look=new_look
        )


class ArchiveDownload:
    """One archive on its way; an asynchronous context manager that removes what is half-made when left.

    `fetch` may be called again after an error that trying again may help.

    Attributes:
        look: What looked, or will look, at the rows of the present file.
    """

    def __init__(
        self,
        source: Source,
        parts: PartFiles,
        bundle: Bundle,
        container: Format,
        *,
        least_rows: int | None = 0,
        new_look: Callable[[], RowLook] | None = None,
    ) -> None:
        self._source = source
        self._parts = parts
        self._bundle = bundle
        self._format = container
        self._least_rows = least_rows
        self._new_look = new_look
        self.look: RowLook | None = None
        self._part: PartFile | None = None
        self._etag = ""
        self._came_before = ""
        self._nothing_before = False

    async def __aenter__(self) -> Self:
        """As it is."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove what is half-made."""
        await self._drop()

    @property
    def received(self) -> int:
        """How many bytes of the present file have come."""
        return self._part.received if self._part else 0

    async def fetch(self, location: DownloadLink, *, on_end: Callable[[], Awaitable[None]] | None = None) -> Archive:
        """Fetch the rest of the file, check the whole, and put it under its final name.

        `on_end` is awaited between: nothing more is needed of the line.

        Raises:
            IncompleteError: it was cut, stalled or its end was not proved; what came is kept for the next try.
            UnprovedEmptyError: it has no rows, and nothing vouches for that: the next try is a second look.
            CorruptError: it is whole and wrong; the next try begins anew.
            ForeignRowsError, UnknownRowsError: its rows are not those that were asked for.
            FewerRowsError: it is whole, and has far fewer rows than the sound archive that is there, which stays.
            GoneError: the link has expired, or there is nothing behind it.
            UnavailableError: the storage host is in trouble.
            StorageError: the disk is.
        """
        offset = self.received if self._etag else 0
        # Rule 3: what more bytes cannot mend, by how far it has got.
        hopeless: tuple[type[ArchiveError], ...] = (IncompleteError,)
        try:
            async with self._source.open(location, offset=offset, etag=self._etag if offset else "") as body:
                hopeless = (CorruptError,)
                part = await self._part_for(body)
                async for chunk in body.chunks():
                    await part.write(chunk)
                if on_end:
                    await on_end()
                hopeless = (CorruptError, IncompleteError, FewerRowsError)
                archive = await part.commit(self._proof_of(body), least_rows=self._least_rows)
        except ArchiveError as error:
            self._remember(error)
            if isinstance(error, hopeless):
                await self._drop()
            raise
        self._part = None
        return archive

    def _proof_of(self, body: DownloadStream) -> BodyProof:
        """What is known of a body that has ended, besides its bytes."""
        return BodyProof(
            end_proved=body.end_proved,
            form=body.form,
            came_before=self._came_before,
            nothing_before=self._nothing_before,
        )

    def _remember(self, error: ArchiveError) -> None:
        """What the next try may be compared with."""
        match error:
            case OtherHashError(sha256=sha256):
                self._came_before = sha256
            case UnprovedEmptyError():
                self._nothing_before = True

    async def _drop(self) -> None:
        """Remove what came so far."""
        if self._part:
            await self._part.discard()
            self._part = None

    async def _part_for(self, body: DownloadStream) -> PartFile:
        """The part file that this body continues, or a new one."""
        if body.offset == 0 or body.offset != self.received:
            await self._drop()
        if self._part is None:
            self._etag = body.etag
            hashes = read_goog_hash(body.goog_hash)
            self.look = self._new_look() if self._new_look else None
            self._part = self._parts.new_part(self._bundle, self._format, wire_hashes=hashes, rules=self.look)
        return self._part
