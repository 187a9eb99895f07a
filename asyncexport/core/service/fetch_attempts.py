"""The attempts to fetch one file, and which of them count against it.

1. A corrupt file counts. So does an incomplete one, unless it got further than any attempt before it.
2. A refusal, a dead link and an outage do not count: they say nothing about the file.
"""

from dataclasses import dataclass, field

from asyncexport.core.service.refusals import BundleFailures
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.service.retrying import REFUSALS, Call, Failure

PROGRESS_BYTES = 1024 * 1024
"""An incomplete download that got this much further than any before it does not count as a failed attempt."""

LINK_MARGIN_SECONDS = 15.0
"""A link that expires sooner than this is not used any more: the download has to begin before it expires."""

DEAD_LINKS = 2
"""When this many new links in a row turn out to be dead, that is treated as a refusal by the storage host."""


@dataclass(slots=True)
class FetchAttempts:
    """How the attempts to fetch one file went.

    Attributes:
        allowed: How many attempts may fail through the file's own fault.
        link: The link in use, if there is one.
        call: The call that was sent last.
        failed_in_a_row: How many attempts failed in a row, for any reason; sets the back-off.
        counted: How many of these were the file's own fault.
        farthest: Bytes received by the best of the incomplete attempts.
        failures: The failures in a row of each kind of call (results calls and downloads).
    """

    allowed: int
    link: DownloadLink | None = None
    call: Call = Call.RESULTS
    failed_in_a_row: int = 0
    counted: int = 0
    farthest: int = 0
    failures: dict[Call, BundleFailures] = field(default_factory=dict)

    @property
    def retries_left(self) -> bool:
        """Whether the file may be fetched again."""
        return self.counted < self.allowed

    def link_lives(self, now: float) -> bool:
        """Whether the link may be used again."""
        return self.link is not None and (
            self.link.expires_at is None or now < self.link.expires_at - LINK_MARGIN_SECONDS
        )

    def failures_of_call(self, now: float) -> BundleFailures:
        """Return the failures in a row of the call that was sent last; a new series begins now."""
        return self.failures.setdefault(self.call, BundleFailures(now))

    def succeeded(self) -> None:
        """Note that the call that was sent last succeeded."""
        self.failures.pop(self.call, None)

    def failed(self, failure: Failure, *, now: float, received: int = 0) -> BundleFailures:
        """Note a failed attempt, and return the series of failures it belongs to.

        Args:
            failure: How it failed.
            now: The time, in seconds.
            received: Bytes of the file received so far.
        """
        series = self.failures_of_call(now)
        series.failed(failure, now)
        self.failed_in_a_row += 1
        if failure not in (Failure.INCOMPLETE, Failure.UNAVAILABLE, Failure.RATE_LIMITED):
            self.link = None
        if failure in (Failure.INCOMPLETE, Failure.CORRUPT, Failure.NO_EXPORT):
            if received >= self.farthest + PROGRESS_BYTES:
                self.farthest = received
                self.failed_in_a_row = self.counted = 0
            self.counted += 1
        return series

    def is_refusal(self, failure: Failure, now: float) -> bool:
        """Whether all bundles may be failing this way, so that such calls are to be probed."""
        if failure is Failure.DEAD_LINK:
            return self.failures_of_call(now).count + 1 >= DEAD_LINKS
        return failure in REFUSALS or failure is Failure.UNREADABLE
