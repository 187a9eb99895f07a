"""Which endpoint a request means, from its method and its path as it was sent.

An operation id may hold `=`, `+` and `/`: percent-encoded it is one part of the path, and only so it is found. That
the real service is as strict is inferred from the ids alone; `ids="lenient"` takes `=` and `+` as they are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

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
    (re.compile(r"/operations/v1/([^/]+)"), "poll"),
    (re.compile(r"/search/v1/exports/([^/]+)/results"), "results"),
    (re.compile(r"/segments/v1/([^/]+)"), "segment"),
)


def route(method: str, raw_path: str, *, strict_ids: bool) -> SandboxRoute | None:
    """The endpoint that is meant; None: there is none such."""
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
            if name == "poll" and strict_ids and not ENCODED.fullmatch(found[1]):
                return None
            return SandboxRoute(name, unquote(found[1]), dict(parse_qsl(query)))
    return None
