"""An event loop whose clock jumps to the next thing due instead of waiting for it.

Nothing in a simulation touches the world: no thread, no file, no socket. So when nothing is ready to run, the only
thing that can happen next is the earliest timer, and the loop's time may be set to it at once.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TICK_SECONDS = 1e-7
"""What one turn of the loop takes. Without it, a timer due within the rounding of a float would come for ever."""


class Stalled(RuntimeError):  # noqa: N818 - a bug found by the simulation
    """Everybody waits, and nothing will ever happen."""


class _JumpingSelector(selectors.SelectSelector):
    """Moves the clock where another selector would block."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stalled("everybody waits, and nothing will ever happen")
        self.now += max(timeout, TICK_SECONDS)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; it begins at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on virtual time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)
