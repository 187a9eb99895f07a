"""What the storage host says that a body hashes to: read from its headers, and compared with what came.

A hash is of the body as the service stores it: of the bytes on the wire, unless a box on the way undid the compression.
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
    """What the storage host says of the bytes it stores; None where it does not."""

    crc32c: bytes | None = None
    md5: bytes | None = None


def read_goog_hash(values: Sequence[str]) -> WireHashes:
    """Read the `x-goog-hash` headers (reference section 5); what cannot be read is as good as not there."""
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
    """Compares a body with its `x-goog-hash` as it comes: crc32c where there is one, else md5."""

    def __init__(self, expected: WireHashes | None) -> None:
        expected = expected or WireHashes()
        self._expected: bytes | None = None
        self._running: Any = None
        if expected.crc32c is not None and google_crc32c is not None:
            self._expected, self._running = expected.crc32c, google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        elif expected.md5 is not None:
            self._expected, self._running = expected.md5, hashlib.md5(usedforsecurity=False)

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        if self._running is not None:
            self._running.update(data)

    @property
    def holds(self) -> bool | None:
        """Whether what came so far has the hash; None where none was named."""
        return None if self._running is None else self._running.digest() == self._expected
