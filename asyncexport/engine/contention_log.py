"""Warns when another program uses the same rate limit.

A run never sends a request without a token from its own bucket, and a 429 empties that bucket. If requests that were
sent after that are refused again, other requests count against the limit: those of another program, or of a run in
another directory that uses the same key. An overloaded service may refuse a few as well, so only the third such 429 is
logged, once per run.
"""

import logging
import math

from asyncexport.core.admission import Answer, Grant

log = logging.getLogger(__name__)

WARNED_AT = 3
"""The number of unexpected 429s at which the warning is logged."""


class ContentionLog:
    """Counts the 429s that this run's own requests do not explain."""

    def __init__(self) -> None:
        self._unexpected = 0
        self._last_at = -math.inf

    def is_refusal(self, grant: Grant, answer: Answer, *, now: float) -> bool:
        """Whether an answer is a 429. Counts the unexpected ones; `now` is on the monotonic clock."""
        if answer.status != 429:
            return False
        if grant.counted and grant.granted_at >= self._last_at:
            self._last_at = now
            self._unexpected += 1
            if self._unexpected == WARNED_AT:
                log.warning(
                    "the service keeps refusing requests (429) although this run stays within its rate limit: "
                    "another program, or a run in another directory, may be using the same key; they all share one "
                    "limit, so give each a part of it with [budget] requests_per_minute and burst"
                )
        return True
