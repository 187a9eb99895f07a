"""Remembers the objects that were found to be right, in a file beside the ledger.

1. It only saves requests: without it, the metadata of every object is read again. So a file that cannot be read or
   written is a warning, and the mirror goes on.
2. A line is one digest (`core.mirror.seen`). Lines are appended; several processes may do so at the same time. A line
   that is cut or damaged equals no digest.
3. Digests of objects that were replaced stay in the file until it has many more lines than there are objects.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncexport.core.mirror.seen import DIGITS

log = logging.getLogger(__name__)

FILE_NAME = "mirror-seen"

SPARE_LINES = 1000


class SeenFile:
    """The digests of one output directory, held in memory as numbers. Its methods block.

    Args:
        folder: The folder of the ledger.
        reads_only: Whether nothing is written.
    """

    def __init__(self, folder: Path, *, reads_only: bool = False) -> None:
        self._path = folder / FILE_NAME
        self._reads_only = reads_only
        self._seen: set[bytes] = set()
        self._used: set[bytes] = set()
        self._lines = 0
        self._has_warned = False

    def load(self) -> None:
        """Read the file."""
        with self._warning("read"), suppress(FileNotFoundError), self._path.open("rb") as file:
            for line in file:
                self._lines += 1
                digest = _number(line.rstrip(b"\n"))
                if digest is not None:
                    self._seen.add(digest)

    def has(self, digest: str | None) -> bool:
        """Whether the object was found to be right."""
        number = None if digest is None else bytes.fromhex(digest)
        if number is None or number not in self._seen:
            return False
        self._used.add(number)
        return True

    def add(self, digests: Iterable[str]) -> None:
        """Remember that objects were found to be right."""
        new = [one for one in digests if not self.has(one)]
        if not new or self._reads_only:
            return
        with self._warning("written"):
            self._append(new)
        for seen in (self._seen, self._used):
            seen.update(map(bytes.fromhex, new))

    def _append(self, new: list[str]) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # It begins with a line end, so that a line that was cut by a crash does not spoil the next one.
            os.write(file, b"\n" + "".join(f"{one}\n" for one in new).encode())
        finally:
            os.close(file)
        self._lines += len(new) + 1

    def tidy(self) -> None:
        """After all objects were compared, write the file again without old digests, if most of its lines are old."""
        if self._reads_only or self._lines <= 2 * len(self._used) + SPARE_LINES:
            return
        with self._warning("written"):
            self._rewrite()

    def _rewrite(self) -> None:
        aside = self._path.with_name(f"{FILE_NAME}.{os.getpid()}.part")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.writelines(f"{one.hex()}\n" for one in self._used)
        aside.replace(self._path)
        self._lines = len(self._used)

    @contextmanager
    def _warning(self, verb: str) -> Iterator[None]:
        """Turn the first error of the disk into a warning."""
        try:
            yield
        except OSError as error:
            level = logging.INFO if self._has_warned else logging.WARNING
            self._has_warned = True
            reason = error.strerror or type(error).__name__
            log.log(level, "%s cannot be %s: %s; the next mirror examines each object again", self._path, verb, reason)


def _number(line: bytes) -> bytes | None:
    if len(line) != DIGITS:
        return None
    try:
        return bytes.fromhex(line.decode())
    except ValueError:
        return None
