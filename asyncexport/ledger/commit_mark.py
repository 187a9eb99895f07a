"""The mark, a file beside the ledger that says how many commits there have been.

SQLite reads a damaged log up to its first damaged frame, and a ledger without its log as if it were whole. So commits
could be missing without a sign. A ledger with fewer commits than its mark says is damaged.

1. It is written after each commit and before anybody is told of the commit. It is not flushed: a power cut can set it
   back, a crash of the program cannot. It is never ahead of the ledger.
2. It holds the moment its ledger was made. The mark of another ledger, a damaged one, or none at all says nothing.
"""

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_LAYOUT = struct.Struct(">dqI")


@dataclass(frozen=True, slots=True)
class CommitMark:
    """The ledger that was made at `created_at` has had so many commits."""

    created_at: float
    commits: int

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The mark that lies there, if it can be made out."""
        with suppress(FileNotFoundError, IsADirectoryError):
            with open(path, "rb", opener=_unfollowed) as file:
                data = file.read(_LAYOUT.size + 1)
            if len(data) == _LAYOUT.size and data == (found := cls(*_LAYOUT.unpack(data)[:2])).to_bytes():
                return found
        return None

    def to_bytes(self) -> bytes:
        """With its checksum."""
        text = _LAYOUT.pack(self.created_at, self.commits, 0)[:-4]
        return text + zlib.crc32(text).to_bytes(4, "big")


class CommitMarkFile:
    """Where the mark is kept while the ledger is open to write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, mark: CommitMark) -> None:
        """In place of the one before: of the same length, and within one page."""
        os.pwrite(self._file, mark.to_bytes(), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _unfollowed(path: str, flags: int) -> int:
    """Open a file that must not be a link; a pipe in its place is not waited for."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
