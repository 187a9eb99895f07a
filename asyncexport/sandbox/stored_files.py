"""Files of the storage host with their checksums: small ones in memory, big ones on disk.

A big file is an unnamed file in the system's temporary folder, so it disappears after its last use, even if the process
is killed.
"""

import hashlib
import os
import tempfile
import weakref
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from asyncexport.sandbox.answers import SandboxContent

try:
    import google_crc32c
except ImportError:  # no wheel for this platform: the sandbox then sends only md5
    google_crc32c = None  # type: ignore[assignment]

HELD_BYTES = 1 << 20
"""Bigger files are on disk."""

PIECE_BYTES = 256 << 10
"""Bytes read from disk in one call. They are usually in the page cache, so the event loop may read them."""


class SandboxDiskBody:
    """A body on disk.

    Args:
        descriptor: The descriptor of an open file, which is closed when this body is no longer used.
        size: The size in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size
        weakref.finalize(self, os.close, descriptor)

    def __len__(self) -> int:
        return self._size

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `stop`."""
        while start < stop:
            piece = os.pread(self._descriptor, min(PIECE_BYTES, stop - start), start)
            if not piece:
                raise OSError("a file of the sandbox in the temporary folder was truncated")
            yield piece
            start += len(piece)


class SandboxChecksums:
    """Computes checksums incrementally; `crc32c` is b"" if its library is missing."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = 0

    def update(self, piece: bytes) -> None:
        """Add bytes."""
        self._md5.update(piece)
        self._crc32c = google_crc32c.extend(self._crc32c, piece) if google_crc32c else 0

    def of(self, content: bytes | SandboxContent) -> "SandboxFile":
        """Return a file of this content with the checksums so far."""
        crc32c = self._crc32c.to_bytes(4, "big") if google_crc32c else b""
        return SandboxFile(content, f'"{self._md5.hexdigest()}"', crc32c, self._md5.digest())


@dataclass(frozen=True, slots=True)
class SandboxFile:
    """A stored file: its bytes and checksums; `crc32c` is b"" if its library is missing."""

    content: bytes | SandboxContent
    etag: str
    crc32c: bytes
    md5: bytes

    @classmethod
    def of(cls, content: bytes | SandboxContent) -> "SandboxFile":
        """Return a file of this content with the right checksums."""
        sums = SandboxChecksums()
        for piece in [content] if isinstance(content, bytes) else content.pieces(0, len(content)):
            sums.update(piece)
        return sums.of(content)


SandboxMaking = Generator[None, None, SandboxFile]
"""A generator that makes a file step by step, so that other files can have a turn between two steps."""


def stored(pieces: Iterable[bytes]) -> SandboxMaking:
    """Store the bytes, one step for each piece.

    Raises:
        OSError: The temporary folder is full.
    """
    sums, size = SandboxChecksums(), 0
    with tempfile.SpooledTemporaryFile(HELD_BYTES) as file:
        for piece in pieces:
            sums.update(piece)
            size += file.write(piece)
            yield
        file.seek(0)  # also flushes the file
        if size <= HELD_BYTES:
            return sums.of(file.read())
        return sums.of(SandboxDiskBody(os.dup(file.fileno()), size))


def finished(making: SandboxMaking) -> SandboxFile:
    """Take all steps without a pause and return the file."""
    while True:
        try:
            next(making)
        except StopIteration as end:
            file: SandboxFile = end.value
            return file
