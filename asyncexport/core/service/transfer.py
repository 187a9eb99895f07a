"""The storage host's answers: whether a download may begin, where it begins, and when it is too slow.

1. The storage host is another service than the API: no key goes there, so none of its answers speaks of the key.
2. An expired link is told by `<Code>ExpiredToken</Code>` with 400 or 403 (reference section 5); the wording around it
   varies. It is cured by a fresh link, hence a `GoneError` like a 404.
3. A cut download goes on from where it stopped only with a strong ETag, and only if the answer is 206, begins exactly
   there, reaches to the end and is of the same file. A 200 begins at 0 again. Anything else cannot be used.
4. A body's end is proved by its length or by the closing chunk. A body that just stops proves nothing.
5. A hash is of the file as it is stored. A box on the way, or the store itself, may have undone its compression, or
   done it again; headers may tell (`BodyForm`).
6. A drip is a fault: a stall is caught by a time-out between bytes, but one byte a second never is. Only time spent
   waiting for the peer counts, so that a slow disk here is not blamed on the line.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asyncexport.core.archive.proof import BodyForm
from asyncexport.core.service.replies import Reply, header
from asyncexport.core.service.statuses import retry_after
from asyncexport.errors import GoneError, IncompleteError, RefusedError, ReplyError, UnavailableError

RATE_WINDOW_SECONDS = 60.0
"""`[download] min_rate` is an average over this long."""

STORED_ENCODING = "x-goog-stored-content-encoding"
"""How the file is stored, as a well-known store tells."""

FAR_FUTURE = 1e11
"""Seconds since 1970: a Retry-After that is a date says nothing where the reply has no date of its own."""

DOING = "downloading an archive"


@dataclass(frozen=True, slots=True)
class DownloadHead:
    """What an answer says of the body that follows.

    Args:
        offset: The first byte of the archive that the body holds; 0 where a range was asked for and not granted.
        length: Bytes in this body, or None where that is not known beforehand.
        etag: The strong ETag, by which a cut download may go on; "" where there is none.
        goog_hash: The items of `x-goog-hash`, such as `crc32c=...`: of the whole archive as stored.
        is_chunked: The body ends with a closing chunk.
        reaches_end: The last byte of the body is the last of the archive.
        form: Whether the body is in the form that `goog_hash` is of.
    """

    offset: int
    length: int | None
    etag: str
    goog_hash: tuple[str, ...]
    is_chunked: bool
    reaches_end: bool
    form: BodyForm = BodyForm.STORED

    def proves_end(self, received: int) -> bool:
        """Whether a body that ended without a fault after so many bytes ended where it should (rule 4)."""
        if not self.reaches_end:
            return False
        return self.is_chunked if self.length is None else received == self.length


class RateFloor:
    """Says when a download has been slower than `min_rate` bytes a second over `window_seconds` of waiting (rule 6)."""

    def __init__(self, min_rate: float, *, window_seconds: float = RATE_WINDOW_SECONDS) -> None:
        self._min_rate = min_rate
        self._window_seconds = window_seconds
        self._waited = 0.0
        self._received = 0

    def holds(self, count: int, *, waited_seconds: float) -> bool:
        """Note that `count` bytes came after waiting so long; whether the download is still fast enough."""
        self._waited += waited_seconds
        self._received += count
        if self._waited < self._window_seconds:
            return True
        fast_enough = self._received >= self._min_rate * self._waited
        self._waited, self._received = 0.0, 0
        return fast_enough


def range_headers(offset: int, etag: str) -> dict[str, str]:
    """What asks for the rest of a file; nothing where it cannot be asked for safely (rule 3)."""
    if offset <= 0 or not _is_strong(etag):
        return {}
    return {"Range": f"bytes={offset}-", "If-Range": etag}


def judge_download(reply: Reply) -> None:
    """Turn the storage host's status into the error it stands for; return for 200 and 206.

    `reply.body` need be no more than the start of an error's text. Its words are not repeated: they may hold parts of
    the signed request.

    Raises:
        GoneError: 404, 410, or an expired link: ask for a fresh one.
        IncompleteError: 416: begin at 0.
        UnavailableError: 408, 429, 499, or 500 and above.
        RefusedError: any other 4xx.
        ReplyError: a redirect, an unknown success, a web page, or an encoding that was not asked for.
    """
    status = reply.status
    if status in (200, 206):
        _check_kind(reply.headers)
        return
    code = _code(reply.body)
    told = f"({status}, {code})" if code else f"({status})"
    if status in (404, 410) or (status in (400, 403) and code == "ExpiredToken"):
        raise GoneError(f"{DOING}: the link is no longer good {told}")
    if status == 416:
        raise IncompleteError(f"{DOING}: it cannot go on where it was cut {told}")
    if status in (408, 429, 499) or status >= 500:
        later = retry_after(reply.headers, now=FAR_FUTURE)
        raise UnavailableError(f"{DOING}: the storage host is in trouble {told}", retry_after=later)
    if 400 <= status < 500:
        raise RefusedError(f"{DOING}: the storage host said no {told}", status=status)
    if 300 <= status < 400:
        raise ReplyError(f"{DOING}: the storage host redirects elsewhere, which is not followed {told}")
    raise ReplyError(f"{DOING}: the storage host answered with an unknown success {told}")


def read_head(reply: Reply, *, goog_hash: Iterable[str], offset: int, etag: str) -> DownloadHead:
    """What a 200 or 206 says of its body.

    Args:
        reply: Status and headers; the body is not looked at.
        goog_hash: Every value of `x-goog-hash`, which may stand several times.
        offset: What was asked for; 0 for all.
        etag: What `If-Range` held, or "".

    Raises:
        IncompleteError: the part that comes is not the one asked for: begin at 0.
    """
    found = header(reply.headers, "etag").strip()
    length = _whole_number(header(reply.headers, "content-length"))
    encoding = header(reply.headers, "transfer-encoding").strip().lower()
    hashes = tuple(item.strip()[:200] for value in goog_hash for item in value.split(",") if item.strip())
    is_chunked = encoding.endswith("chunked")
    strong = found if _is_strong(found) else ""
    if reply.status != 206:
        length = None if is_chunked else length
        form = body_form(reply.headers, length=length)
        return DownloadHead(0, length, strong, hashes, is_chunked, reaches_end=True, form=form)
    start, size, reaches_end = _content_range(header(reply.headers, "content-range"))
    if not range_headers(offset, etag) or start != offset:
        raise IncompleteError(f"{DOING}: the storage host sent another part than was asked for")
    if found and found != etag:
        raise IncompleteError(f"{DOING}: the file has changed since it was cut")
    if length is not None and length != size:
        raise IncompleteError(f"{DOING}: the storage host contradicts itself about the length")
    form = body_form(reply.headers, length=start + size if reaches_end else None)
    return DownloadHead(start, size, etag, hashes, is_chunked, reaches_end, form)


def body_form(headers: Mapping[str, str], *, length: int | None) -> BodyForm:
    """What the headers tell of the form of a body (rule 5); `length` is that of the whole file, where it is known."""
    transformations = header(headers, "x-guploader-response-body-transformations").lower()
    if "zipped" in transformations or header(headers, "warning").lstrip().startswith("214"):
        return BodyForm.CHANGED
    encoding = _encoding(header(headers, "content-encoding")) or "identity"
    stored = _encoding(header(headers, STORED_ENCODING))
    if stored not in (None, encoding):
        return BodyForm.CHANGED
    if stored and length is not None and length == _whole_number(header(headers, "x-goog-stored-content-length")):
        return BodyForm.STORED
    return BodyForm.UNKNOWN if encoding == "gzip" else BodyForm.PLAIN_IS_CHANGED


def _encoding(text: str) -> str | None:
    """A content encoding by its usual name; None where the header is not there."""
    name = text.strip().lower()
    return {"x-gzip": "gzip"}.get(name, name) or None


def _check_kind(headers: Mapping[str, str]) -> None:
    """A page for people is no file, though it could pass for a CSV."""
    if header(headers, "content-type").strip().lower().startswith("text/html"):
        raise ReplyError(f"{DOING}: a web page came in place of a file")
    names = {name.strip().lower() for name in header(headers, "content-encoding").split(",")}
    if not names <= {"", "identity", "gzip", "x-gzip"}:
        raise ReplyError(f"{DOING}: it came in an encoding that was not asked for")


def _content_range(text: str) -> tuple[int, int, bool]:
    """Where a part starts, its size, and whether it is known to reach to the end of the file."""
    found = re.fullmatch(
        r"bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", text.strip(), re.IGNORECASE | re.ASCII
    )
    if not found or int(found[2]) < int(found[1]):
        raise IncompleteError(f"{DOING}: the storage host sent a part without saying which")
    start, end = int(found[1]), int(found[2])
    if found[3] == "*":
        return start, end - start + 1, False
    if int(found[3]) != end + 1:
        raise IncompleteError(f"{DOING}: the storage host sent less than the rest")
    return start, end - start + 1, True


def _is_strong(etag: str) -> bool:
    """A weak one says that the file means the same, not that its bytes are the same."""
    return bool(re.fullmatch(r'"[!#-~]{1,256}"', etag))


def _whole_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _code(body: bytes) -> str:
    """The error code in the storage host's XML, or ""."""
    found = re.search(rb"<Code>\s*([A-Za-z]{1,60})\s*</Code>", body)
    return found[1].decode("ascii") if found else ""
