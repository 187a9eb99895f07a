"""The rate limit: a bucket of `burst` tokens, refilled at `requests_per_minute` (reference section 6).

1. Which calls take a token is a guess, so it is a switch: creates only, or every call of the API. Downloads never do.
2. A refused call takes none, unless the switch says so; then the bucket goes below zero, by at most one burst. A call
   that fails otherwise takes one, unless another switch says it does not.
3. The arithmetic is independent of the exporter's (see `SandboxTokenBucket`).
4. A 429 carries `Retry-After` in whole seconds, rounded up; the other forms are for rehearsal.
"""

import math
from dataclasses import dataclass
from email.utils import formatdate

from asyncexport.sandbox.behaviour import RetryAfter, SandboxBehaviour

EXACT = 1e-9
"""Below this a token is missing only for the rounding of floats."""


@dataclass(slots=True)
class SandboxTokenBucket:
    """The bucket of the stand-in service: how many tokens it held at a moment in seconds since 1970.

    It shares no code with the exporter's own bucket on purpose. Tests of the exporter's budget rely on this one to
    notice a request too many, and an error in shared arithmetic would go unnoticed.
    """

    level: float
    at: float


class SandboxRateLimit:
    """Who may pass; moments are seconds since 1970."""

    def __init__(self) -> None:
        self._buckets: dict[str, SandboxTokenBucket] = {}

    def refuses(self, endpoint: str, behaviour: SandboxBehaviour, *, now: float) -> float | None:
        """Take a token for a call that has come; None if there was one, else how many seconds until there is."""
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
        """The token of a call that came to nothing and costs nothing."""
        bucket = self._buckets.get(endpoint if behaviour.bucket_each else "")
        if bucket is not None and (behaviour.scope == "all" or endpoint == "create"):
            bucket.level += 1

    def _bucket(self, name: str, behaviour: SandboxBehaviour, now: float) -> SandboxTokenBucket:
        if name not in self._buckets:
            self._buckets[name] = SandboxTokenBucket(behaviour.burst, now)
        return self._buckets[name]


def retry_after_header(kind: RetryAfter, seconds: float, *, now: float) -> tuple[tuple[str, str], ...]:
    """The header of a 429 that asks to wait so long, in one of its forms; no header at all for `missing`."""
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
