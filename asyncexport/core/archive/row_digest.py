"""Tells whether two archives hold the same rows, by a digest that does not depend on their order.

1. It is the sum, modulo 2^128, of a hash of each row: the service writes the same rows in a different order each time.
2. A row is hashed by its meaning: its fields sorted by name, its texts regardless of how they are escaped, but its
   numbers as written, since 1.0 and 1 may mean different things to their writer. A CSV record is hashed as values under
   the names of the header.
3. A row that cannot be parsed is hashed byte by byte. If a row is too long to be held in memory there is no digest: it
   is then unknown whether the rows are the same.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from asyncexport.core.archive.rules import PARSED_BYTES, RowSample, parsed_record

DIGEST_BYTES = 16

NUMBER, PAIRS = "\0number ", "\0pairs"
"""Mark a number, and an object with a repeated field, so that their hashes differ from those of texts and other
objects."""


class RowDigest(RowSample):
    """Takes every row of an archive from its structure, and adds it to the digest."""

    def __init__(self) -> None:
        super().__init__(None)
        self.due = 1
        self._sum = 0
        self._is_known = True

    @property
    def value(self) -> int | None:
        """The digest. None if there is none (rule 3)."""
        return self._sum if self._is_known else None

    def take(self, number: int, row: bytes, *, header: bytes | None = None) -> None:
        """Add a row; the last one comes twice."""
        if number < self.due:
            return
        self.due = number + 1
        if not row or len(row) > PARSED_BYTES:
            self._is_known = False
        content = _row_bytes(row) if header is None else _record_bytes(header, row)
        self._sum = (self._sum + int.from_bytes(blake2b(content, digest_size=DIGEST_BYTES).digest())) % (
            1 << 8 * DIGEST_BYTES
        )

    def take_header(self, header: bytes) -> None:
        """Ignore the header of a CSV without rows: it adds no row."""


def _row_bytes(row: bytes) -> bytes:
    """Return a row of NDJSON or JSON in the canonical form that is hashed."""
    try:
        found = json.loads(
            row.decode("utf-8", "surrogateescape"),
            strict=False,
            object_pairs_hook=_object,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_number,
        )
        return json.dumps(found, sort_keys=True, separators=(",", ":")).encode("ascii")
    except (ValueError, RecursionError):
        return b"\0" + row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else {PAIRS: _sorted(pairs)}


def _sorted(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    return sorted((name, json.dumps(value, sort_keys=True)) for name, value in pairs)


def _number(text: str) -> str:
    return NUMBER + text


def _record_bytes(header: bytes, record: bytes) -> bytes:
    found = parsed_record(header, record)
    return b"\0" + record if found is None else json.dumps(found, sort_keys=True).encode("ascii")
