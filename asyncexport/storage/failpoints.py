"""Failpoints: where a test can watch a write to the disk, make it fail, or kill the process.

1. Every write is announced by its name: right before it as `NAME:before`, right after it, unless it failed, as
   `NAME:after`; in the thread that writes.
2. Who is told stands in a context variable. The program itself never sets it, so that nobody listens outside of tests.
3. The threads of a pool do not inherit the context: a `Disk` takes the listener when it is made.
"""

from collections.abc import Callable
from contextvars import ContextVar


def _nobody_listens(_name: str) -> None:
    """What is told outside of tests."""


STORAGE_FAILPOINT: ContextVar[Callable[[str], None]] = ContextVar("STORAGE_FAILPOINT", default=_nobody_listens)
"""Who is told of each write. What it raises is raised by the write."""
