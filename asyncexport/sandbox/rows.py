"""What a row is, and the interface of a source of rows.

1. Times are seconds since 1970. They are compared in whole microseconds, because a float of today's size is not more
   precise, and a row at 42.178 s must always be on the same side of the bound 42.178 s.
2. Ranges are half-open. The rows of `[a, c)` are exactly those of `[a, b)` plus those of `[b, c)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

Row = dict[str, Any]
"""One event or one individual, as a JSON object."""


@dataclass(frozen=True, slots=True)
class SandboxPageView:
    """A page view.

    Attributes:
        facts: The members that all rows of its events share, such as visitor, page and device.
        moments: The times of its events in microseconds since 1970, in order.
    """

    facts: Row
    moments: tuple[int, ...]


class SandboxRows(Protocol):
    """A source of event rows."""

    def between(self, start: float, end: float, *, arrived_by: float | None = None) -> Iterator[Row]:
        """Return the rows with start <= EventStart < end, not sorted by time but always in the same order.

        Args:
            start: Start of the range in seconds since 1970.
            end: End of the range, exclusive.
            arrived_by: If given, rows that reached the service later are left out.
        """
        ...

    def history(self, start: float, end: float, *, as_of: float) -> Iterator[SandboxPageView | None]:
        """Yield all page views up to `as_of` of everyone with an event in the range, and possibly of others.

        It also yields None during long work without a page view, so that the caller can pause there.
        """
        ...


def micros(moment: float) -> int:
    """Return a time in whole microseconds since 1970."""
    return round(moment * 1_000_000)


def event_stamp(at: int) -> str:
    """Return a time, given in milliseconds since 1970, as the service writes it."""
    minute, rest = divmod(at, 60_000)
    return f"{_minute(minute)}{rest // 1000:02d}.{rest % 1000:03d}Z"


@lru_cache(maxsize=1 << 12)
def _minute(number: int) -> str:
    return datetime.fromtimestamp(number * 60, UTC).strftime("%Y-%m-%dT%H:%M:")
