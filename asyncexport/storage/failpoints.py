"""Failpoints: points where a test can watch a write to the disk, make it fail, or kill the process.

1. Every write is announced by its name in the thread that writes: right before it as `NAME:before` and, unless it
   failed, right after it as `NAME:after`.
2. The listener is stored in a context variable. Only tests set it.
3. The threads of a pool do not inherit the context, so a `Disk` reads the listener when it is created.
"""

from collections.abc import Callable
from contextvars import ContextVar


def _ignore(_name: str) -> None:
    """Do nothing: the listener outside of tests."""


STORAGE_FAILPOINT: ContextVar[Callable[[str], None]] = ContextVar("STORAGE_FAILPOINT", default=_ignore)
"""The listener, called with the name of each write. What it raises is raised by the write."""
