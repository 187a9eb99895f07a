"""An event loop whose clock jumps to the next timer instead of waiting for it.

A simulation uses no threads, files or sockets. So when no task is ready to run, the next thing that can happen is the
earliest timer, and the loop's time can be set to it immediately.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TICK_SECONDS = 1e-7
"""Time that one iteration of the loop takes at least.

Otherwise a timer due in less than a float can resolve would never become due.
"""


class Stalled(RuntimeError):  # noqa: N818 - a bug found by the simulation
    """All tasks wait, and no timer is set that could wake one."""


class _JumpingSelector(selectors.SelectSelector):
    """Advances the clock instead of blocking."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stalled("all tasks wait, and no timer is set that could wake one")
        self.now += max(timeout, TICK_SECONDS)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, which starts at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._jumping.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion on virtual time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)
