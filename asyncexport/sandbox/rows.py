"""What a row is to the sandbox, and what it asks of whatever has rows.

1. A moment is a number of seconds since 1970, as everywhere. It is compared in whole microseconds: finer than that a
   float of today's size is noise, and a row of 42.178 s must stand on the same side of 42.178 s each time.
2. Ranges are half-open. The rows of `[a, c)` are those of `[a, b)` and those of `[b, c)`, each as often as it is there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

Row = dict[str, Any]
"""One event or one individual, as the JSON object it is sent as."""


@dataclass(frozen=True, slots=True)
class SandboxPageView:
    """One page as somebody saw it.

    Attributes:
        facts: What the rows of its events have in common: whose it is, and what page on what device.
        moments: When its events were, in microseconds since 1970, in order.
    """

    facts: Row
    moments: tuple[int, ...]


class SandboxRows(Protocol):
    """Where event rows come from."""

    def between(self, start: float, end: float, *, arrived_by: float | None = None) -> Iterator[Row]:
        """The rows with start <= EventStart < end, in no order of time, yet in the same order each time.

        Args:
            start: Seconds since 1970.
            end: Likewise; not part of it.
            arrived_by: Leave out what had not reached the service by then.
        """
        ...

    def history(self, start: float, end: float, *, as_of: float) -> Iterator[SandboxPageView | None]:
        """All page views up to `as_of` of everybody who has an event in the range, and maybe of others.

        None stands for a stretch of work that brought no view, so that the caller can pause there.
        """
        ...


def micros(moment: float) -> int:
    """The moment in whole microseconds since 1970."""
    return round(moment * 1_000_000)


def event_stamp(at: int) -> str:
    """A moment, in milliseconds since 1970, as the service writes it."""
    minute, rest = divmod(at, 60_000)
    return f"{_minute(minute)}{rest // 1000:02d}.{rest % 1000:03d}Z"


@lru_cache(maxsize=1 << 12)
def _minute(number: int) -> str:
    return datetime.fromtimestamp(number * 60, UTC).strftime("%Y-%m-%dT%H:%M:")
