"""An HTTP reply of the API as it came: its headers, its date, its compression, and the service's own words in it.

1. What a status means is decided in `statuses`; what a success holds is read in `resources`.
2. Of the service's own words one printable line goes into a message, without the query of any URL in it.
3. A reply's repr shows neither headers nor body, and no message quotes the body of a success: both may hold a signed
   link.
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
"""A page of 100 operations is some 40 KB; what is larger than this is no reply of the API."""

MAX_ERROR_BYTES = 64 << 10
"""As much of an error's body as is read: only a line of it is shown."""

_MANY_DIGITS = re.compile(rb"[0-9]{16}")
"""There may be an integer of more digits than a float has."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Its repr keeps quiet about headers and body: either may hold a signed link.

    `body_seconds` is how long the body took to come after the head.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    body: bytes = field(repr=False, default=b"")
    body_seconds: float = 0.0

    @property
    def is_success(self) -> bool:
        """Whether the status says that all went well (2xx); what came is in the body."""
        return 200 <= self.status < 300


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, whatever the case of its name (`name` in lower case); "" where there is none."""
    length = len(name)
    for key, value in headers.items():
        # Most names differ in length, and that is seen sooner.
        if len(key) == length and key.lower() == name:
            return value
    return ""


def read_date(headers: Mapping[str, str]) -> float | None:
    """The service's clock as its `Date` header tells it, in seconds since 1970."""
    return http_date(header(headers, "date"))


def time_at_end(reply: Reply) -> float | None:
    """The service's clock when the reply had come whole, in seconds since 1970.

    None where it has no date, or an `Age`: then it comes from a store of replies, and its date is of another time.
    """
    date = None if header(reply.headers, "age") else read_date(reply.headers)
    return None if date is None else date + reply.body_seconds


def decoded(reply: Reply) -> Reply:
    """The reply with a Content-Encoding of gzip undone, which some proxies add unasked.

    Raises:
        ReplyError: it does not inflate, or to more than `MAX_REPLY_BYTES`.
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
        raise ReplyError("the service's compressed reply was cut short or is far too large")
    return replace(
        reply, headers={k: v for k, v in reply.headers.items() if k.lower() != "content-encoding"}, body=body
    )


def readable(reply: Reply) -> Reply:
    """A reply whose words are asked for: an error that is compressed is decompressed as far as it can be."""
    try:
        return decoded(reply)
    except ReplyError:
        return reply if reply.is_success else replace(reply, body=b"")


def read_json(body: bytes) -> Any:
    """What a body says as JSON, as leniently as can be; None where it is none.

    A byte order mark, half of a surrogate pair and bytes that are not quite Unicode do no harm, and integers keep all
    their digits: an id may be a number.
    """
    if not _MANY_DIGITS.search(body):
        # Several times as fast. It refuses whatever is not quite JSON, and spoils nothing but long numbers.
        with suppress(ValueError):
            return orjson.loads(body)
    try:
        return json.loads(body.decode(json.detect_encoding(body), "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def after_colon(words: str) -> str:
    """Words as the end of a message; nothing where there are none."""
    return f": {words}" if words else ""


def is_in_own_form(reply: Reply) -> bool:
    """Whether an error is in the service's own form: a JSON object with a code, a message or an error (3.0).

    A firewall, a proxy or a captive portal answers with a page or a line of text.
    """
    data = read_json(reply.body[:MAX_ERROR_BYTES])
    return isinstance(data, dict) and any(data.get(name) for name in ("code", "message", "error"))


def service_words(reply: Reply) -> str:
    """What the service itself says of an error: JSON `message`, then `error`, then a title, then the text (3.0)."""
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
        # A reply that should have been data may hold a link: no excerpt of it.
        return _title(body)
    text = body.decode("utf-8", "replace").strip()
    return _title(body) if text.startswith("<") else one_line(text)


def _title(body: bytes) -> str:
    """The title of an HTML page, or ""."""
    found = re.search(rb"(?is)<title[^>]{0,200}>([^<]{1,1000})", body)
    return one_line(html.unescape(found[1].decode("utf-8", "replace"))) if found else ""


@lru_cache(maxsize=16)
def http_date(text: str) -> float | None:
    """Seconds since 1970 from any of the three forms of a date (RFC 9110, 5.6.7); None where it is none.

    A date without a zone, or with one that says nothing (`-0000`), is GMT like every other: never this host's time.
    Replies of one second have the same text, which is read once.
    """
    try:
        # The form of RFC 850 is not recognized without a zone, the others are.
        found = parsedate_tz(text[:100]) or parsedate_tz(f"{text[:100]} GMT")
        if found is None:
            return None
        year, month, day, hour, minute, second = found[:6]
        # A minute may have a leap second, which a datetime cannot hold.
        leap = second == 60
        moment = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC).timestamp()
        return moment + leap - (found[9] or 0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
