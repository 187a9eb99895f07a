"""The storage host's answers: whether a download may begin, where it begins, and when it is too slow.

1. The storage host is another service than the API: the key is never sent to it, so its answers say nothing about the
   key.
2. `<Code>ExpiredToken</Code>` with 400 or 403 (API reference, section 5) means an expired link; the wording around it
   varies. A new link helps, so it is a `GoneError` like a 404.
3. A cut download resumes where it stopped only with a strong ETag, and only if the answer is 206, begins exactly there,
   reaches the end and is of the same file. A 200 starts at 0 again. Any other answer cannot be used.
4. The end of a body is confirmed by its length or by the closing chunk. A body that just stops proves nothing.
5. A hash is of the file as stored. A proxy, or the store itself, may have decompressed it, or compressed it again;
   headers may tell (`BodyForm`).
6. A trickle is a fault: a timeout between bytes catches a stall, but never one byte a second. Only time spent waiting
   for the storage host counts, so that a slow disk here is not blamed on the connection.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asyncexport.core.archive.proof import BodyForm
from asyncexport.core.service.replies import Reply, header
from asyncexport.core.service.statuses import retry_after
from asyncexport.errors import GoneError, IncompleteError, RefusedError, ReplyError, UnavailableError

RATE_WINDOW_SECONDS = 60.0
"""`[download] min_rate` is an average over this time."""

STORED_ENCODING = "x-goog-stored-content-encoding"
"""The header in which Google Cloud Storage reports how the file is stored."""

FAR_FUTURE = 1e11
"""Seconds since 1970. It makes a Retry-After that is a date useless if the reply has no date of its own."""

DOING = "downloading an archive"


@dataclass(frozen=True, slots=True)
class DownloadHead:
    """What an answer says about the body that follows.

    Args:
        offset: The first byte of the archive in the body; 0 if a range was asked for but not granted.
        length: Bytes in this body. None if it is not known beforehand.
        etag: The strong ETag, with which a cut download may resume; "" if there is none.
        goog_hash: The items of `x-goog-hash`, such as `crc32c=...`: of the whole archive as stored.
        is_chunked: Whether the body ends with a closing chunk.
        reaches_end: Whether the last byte of the body is the last of the archive.
        form: Whether the body has the form that `goog_hash` is of.
    """

    offset: int
    length: int | None
    etag: str
    goog_hash: tuple[str, ...]
    is_chunked: bool
    reaches_end: bool
    form: BodyForm = BodyForm.STORED

    def proves_end(self, received: int) -> bool:
        """Whether a body that ended without a fault after this many bytes is complete (rule 4)."""
        if not self.reaches_end:
            return False
        return self.is_chunked if self.length is None else received == self.length


class RateFloor:
    """Detects a download slower than `min_rate` bytes a second over `window_seconds` of waiting (rule 6)."""

    def __init__(self, min_rate: float, *, window_seconds: float = RATE_WINDOW_SECONDS) -> None:
        self._min_rate = min_rate
        self._window_seconds = window_seconds
        self._waited = 0.0
        self._received = 0

    def holds(self, count: int, *, waited_seconds: float) -> bool:
        """Note that `count` bytes came after this wait, and return whether the download is still fast enough."""
        self._waited += waited_seconds
        self._received += count
        if self._waited < self._window_seconds:
            return True
        fast_enough = self._received >= self._min_rate * self._waited
        self._waited, self._received = 0.0, 0
        return fast_enough


def range_headers(offset: int, etag: str) -> dict[str, str]:
    """Return the headers that ask for the rest of a file; empty if that is not safe (rule 3)."""
    if offset <= 0 or not _is_strong(etag):
        return {}
    return {"Range": f"bytes={offset}-", "If-Range": etag}


def judge_download(reply: Reply) -> None:
    """Raise the error that the storage host's status means; return for 200 and 206.

    `reply.body` only needs to be the start of an error's text. Its words are not repeated: they may hold parts of the
    signed request.

    Raises:
        GoneError: 404, 410, or an expired link: ask for a new one.
        IncompleteError: 416: start at 0.
        UnavailableError: 408, 429, 499, or 500 and above.
        RefusedError: any other 4xx.
        ReplyError: a redirect, an unknown success, a web page, or an encoding that was not asked for.
    """
    status = reply.status
    if status in (200, 206):
        _check_kind(reply.headers)
        return
    code = _code(reply.body)
    shown = f"({status}, {code})" if code else f"({status})"
    if status in (404, 410) or (status in (400, 403) and code == "ExpiredToken"):
        raise GoneError(f"{DOING}: the link is no longer valid {shown}")
    if status == 416:
        raise IncompleteError(f"{DOING}: it cannot resume where it was cut off {shown}")
    if status in (408, 429, 499) or status >= 500:
        later = retry_after(reply.headers, now=FAR_FUTURE)
        raise UnavailableError(f"{DOING}: the storage host failed {shown}", retry_after=later)
    if 400 <= status < 500:
        raise RefusedError(f"{DOING}: the storage host refused the request {shown}", status=status)
    if 300 <= status < 400:
        raise ReplyError(f"{DOING}: the storage host redirects to another URL, which is not followed {shown}")
    raise ReplyError(f"{DOING}: the storage host answered with an unknown success {shown}")


def read_head(reply: Reply, *, goog_hash: Iterable[str], offset: int, etag: str) -> DownloadHead:
    """Read what a 200 or 206 says about its body.

    Args:
        reply: Status and headers; the body is not used.
        goog_hash: Every value of `x-goog-hash`, which may be repeated.
        offset: The requested offset; 0 for the whole file.
        etag: The value of `If-Range`, or "".

    Raises:
        IncompleteError: the part in the body is not the requested one: start at 0.
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
        raise IncompleteError(f"{DOING}: the storage host sent another part than requested")
    if found and found != etag:
        raise IncompleteError(f"{DOING}: the file has changed since the download was cut off")
    if length is not None and length != size:
        raise IncompleteError(f"{DOING}: the storage host contradicts itself about the length")
    form = body_form(reply.headers, length=start + size if reaches_end else None)
    return DownloadHead(start, size, etag, hashes, is_chunked, reaches_end, form)


def body_form(headers: Mapping[str, str], *, length: int | None) -> BodyForm:
    """Return what the headers say about the form of a body (rule 5). `length`: of the whole file, if known."""
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
    """Return a content encoding by its usual name. None if there is no header."""
    name = text.strip().lower()
    return {"x-gzip": "gzip"}.get(name, name) or None


def _check_kind(headers: Mapping[str, str]) -> None:
    """Reject web pages, which could pass for a CSV, and unexpected encodings."""
    if header(headers, "content-type").strip().lower().startswith("text/html"):
        raise ReplyError(f"{DOING}: a web page came instead of a file")
    names = {name.strip().lower() for name in header(headers, "content-encoding").split(",")}
    if not names <= {"", "identity", "gzip", "x-gzip"}:
        raise ReplyError(f"{DOING}: it came in an encoding that was not asked for")


def _content_range(text: str) -> tuple[int, int, bool]:
    """Return the start of a part, its size, and whether it is known to reach the end of the file."""
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
    """Whether an ETag is strong; a weak one does not promise that the bytes are the same."""
    return bool(re.fullmatch(r'"[!#-~]{1,256}"', etag))


def _whole_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _code(body: bytes) -> str:
    """Return the error code in the storage host's XML, or ""."""
    found = re.search(rb"<Code>\s*([A-Za-z]{1,60})\s*</Code>", body)
    return found[1].decode("ascii") if found else ""
