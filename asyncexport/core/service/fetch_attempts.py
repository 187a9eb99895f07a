"""The tries to fetch one file, and which of them count.

1. A damaged file counts as a try. So does a cut one, unless it got further than any before it.
2. A refusal, a dead link and an outage do not count: they say nothing about the file.
"""

from dataclasses import dataclass, field

from asyncexport.core.service.refusals import BundleTrouble
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.service.retrying import REFUSALS, Call, CameBack

PROGRESS_BYTES = 1024 * 1024
"""A cut download that got this much further than any before it does not count as a try."""

LINK_MARGIN_SECONDS = 15.0
"""A link that is about to expire is not used again; getting a fresh one takes a moment, too."""

DEAD_LINKS = 2
"""When this many fresh links in a row lead nowhere, that is treated as a refusal by the storage host."""


@dataclass(slots=True)
class FetchAttempts:
    """What is known of the tries.

    Attributes:
        allowed: How many tries may fail by the file's own fault.
        link: The link in use, where there is one.
        call: What was asked last.
        tries: How many failed in a row, for any reason: the back-off goes by it.
        counted: How many of these were the file's own fault.
        farthest: How many bytes the best of the cut tries got.
        troubles: Since when the link, and the file, cannot be had.
    """

    allowed: int
    link: DownloadLink | None = None
    call: Call = Call.RESULTS
    tries: int = 0
    counted: int = 0
    farthest: int = 0
    troubles: dict[Call, BundleTrouble] = field(default_factory=dict)

    @property
    def tries_left(self) -> bool:
        """Whether the file may be tried again."""
        return self.counted < self.allowed

    def link_lives(self, now: float) -> bool:
        """Whether the link may be used again."""
        return self.link is not None and (
            self.link.expires_at is None or now < self.link.expires_at - LINK_MARGIN_SECONDS
        )

    def trouble(self, now: float) -> BundleTrouble:
        """The trouble with what was asked last, which began now if it is a new one."""
        return self.troubles.setdefault(self.call, BundleTrouble(now))

    def went_well(self) -> None:
        """What was asked last was had."""
        self.troubles.pop(self.call, None)

    def failed(self, came_back: CameBack, *, now: float, received: int = 0) -> BundleTrouble:
        """A try failed; `received`: how many bytes of the file have come. The trouble it belongs to."""
        trouble = self.trouble(now)
        trouble.failed(came_back, now)
        self.tries += 1
        if came_back not in (CameBack.CUT, CameBack.TROUBLE, CameBack.TOO_OFTEN):
            self.link = None
        if came_back in (CameBack.CUT, CameBack.BAD_FILE, CameBack.NO_EXPORT):
            if received >= self.farthest + PROGRESS_BYTES:
                self.farthest = received
                self.tries = self.counted = 0
            self.counted += 1
        return trouble

    def is_refusal(self, came_back: CameBack, now: float) -> bool:
        """Whether a try that failed so may be what all bundles get, and is to be probed."""
        if came_back is CameBack.DEAD_LINK:
            return self.trouble(now).tries + 1 >= DEAD_LINKS
        return came_back in REFUSALS or came_back is CameBack.UNREADABLE
