"""Do two archives hold the same rows? A digest that does not depend on their order.

1. It is the sum, modulo 2^128, of a hash of each row: the service writes the same rows in another order each time.
2. A row is hashed by what it says: its members sorted by name, its texts without regard to how they are escaped, its
   numbers as they are written, since 1.0 and 1 may mean different things to who wrote them. A record of a CSV is hashed
   as the values under the names of the header.
3. What cannot be parsed is hashed byte by byte. Where a row is too long to be held there is no digest: nobody knows
   then whether the rows are the same.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from asyncexport.core.archive.rules import PARSED_BYTES, RowSample, parsed_record

DIGEST_BYTES = 16

NUMBER, PAIRS = "\0number ", "\0pairs"
"""How a number, and an object that names a member twice, are told from texts and other objects."""


class RowDigest(RowSample):
    """Takes every row of an archive, as a structure hands it on."""

    def __init__(self) -> None:
        super().__init__(None)
        self.due = 1
        self._sum = 0
        self._is_known = True

    @property
    def value(self) -> int | None:
        """The digest; None where there is none (rule 3)."""
        return self._sum if self._is_known else None

    def take(self, number: int, row: bytes, *, header: bytes | None = None) -> None:
        """Add a row; the last one comes twice."""
        if number < self.due:
            return
        self.due = number + 1
        if not row or len(row) > PARSED_BYTES:
            self._is_known = False
        said = _said_by(row) if header is None else _said_by_record(header, row)
        self._sum = (self._sum + int.from_bytes(blake2b(said, digest_size=DIGEST_BYTES).digest())) % (
            1 << 8 * DIGEST_BYTES
        )

    def take_header(self, header: bytes) -> None:
        """A header without rows says nothing of rows."""


def _said_by(row: bytes) -> bytes:
    """A row of NDJSON or JSON in the one way in which it is hashed."""
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


def _said_by_record(header: bytes, record: bytes) -> bytes:
    found = parsed_record(header, record)
    return b"\0" + record if found is None else json.dumps(found, sort_keys=True).encode("ascii")
