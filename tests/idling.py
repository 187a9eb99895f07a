"""An event loop that notes how long it was asked to do nothing: a test must not sleep for time it could skip.

What counts is the time that was asked for, where it passed and nothing happened in it. How long it really took does
not count, so that a busy machine changes nothing. A limit that did not come to pass counts nothing either.
"""

import asyncio
import selectors
from dataclasses import dataclass

LONGEST_SECONDS = 2.0
"""What a test may wait for in one piece; a test that has to wait longer says so by `pytest.mark.may_idle(seconds)`."""


@dataclass(slots=True)
class Idling:
    """What the loops of a test waited for in vain."""

    longest_seconds: float = 0.0
    total_seconds: float = 0.0

    def note(self, seconds: float) -> None:
        """A wait of so many seconds came to its end, and nothing had happened."""
        self.longest_seconds = max(self.longest_seconds, seconds)
        self.total_seconds += seconds

    def forget(self) -> None:
        """Begin anew, for the next test."""
        self.longest_seconds = self.total_seconds = 0.0


IDLING = Idling()
"""That of the test under way."""


class _NotingSelector(selectors.DefaultSelector):
    """Notes each wait that ended because its time was up."""

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
