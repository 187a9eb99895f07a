"""The mark beside the ledger: how many commits there have been.

SQLite takes the log up to its first damaged frame for all there ever was, and a ledger without its log for a whole one.
The mark tells: what has fewer commits than it says is not what was written.

1. It is written after each commit and before anybody is told of it, and not flushed. A crash of the program cannot set
   it back; a power cut can, and then it asks for less than is there. It never runs ahead.
2. It holds the moment its ledger was made: another ledger's mark says nothing, no more than a damaged one or none.
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
    """So many commits of the ledger made at that moment."""

    created_at: float
    commits: int

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The mark that lies there, if it can be made out."""
        with suppress(FileNotFoundError, IsADirectoryError):
            data = path.read_bytes()
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
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, mark: CommitMark) -> None:
        """In place of the one before: of the same length, and within one page."""
        os.pwrite(self._file, mark.to_bytes(), 0)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)
