"""An event loop that records how long a test waited for nothing, because tests must not sleep in real time.

A wait counts with its requested time if that passed without an event. The real duration does not count, so that a busy
machine changes nothing. A timeout that was not reached does not count either.
"""

import asyncio
import selectors
from dataclasses import dataclass

LONGEST_SECONDS = 2.0
"""The longest single wait of a test, unless it is marked with `pytest.mark.may_idle(seconds)`."""


@dataclass(slots=True)
class Idling:
    """The time that the event loops of a test waited without an event."""

    longest_seconds: float = 0.0
    total_seconds: float = 0.0

    def note(self, seconds: float) -> None:
        """Record a wait that ended without an event."""
        self.longest_seconds = max(self.longest_seconds, seconds)
        self.total_seconds += seconds

    def forget(self) -> None:
        """Start from zero for the next test."""
        self.longest_seconds = self.total_seconds = 0.0


IDLING = Idling()
"""The record of the current test."""


class _NotingSelector(selectors.DefaultSelector):
    """Records each wait that ended because its timeout was reached."""

    def __init__(self, idling: Idling) -> None:
        super().__init__()
        self._idling = idling

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        if timeout is not None and timeout > 0 and not ready:
            self._idling.note(timeout)
        return ready


class NotingLoop(asyncio.SelectorEventLoop):
    """The event loop of every async test that is not on virtual time."""

    def __init__(self, idling: Idling = IDLING) -> None:
        super().__init__(_NotingSelector(idling))
