"""Reads a file to its end: is it one complete export, and what archive results from it?

1. All files are judged here: a body that was just received, an archive that `verify` checks, and an existing archive
   that another one may replace.
2. An inspection runs in one thread from start to end, without the event loop. The functions called for each piece
   release the interpreter lock, so one file per core is read in parallel.
3. A body that is not an archive as sent is rewritten while it is read. If it turns out late that gzip has several
   members, the file is read again from the beginning.
4. The caller may abandon an inspection: it then ends within one piece, unless it is nearly finished.
"""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, Self

from asyncexport.core.archive.inspection import AS_ON_DISK, Inspected, Inspector
from asyncexport.core.archive.proof import BodyProof
from asyncexport.core.archive.rules import RowRules, RowSample
from asyncexport.core.archive.structure import MAX_ROW_BYTES
from asyncexport.core.exports import Format
from asyncexport.errors import CorruptError

READ_BYTES = 128 << 10
"""Bytes read from a file at a time. With a megabyte, an inspection takes a quarter longer, because the unread rest is
copied for each piece that is decompressed."""

SOON_PIECES = 8
"""An inspection of at most this many pieces, some megabytes, is finished even if it was abandoned."""


class Abandoned(Exception):  # noqa: N818 - not an error: the caller no longer wants the result
    """The inspection was abandoned: its result is no longer wanted."""


def create_file(path: Path) -> int:
    """Create a new file and return a descriptor to write to it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _is_wanted() -> bool:
    """Return True: the default for callers that never abandon an inspection."""
    return True


def inspect(
    file: Path,
    container: Format,
    *,
    name: str = "",
    rewrite_to: Path | None = None,
    proof: BodyProof = AS_ON_DISK,
    rules: RowRules | None = None,
    sample: RowSample | None = None,
    max_row: int = MAX_ROW_BYTES,
    is_wanted: Callable[[], bool] = _is_wanted,
    create: Callable[[Path], int] = create_file,
    at: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Inspected:
    """Read a file to its end.

    Args:
        file: The path of the file.
        container: The format of the export.
        name: The path of its archive, relative to the output directory, for the result.
        rewrite_to: The path to which an archive is written, without a flush, if the file is not one itself: plain, gzip
            in gzip, gzip of several members, padded. An existing file there is removed. Without this argument, such
            files are refused, except for gzip of several members.
        proof: What is known about the file from outside.
        rules: The rules that the first, the last and every 1,000th row must follow.
        sample: Takes the sampled rows instead of `rules`.
        max_row: Rows longer than this many bytes are counted.
        is_wanted: Called often; returns whether the result is still wanted.
        create: Creates a file and returns a descriptor to write to it.
        at: A context manager entered around each write, for its failpoints.

    Raises:
        ArchiveError: the file is not one complete export, see `Inspector.close`, or the disk cannot read it.
        FileNotFoundError: there is no such file.
        OSError: there is no permission to read the file, or the archive cannot be written.
        Abandoned: the result is no longer wanted.
    """
    sample, watch = sample or RowSample(rules), _Watch(is_wanted)
    with _Rewrite(rewrite_to, create, at) as rewrite, file.open("rb", buffering=0) as opened:
        write = rewrite.write if rewrite_to else None
        inspector = Inspector(container, path=name, write=write, sample=sample, max_row=max_row, watch=watch)
        if not _read_into(inspector, opened):
            rewrite.begin_again()
            opened.seek(0)
            inspector = Inspector(
                container, path=name, write=write, recompresses=True, sample=sample, max_row=max_row, watch=watch
            )
            _read_into(inspector, opened)
        return inspector.close(proof)


def check_start(begin: bytes, container: Format) -> None:
    """Check the first bytes of a body that is still arriving, up to some megabytes of what they decompress to.

    Raises:
        CorruptError: the body cannot become a complete export.
    """
    with suppress(Abandoned):
        Inspector(container, write=_discard, watch=_Watch(lambda: False)).feed(begin)


def _discard(_piece: bytes) -> None:
    """Drop a piece."""


def _read_into(inspector: Inspector, file: BinaryIO) -> bool:
    """Read all of the file; return False if another pass is needed."""
    while piece := _read(file):
        inspector.feed(piece)
        if inspector.needs_another_pass:
            return False
    return True


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(READ_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise CorruptError("the disk failed to read the archive to its end (I/O error)") from error


class _Watch:
    """Ends an abandoned inspection, unless it is nearly finished."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted
        self._pieces = 0

    def __call__(self) -> None:
        self._pieces += 1
        if self._pieces > SOON_PIECES and not self._is_wanted():
            raise Abandoned


class _Rewrite:
    """The archive that is written if the inspected file is not one itself; its file is created with the first piece."""

    def __init__(
        self,
        path: Path | None,
        create: Callable[[Path], int],
        at: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._path = path
        self._create = create
        self._at = at
        self._file: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        if self._file is None:
            self._file = self._created()
        with self._at("part.write"):
            write_all(self._file, [piece])

    def begin_again(self) -> None:
        """Discard what was written; the next piece starts a new file."""
        self._close()

    def _created(self) -> int:
        if self._path is None:
            raise AssertionError("there is no path to write the archive to")
        with suppress(FileNotFoundError):
            self._path.unlink()
        with self._at("part.create"):
            return self._create(self._path)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def write_all(file: int, chunks: list[bytes]) -> None:
    """Write all chunks, also after a partial write; at most 1,024, the system's limit for one call."""
    left = os.writev(file, chunks) - sum(map(len, chunks))
    if left:
        rest = b"".join(chunks)[left:]
        while rest:
            rest = rest[os.write(file, rest) :]
