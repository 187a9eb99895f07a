"""What time it is at the service.

1. UTC comes from the host's clock once, at the start, and goes on with the monotonic clock: a host whose clock jumps in
   the middle of a run does not matter.
2. It is corrected by the `Date` of the service's first reply: what is settled must not hang on a wrong host clock. A
   date has whole seconds and has travelled, so a clock that is right within that is left alone: requests on record must
   not seem to have been sent earlier than they were.
"""

import asyncio
import logging
import time

log = logging.getLogger(__name__)

WORTH_A_WARNING_SECONDS = 60.0

UNCERTAIN_SECONDS = 3.0
"""What a date may be off by: the second it is cut to, and its way here."""


class ServiceClock:
    """Seconds since 1970 UTC, by the service's clock as far as it is known.

    Attributes:
        is_known: Whether the service has said what time it is. Until then it is this host's word, and nothing that is
            reckoned with it may be kept for later runs.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._base = time.time() - self._loop.time()
        self.is_known = False

    def now(self) -> float:
        """The time at the service."""
        return self._base + self._loop.time()

    def correct(self, seconds: float) -> None:
        """The service's clock is so far ahead of ours, by a date it sent."""
        self.is_known = True
        if abs(seconds) <= UNCERTAIN_SECONDS:
            return
        self._base += seconds
        if abs(seconds) > WORTH_A_WARNING_SECONDS:
            log.warning(
                "this machine's clock is %.0f seconds %s the service's; going by the service's",
                abs(seconds),
                "behind" if seconds > 0 else "ahead of",
            )
