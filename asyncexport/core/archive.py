"""Is this stream of bytes one whole export? Gzip, structure, rows and digests, as the bytes go by.

1. An archive on disk is exactly one layer of gzip. Bytes as delivered are kept where they are that; of gzip in gzip the
   inner one is kept; a plain body is compressed, the same way each time.
2. Every layer is checked to its end: header, checksum and length of every member, and nothing after the last but
   zeros, as gzip(1) allows.
3. A body that is empty or not gzip proves nothing of itself: it counts only if its end was proved, by its framing or by
   a hash. Otherwise it stopped early, as far as anybody can tell.
4. What is inside is checked to be whole as well: the last NDJSON line, the JSON array closed, CSV quotes balanced and
   the last record as wide as the header. Nothing is parsed that need not be: at a gigabyte, counting is affordable and
   parsing is not.
5. No more than a piece is inflated at once, whatever a few bytes may inflate to.
"""

import hashlib
import zlib
from base64 import b64decode
from binascii import Error as BinasciiError
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from asyncexport.core.exports import Format
from asyncexport.errors import CorruptError, IncompleteError

try:
    from isal import isal_zlib as fast_zlib
except ImportError:  # no wheel for this platform: three times slower, and the same
    import zlib as fast_zlib  # type: ignore[no-redef]

try:
    import google_crc32c
except ImportError:
    google_crc32c = None  # type: ignore[assignment]

PIECE_BYTES = 1 << 20
"""What is inflated at once."""

MOST_LAYERS = 4
"""More layers of gzip than this are no accident."""

LONGEST_LINE_BYTES = 256 << 20
"""A line longer than this is no row."""

GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Inspection:
    """An archive as it lies on disk; `inflated` is the size of what is in it, in bytes."""

    bytes: int
    rows: int
    sha256: str
    inflated: int


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


class Inspector:
    """Checks a body as it comes, and says what to write of it.

    Args:
        format: What is inside.
        wire_hashes: What the body must hash to.
    """

    def __init__(self, format: Format, *, wire_hashes: WireHashes | None = None) -> None:  # noqa: A002 - the user's word
        self.received = 0
        self._wire = _WireCheck(wire_hashes or WireHashes())
        self._structure = STRUCTURES[format]()
        self._level = _Level(self._structure, depth=0)
        self._sha256 = hashlib.sha256()
        self._written = 0

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take in a piece of the body; what is to be written for it, which may be nothing yet.

        Raises:
            CorruptError: it cannot be one whole export any more.
        """
        data = bytes(data)
        self.received += len(data)
        self._wire.feed(data)
        return self._noted(self._level.feed(data))

    def close(self, *, end_proved: bool) -> tuple[list[bytes], Inspection]:
        """The body has ended: the rest to write, and what was found.

        Raises:
            IncompleteError: it stopped early, or nothing proves that it did not.
            CorruptError: it is whole, and wrong.
        """
        matched = self._wire.close()
        rest = self._level.close()
        if not self._level.is_gzip and not (end_proved or matched):
            raise IncompleteError(
                "the archive is empty, and nothing proves that it ends there"
                if not self.received
                else "the archive is not compressed, and nothing proves that it ends there"
            )
        rows = self._structure.close()
        written = self._noted(rest)
        found = Inspection(self._written, rows, self._sha256.hexdigest(), self._structure.size)
        return written, found

    def _noted(self, pieces: list[bytes]) -> list[bytes]:
        for piece in pieces:
            self._sha256.update(piece)
            self._written += len(piece)
        return pieces


def inspect(chunks: Iterable[bytes], format: Format) -> Inspection:  # noqa: A002 - the user's word
    """Check an archive as it lies on disk; it must be one layer of gzip.

    Raises:
        IncompleteError: it is cut.
        CorruptError: it is damaged, or not one layer of gzip.
    """
    inspector = Inspector(format)
    sha256 = hashlib.sha256()
    for chunk in chunks:
        sha256.update(chunk)
        inspector.feed(chunk)
    _, found = inspector.close(end_proved=True)
    if found.sha256 != sha256.hexdigest():
        raise CorruptError("the archive is not one layer of gzip")
    return found


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

    def close(self) -> bool:
        """Whether there was a hash, and the body has it."""
        if self._running is None:
            return False
        if self._running.digest() != self._expected:
            raise CorruptError("the archive does not have the hash that the storage host names")
        return True


class _Level:
    """One layer of the body: gzip around another, or what is inside all of them."""

    def __init__(self, structure: "_Structure", *, depth: int) -> None:
        self._structure = structure
        self._depth = depth
        self._start = b""
        self._sniffed = False
        self._inner: _Level | None = None
        self._gunzip: _Gunzip | None = None
        self._held: list[bytes] = []
        self._deflate: Any = None

    @property
    def is_gzip(self) -> bool:
        return self._gunzip is not None

    @property
    def is_known(self) -> bool:
        """Whether enough was seen to tell what this layer is."""
        return self._sniffed

    def feed(self, data: bytes) -> list[bytes]:
        """What an archive made of this layer has for it."""
        if not self._sniffed:
            self._start += data
            if len(self._start) < len(GZIP_MAGIC):
                return []
            data, self._start = self._start, b""
            self._sniff(data)
        if self._gunzip is None:
            return self._plain(data)
        return self._through(data)

    def close(self) -> list[bytes]:
        out: list[bytes] = []
        if not self._sniffed:
            data, self._start = self._start, b""
            self._sniff(data)
            out += self._plain(data) if self._gunzip is None else self._through(data)
        if self._gunzip is None:
            if self._deflate is not None:
                out.append(self._deflate.flush())
            return out
        self._gunzip.close()
        inner = self._inner
        if inner is None:
            raise AssertionError("a layer of gzip without an inside")
        rest = inner.close()
        if inner.is_gzip:
            return out + rest
        out += self._held
        self._held = []
        return out

    def _sniff(self, data: bytes) -> None:
        self._sniffed = True
        if data.startswith(GZIP_MAGIC):
            if self._depth >= MOST_LAYERS:
                raise CorruptError(f"the archive is gzip in gzip, more than {MOST_LAYERS} times")
            self._gunzip = _Gunzip()
            self._inner = _Level(self._structure, depth=self._depth + 1)
        elif self._depth == 0:
            self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31)

    def _plain(self, data: bytes) -> list[bytes]:
        self._structure.feed(data)
        if self._deflate is None or not data:
            return []
        return [piece for piece in (self._deflate.compress(data),) if piece]

    def _through(self, data: bytes) -> list[bytes]:
        gunzip, inner = self._gunzip, self._inner
        if gunzip is None or inner is None:
            raise AssertionError("not a layer of gzip")
        out: list[bytes] = []
        for piece in gunzip.feed(data):
            out += inner.feed(piece)
        if inner.is_known and inner.is_gzip:
            self._held = []
            return out
        self._held.append(data)
        if inner.is_known:
            out, self._held = self._held, []
            return out
        return []


class _Gunzip:
    """One layer of gzip, of any number of members."""

    def __init__(self) -> None:
        self._member: Any = None
        self._members = 0
        self._padded = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What is inside, a piece at a time."""
        while data:
            if self._member is None:
                data = self._between(data)
                if not data:
                    return
                self._member = fast_zlib.decompressobj(31)
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except (zlib.error, fast_zlib.error) as error:  # type: ignore[misc]  # isal's stubs have an instance there
                raise CorruptError(f"the archive's gzip is damaged: {error}") from None
            if piece:
                yield piece
            if self._member.eof:
                data = self._member.unused_data
                self._member = None
                self._members += 1
            else:
                data = self._member.unconsumed_tail

    def close(self) -> None:
        """No more will come."""
        if self._member is not None or not self._members:
            raise IncompleteError("the archive is cut: its gzip has no end")

    def _between(self, data: bytes) -> bytes:
        """Pass over the zeros that may pad the end; whatever follows them is no archive."""
        if not self._members:
            return data
        rest = data.lstrip(b"\0")
        self._padded |= len(rest) < len(data)
        if rest and (self._padded or rest[:1] != GZIP_MAGIC[:1]):
            raise CorruptError("the archive has something after its end")
        return rest


class _Structure(Protocol):
    """What is inside, checked to be whole; `size` counts its bytes."""

    size: int

    def feed(self, data: bytes) -> None:
        """The next piece."""
        ...

    def close(self) -> int:
        """How many rows there were."""
        ...


class _Ndjson:
    """One object a line; blank lines do not count; the last line may lack its end, but not its sense."""

    def __init__(self) -> None:
        self.size = 0
        self._rows = 0
        self._line = bytearray()
        self._first = True

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        end = data.find(b"\n")
        if end < 0:
            self._line += data
            if len(self._line) > LONGEST_LINE_BYTES:
                raise CorruptError("the archive has a line that is too long to be a row")
            return
        self._line += data[:end]
        self._take_line(bytes(self._line))
        last = data.rfind(b"\n")
        self._line = bytearray(data[last + 1 :])
        if last > end:
            self._take_lines(data[end + 1 : last].split(b"\n"))

    def close(self) -> int:
        line = bytes(self._line).strip()
        if line:
            try:
                orjson.loads(line.removeprefix(BOM) if self._first else line)
            except orjson.JSONDecodeError:
                raise CorruptError("the archive stops within a row") from None
            self._take_line(line)
        return self._rows

    def _take_lines(self, lines: list[bytes]) -> None:
        """Whole lines. White space sorts before all else: the least of them tells whether any may be blank."""
        if self._first or min(lines) < b"!":
            for line in lines:
                self._take_line(line)
        else:
            self._rows += len(lines)

    def _take_line(self, line: bytes) -> None:
        line = line.strip()
        if not line:
            return
        if self._first:
            self._first = False
            if not line.removeprefix(BOM).startswith(b"{"):
                raise CorruptError("the archive is not NDJSON: its first line is no object")
        self._rows += 1


class _Json:
    """One array; its elements are counted where they end."""

    def __init__(self) -> None:
        self.size = 0
        self._rows = 0
        self._depth = 0
        self._in_string = False
        self._carry = b""
        self._state = "before"
        self._pending = False

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        data = self._carry + data
        # An escape may be cut in two: what a run of backslashes at the end means shows only with what follows.
        backslashes = len(data) - len(data.rstrip(b"\\"))
        cut = len(data) - backslashes
        data, self._carry = data[:cut], data[cut:]
        if len(self._carry) % 2 == 0:
            data, self._carry = data + self._carry, b""
        bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = bare.split(b'"')
        for number, part in enumerate(parts):
            if number:
                self._in_string = not self._in_string
                self._pending = True
            if not self._in_string and part:
                self._walk(part)

    def close(self) -> int:
        if self._carry or self._in_string or self._state == "inside":
            raise CorruptError("the archive stops within its array")
        return self._rows

    def _walk(self, part: bytes) -> None:
        """Outside of strings: brackets, commas, and whatever else makes an element."""
        for char in (
            part.translate(None, b" \t\r\n0123456789.eE+-:abcdfghijklmnopqrstuvwxyzABCDFGHIJKLMNOPQRSTUVWXYZ")
            if (self._depth > 1)
            else part
        ):
            self._step(char)

    def _step(self, char: int) -> None:
        if self._state == "before":
            self._begin(char)
        elif self._state == "after":
            if char not in b" \t\r\n":
                raise CorruptError("the archive has something after its array")
        elif char in b"[{":
            self._depth += 1
            self._pending = True
        elif char in b"]}":
            self._depth -= 1
            if self._depth == 0:
                self._rows += self._pending
                self._state = "after"
        elif self._depth == 1:
            if char == ord(","):
                self._rows += 1
                self._pending = False
            elif char not in b" \t\r\n":
                self._pending = True

    def _begin(self, char: int) -> None:
        if char == ord("["):
            self._state, self._depth = "inside", 1
        elif char not in b" \t\r\n" and char not in BOM:
            raise CorruptError("the archive is not a JSON array")


class _Csv:
    """A header and records; newlines within quotes do not end a record."""

    def __init__(self) -> None:
        self.size = 0
        self._records = 0
        self._quoted = False
        self._fields = 1
        self._header: int | None = None
        self._empty = True

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        for number, part in enumerate(data.split(b'"')):
            if number:
                self._quoted = not self._quoted
                self._empty = False
            if part and not self._quoted:
                self._outside(part)

    def close(self) -> int:
        if self._quoted:
            raise CorruptError("the archive stops within quotes")
        if not self._empty:
            self._end_record()
        return max(0, self._records - 1)

    def _outside(self, part: bytes) -> None:
        first = part.find(b"\n")
        if first < 0:
            self._note(part)
            return
        self._note(part[:first])
        if not self._empty:
            self._end_record()
        last = part.rfind(b"\n")
        for line in part[first + 1 : last].split(b"\n") if last > first else ():
            self._records += bool(line.strip())
        self._empty, self._fields = True, 1
        self._note(part[last + 1 :])

    def _note(self, part: bytes) -> None:
        self._fields += part.count(b",")
        if part.strip():
            self._empty = False

    def _end_record(self) -> None:
        if self._header is None:
            self._header = self._fields
        elif self._fields != self._header:
            raise CorruptError("the archive has a record that is not as wide as its header")
        self._records += 1
        self._empty, self._fields = True, 1


STRUCTURES: dict[Format, type[_Ndjson] | type[_Json] | type[_Csv]] = {
    Format.NDJSON: _Ndjson,
    Format.JSON: _Json,
    Format.CSV: _Csv,
}
