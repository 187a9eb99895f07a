"""What is logged when somebody else uses the service's limit, too.

A run sends nothing that its own bucket holds no token for, and a 429 empties that bucket. If 429s keep coming to
requests that were sent after that, then other requests are counted: of another program, or of a run in another
directory, with the same key. Some may come of a service in trouble: the third one is told, once in a run.
"""

import logging
import math

from asyncexport.core.admission import Answer, Grant

log = logging.getLogger(__name__)

TOLD_AT = 3
"""The 429 of this kind that is told."""


class ContentionLog:
    """Counts the 429s that this run did not earn."""

    def __init__(self) -> None:
        self._unearned = 0
        self._last_at = -math.inf

    def is_refusal(self, grant: Grant, answer: Answer, *, now: float) -> bool:
        """Whether an answer is a 429, which is counted here; `now` is on the monotonic clock."""
        if answer.status != 429:
            return False
        if grant.counted and grant.granted_at >= self._last_at:
            self._last_at = now
            self._unearned += 1
            if self._unearned == TOLD_AT:
                log.warning(
                    "the service refuses requests (429) again and again, though this run sends no more than it is "
                    "allowed to: another program, or a run in another directory, may use the same key; all of them "
                    "share one limit, so give each a part of it by [budget] requests_per_minute and burst"
                )
        return True
