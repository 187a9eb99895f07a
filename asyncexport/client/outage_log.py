"""What is logged while the service is out of reach: a warning with the reason, once, and its return.

Requests are tried again for hours. A failure is a warning only when the service has been out of reach for
`WORTH_A_WARNING_SECONDS`; until then, and after the one warning, it is told to those who want to know all.
"""

import logging

from asyncexport.errors import UnavailableError

log = logging.getLogger(__name__)

WORTH_A_WARNING_SECONDS = 30.0
"""Out of reach for so long is more than a hiccup, which nobody needs to hear of."""


class OutageLog:
    """Remembers since when the service is out of reach, and why.

    Attributes:
        reason: Why the newest request failed; "" where it was answered.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._since = 0.0
        self._has_warned = False

    def failed(self, error: UnavailableError, *, now: float) -> None:
        """A request could not be answered; `now` is in seconds since 1970."""
        self._since = self._since if self.reason else now
        self.reason = str(error)
        warns = now - self._since >= WORTH_A_WARNING_SECONDS and not self._has_warned
        self._has_warned = self._has_warned or warns
        log.log(logging.WARNING if warns else logging.INFO, "%s; it is tried again and again", error)

    def answered(self) -> None:
        """A request was answered."""
        if self._has_warned:
            log.warning("the service answers again")
        self.reason, self._has_warned = "", False
