"""Failpoints: points where a test can watch a change to the ledger's files, make it fail, or kill the process.

1. Each change is announced by its name, right before it as `NAME:before` and right after it as `NAME:after`:
   `ledger.create`, when a new ledger is renamed to its final name; `ledger.commit`; `ledger.aside`, for each file that
   is set aside; `ledger.place`, when a rebuilt ledger is renamed to its final name; `ledger.copy`, when the copy of an
   earlier version's ledger is renamed to its final name; `ledger.migrate`, when the migration is committed. Two changes
   are only announced before: `ledger.folder.fsync`, and `lock`, for each of the two attempts to take it.
2. The listener is stored in a context variable. Only tests set it.
3. A thread does not inherit the context, so the ledger's thread runs in a copy of the context that created it.
"""

from collections.abc import Callable
from contextvars import ContextVar


def _ignore(_name: str) -> None:
    """Do nothing: the listener outside of tests."""


LEDGER_FAILPOINT: ContextVar[Callable[[str], None]] = ContextVar("LEDGER_FAILPOINT", default=_ignore)
"""The listener, called with the name of each change. What it raises before a change is raised instead of the change."""


def reached(name: str) -> None:
    """Announce a failpoint."""
    LEDGER_FAILPOINT.get()(name)
