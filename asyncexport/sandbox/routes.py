"""Which endpoint a request means, from its method and its path as it was sent.

An operation id may hold `=`, `+` and `/`. Percent-encoded, it is one part of the path. With `ids="strict"` it is found
only like that, which a test of an exporter needs. Clients that exist send it raw, so `lenient` reads all that follows
as the id, raw or encoded. How strict the real service is, nobody knows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

ENCODED = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+")
"""What percent-encoding leaves of an id (RFC 3986: unreserved characters, and escapes)."""


@dataclass(frozen=True, slots=True)
class SandboxRoute:
    """A request, as far as its first line says: `id` is decoded, or "" where none belongs there."""

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
"""Of a path or an id that an error repeats."""


def route(method: str, raw_path: str, *, strict_ids: bool) -> SandboxRoute | None:
    """The endpoint that a request means.

    Args:
        method: Its HTTP method.
        raw_path: Its path and query as they were sent.
        strict_ids: Only take ids that are one part of the path, and that of an operation only percent-encoded.

    Returns:
        None: there is no such endpoint; `misroute` says why.
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


def misroute(method: str, raw_path: str) -> str:
    """What is wrong with a request that means no endpoint, in a sentence."""
    path = raw_path.partition("?")[0]
    if path.endswith("/") and route(method, path.rstrip("/"), strict_ids=True):
        return f"there is no {printable(path)}: leave out the slash at its end"
    meant = route(method, path, strict_ids=False)
    if meant is not None:
        return (
            f"the id {printable(meant.id)} is not percent-encoded in the path: "
            f"send {printable(quote(meant.id, safe=''))}, or set the sandbox's switch ids to lenient"
        )
    taken = next((other for other in ("POST", "GET") if route(other, path, strict_ids=False)), None)
    if taken is not None:
        return f"{printable(path)} takes {taken}, not {method}"
    return f"there is no {printable(path)}; there are {', '.join(PATHS)}"


def printable(text: str) -> str:
    """Text from a request as an error may repeat it: ASCII, on one line, not too long."""
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
    return shown.encode("unicode_escape", "surrogatepass").decode("ascii")
