"""Signals that come while the program is being loaded: noted here, so that it ends with its summary all the same.

Importing this module is cheap. What a signal leads to is in `signals`.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def handled() -> list[signal.Signals]:
    """Return the signals to handle: not SIGHUP if it is ignored already, as under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])]


@contextmanager
def kept_handlers() -> Iterator[list[signal.Signals]]:
    """Bring the handlers back at the end that there were before; yield the signals to handle."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread receives signals.
        yield []
        return
    before = {number: signal.getsignal(number) for number in handled()}
    try:
        yield list(before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def noted_signals() -> Iterator[list[signal.Signals]]:
    """Note signals in the list that is yielded. The second one ends the process."""
    received: list[signal.Signals] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        if len(received) > 1:
            restore_defaults(numbers)

    with kept_handlers() as numbers:
        for number in numbers:
            signal.signal(number, on_signal)
        yield received


def restore_defaults(numbers: list[signal.Signals]) -> None:
    """Let the next signal end the process."""
    for number in numbers:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
