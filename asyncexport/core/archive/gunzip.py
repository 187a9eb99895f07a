"""Decompresses gzip a piece at a time, and checks it to its last byte (RFC 1952).

1. A file is any number of members, one after another. Nothing follows the last but zeros, as gzip(1) allows.
2. The header, checksum and length of every member are checked here, so that the library only has to inflate: libraries
   differ in what they check, and one fails on a header that arrives in two pieces.
3. No more than one piece is inflated at a time, however much a few bytes may inflate to.
"""

import zlib
from collections.abc import Iterator
from types import ModuleType

from asyncexport.errors import CorruptError, IncompleteError

try:
    from isal import isal_zlib as fastest
except ImportError:  # no wheel for this platform: the same results, three times slower
    import zlib as fastest  # type: ignore[no-redef]

FASTEST: ModuleType = fastest

PIECE_BYTES = 768 << 10
"""Bytes inflated at a time. With a third of it inflating takes a tenth longer, since each piece releases the
interpreter lock twice."""

LONGEST_HEADER_BYTES = 1 << 20
"""A longer header is treated as damage."""

MOST_EMPTY_MEMBERS = 10_000
"""More empty members in a row than this are treated as damage: each takes time to decode."""

MAGIC = b"\x1f\x8b"
DEFLATED = 8
TRAILER_BYTES = 8

FHCRC, FEXTRA, FNAME, FCOMMENT, RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0


class Gunzip:
    """One layer of gzip. `members` counts the complete members, `is_padded` says whether zeros follow the last.

    Args:
        codec: The library that inflates: `zlib`, or a module like it.
    """

    def __init__(self, *, codec: ModuleType = FASTEST) -> None:
        self.members = 0
        self._codec = codec
        self._member: _Member | None = None
        self._held = b""
        self._empty = 0
        self.is_padded = False

    @property
    def begun(self) -> int:
        """Members seen so far, complete or not."""
        return self.members + (self._member is not None)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress a piece of the file; yields the content, a piece at a time.

        Raises:
            CorruptError: it is damaged, or not gzip.
        """
        data, self._held = self._held + data, b""
        while data:
            if self._member is None:
                data = self._begin(data)
            elif self._member.ended:
                data = self._end(data, self._member)
            else:
                pieces = self._member.inflate(data)
                yield from pieces
                data = self._member.rest

    def close(self) -> None:
        """Note that the file has ended.

        Raises:
            IncompleteError: it is cut off.
        """
        if self._member is not None or self._held or not self.members:
            raise IncompleteError("the archive is cut off: its gzip has no end")

    def _begin(self, data: bytes) -> bytes:
        """Skip a header and return what follows; while it is incomplete, keep it for the next piece."""
        if self.members:
            data = self._past_padding(data)
            if not data:
                return data
        size = header_size(data)
        if size is None:
            self._held = data
            return b""
        self._member = _Member(self._codec)
        return data[size:]

    def _past_padding(self, data: bytes) -> bytes:
        rest = data.lstrip(b"\0")
        self.is_padded |= len(rest) < len(data)
        if rest and (self.is_padded or not MAGIC.startswith(rest[:2])):
            raise CorruptError("the archive has data after its end")
        return rest

    def _end(self, data: bytes, member: "_Member") -> bytes:
        """Compare with a trailer and return what follows; while it is incomplete, keep it for the next piece."""
        if len(data) < TRAILER_BYTES:
            self._held = data
            return b""
        if int.from_bytes(data[:4], "little") != member.crc32:
            raise CorruptError("the archive is damaged: wrong gzip checksum")
        if int.from_bytes(data[4:8], "little") != member.size % 2**32:
            raise CorruptError("the archive is damaged: wrong gzip length")
        self._empty = 0 if member.size else self._empty + 1
        if self._empty > MOST_EMPTY_MEMBERS:
            raise CorruptError("the archive is damaged: gzip without content")
        self._member = None
        self.members += 1
        return data[TRAILER_BYTES:]


class _Member:
    """The part between a header and a trailer. `rest` is what follows it in the data inflated last."""

    def __init__(self, codec: ModuleType) -> None:
        self._codec = codec
        self._inflater = codec.decompressobj(-zlib.MAX_WBITS)
        self.crc32 = 0
        self.size = 0
        self.rest = b""

    @property
    def ended(self) -> bool:
        return bool(self._inflater.eof)

    def inflate(self, data: bytes) -> Iterator[bytes]:
        while data and not self.ended:
            try:
                piece = self._inflater.decompress(data, PIECE_BYTES)
            except self._codec.error as error:
                raise CorruptError(f"the archive is damaged: {error}") from None
            self.crc32 = self._codec.crc32(piece, self.crc32)
            self.size += len(piece)
            if piece:
                yield piece
            data = self._inflater.unconsumed_tail
        self.rest = self._inflater.unused_data


def header_size(data: bytes) -> int | None:
    """Return the length of the header that data begins with. None if data does not hold all of it.

    Raises:
        CorruptError: it is not a valid header.
    """
    if not (MAGIC + bytes([DEFLATED])).startswith(data[:3]) or (len(data) > 3 and data[3] & RESERVED):
        raise CorruptError("the archive is damaged: invalid gzip header")
    size = _header_size(data)
    if size is not None and size <= len(data):
        return size
    if len(data) > LONGEST_HEADER_BYTES:
        raise CorruptError("the archive is damaged: endless gzip header")
    return None


def _header_size(data: bytes) -> int | None:
    """Return the same, also if it is longer than data."""
    if len(data) < 10:
        return None
    flags, size = data[3], 10
    if flags & FEXTRA:
        size += 2 + int.from_bytes(data[size : size + 2], "little")
    for flag in (FNAME, FCOMMENT):
        if flags & flag:
            end = data.find(b"\0", size)
            if end < 0:
                return None
            size = end + 1
    if flags & FHCRC:
        stored = data[size : size + 2]
        if len(stored) == 2 and int.from_bytes(stored, "little") != zlib.crc32(data[:size]) & 0xFFFF:
            raise CorruptError("the archive is damaged: wrong checksum of a gzip header")
        size += 2
    return size
