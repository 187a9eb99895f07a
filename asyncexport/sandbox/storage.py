"""The storage host: signed URLs, the headers of a file, ranges, and errors.

1. A signed URL has the path of an export, the expiry time, and a signature of the complete URL, byte for byte. A client
   that changes its spelling is refused. The sandbox keeps no list of signed URLs.
2. The bytes of an export are made at its first download (see `contents`) and are always the same.
3. ETag, hash and ranges refer to the bytes as stored. All this is inferred.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from asyncexport.sandbox.answers import Headers, SandboxAnswer, SandboxContent
from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.stored_files import SandboxFile

PREFIX = "/storage/fullstoryapp-search-export/"

NAMESPACE = "<?xml version='1.0' encoding='UTF-8'?>"


class SandboxSignedLinks:
    """Makes and checks signed URLs."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def mint(self, export_id: str, *, expires_at: float) -> str:
        """Return the path and query of a signed URL. A client that normalises its escapes breaks the signature."""
        whole = datetime.fromtimestamp(expires_at, UTC).strftime("%Y%m%dT%H%M%SZ")
        unsigned = (
            f"{PREFIX}{export_id}?X-Goog-Algorithm=GOOG4-RSA-SHA256"
            f"&X-Goog-Credential=sandbox%40example.iam.gserviceaccount.com%2f{whole[:8]}%2Fauto%2fstorage%2Fgoog4_request"
            f"&X-Goog-SignedHeaders=host&response-content-type=application/gzip&x=~%7e&until={expires_at!r}"
        )
        return f"{unsigned}&X-Goog-Signature={self._sign(unsigned)}"

    def read(self, link: str) -> tuple[str, float] | None:
        """Return the export id and expiry time from the path and query of a request, or None if not signed."""
        unsigned, _, signature = link.rpartition("&X-Goog-Signature=")
        if not hmac.compare_digest(_bytes(signature), _bytes(self._sign(unsigned))):
            return None
        path, _, query = unsigned.partition("?")
        return path.removeprefix(PREFIX), float(query.rpartition("&until=")[2])

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, _bytes(text), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    """Return the bytes as they came: a request may contain bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class SandboxDownloadRequest:
    """The headers of a download request; "" for a missing one."""

    range: str = ""
    if_range: str = ""
    accept_encoding: str = ""

    @property
    def takes_gzip(self) -> bool:
        """Whether the client accepts Content-Encoding: gzip."""
        return "gzip" in self.accept_encoding.lower()

    def shifted(self) -> "SandboxDownloadRequest":
        """Return the same request for a range that begins elsewhere."""
        found = re.fullmatch(r"bytes=([0-9]{1,18})-", self.range.strip())
        return replace(self, range=f"bytes={int(found[1]) + 7}-") if found else self


@dataclass(frozen=True, slots=True)
class SandboxBodyPart:
    """A part of a body that is too big for memory."""

    whole: SandboxContent
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `stop` within this part."""
        return self.whole.pieces(self.start + start, self.start + stop)


def delivered(
    stored: SandboxFile, asked_for: SandboxDownloadRequest, behaviour: SandboxBehaviour, *, file_name: str
) -> SandboxAnswer:
    """Return the answer with a file or the requested range of it."""
    headers = _file_headers(stored, behaviour, file_name)
    size = len(stored.content)
    asked = _range(asked_for.range, size) if behaviour.ranges and _same_file(asked_for.if_range, stored) else None
    if asked is None:
        return SandboxAnswer(200, stored.content, headers)
    start, stop = asked
    if start >= stop:
        return xml(
            416, "InvalidRange", "The requested range cannot be satisfied.", (("Content-Range", f"bytes */{size}"),)
        )
    part = (
        stored.content[start:stop]
        if isinstance(stored.content, bytes)
        else SandboxBodyPart(stored.content, start, stop)
    )
    return SandboxAnswer(206, part, (*headers, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")))


def expired(behaviour: SandboxBehaviour, expires_at: float) -> SandboxAnswer:
    """Return the answer to an expired signed URL. Two wordings of it are known."""
    when = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds")
    details = f"Request signature expired at: {when}"
    message = "The provided token has expired." if behaviour.expired_wording == "old" else "Invalid argument."
    return xml(behaviour.expired_link, "ExpiredToken", message, details=details)


def xml(status: int, code: str, message: str, headers: Headers = (), *, details: str = "") -> SandboxAnswer:
    """Return an error of the storage host."""
    more = f"<Details>{details}</Details>" if details else ""
    text = f"{NAMESPACE}<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return SandboxAnswer(status, text.encode(), (("Content-Type", "application/xml; charset=UTF-8"), *headers))


def _file_headers(stored: SandboxFile, behaviour: SandboxBehaviour, file_name: str) -> Headers:
    headers = [("Content-Type", "application/gzip")]
    headers.append(("Content-Disposition", f'attachment; filename="{behaviour.file_name or file_name}"'))
    if behaviour.etag:
        headers.append(("ETag", stored.etag))
    if behaviour.ranges:
        headers.append(("Accept-Ranges", "bytes"))
    crc32c, md5 = stored.crc32c, stored.md5
    if behaviour.goog_hash == "wrong":
        crc32c, md5 = (bytes(byte ^ 0xFF for byte in digest) for digest in (crc32c, md5))
    if crc32c and behaviour.goog_hash in ("both", "crc32c", "wrong"):
        headers.append(("x-goog-hash", f"crc32c={base64.b64encode(crc32c).decode()}"))
    if behaviour.goog_hash in ("both", "md5", "wrong"):
        headers.append(("x-goog-hash", f"md5={base64.b64encode(md5).decode()}"))
    if behaviour.delivery in ("encoded", "encoded-gzip", "recompressed"):
        headers.append(("Content-Encoding", "gzip"))
    if behaviour.stored_form:
        headers.extend(_stored_form(stored, behaviour))
    return tuple(headers)


def _stored_form(stored: SandboxFile, behaviour: SandboxBehaviour) -> Headers:
    """Return the headers, as Google Cloud Storage sends them, on how a file is stored and was changed on the way."""
    match behaviour.delivery:
        case "inflated":
            return (
                ("x-goog-stored-content-encoding", "gzip"),
                ("X-GUploader-Response-Body-Transformations", "gunzipped"),
            )
        case "recompressed":
            return (("x-goog-stored-content-encoding", "identity"),)
        case _:
            encoding = "gzip" if behaviour.delivery in ("encoded", "encoded-gzip") else "identity"
            return (
                ("x-goog-stored-content-encoding", encoding),
                ("x-goog-stored-content-length", str(len(stored.content))),
            )


def _same_file(if_range: str, stored: SandboxFile) -> bool:
    return not if_range or if_range == stored.etag


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Return start and stop of the requested range: equal if it is unsatisfiable, None for the complete file."""
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", text.strip())
    if not found or not (found[1] or found[2]):
        return None
    if found[1] and found[2] and int(found[2]) < int(found[1]):
        return None  # an invalid range is ignored, not unsatisfiable (RFC 9110, 14.1.1)
    if not found[1]:
        return max(0, size - int(found[2])), size
    start = int(found[1])
    stop = min(size, int(found[2]) + 1) if found[2] else size
    return (start, stop) if start < stop else (size, size)
