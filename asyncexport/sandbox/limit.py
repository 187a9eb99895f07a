"""The rate limit: a bucket of `burst` tokens, refilled at `requests_per_minute`.

1. The vendor does not say which calls take a token, so this is a switch: only creates, or every call of the API.
   Downloads never take one.
2. A refused call takes no token, unless a switch says so; then the bucket goes below zero, by at most one burst. A call
   that fails in another way takes one, unless another switch says that it does not.
3. The arithmetic is independent of the exporter's (see `SandboxTokenBucket`).
4. A 429 has `Retry-After` in whole seconds, rounded up. The other forms are for testing.
"""

import math
from dataclasses import dataclass
from email.utils import formatdate

from asyncexport.sandbox.behaviour import RetryAfter, SandboxBehaviour

EXACT = 1e-9
"""Smaller differences from a full token are rounding errors of floats."""


@dataclass(slots=True)
class SandboxTokenBucket:
    """The sandbox's token bucket: its level at a time in seconds since 1970.

    It deliberately shares no code with the exporter's bucket. Tests of the exporter's budget rely on this one to
    notice one request too many; an error in shared arithmetic would go unnoticed.
    """

    level: float
    at: float


class SandboxRateLimit:
    """Decides which calls may pass; times are seconds since 1970."""

    def __init__(self) -> None:
        self._buckets: dict[str, SandboxTokenBucket] = {}

    def take_token(self, endpoint: str, behaviour: SandboxBehaviour, *, now: float) -> float | None:
        """Take a token for a call. Return None if there was one, else the seconds until there is one."""
        if behaviour.scope == "create" and endpoint != "create":
            return None
        per_second = behaviour.requests_per_minute * behaviour.speed / 60
        bucket = self._bucket(endpoint if behaviour.bucket_each else "", behaviour, now)
        bucket.level = min(behaviour.burst, bucket.level + max(0.0, now - bucket.at) * per_second)
        bucket.at = now
        if bucket.level >= 1 - EXACT:
            bucket.level -= 1
            return None
        if behaviour.refusal_costs:
            bucket.level = max(bucket.level - 1, -float(behaviour.burst))
        return (1 - bucket.level) / per_second

    def give_back(self, endpoint: str, behaviour: SandboxBehaviour) -> None:
        """Put back the token of a failed call that costs nothing."""
        bucket = self._buckets.get(endpoint if behaviour.bucket_each else "")
        if bucket is not None and (behaviour.scope == "all" or endpoint == "create"):
            bucket.level += 1

    def _bucket(self, name: str, behaviour: SandboxBehaviour, now: float) -> SandboxTokenBucket:
        if name not in self._buckets:
            self._buckets[name] = SandboxTokenBucket(behaviour.burst, now)
        return self._buckets[name]


def retry_after_header(kind: RetryAfter, seconds: float, *, now: float) -> tuple[tuple[str, str], ...]:
    """Return the Retry-After header for a wait of `seconds` in the given form, or no header for `missing`."""
    whole = math.ceil(seconds)
    value = {
        "seconds": str(max(1, whole)),
        "missing": "",
        "zero": "0",
        "negative": "-30",
        "short": str(max(1, whole // 30)),
        "huge": "99999999999",
        "date": formatdate(math.ceil(now + seconds), usegmt=True),
        "garbage": "soon",
    }[kind]
    return (("Retry-After", value),) if value else ()
