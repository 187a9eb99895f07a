"""Answers as values: status, headers and body, before anything is done to them on their way."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from asyncexport.sandbox.reading import SandboxRefusal

Headers = tuple[tuple[str, str], ...]


class SandboxContent(Protocol):
    """A body too big to be held as a whole."""

    def __len__(self) -> int:
        """Its bytes."""
        ...

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a part of it."""
        ...


@dataclass(frozen=True, slots=True)
class SandboxAnswer:
    """What is to be sent; `headers` leave out what says how long the body is."""

    status: int
    body: bytes | SandboxContent
    headers: Headers = (("Content-Type", "application/json"),)


def reply(data: Any) -> SandboxAnswer:
    """A success: JSON on one line, its ampersands escaped, as the service writes it (reference 3.4)."""
    return SandboxAnswer(200, json_line(data))


def json_line(data: Any) -> bytes:
    """JSON as Go writes it."""
    text = orjson.dumps(data)
    for character in (b"&", b"<", b">"):
        if character in text:
            text = text.replace(character, b"\\u00%02x" % ord(character))
    return text + b"\n"


def stamp(moment: float, *, digits: int) -> str:
    """A time stamp with that many digits of a second: the service uses three, six and nine (reference 3.0)."""
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
"""The words of version 2 (reference 3.0)."""

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
    """An error in one of its forms: json, error, text, html or empty. Version 1's own is not known (reference 3.0)."""
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
    """The answer to a request that was refused."""
    return error(refusal.status, form=form, code=refusal.code, message=str(refusal), headers=headers)


def _type(name: str) -> Headers:
    return (("Content-Type", name),)
