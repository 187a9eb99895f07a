"""Failpoints of a load: points where a test can watch a change, make it fail, or kill the process.

1. Every change is announced by its name right before it as `NAME:before` and right after it as `NAME:after`.
2. The listener is stored in a context variable. Only tests set it. Threads of a pool do not inherit the context, so
   whoever announces something reads the listener when it is created.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _ignore(_name: str) -> None:
    """Do nothing: the listener outside of tests."""


LOAD_FAILPOINT: ContextVar[Callable[[str], None]] = ContextVar("LOAD_FAILPOINT", default=_ignore)
"""The listener, called with the name of each change. What it raises is raised by the change."""


class Failpoints:
    """Announces changes to the listener of the context in which this is made."""

    def __init__(self) -> None:
        self._listener = LOAD_FAILPOINT.get()

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Announce a change: before it, and after it unless it failed."""
        self._listener(f"{name}:before")
        yield
        self._listener(f"{name}:after")
