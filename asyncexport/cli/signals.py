"""Ctrl-C, SIGTERM, and SIGHUP, which a terminal sends that is closed: it stops as SIGTERM does, unless nohup said no.

1. A run is asked to stop by the first, and told to stop at once by the second; after that the system's own way holds.
2. Any other command has nothing to save: the first ends it.
3. In both cases what was begun is cleaned up: a signal never ends the process from outside of the event loop.
4. When all is done and only readers are waited for, the first ends the wait.
"""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from asyncexport.cli.session import Stopped
from asyncexport.core.exits import Exit

if TYPE_CHECKING:
    from asyncexport.engine.scheduler import Stop

T = TypeVar("T")

REASONS = {
    signal.SIGINT: Exit.INTERRUPTED,
    signal.SIGTERM: Exit.TERMINATED,
    signal.SIGHUP: Exit.TERMINATED,
}

AGAIN = {
    Exit.INTERRUPTED: "press Ctrl-C again to stop at once",
    Exit.TERMINATED: "a second SIGTERM stops it at once",
    Exit.TIME_UP: "Ctrl-C stops it at once",
}


def run_politely(work: "Callable[[Stop], Awaitable[T]]", *, tell: Callable[[Exit], None], heard: list[Exit]) -> T:
    """Run what can be asked to stop.

    Args:
        work: What to run.
        tell: Called when it is asked to stop, with the reason.
        heard: Where the reason of each signal is added, also of one that comes when the work is done.
    """
    from asyncexport.engine.scheduler import Stop

    async def carried_out() -> T:
        stop = Stop()
        loop = asyncio.get_running_loop()

        def on_signal(number: signal.Signals) -> None:
            heard.append(REASONS[number])
            if stop.asked.is_set():
                _leave_to_the_system(loop)
            stop.ask(REASONS[number])

        numbers = _heard()
        for number in numbers:
            loop.add_signal_handler(number, on_signal, number)
        telling = asyncio.create_task(_tell_when_asked(stop, tell))
        try:
            return await work(stop)
        finally:
            telling.cancel()
            _leave_to_the_system(loop)
            _note_late(numbers, heard)

    return asyncio.run(carried_out())


def run_abruptly(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run what has nothing to save.

    Raises:
        Stopped: a signal ended it.
    """
    reasons: list[Exit] = []

    async def carried_out() -> T:
        loop = asyncio.get_running_loop()
        working = asyncio.create_task(work())

        def on_signal(number: signal.Signals) -> None:
            reasons.append(REASONS[number])
            _leave_to_the_system(loop)
            working.cancel()

        for number in _heard():
            loop.add_signal_handler(number, on_signal, number)
        return await working

    try:
        return asyncio.run(carried_out())
    except asyncio.CancelledError:
        if reasons:
            raise Stopped(reasons[0]) from None
        raise


def _note_late(numbers: list[signal.Signals], heard: list[Exit]) -> None:
    """The first signal after the work is only noted, since the end is near; after that the system's own way holds."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        heard.append(REASONS[signal.Signals(number)])
        for one in numbers:
            signal.signal(one, signal.default_int_handler if one is signal.SIGINT else signal.SIG_DFL)

    for one in numbers:
        signal.signal(one, on_signal)


@contextmanager
def stoppable() -> Iterator[None]:
    """Run what may be left at any moment, where no event loop runs.

    Raises:
        Stopped: a signal ended it.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        raise Stopped(REASONS[signal.Signals(number)])

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread hears signals.
        yield
        return
    before = {number: signal.signal(number, on_signal) for number in _heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _tell_when_asked(stop: "Stop", tell: Callable[[Exit], None]) -> None:
    await stop.asked.wait()
    if stop.reason is not None:
        tell(stop.reason)


def _heard() -> list[signal.Signals]:
    """The signals that mean something; a hang-up that whoever started us wants to be ignored is ignored."""
    return [
        number for number in REASONS if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]


def _leave_to_the_system(loop: asyncio.AbstractEventLoop) -> None:
    for number in REASONS:
        loop.remove_signal_handler(number)
