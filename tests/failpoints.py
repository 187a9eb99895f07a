"""Listening to the failpoints of the storage and the ledger."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asyncexport.ledger.failpoints import LEDGER_FAILPOINT
from asyncexport.storage.failpoints import STORAGE_FAILPOINT


@contextmanager
def at_failpoints(listener: Callable[[str], None]) -> Iterator[None]:
    """Call the listener at every failpoint of objects created within; it may observe, raise, or kill the process."""
    variables = STORAGE_FAILPOINT, LEDGER_FAILPOINT
    tokens = [variable.set(listener) for variable in variables]
    try:
        yield
    finally:
        for variable, token in zip(variables, tokens, strict=True):
            variable.reset(token)
