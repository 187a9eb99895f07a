"""Checks whether a stream of bytes is one complete export: layers of gzip, structure and rows, as the bytes go by.

1. An archive on disk is exactly one layer of gzip. A body that is one gzip member is kept as delivered. Of gzip in gzip
   the innermost layer is kept. A plain body, or the content of several members, is compressed, with the same result
   each time. Archives of several members that are on a disk already are accepted as they are; zeros after them are not.
2. Every layer is checked to its end (`core.archive.gunzip`), and the content of the innermost is checked to be complete
   (`core.archive.structure`).
3. Some bodies would look complete even if they were cut off: an empty one, one that is not gzip, and one of several
   members, which may have been cut between two. Such a body is accepted only if its framing or a hash confirms that it
   is complete. Otherwise it is taken as incomplete. A body of several members that was cut after the first cannot be
   told from a body of one.
4. What else is known about a body, above all its hash, may confirm it or not (`core.archive.proof`).
5. No body, however odd, takes more than a few pieces of memory.
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
"""More layers of gzip than this are treated as damage."""

HELD_BYTES = 1 << 20
"""Bytes of gzip held in memory until its content is known. If this many decompress to nothing, it is no archive."""

AS_ON_DISK = BodyProof()
"""What is known about an archive on disk."""

BOM = b"\xef\xbb\xbf"
SNIFFED_BYTES = len(BOM)


@dataclass(frozen=True, slots=True)
class Inspected:
    """The result for a body that is one complete export.

    Args:
        archive: The archive made of it.
        is_remade: Whether the archive has other bytes than the body, because it was compressed again or unwrapped.
        long_rows: Rows longer than `max_row`: they are stored, but not parsed.
    """

    archive: Archive
    is_remade: bool
    long_rows: int


def _no_watch() -> None:
    """Do nothing; the default for `watch`."""


class Inspector:
    """Checks a body piece by piece, and makes an archive of it if it is not one.

    Args:
        container: The file format of the content.
        path: The archive's path, relative to the output directory.
        write: Called with the archive, piece by piece, if it has other bytes than the body. Without it, a body that
            would have to be changed is rejected.
        recompresses: Whether to compress the content again, even if it could be kept as delivered.
        sample: Takes the sampled rows.
        watch: Called before each piece of any layer, so also often while a few bytes inflate to very many. An exception
            it raises ends the inspection.
        max_row: Longer rows are counted.
        codec: The library that inflates: `zlib`, or a module like it.
    """

    def __init__(
        self,
        container: Format,
        *,
        path: str = "",
        write: Callable[[bytes], object] | None = None,
        recompresses: bool = False,
        sample: RowSample | None = None,
        watch: Callable[[], object] = _no_watch,
        max_row: int = MAX_ROW_BYTES,
        codec: ModuleType = FASTEST,
    ) -> None:
        self._path = path
        self._write = write
        self._recompresses = recompresses
        self._structure = STRUCTURES[container](sample=sample, max_row=max_row)
        self._inside = _Inside(self._structure, packs=recompresses, watch=watch)
        self._body = _Layer(self._inside, codec=codec, depth=0)
        self._sha256 = hashlib.sha256()
        self._written = 0

    @property
    def needs_another_pass(self) -> bool:
        """Whether an archive can only be made by starting over with an inspector that `recompresses`."""
        return self._write is not None and not self._recompresses and self._body.is_patchwork

    def feed(self, data: bytes) -> None:
        """Check a piece of the body.

        Raises:
            CorruptError: it can no longer be one complete export.
        """
        self._keep(self._body.feed(data))

    def close(self, proof: BodyProof = AS_ON_DISK) -> Inspected:
        """Note that the body has ended, and return the result. `proof` is what else is known about the body.

        Raises:
            IncompleteError: it stopped early, or nothing confirms that it did not.
            UnprovedEmptyError: it has no rows, and nothing confirms that.
            CorruptError: it is complete, but wrong.
            OtherHashError: its hash differs, but may be that of another form of it.
            NoExportError: it is not an export of this kind, or no field in it is known (UnknownRowsError).
            ForeignRowsError: its rows belong to another range.
        """
        self._keep(self._body.close())
        self._check_end(proof)
        if self._write is None:
            self._check_layer()
        rows = self._count_rows(proof)
        archive = Archive(self._path, self._written, rows, self._sha256.hexdigest())
        if proof.hashed is False and not proof.accepts(archive.sha256):
            raise OtherHashError(archive.sha256)
        if not rows and not proof.accepts_no_rows(is_plain=not self._body.is_gzip):
            raise UnprovedEmptyError
        return Inspected(archive, self._is_remade, self._structure.long_rows)

    def _check_end(self, proof: BodyProof) -> None:
        """Check that it is the complete body that was sent."""
        if proof.hashed is False and not (proof.end_proved and proof.may_have_changed(is_plain=not self._body.is_gzip)):
            wrong = CorruptError if proof.end_proved else IncompleteError
            raise wrong("the archive's hash differs from the one the storage host reports")
        unsure = self._body.why_unsure
        if unsure and not proof.proves_end:
            raise IncompleteError(f"{unsure}, and neither Content-Length nor a hash confirms that it is complete")

    def _count_rows(self, proof: BodyProof) -> int:
        try:
            return self._structure.close()
        except NoExportError as error:
            error.is_as_stored = proof.hashed is True
            raise

    def _check_layer(self) -> None:
        """Check that the body is an archive as it is."""
        if not self._body.is_last_gzip:
            raise CorruptError("the archive is not one layer of gzip")
        if self._body.is_padded:
            raise CorruptError("the archive has zeros after its end")

    @property
    def _is_remade(self) -> bool:
        return self._recompresses or not self._body.is_last_gzip

    def _keep(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._sha256.update(piece)
            self._written += len(piece)
            if self._write is not None and self._is_remade:
                self._write(piece)


class _Inside:
    """The content of the innermost gzip. `size` counts its bytes, `packs` says whether it is compressed again."""

    def __init__(self, structure: Structure, *, packs: bool, watch: Callable[[], object]) -> None:
        self.size = 0
        self.watch = watch
        self.packs = packs
        self._structure = structure

    def feed(self, data: bytes) -> None:
        """Take the next piece. The first holds the whole byte order mark, if there is one."""
        self._structure.feed(data if self.size else data.removeprefix(BOM))
        self.size += len(data)


class _Layer:
    """One layer of the body: gzip around another layer, or the content of the innermost.

    `feed` and `close` yield the bytes of the archive made of this layer.
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
        """Whether it is gzip whose content is not gzip."""
        return isinstance(self._kind, _Gzip) and not self._kind.next.is_gzip

    @property
    def is_patchwork(self) -> bool:
        """Whether its innermost gzip has several members, or padding."""
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
    def why_unsure(self) -> str:
        """Why it may have been cut off without a trace; "" if it cannot have been."""
        match self._kind:
            case _Gzip(members=1):
                return ""
            case _Gzip():
                return "the archive has several gzip members"
            case _:
                return "the archive is not compressed" if self._inside.size else "the archive is empty"

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
            raise CorruptError(f"the archive is damaged: more than {MOST_LAYERS} layers of gzip")
        inner = _Layer(self._inside, codec=self._codec, depth=self._depth + 1)
        return _Gzip(inner, codec=self._codec, keeps=not self._inside.packs)


class _Gzip:
    """A gzip layer. Its bytes are held until it is known whether it is the innermost: then they may be the archive."""

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
            yield from self._release()
        elif sum(map(len, self._held)) > HELD_BYTES:
            raise CorruptError("the archive is damaged: gzip without content")

    def close(self) -> Iterator[bytes]:
        self._gunzip.close()
        yield from self.next.close()
        yield from self._release()

    def _release(self) -> list[bytes]:
        held, self._held = self._held, []
        return held if self._keeps and not self.next.is_gzip else []


class _Plain:
    """The content, compressed if an archive has to be made of it."""

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
