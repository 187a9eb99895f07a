"""The six parts that a URL has in the Data Direct table.

1. `full_url` is the URL as exported. The other parts are substrings of it, except that the names and values of a query
   are decoded.
2. A URL is divided as RFC 3986 (appendix B) does it, so no URL is refused: whatever it holds is in one of the parts.
3. The host keeps its port and loses user name and password. The part after `#` is divided at its first `?`, as routers
   within a page do it.
4. An empty part is left out.
"""

import json
import re
from typing import Any
from urllib.parse import unquote_plus

_PARTS = re.compile(
    r"(?:[^:/?#]*:)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<hash>.*))?", re.DOTALL
)


def url_parts(url: str) -> str:
    """Return the parts of a URL as a JSON object."""
    found = _PARTS.fullmatch(url)
    assert found, "the expression matches every text"  # noqa: S101 - states a fact for the type checker
    authority, path, query, fragment = found.group("authority", "path", "query", "hash")
    hash_path, _, hash_query = (fragment or "").partition("?")
    parts: dict[str, Any] = {
        "full_url": url,
        "host": (authority or "").rpartition("@")[2],
        "path": path,
        "query": _query(query or ""),
        "hash_path": hash_path,
        "hash_query": _query(hash_query),
    }
    return json.dumps({name: part for name, part in parts.items() if part}, ensure_ascii=False, separators=(",", ":"))


def _query(query: str) -> dict[str, dict[str, list[str]]]:
    """Return the values of each name, in order; bytes that are not UTF-8 become U+FFFD."""
    found: dict[str, dict[str, list[str]]] = {}
    for item in query.split("&"):
        if item:
            name, _, value = item.partition("=")
            found.setdefault(unquote_plus(name), {"values": []})["values"].append(unquote_plus(value))
    return found
