"""Files of the store: small ones in memory, big ones on the disk, each with its checksums.

A big file is written to the system's temporary folder as it is made, under no name, so that it is gone with the last
use of it, however the process ends.
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
except ImportError:  # no wheel for this platform: the store then tells md5 alone
    google_crc32c = None  # type: ignore[assignment]

HELD_BYTES = 1 << 20
"""A bigger file is on the disk."""

PIECE_BYTES = 256 << 10
"""Read from the disk at once: in the page cache as a rule, so that the event loop may do it."""


class SandboxDiskBody:
    """A body on the disk.

    Args:
        descriptor: Of an open file, which is closed when this body is no longer used.
        size: Its bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size
        weakref.finalize(self, os.close, descriptor)

    def __len__(self) -> int:
        return self._size

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`."""
        while start < stop:
            piece = os.pread(self._descriptor, min(PIECE_BYTES, stop - start), start)
            if not piece:
                raise OSError("a file of the sandbox became shorter in the temporary folder")
            yield piece
            start += len(piece)


class SandboxChecksums:
    """The checksums of bytes as they come; `crc32c` is b"" where it cannot be had."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = 0

    def update(self, piece: bytes) -> None:
        """Take in some more."""
        self._md5.update(piece)
        self._crc32c = google_crc32c.extend(self._crc32c, piece) if google_crc32c else 0

    def of(self, content: bytes | SandboxContent) -> "SandboxFile":
        """The file of that content, which is what these checksums are of."""
        crc32c = self._crc32c.to_bytes(4, "big") if google_crc32c else b""
        return SandboxFile(content, f'"{self._md5.hexdigest()}"', crc32c, self._md5.digest())


@dataclass(frozen=True, slots=True)
class SandboxFile:
    """A file in the store: its bytes, and the checksums that go with it; `crc32c` is b"" where it cannot be had."""

    content: bytes | SandboxContent
    etag: str
    crc32c: bytes
    md5: bytes

    @classmethod
    def of(cls, content: bytes | SandboxContent) -> "SandboxFile":
        """With the checksums of these very bytes."""
        sums = SandboxChecksums()
        for piece in [content] if isinstance(content, bytes) else content.pieces(0, len(content)):
            sums.update(piece)
        return sums.of(content)


SandboxMaking = Generator[None, None, SandboxFile]
"""A file that is made step by step, so that others can have a turn between two steps."""


def stored(pieces: Iterable[bytes]) -> SandboxMaking:
    """Store the bytes, a step for each piece.

    Raises:
        OSError: the temporary folder takes no more.
    """
    sums, size = SandboxChecksums(), 0
    with tempfile.SpooledTemporaryFile(HELD_BYTES) as file:
        for piece in pieces:
            sums.update(piece)
            size += file.write(piece)
            yield
        file.seek(0)  # which flushes it as well
        if size <= HELD_BYTES:
            return sums.of(file.read())
        return sums.of(SandboxDiskBody(os.dup(file.fileno()), size))


def finished(making: SandboxMaking) -> SandboxFile:
    """The file, once all steps are taken at once."""
    while True:
        try:
            next(making)
        except StopIteration as end:
            file: SandboxFile = end.value
            return file
