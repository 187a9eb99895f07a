"""Is this stream of bytes one whole export? Layers of gzip, structure and rows, as the bytes go by.

1. An archive on disk is exactly one layer of gzip. Bytes as delivered are kept where they are that, in one member; of
   gzip in gzip the innermost is kept; a plain body, or what is inside of several members, is compressed, the same way
   each time. Archives of several members that lie on a disk already are whole as they are; zeros behind them are not.
2. Every layer is checked to its end (`core.archive.gunzip`), and what is inside of all of them is checked to be whole
   (`core.archive.structure`).
3. A body that would look whole though it was cut proves nothing of itself: one that is empty, one that is not gzip, one
   of several members, which may have been cut between two. It counts only if its end was proved, by its framing or by
   a hash; else it stopped early, as far as anybody can tell. Of several members, the first alone cannot be told from
   a file of one.
4. What else is known of a body, its hash above all, may vouch for it, or not (`core.archive.proof`).
5. No body, however odd, makes it hold more than a few pieces in memory.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from asyncexport.core.archive.gunzip import FASTEST, MAGIC, Gunzip
from asyncexport.core.archive.proof import BodyProof
from asyncexport.core.archive.rules import RowSample
from asyncexport.core.archive.structure import MAX_ROW_BYTES, STRUCTURES, Structure
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import CorruptError, IncompleteError, NoExportError, OtherHashError, UnprovedEmptyError

MOST_LAYERS = 4
"""More layers of gzip than this are no accident."""

HELD_BYTES = 1 << 20
"""Gzip of this size with nothing in it is no archive; so much is held back until it is known what is in it."""

AS_ON_DISK = BodyProof()
"""What is known of an archive on disk."""

BOM = b"\xef\xbb\xbf"
SNIFFED_BYTES = len(BOM)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was found in a body that is one whole export.

    Args:
        archive: The archive that is made of it.
        is_remade: Whether the archive has other bytes than the body: it was written anew.
        long_rows: How many rows are longer than `max_row`: they are stored, and nothing in them was parsed.
    """

    archive: Archive
    is_remade: bool
    long_rows: int


def _no_watch() -> None:
    """Called before each piece where nobody wants to know."""


class Inspector:
    """Checks a body piece by piece, and makes an archive of it where it is none.

    Args:
        container: What is inside.
        path: Where the archive lies, or will lie, relative to the output directory.
        write: Is given the archive, piece by piece, where it has other bytes than the body. Without it a body that is
            no archive as it is is refused.
        makes_anew: Whether what is inside is compressed again, whatever is around it.
        sample: Takes the rows that are looked at.
        watch: Called before each piece of any layer, that is often however much a few bytes inflate to. What it raises
            ends the inspection.
        max_row: Longer rows are counted.
        codec: Who inflates: `zlib`, or a module like it.
    """

    def __init__(
        self,
        container: Format,
        *,
        path: str = "",
        write: Callable[[bytes], object] | None = None,
        makes_anew: bool = False,
        sample: RowSample | None = None,
        watch: Callable[[], object] = _no_watch,
        max_row: int = MAX_ROW_BYTES,
        codec: ModuleType = FASTEST,
    ) -> None:
        self._path = path
        self._write = write
        self._anew = makes_anew
        self._structure = STRUCTURES[container](sample=sample, max_row=max_row)
        self._inside = _Inside(self._structure, packs=makes_anew, watch=watch)
        self._body = _Layer(self._inside, codec=codec, depth=0)
        self._sha256 = hashlib.sha256()
        self._written = 0

    @property
    def needs_another_pass(self) -> bool:
        """Whether an archive can only be made of it from its first byte on, by an inspector that `makes_anew`."""
        return self._write is not None and not self._anew and self._body.is_patchwork

    def feed(self, data: bytes) -> None:
        """Take in a piece of the body.

        Raises:
            CorruptError: it cannot be one whole export any more.
        """
        self._keep(self._body.feed(data))

    def close(self, proof: BodyProof = AS_ON_DISK) -> Inspected:
        """The body has ended: what was found. `proof` is what is known of it besides.

        Raises:
            IncompleteError: it stopped early, or nothing proves that it did not.
            UnprovedEmptyError: it has no rows, and nothing vouches for that.
            CorruptError: it is whole, and wrong.
            OtherHashError: its hash is another, and perhaps that of another form of it.
            NoExportError: it is none of this kind, or has rows of nobody's (UnknownRowsError).
            ForeignRowsError: its rows are those of another range.
        """
        self._keep(self._body.close())
        self._check_end(proof)
        if self._write is None:
            self._check_layer()
        rows = self._count_rows(proof)
        archive = Archive(self._path, self._written, rows, self._sha256.hexdigest())
        if proof.hashed is False and not proof.believes(archive.sha256):
            raise OtherHashError(archive.sha256)
        if not rows and not proof.believes_nothing(is_plain=not self._body.is_gzip):
            raise UnprovedEmptyError
        return Inspected(archive, self._is_remade, self._structure.long_rows)

    def _check_end(self, proof: BodyProof) -> None:
        """Whether it is the body that was sent, to its end."""
        if proof.hashed is False and not (proof.end_proved and proof.may_have_changed(is_plain=not self._body.is_gzip)):
            wrong = CorruptError if proof.end_proved else IncompleteError
            raise wrong("the archive does not have the hash that the storage host names")
        doubt = self._body.doubt
        if doubt and not proof.proves_end:
            raise IncompleteError(f"the archive is {doubt}, and nothing proves that it ends there")

    def _count_rows(self, proof: BodyProof) -> int:
        try:
            return self._structure.close()
        except NoExportError as error:
            error.is_as_stored = proof.hashed is True
            raise

    def _check_layer(self) -> None:
        """Whether the body is an archive as it is."""
        if not self._body.is_last_gzip:
            raise CorruptError("the archive is not one layer of gzip")
        if self._body.is_padded:
            raise CorruptError("the archive has zeros after its end")

    @property
    def _is_remade(self) -> bool:
        return self._anew or not self._body.is_last_gzip

    def _keep(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._sha256.update(piece)
            self._written += len(piece)
            if self._write is not None and self._is_remade:
                self._write(piece)


class _Inside:
    """What is inside of all gzip; `size` counts its bytes, `packs` tells whether it is compressed again."""

    def __init__(self, structure: Structure, *, packs: bool, watch: Callable[[], object]) -> None:
        self.size = 0
        self.watch = watch
        self.packs = packs
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
    def is_patchwork(self) -> bool:
        """Whether its last gzip is of several members, or padded."""
        match self._kind:
            case _Gzip() if self._kind.next.is_gzip:
                return self._kind.next.is_patchwork
            case _Gzip():
                return self._kind.is_patchwork
            case _:
                return False

    @property
    def is_padded(self) -> bool:
        """Whether it is gzip with zeros after its end."""
        return isinstance(self._kind, _Gzip) and self._kind.is_padded

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
        self._inside.watch()
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
            return _Plain(self._inside, packs=self._inside.packs or self._depth == 0)
        if self._depth == MOST_LAYERS:
            raise CorruptError(f"the archive is gzip in gzip, more than {MOST_LAYERS} times")
        inner = _Layer(self._inside, codec=self._codec, depth=self._depth + 1)
        return _Gzip(inner, codec=self._codec, keeps=not self._inside.packs)


class _Gzip:
    """Gzip. What comes is held until it is known whether it is the last layer: then its bytes may make the archive."""

    def __init__(self, inner: _Layer, *, codec: ModuleType, keeps: bool) -> None:
        self.next = inner
        self._keeps = keeps
        self._gunzip = Gunzip(codec=codec)
        self._held: list[bytes] = []

    @property
    def members(self) -> int:
        return self._gunzip.members

    @property
    def is_padded(self) -> bool:
        return self._gunzip.is_padded

    @property
    def is_patchwork(self) -> bool:
        return self._gunzip.is_padded or self._gunzip.begun > 1

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
        return held if self._keeps and not self.next.is_gzip else []


class _Plain:
    """What is inside; where an archive has to be made of it, it is compressed."""

    def __init__(self, inside: _Inside, *, packs: bool) -> None:
        self._inside = inside
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS) if packs else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._inside.feed(data)
        if self._deflate is not None:
            yield self._deflate.compress(data)

    def close(self) -> Iterator[bytes]:
        if self._deflate is not None:
            yield self._deflate.flush()
