"""Failpoints: where a test can watch a change to the ledger's files, make it fail, or kill the process.

1. Each is announced by its name, right before the change as `NAME:before` and right after it as `NAME:after`:
   `ledger.create`, when a new ledger gets its name; `ledger.commit`; `ledger.aside`, for each file that is set aside;
   `ledger.place`, when a rebuilt ledger gets its name; `ledger.copy`, when the copy of an earlier version's ledger gets
   its name; `ledger.migrate`, when that ledger's migration is committed. Of two, only the first half is announced:
   `ledger.folder.fsync`, and `lock`, for each of the two tries at it.
2. Who is told stands in a context variable. The program itself never sets it, so that nobody listens outside of tests.
3. A thread does not inherit the context: the ledger's thread runs in a copy of the one that it was made in.
"""

from collections.abc import Callable
from contextvars import ContextVar


def _nobody_listens(_name: str) -> None:
    """What is told outside of tests."""


LEDGER_FAILPOINT: ContextVar[Callable[[str], None]] = ContextVar("LEDGER_FAILPOINT", default=_nobody_listens)
"""Who is told. What it raises is raised in place of the change."""


def reached(name: str) -> None:
    """Tell that a failpoint is reached."""
    LEDGER_FAILPOINT.get()(name)
