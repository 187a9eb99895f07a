"""What is logged while the service is unreachable: one warning with the reason, and one when it answers again.

Requests are retried for hours. A failure is logged as a warning once the service has been unreachable for
`WORTH_A_WARNING_SECONDS`. Before that, and after that one warning, failures are logged at level INFO.
"""

import logging

from asyncexport.errors import UnavailableError

log = logging.getLogger(__name__)

WORTH_A_WARNING_SECONDS = 30.0
"""Shorter outages are not worth a warning."""


class OutageLog:
    """Remembers since when the service has been unreachable, and whether a warning was logged."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._has_warned = False

    def failed(self, error: UnavailableError, *, now: float) -> None:
        """Log that a request got no answer; `now` is in seconds since 1970."""
        if self._since is None:
            self._since = now
        warns = now - self._since >= WORTH_A_WARNING_SECONDS and not self._has_warned
        self._has_warned = self._has_warned or warns
        log.log(logging.WARNING if warns else logging.INFO, "%s; retrying", error)

    def answered(self) -> None:
        """Log that a request was answered, if a warning was logged before."""
        if self._has_warned:
            log.warning("the service answers again")
        self._since, self._has_warned = None, False
