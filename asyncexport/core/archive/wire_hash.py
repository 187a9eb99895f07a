"""The storage host's hashes of a body: read from its headers, and compared with the bytes received.

A hash is of the body as stored: of the bytes on the wire, unless a proxy decompressed them on the way.
"""

import hashlib
from base64 import b64decode
from binascii import Error as BinasciiError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

try:
    import google_crc32c
except ImportError:
    google_crc32c = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class WireHashes:
    """The storage host's hashes of the bytes it stores. None for those it does not report."""

    crc32c: bytes | None = None
    md5: bytes | None = None


def read_goog_hash(values: Sequence[str]) -> WireHashes:
    """Read the `x-goog-hash` headers (API reference, section 5); unreadable items are ignored."""
    found: dict[str, bytes] = {}
    for item in (item for value in values for item in value.split(",")):
        name, _, text = item.strip().partition("=")
        try:
            digest = b64decode(text, validate=True)
        except (BinasciiError, ValueError):
            continue
        if len(digest) == {"crc32c": 4, "md5": 16}.get(name.lower()):
            found[name.lower()] = digest
    return WireHashes(found.get("crc32c"), found.get("md5"))


class WireCheck:
    """Compares a body with its `x-goog-hash` as it arrives: crc32c if there is one, else md5."""

    def __init__(self, expected: WireHashes | None) -> None:
        expected = expected or WireHashes()
        self._expected: bytes | None = None
        self._running: Any = None
        if expected.crc32c is not None and google_crc32c is not None:
            self._expected, self._running = expected.crc32c, google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        elif expected.md5 is not None:
            self._expected, self._running = expected.md5, hashlib.md5(usedforsecurity=False)

    def feed(self, data: bytes) -> None:
        """Add the next piece of the body."""
        if self._running is not None:
            self._running.update(data)

    @property
    def holds(self) -> bool | None:
        """Whether the bytes so far match the hash. None if there is no hash."""
        return None if self._running is None else self._running.digest() == self._expected
