"""How many files take a second look, as the ledger remembers it: `plan` counts on as many of the next.

A file without rows that nothing vouches for is looked at twice (`core.archive`), which costs one more results call.
"""

import math
from dataclasses import dataclass

import orjson

SECOND_LOOKS = "second_looks"
"""The key of the remark that holds it."""

REMEMBERED_FILES = 10_000
"""Of more files than this only the share is kept, so that a service that has changed shows."""


@dataclass(frozen=True, slots=True)
class SecondLooks:
    """Files that were fetched, and how many of them took a second look."""

    files: int = 0
    looks: int = 0

    @classmethod
    def read(cls, text: str | None) -> "SecondLooks":
        """What `to_json` made; nothing where there is nothing, or what another version wrote."""
        try:
            files, looks = orjson.loads(text or "")
            return cls(int(files), int(looks)) if 0 <= looks <= files else cls()
        except (TypeError, ValueError):
            return cls()

    def to_json(self) -> str:
        """As the ledger keeps it."""
        return orjson.dumps([self.files, self.looks]).decode()

    def plus(self, files: int, looks: int) -> "SecondLooks":
        """With those of one more run."""
        files, looks = self.files + files, self.looks + min(looks, files)
        if files > REMEMBERED_FILES:
            files, looks = REMEMBERED_FILES, looks * REMEMBERED_FILES // files
        return SecondLooks(files, looks)

    @property
    def share(self) -> float:
        """The share of files that took one."""
        return self.looks / self.files if self.files else 0.0

    def expected(self, files: int) -> int:
        """How many of so many files will take one."""
        return math.ceil(files * self.looks / self.files) if self.files else 0
