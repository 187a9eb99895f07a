"""Counts how many files need a second check, as the ledger remembers it: `plan` expects the same share again.

A file without rows whose completeness nothing confirms is downloaded a second time (`core.archive`), which costs one
more results call.
"""

import math
from dataclasses import dataclass

import orjson

SECOND_LOOKS = "second_looks"
"""The key of the ledger's note that holds the counts."""

REMEMBERED_FILES = 10_000
"""Above this number only the share is kept, so that a change of the service shows."""


@dataclass(frozen=True, slots=True)
class SecondLooks:
    """Files that were fetched, and how many of them needed a second check."""

    files: int = 0
    looks: int = 0

    @classmethod
    def read(cls, text: str | None) -> "SecondLooks":
        """Read what `to_json` wrote; zero if there is nothing, or if another version wrote it."""
        try:
            files, looks = orjson.loads(text or "")
            return cls(int(files), int(looks)) if 0 <= looks <= files else cls()
        except (TypeError, ValueError):
            return cls()

    def to_json(self) -> str:
        """Return the counts as the ledger stores them."""
        return orjson.dumps([self.files, self.looks]).decode()

    def plus(self, files: int, looks: int) -> "SecondLooks":
        """Return the counts with those of one more run."""
        files, looks = self.files + files, self.looks + min(looks, files)
        if files > REMEMBERED_FILES:
            files, looks = REMEMBERED_FILES, looks * REMEMBERED_FILES // files
        return SecondLooks(files, looks)

    @property
    def share(self) -> float:
        """The share of files that needed one."""
        return self.looks / self.files if self.files else 0.0

    def expected(self, files: int) -> int:
        """Return how many of this many files are expected to need one."""
        return math.ceil(files * self.looks / self.files) if self.files else 0
