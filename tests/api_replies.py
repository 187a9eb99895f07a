"""Helpers that build replies of the API, and the times and URLs used in them."""

from typing import Any

import orjson

from asyncexport.core.bundles import Range
from asyncexport.core.service.replies import Reply

HALF_HOUR = Range(1_767_225_600, 1_767_227_400)  # 2026-01-01T00:00:00Z to 00:30:00Z
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
NOW = 1_767_225_600.0
LINK = "https://storage.googleapis.com/bucket/file?X-Goog-Signature=canary&x=1"


def reply(data: Any, status: int = 200, **headers: str) -> Reply:
    """Return a reply whose body is this data as JSON, or these bytes unchanged."""
    body = data if isinstance(data, bytes) else orjson.dumps(data)
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
