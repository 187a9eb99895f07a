"""A permit to send one request: the grant, the request's row in the journal, and its answer.

1. A request may be sent once its row is durable. From then on it counts as sent, because it cannot be known later
   whether it reached the service.
2. The answer is reported once, as soon as it arrives and before the permit is released.
3. A permit that is released before its request may have been sent costs nothing. Its row may remain. The next process
   then counts one token too many as used, never one too few.
"""

import asyncio
from collections.abc import Awaitable, Callable

from asyncexport.core.admission import Answer, Grant


class Permit:
    """Permission to send one request.

    Args:
        grant: The grant that the permit is based on.
        recording: Records the request; the result is the id of its row, once that is durable.
        on_answer: Called with the grant, the id of the row and the answer.

    Attributes:
        may_be_sent: Whether the request may have been sent.
        is_answered: Whether the answer was reported.
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
        """Wait until the request's row is durable; it may be sent from then on."""
        await self._recording
        self.may_be_sent = True

    def answered(self, status: int | None, *, retry_after: float | None = None, problem: str = "") -> None:
        """Report the answer (arguments as for `Answer`); only the first call counts."""
        if not self.is_answered:
            self.is_answered = True
            self._on_answer(self._grant, self._recording.result(), Answer(status, retry_after, problem))

    def leave(self) -> None:
        """Stop waiting for the row."""
        self._recording.cancel()


def _note_outcome(recording: "asyncio.Future[int]") -> None:
    """Keep asyncio from printing a failure that is no longer awaited: the next caller gets the same error."""
    if not recording.cancelled():
        recording.exception()
