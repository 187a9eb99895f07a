"""Finds the endpoint of a request from its method and its raw path.

An operation id may contain `=`, `+` and `/`. If it is percent-encoded, it is one segment of the path. `ids="strict"`
accepts only this form, which tests of an exporter need. Some existing clients send the id unencoded, so `lenient` reads
the rest of the path as the id, encoded or not. How strict the real service is, is unknown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

ENCODED = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+")
"""A percent-encoded id (RFC 3986: unreserved characters and escapes)."""


@dataclass(frozen=True, slots=True)
class SandboxRoute:
    """The endpoint of a request with its arguments. `id` is decoded, or "" if the endpoint has none."""

    endpoint: str
    id: str
    query: Mapping[str, str]


EXACT: dict[tuple[str, str], str] = {
    ("POST", "/segments/v1/exports"): "create",
    ("GET", "/operations/v1"): "list",
    ("GET", "/segments/v1"): "segments",
    ("GET", "/me"): "me",
}

WITH_ID: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"/operations/v1/(.+)"), "poll"),
    (re.compile(r"/search/v1/exports/(.+)/results"), "results"),
    (re.compile(r"/segments/v1/(.+)"), "segment"),
)

PATHS = (
    *(f"{method} {path}" for method, path in EXACT),
    "GET /operations/v1/{id}",
    "GET /search/v1/exports/{id}/results",
    "GET /segments/v1/{id}",
)

SHOWN_CHARACTERS = 200
"""The number of characters of a path or an id that an error repeats."""


def route(method: str, raw_path: str, *, strict_ids: bool) -> SandboxRoute | None:
    """Find the endpoint of a request.

    Args:
        method: The HTTP method.
        raw_path: The path and query as they were sent.
        strict_ids: Whether an id must be one segment of the path and an operation id also percent-encoded.

    Returns:
        The route, or None if there is no such endpoint; `routing_error` says why.
    """
    path, _, query = raw_path.partition("?")
    endpoint = EXACT.get((method, path))
    if endpoint is not None:
        return SandboxRoute(endpoint, "", dict(parse_qsl(query)))
    if method != "GET":
        return None
    if path.startswith("/storage/"):
        return SandboxRoute("download", "", {})
    for pattern, name in WITH_ID:
        if found := pattern.fullmatch(path):
            if strict_ids and ("/" in found[1] or (name == "poll" and not ENCODED.fullmatch(found[1]))):
                return None
            return SandboxRoute(name, unquote(found[1]), dict(parse_qsl(query)))
    return None


def routing_error(method: str, raw_path: str) -> str:
    """Return why a request has no endpoint."""
    path = raw_path.partition("?")[0]
    if path.endswith("/") and route(method, path.rstrip("/"), strict_ids=True):
        return f"there is no {printable(path)}: remove the slash at its end"
    meant = route(method, path, strict_ids=False)
    if meant is not None:
        return (
            f"the id {printable(meant.id)} is not percent-encoded in the path: "
            f"send {printable(quote(meant.id, safe=''))}, or set the sandbox's switch ids to lenient"
        )
    taken = next((other for other in ("POST", "GET") if route(other, path, strict_ids=False)), None)
    if taken is not None:
        return f"{printable(path)} accepts {taken}, not {method}"
    return f"there is no {printable(path)}; known paths: {', '.join(PATHS)}"


def printable(text: str) -> str:
    """Return text from a request in a form that an error can repeat: ASCII, one line, not too long."""
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
    return shown.encode("unicode_escape", "surrogatepass").decode("ascii")
