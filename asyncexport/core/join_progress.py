"""How far a joining run is: the run that it waits for, and how much of its share that run has done.

Importing this module is cheap, because events and summaries need it.
"""

from dataclasses import dataclass
from typing import Any

from asyncexport.core.bundles import Bundle, show
from asyncexport.core.states import BundleRecord


@dataclass(frozen=True, slots=True)
class ShareProgress:
    """How much of the share is done.

    Attributes:
        stored: The number of bundles that are stored.
        left: The number of bundles that are neither stored nor parked.
        parked: The parked bundles.
        next_tries: When nightly runs retry these, in seconds since 1970, if nightly runs delay their retries.
    """

    stored: int = 0
    left: int = 0
    parked: tuple[BundleRecord, ...] = ()
    next_tries: tuple[tuple[Bundle, float], ...] = ()

    @property
    def planned(self) -> int:
        """The number of all bundles of the share."""
        return self.stored + self.left + len(self.parked)

    def __add__(self, other: "ShareProgress") -> "ShareProgress":
        """Return the progress of two exports together."""
        return ShareProgress(
            self.stored + other.stored,
            self.left + other.left,
            self.parked + other.parked,
            self.next_tries + other.next_tries,
        )


@dataclass(frozen=True, slots=True)
class JoinedRun:
    """A run that holds the output directory, and that a nightly run has joined; `since` is in seconds since 1970."""

    command: str
    pid: int
    host: str
    since: float

    def to_dict(self) -> dict[str, Any]:
        """Return the run as it is printed."""
        return {"command": self.command or None, "pid": self.pid or None}

    def __str__(self) -> str:
        """Return the text for messages."""
        return f"{self.command}, process {self.pid} on {self.host}, since {show(self.since)}"
