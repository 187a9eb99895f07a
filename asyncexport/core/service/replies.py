"""A reply of the API: its headers, its date, its compression, and the service's own words in it.

1. `statuses` decides what a status means; `resources` reads the content of a success.
2. Of the service's own words one printable line goes into a message, without the query of any URL in it.
3. A reply's repr shows neither headers nor body, and no message quotes the body of a success: both may hold a signed
   URL.
"""

import html
import json
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_tz
from functools import lru_cache
from typing import Any

import orjson

from asyncexport.core.text import one_line
from asyncexport.errors import ReplyError

MAX_REPLY_BYTES = 8 << 20
"""A page of 100 operations is about 40 KB; anything larger than this is not a reply of the API."""

MAX_ERROR_BYTES = 64 << 10
"""Bytes of an error's body that are read: only a line of it is shown."""

_MANY_DIGITS = re.compile(rb"[0-9]{16}")
"""Matches where there may be an integer of more digits than a float can hold."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply. Its repr hides headers and body, since either may hold a signed URL.

    `body_seconds` is how long the body took to arrive after the head.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    body: bytes = field(repr=False, default=b"")
    body_seconds: float = 0.0

    @property
    def is_success(self) -> bool:
        """Whether the status is a success (2xx)."""
        return 200 <= self.status < 300


def header(headers: Mapping[str, str], name: str) -> str:
    """Return a header's value, in whatever case its name is sent (`name` in lower case); "" if it is missing."""
    length = len(name)
    for key, value in headers.items():
        # Most names differ in length, which is faster to compare.
        if len(key) == length and key.lower() == name:
            return value
    return ""


def read_date(headers: Mapping[str, str]) -> float | None:
    """Return the service's time from the `Date` header, in seconds since 1970."""
    return http_date(header(headers, "date"))


def time_at_end(reply: Reply) -> float | None:
    """Return the service's time when the reply had arrived completely, in seconds since 1970.

    None if it has no date, or an `Age`: then it comes from a cache, and its date is old.
    """
    date = None if header(reply.headers, "age") else read_date(reply.headers)
    return None if date is None else date + reply.body_seconds


def decoded(reply: Reply) -> Reply:
    """Return the reply with a Content-Encoding of gzip decoded, which some proxies add unasked.

    Raises:
        ReplyError: it cannot be decompressed, or only to more than `MAX_REPLY_BYTES`.
    """
    encoding = header(reply.headers, "content-encoding").strip().lower()
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return reply
    inflate = zlib.decompressobj(wbits=47)
    try:
        body = inflate.decompress(reply.body, MAX_REPLY_BYTES + 1)
    except zlib.error:
        raise ReplyError("the service's reply could not be decompressed") from None
    if len(body) > MAX_REPLY_BYTES or not inflate.eof:
        raise ReplyError("the service's compressed reply is incomplete or far too large")
    return replace(
        reply, headers={k: v for k, v in reply.headers.items() if k.lower() != "content-encoding"}, body=body
    )


def readable(reply: Reply) -> Reply:
    """Return a reply whose text can be quoted: a compressed error is decompressed as far as possible."""
    try:
        return decoded(reply)
    except ReplyError:
        return reply if reply.is_success else replace(reply, body=b"")


def read_json(body: bytes) -> Any:
    """Parse a body as JSON, as leniently as possible. None if it is not JSON.

    A byte order mark, half of a surrogate pair and bytes that are not quite Unicode are accepted, and integers keep all
    their digits: an id may be a number.
    """
    if not _MANY_DIGITS.search(body):
        # Several times faster. It rejects what is not quite JSON, and only long numbers lose digits.
        with suppress(ValueError):
            return orjson.loads(body)
    try:
        return json.loads(body.decode(json.detect_encoding(body), "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def after_colon(words: str) -> str:
    """Return words as the end of a message; "" if there are none."""
    return f": {words}" if words else ""


def is_in_own_form(reply: Reply) -> bool:
    """Whether an error is in the service's own form: a JSON object with a code, a message or an error (3.0).

    A firewall, a proxy or a captive portal answers with a web page or a line of text.
    """
    data = read_json(reply.body[:MAX_ERROR_BYTES])
    return isinstance(data, dict) and any(data.get(name) for name in ("code", "message", "error"))


def service_words(reply: Reply) -> str:
    """Return the service's own words: JSON `message`, then `error`, then a page title, then the text (3.0)."""
    body = reply.body[:MAX_ERROR_BYTES]
    data = read_json(body)
    if isinstance(data, dict):
        for value in (data.get("message"), data.get("error")):
            said = value.get("message") if isinstance(value, dict) else value
            if isinstance(said, str) and said.strip():
                return one_line(said)
    if isinstance(data, dict | list) and not data:
        return ""
    if reply.is_success:
        # A reply that should have been data may hold a signed URL, so its text is not quoted.
        return _title(body)
    text = body.decode("utf-8", "replace").strip()
    return _title(body) if text.startswith("<") else one_line(text)


def _title(body: bytes) -> str:
    """Return the title of an HTML page, or ""."""
    found = re.search(rb"(?is)<title[^>]{0,200}>([^<]{1,1000})", body)
    return one_line(html.unescape(found[1].decode("utf-8", "replace"))) if found else ""


@lru_cache(maxsize=16)
def http_date(text: str) -> float | None:
    """Return the seconds since 1970 of an HTTP date (RFC 9110, 5.6.7). None if it is not a date.

    All three forms are read. A date without a zone, or with an unknown one (`-0000`), is GMT like every other, never
    this host's time. The result is cached, since all replies of one second have the same text.
    """
    try:
        # Without a zone, the form of RFC 850 is not recognized; the others are.
        found = parsedate_tz(text[:100]) or parsedate_tz(f"{text[:100]} GMT")
        if found is None:
            return None
        year, month, day, hour, minute, second = found[:6]
        # The second may be a leap second, which a datetime cannot hold.
        leap = second == 60
        moment = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC).timestamp()
        return moment + leap - (found[9] or 0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
