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
    """Remembers since when the service is out of reach, and whether that was told."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._has_warned = False

    def failed(self, error: UnavailableError, *, now: float) -> None:
        """A request could not be answered; `now` is in seconds since 1970."""
        if self._since is None:
            self._since = now
        warns = now - self._since >= WORTH_A_WARNING_SECONDS and not self._has_warned
        self._has_warned = self._has_warned or warns
        log.log(logging.WARNING if warns else logging.INFO, "%s; it is tried again and again", error)

    def answered(self) -> None:
        """A request was answered."""
        if self._has_warned:
            log.warning("the service answers again")
        self._since, self._has_warned = None, False
