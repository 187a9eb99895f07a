"""Is this stream of bytes one whole export? Hashes, layers of gzip, structure and rows, as the bytes go by.

1. An archive on disk is exactly one layer of gzip. Bytes as delivered are kept where they are that; of gzip in gzip the
   innermost is kept; a plain body is compressed, the same way each time.
2. Every layer is checked to its end (`core.archive.gunzip`), and what is inside of all of them is checked to be whole
   (`core.archive.structure`).
3. A body that would look whole though it was cut proves nothing of itself: one that is empty, one that is not gzip, one
   of several members, which may have been cut between two. It counts only if its end was proved, by its framing or by
   a hash; else it stopped early, as far as anybody can tell. Of several members, the first alone cannot be told from
   a file of one.
4. A hash is of the body as the service stores it. A proxy that undoes the compression on the way breaks it: refused.
5. What is held in memory is a few pieces, whatever comes.
"""

import hashlib
import zlib
from base64 import b64decode
from binascii import Error as BinasciiError
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from asyncexport.core.archive.gunzip import FASTEST, MAGIC, Gunzip
from asyncexport.core.archive.structure import STRUCTURES, Structure
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import CorruptError, IncompleteError

try:
    import google_crc32c
except ImportError:
    google_crc32c = None  # type: ignore[assignment]

MOST_LAYERS = 4
"""More layers of gzip than this are no accident."""

HELD_BYTES = 1 << 20
"""Gzip of this size with nothing in it is no archive; so much is held back until it is known what is in it."""

BOM = b"\xef\xbb\xbf"
SNIFFED_BYTES = len(BOM)


@dataclass(frozen=True, slots=True)
class WireHashes:
    """What the storage host says of the bytes it stores; None where it does not."""

    crc32c: bytes | None = None
    md5: bytes | None = None


def read_goog_hash(values: Sequence[str]) -> WireHashes:
    """Read the `x-goog-hash` headers (reference section 5); what cannot be read is as good as not there."""
    found: dict[str, bytes] = {}
    for item in (item for value in values for item in value.split(",")):
        name, _, text = item.strip().partition("=")
        try:
            digest = b64decode(text, validate=True)
        except (BinasciiError, ValueError):
            continue
        if len(digest) == {"crc32c": 4, "md5": 16}.get(name.lower()):
            found[name.lower()] = digest
    return WireHashes(found.get("crc32c"), found.get("md5"))


def _discard(_piece: bytes) -> None:
    """Takes a piece that is not to be written anywhere."""


class Inspector:
    """Checks a body as it comes, and says what to write of it.

    Args:
        container: What is inside.
        path: Where the archive lies, or will lie, relative to the output directory.
        write: Is given what an archive made of the body consists of, piece by piece, as soon as it was looked at.
        wire_hashes: What the body must hash to.
        codec: Who inflates: `zlib`, or a module like it.
    """

    def __init__(
        self,
        container: Format,
        *,
        path: str,
        write: Callable[[bytes], object] = _discard,
        wire_hashes: WireHashes | None = None,
        codec: ModuleType = FASTEST,
    ) -> None:
        self._path = path
        self._write = write
        self._wire = _WireCheck(wire_hashes or WireHashes())
        self._inside = _Inside(STRUCTURES[container]())
        self._body = _Layer(self._inside, codec=codec, depth=0)
        self._sha256 = hashlib.sha256()
        self._written = 0

    def feed(self, data: bytes) -> None:
        """Take in a piece of the body.

        Raises:
            CorruptError: it cannot be one whole export any more.
        """
        self._wire.feed(data)
        self._keep(self._body.feed(data))

    def close(self, *, end_proved: bool) -> Archive:
        """The body has ended, and the rest is written: what was found.

        Raises:
            IncompleteError: it stopped early, or nothing proves that it did not.
            CorruptError: it is whole, and wrong.
        """
        self._keep(self._body.close())
        hashed = self._wire.close()
        if hashed is False:
            wrong = CorruptError if end_proved else IncompleteError
            raise wrong("the archive does not have the hash that the storage host names")
        doubt = self._body.doubt
        if doubt and not (end_proved or hashed):
            raise IncompleteError(f"the archive is {doubt}, and nothing proves that it ends there")
        rows = self._inside.close()
        return Archive(self._path, self._written, rows, self._sha256.hexdigest())

    def close_archive(self) -> Archive:
        """The same for an archive as it lies on disk: it must be one layer of gzip. Who gave it its name knew its end.

        Raises:
            IncompleteError: it is cut.
            CorruptError: it is damaged, or not one layer of gzip.
        """
        found = self.close(end_proved=True)
        if not self._body.is_last_gzip:
            raise CorruptError("the archive is not one layer of gzip")
        return found

    def _keep(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._sha256.update(piece)
            self._written += len(piece)
            self._write(piece)


def inspect(chunks: Iterable[bytes], container: Format, *, path: str = "") -> Archive:
    """Check an archive as it lies on disk, under `path`; it must be one layer of gzip.

    Raises:
        IncompleteError: it is cut.
        CorruptError: it is damaged, or not one layer of gzip.
    """
    inspector = Inspector(container, path=path)
    for chunk in chunks:
        inspector.feed(chunk)
    return inspector.close_archive()


class _WireCheck:
    """Compares the body with its `x-goog-hash`: crc32c where there is one, else md5."""

    def __init__(self, expected: WireHashes) -> None:
        self._expected: bytes | None = None
        self._running: Any = None
        if expected.crc32c is not None and google_crc32c is not None:
            self._expected, self._running = expected.crc32c, google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        elif expected.md5 is not None:
            self._expected, self._running = expected.md5, hashlib.md5(usedforsecurity=False)

    def feed(self, data: bytes) -> None:
        if self._running is not None:
            self._running.update(data)

    def close(self) -> bool | None:
        """Whether the body has its hash; None where there is none."""
        return None if self._running is None else self._running.digest() == self._expected


class _Inside:
    """What is inside of all gzip; `size` counts its bytes."""

    def __init__(self, structure: Structure) -> None:
        self.size = 0
        self.close = structure.close
        self._structure = structure

    def feed(self, data: bytes) -> None:
        """The next piece; the first is as long as a byte order mark, if there is so much."""
        self._structure.feed(data if self.size else data.removeprefix(BOM))
        self.size += len(data)


class _Layer:
    """One layer of the body: gzip around another, or what is inside of all of them.

    `feed` and `close` give what an archive that is made of this layer consists of.
    """

    def __init__(self, inside: _Inside, *, codec: ModuleType, depth: int) -> None:
        self._inside = inside
        self._codec = codec
        self._depth = depth
        self._start = b""
        self._kind: _Gzip | _Plain | None = None

    @property
    def is_known(self) -> bool:
        """Whether enough was seen to tell what it is."""
        return self._kind is not None

    @property
    def is_gzip(self) -> bool:
        return isinstance(self._kind, _Gzip)

    @property
    def is_last_gzip(self) -> bool:
        """Whether it is gzip, and what is in it is not."""
        return isinstance(self._kind, _Gzip) and not self._kind.next.is_gzip

    @property
    def doubt(self) -> str:
        """Why it may have been cut without a trace; "" where it cannot."""
        match self._kind:
            case _Gzip(members=1):
                return ""
            case _Gzip():
                return "gzip in several members"
            case _:
                return "not compressed" if self._inside.size else "empty"

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._kind is None:
            self._start += data
            if len(self._start) < SNIFFED_BYTES:
                return
            data = self._start
            self._kind = self._sniffed()
        yield from self._kind.feed(data)

    def close(self) -> Iterator[bytes]:
        if self._kind is None:
            self._kind = self._sniffed()
            yield from self._kind.feed(self._start)
        yield from self._kind.close()

    def _sniffed(self) -> "_Gzip | _Plain":
        if not self._start.startswith(MAGIC):
            return _Plain(self._inside, is_body=self._depth == 0)
        if self._depth == MOST_LAYERS:
            raise CorruptError(f"the archive is gzip in gzip, more than {MOST_LAYERS} times")
        return _Gzip(_Layer(self._inside, codec=self._codec, depth=self._depth + 1), codec=self._codec)


class _Gzip:
    """Gzip. What comes is held until it is known whether it is the last layer, whose bytes make the archive."""

    def __init__(self, inner: _Layer, *, codec: ModuleType) -> None:
        self.next = inner
        self._gunzip = Gunzip(codec=codec)
        self._held: list[bytes] = []

    @property
    def members(self) -> int:
        return self._gunzip.members

    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in self._gunzip.feed(data):
            yield from self.next.feed(piece)
        self._held.append(data)
        if self.next.is_known:
            yield from self._let_go()
        elif sum(map(len, self._held)) > HELD_BYTES:
            raise CorruptError("the archive is gzip with nothing in it")

    def close(self) -> Iterator[bytes]:
        self._gunzip.close()
        yield from self.next.close()
        yield from self._let_go()

    def _let_go(self) -> list[bytes]:
        held, self._held = self._held, []
        return [] if self.next.is_gzip else held


class _Plain:
    """What is inside; where that is the body itself, an archive has to be made of it."""

    def __init__(self, inside: _Inside, *, is_body: bool) -> None:
        self._inside = inside
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS) if is_body else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._inside.feed(data)
        if self._deflate is not None:
            yield self._deflate.compress(data)

    def close(self) -> Iterator[bytes]:
        if self._deflate is not None:
            yield self._deflate.flush()
