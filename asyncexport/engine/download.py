"""Downloads a signed URL into a checked archive on the disk, and resumes where an earlier attempt was cut.

1. A cut body is resumed with `Range` and `If-Range` if the storage host gave an ETag. If it answers with the complete
   file anyway, the bytes received so far are discarded.
2. The inspection (`core.archive`) decides whether the file is one complete export, once the body has ended. This module
   only passes on whether the end of the body was confirmed.
3. The download starts from scratch if more bytes cannot help: the file is damaged, has ended but is incomplete, may not
   replace the existing archive, or has changed at the storage host.
4. Some files are accepted only when they come a second time (`core.archive.proof`). This module remembers what came the
   first time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from asyncexport.core.archive.expected_rows import RowCheck
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
    """A download in progress."""

    offset: int
    etag: str
    goog_hash: tuple[str, ...]
    form: BodyForm

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the bytes as they arrive."""
        ...

    @property
    def end_proved(self) -> bool:
        """Whether the end of the body was confirmed; valid after the last chunk."""
        ...


class Source(Protocol):
    """The storage host that files are downloaded from."""

    def open(
        self, location: DownloadLink, *, offset: int = 0, etag: str = ""
    ) -> AbstractAsyncContextManager[DownloadStream]:
        """Start a download, from byte `offset` on if that is possible."""
        ...


class PartFile(Protocol):
    """A file that is being written."""

    received: int

    async def write(self, chunk: bytes) -> None:
        """Append the chunk."""
        ...

    async def commit(self, proof: BodyProof, *, least_rows: int | None) -> Archive:
        """Check the complete file, make it durable and give it its final name."""
        ...

    async def discard(self) -> None:
        """Remove the file unless it was committed."""
        ...


class PartFiles(Protocol):
    """The place where part files are created."""

    def new_part(
        self, bundle: Bundle, container: Format, *, wire_hashes: WireHashes | None, rules: RowCheck | None
    ) -> PartFile:
        """Create a part file."""
        ...


class ArchiveDownloads:
    """Downloads archives to the disk."""

    def __init__(self, source: Source, parts: PartFiles) -> None:
        self._source = source
        self._parts = parts

    def begin(
        self,
        bundle: Bundle,
        definition: Definition,
        *,
        least_rows: int | None = 0,
        new_check: Callable[[], RowCheck] | None = None,
    ) -> "ArchiveDownload":
        """Make a download.

        Args:
            bundle: The bundle whose archive it is.
            definition: What was exported.
            least_rows: An intact archive is not replaced by a file with fewer rows; None if no archive is recorded.
            new_check: Makes the row check for each new file.
        """
        return ArchiveDownload(
            self._source, self._parts, bundle, definition.format, least_rows=least_rows, new_check=new_check
        )


class ArchiveDownload:
    """The download of one archive; an asynchronous context manager that removes an unfinished part file on exit.

    `fetch` may be called again after an error that a retry may help.

    Attributes:
        row_check: Checks the rows of the current file; None before the first one.
    """

    def __init__(
        self,
        source: Source,
        parts: PartFiles,
        bundle: Bundle,
        container: Format,
        *,
        least_rows: int | None = 0,
        new_check: Callable[[], RowCheck] | None = None,
    ) -> None:
        self._source = source
        self._parts = parts
        self._bundle = bundle
        self._format = container
        self._least_rows = least_rows
        self._new_check = new_check
        self.row_check: RowCheck | None = None
        self._part: PartFile | None = None
        self._etag = ""
        self._earlier_sha256 = ""
        self._was_empty = False

    async def __aenter__(self) -> Self:
        """Return the download itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove an unfinished part file."""
        await self._drop()

    @property
    def received(self) -> int:
        """Bytes received of the current file."""
        return self._part.received if self._part else 0

    async def fetch(self, location: DownloadLink, *, on_end: Callable[[], Awaitable[None]] | None = None) -> Archive:
        """Download the rest of the file, check the complete file, and give it its final name.

        `on_end` is awaited after the last byte, when the connection is no longer needed.

        Raises:
            IncompleteError: it was cut, it stalled or its end was not confirmed; the bytes are kept for the next
                attempt.
            UnprovedEmptyError: it has no rows and nothing confirms that; the next attempt is the second check.
            CorruptError: it is complete but wrong; the next attempt starts from scratch.
            ForeignRowsError, UnknownRowsError: its rows are not the requested ones.
            FewerRowsError: it is complete but has far fewer rows than the intact archive, which stays.
            GoneError: the signed URL has expired or leads nowhere.
            UnavailableError: the storage host is unavailable.
            StorageError: the disk is full or not writable.
        """
        offset = self.received if self._etag else 0
        # The errors that more bytes cannot fix (rule 3), by how far the download has got.
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
        """Collect what is known about a body that has ended, apart from its bytes."""
        return BodyProof(
            end_proved=body.end_proved,
            form=body.form,
            sha256_before=self._earlier_sha256,
            empty_before=self._was_empty,
        )

    def _remember(self, error: ArchiveError) -> None:
        """Remember what the next attempt is compared with (rule 4)."""
        match error:
            case OtherHashError(sha256=sha256):
                self._earlier_sha256 = sha256
            case UnprovedEmptyError():
                self._was_empty = True

    async def _drop(self) -> None:
        """Discard the bytes received so far."""
        if self._part:
            await self._part.discard()
            self._part = None

    async def _part_for(self, body: DownloadStream) -> PartFile:
        """Return the part file that this body continues, or a new one."""
        if body.offset == 0 or body.offset != self.received:
            await self._drop()
        if self._part is None:
            self._etag = body.etag
            hashes = read_goog_hash(body.goog_hash)
            self.row_check = self._new_check() if self._new_check else None
            self._part = self._parts.new_part(self._bundle, self._format, wire_hashes=hashes, rules=self.row_check)
        return self._part
