"""Answers as values: status, headers and body, before a fault changes how they are sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from asyncexport.sandbox.reading import SandboxRefusal

Headers = tuple[tuple[str, str], ...]


class SandboxContent(Protocol):
    """A body that is too big to be in memory as a whole."""

    def __len__(self) -> int:
        """Return the number of bytes."""
        ...

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `stop`."""
        ...


@dataclass(frozen=True, slots=True)
class SandboxAnswer:
    """An answer to send. `headers` do not include those that say how long the body is."""

    status: int
    body: bytes | SandboxContent
    headers: Headers = (("Content-Type", "application/json"),)


def reply(data: Any) -> SandboxAnswer:
    """Return a success: JSON on one line with escaped ampersands, as the service writes it."""
    return SandboxAnswer(200, json_line(data))


def json_line(data: Any) -> bytes:
    """Return JSON as Go writes it, which escapes &, < and >."""
    text = orjson.dumps(data)
    for character in (b"&", b"<", b">"):
        if character in text:
            text = text.replace(character, b"\\u00%02x" % ord(character))
    return text + b"\n"


def stamp(moment: float, *, digits: int) -> str:
    """Return a time stamp with this many fraction digits. The service uses three, six and nine."""
    nanos = round(moment * 1e9)
    whole = datetime.fromtimestamp(nanos // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanos % 1_000_000_000:09d}"[: 20 + digits] + "Z"


CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "resource_not_found",
    405: "method_not_allowed",
    429: "too_many_requests",
}
"""The error codes of version 2 of the API."""

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    429: "Too Many Requests",
    499: "Client Closed Request",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def error(status: int, *, form: str, code: str = "", message: str = "", headers: Headers = ()) -> SandboxAnswer:
    """Return an error in the given form: json, error, text, html or empty. The form of version 1 is not documented."""
    title = TITLES.get(status, "Error")
    code = code or CODES.get(status, "server_error")
    message = message or title
    match form:
        case "json":
            return SandboxAnswer(
                status, json_line({"code": code, "message": message}), (*_type("application/json"), *headers)
            )
        case "error":
            return SandboxAnswer(status, json_line({"error": message}), (*_type("application/json"), *headers))
        case "html":
            page = f"<html><head><title>{status} {title}</title></head><body><h1>{title}</h1></body></html>\n"
            return SandboxAnswer(status, page.encode(), (*_type("text/html; charset=UTF-8"), *headers))
        case "empty":
            return SandboxAnswer(status, b"", headers)
        case _:
            return SandboxAnswer(status, f"{message}\n".encode(), (*_type("text/plain; charset=utf-8"), *headers))


def refused(refusal: SandboxRefusal, *, form: str, headers: Headers = ()) -> SandboxAnswer:
    """Return the answer to a refused request."""
    return error(refusal.status, form=form, code=refusal.code, message=str(refusal), headers=headers)


def _type(name: str) -> Headers:
    return (("Content-Type", name),)
