"""The commit mark: a file next to the ledger that holds the number of commits.

SQLite reads a damaged write-ahead log up to its first damaged frame, and opens a ledger whose log is lost without an
error, so commits could go missing unnoticed. A ledger with fewer commits than its mark is damaged.

1. The mark is written after each commit, before the callers learn of the commit. It is not flushed: a power cut can set
   it back, a crash of the program cannot. It is never ahead of the ledger.
2. The mark holds the time at which its ledger was created. A mark of another ledger, a damaged mark or a missing one
   proves nothing.
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
    """The number of commits of the ledger that was created at `created_at`."""

    created_at: float
    commits: int

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a mark; return None if there is none or it is damaged."""
        with suppress(FileNotFoundError, IsADirectoryError):
            with open(path, "rb", opener=_unfollowed) as file:
                data = file.read(_LAYOUT.size + 1)
            if len(data) == _LAYOUT.size and data == (found := cls(*_LAYOUT.unpack(data)[:2])).to_bytes():
                return found
        return None

    def to_bytes(self) -> bytes:
        """Return the content of the file, with its checksum."""
        text = _LAYOUT.pack(self.created_at, self.commits, 0)[:-4]
        return text + zlib.crc32(text).to_bytes(4, "big")


class CommitMarkFile:
    """The file of the mark, kept open while the ledger is open for writing."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, mark: CommitMark) -> None:
        """Overwrite the previous mark, which has the same length and lies within one page."""
        os.pwrite(self._file, mark.to_bytes(), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _unfollowed(path: str, flags: int) -> int:
    """Open a file without following a link, and without waiting if it is a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
