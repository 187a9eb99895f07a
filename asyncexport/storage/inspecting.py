"""Reading a file to its end: is it one whole export, and what archive does it make?

1. It is the only judge of a file: of a body that was just received, of an archive that `verify` looks at, and of one
   that stands where another is to go.
2. It runs in a thread, without a break and without the event loop: what it calls for each piece lets go of the
   interpreter, so that as many files as there are cores are read at the same time.
3. A body that is no archive as it is is written anew on the way. Only of several members that shows late: what was read
   up to there is read again.
4. Its caller may give it up: then it ends within a piece, unless it is nearly over anyway.
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
"""How much of a file is read at once. With a megabyte it takes a quarter longer: what is left of it is copied for each
piece that is inflated."""

SOON_PIECES = 8
"""An inspection of no more pieces than this, some megabytes, is brought to its end though nobody waits for it."""


class GivenUp(Exception):  # noqa: N818 - it is no error: nobody waits any more
    """Nobody waits for the result."""


def create_file(path: Path) -> int:
    """A handle to write to a new file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _goes_on() -> bool:
    """Somebody waits."""
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
    goes_on: Callable[[], bool] = _goes_on,
    create: Callable[[Path], int] = create_file,
    at: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Inspected:
    """Read a file to its end.

    Args:
        file: Where it lies.
        container: What is inside.
        name: What its archive is called, relative to the output directory.
        rewrite_to: Where an archive is written, not flushed, if this file is none as it is: plain, gzip in gzip, of
            several members, padded. What lies there is removed. Without it such a file is refused, but for several
            members.
        proof: What is known of it besides.
        rules: Are handed the first, the last and every 1,000th row.
        sample: Takes the rows that are looked at, where these are others than those.
        max_row: Rows of more bytes are counted.
        goes_on: Asked often: whether anybody waits for the result.
        create: Gives a handle to write to a file that it makes.
        at: Entered around each write: its failpoints.

    Raises:
        ArchiveError: it is not one whole export, see `Inspector.close`, or the disk does not give it back.
        FileNotFoundError: there is none.
        OSError: it may not be read, or no archive can be written.
        GivenUp: nobody waits any more.
    """
    sample, watch = sample or RowSample(rules), _Watch(goes_on)
    with _Rewrite(rewrite_to, create, at) as rewrite, file.open("rb", buffering=0) as opened:
        write = rewrite.write if rewrite_to else None
        inspector = Inspector(container, path=name, write=write, sample=sample, max_row=max_row, watch=watch)
        if not _read_into(inspector, opened):
            rewrite.begin_again()
            opened.seek(0)
            inspector = Inspector(
                container, path=name, write=write, makes_anew=True, sample=sample, max_row=max_row, watch=watch
            )
            _read_into(inspector, opened)
        return inspector.close(proof)


def look_at_begin(begin: bytes, container: Format) -> None:
    """Look at the first bytes of a body that is still coming, and at no more than the first megabytes in them.

    Raises:
        CorruptError: it can be no whole export, whatever comes.
    """
    with suppress(GivenUp):
        Inspector(container, write=_discard, watch=_Watch(lambda: False)).feed(begin)


def _discard(_piece: bytes) -> None:
    """Takes a piece that is not to be written anywhere."""


def _read_into(inspector: Inspector, file: BinaryIO) -> bool:
    """Read all of it; False where another pass is needed."""
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
        raise CorruptError("the disk does not give the archive back: it cannot be read to its end") from error


class _Watch:
    """Ends an inspection that nobody waits for, unless it is soon over anyway."""

    def __init__(self, goes_on: Callable[[], bool]) -> None:
        self._goes_on = goes_on
        self._pieces = 0

    def __call__(self) -> None:
        self._pieces += 1
        if self._pieces > SOON_PIECES and not self._goes_on():
            raise GivenUp


class _Rewrite:
    """The archive that is made of a file which is none; the file is made with its first piece."""

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
        """Add a piece."""
        if self._file is None:
            self._file = self._created()
        with self._at("part.write"):
            write_all(self._file, [piece])

    def begin_again(self) -> None:
        """Nothing of what was written counts."""
        self._close()

    def _created(self) -> int:
        if self._path is None:
            raise AssertionError("an archive has nowhere to go")
        with suppress(FileNotFoundError):
            self._path.unlink()
        with self._at("part.create"):
            return self._create(self._path)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def write_all(file: int, chunks: list[bytes]) -> None:
    """Write chunks, also where the system takes them in part; at most as many as it takes at once (1,024)."""
    left = os.writev(file, chunks) - sum(map(len, chunks))
    if left:
        rest = b"".join(chunks)[left:]
        while rest:
            rest = rest[os.write(file, rest) :]
