"""Leave to send one request: what it was granted for, its row in the journal, and what came back.

1. A request may be sent once its row is durable, and counts as sent from that moment: nobody can say later whether it
   reached the service.
2. What came back is said once, at once, and before the permit is left.
3. A permit that is left before its request may have been sent costs nothing. Its row may stay: the next process then
   takes one token too many for used, never one too few.
"""

import asyncio
from collections.abc import Awaitable, Callable

from asyncexport.core.admission import Answer, Grant


class Permit:
    """Leave to send one request.

    Args:
        grant: What was granted.
        recording: Puts the request on record; gives the number of its row once that is durable.
        on_answer: Told the number of the row and what came back.

    Attributes:
        may_be_sent: Whether the request may have been sent.
        is_answered: Whether it was said what came back.
    """

    def __init__(
        self, grant: Grant, recording: Awaitable[int], on_answer: Callable[[Grant, int, Answer], None]
    ) -> None:
        self._grant = grant
        self._recording = asyncio.ensure_future(recording)
        self._recording.add_done_callback(_note_outcome)
        self._on_answer = on_answer
        self.may_be_sent = False
        self.is_answered = False

    async def recorded(self) -> None:
        """Wait until the request has its durable row; it may be sent from then on."""
        await self._recording
        self.may_be_sent = True

    def answered(self, status: int | None, *, retry_after: float | None = None, problem: str = "") -> None:
        """Say what came back, as `Answer` takes it; only the first time counts."""
        if not self.is_answered:
            self.is_answered = True
            self._on_answer(self._grant, self._recording.result(), Answer(status, retry_after, problem))

    def leave(self) -> None:
        """Wait for the row no longer."""
        self._recording.cancel()


def _note_outcome(recording: "asyncio.Future[int]") -> None:
    """Keep asyncio from printing a failure that nobody waits for any more: the next caller gets the same error."""
    if not recording.cancelled():
        recording.exception()
