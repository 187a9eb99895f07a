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
    Exit.INTERRUPTED: "press Ctrl-C again to stop immediately",
    Exit.TERMINATED: "a second signal stops it immediately",
    Exit.TIME_UP: "Ctrl-C stops it immediately",
}


def run_politely(
    work: "Callable[[Stop], Awaitable[T]]", *, tell: Callable[[Exit], None], heard: list[signal.Signals]
) -> T:
    """Run what can be asked to stop.

    Args:
        work: What to run.
        tell: Called when it is asked to stop, with the reason.
        heard: Where each signal is added, also one that comes when the work is done.
    """
    from asyncexport.engine.scheduler import Stop

    async def carried_out() -> T:
        stop = Stop()
        loop = asyncio.get_running_loop()
        done = False

        def on_signal(number: int, _frame: FrameType | None) -> None:
            heard.append(signal.Signals(number))
            if done or len(heard) > 1:
                _leave_to_the_system(numbers)
            if not done:
                loop.call_soon_threadsafe(stop.ask, REASONS[heard[-1]])

        numbers = _heard()
        for number in numbers:
            # Not by the event loop, which loses a signal that comes while its handler is removed.
            signal.signal(number, on_signal)
        telling = asyncio.create_task(_tell_when_asked(stop, tell))
        try:
            return await work(stop)
        finally:
            telling.cancel()
            done = True

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
            for one in numbers:
                loop.remove_signal_handler(one)
            working.cancel()

        numbers = _heard()
        for number in numbers:
            loop.add_signal_handler(number, on_signal, number)
        return await working

    try:
        return asyncio.run(carried_out())
    except asyncio.CancelledError:
        if reasons:
            raise Stopped(reasons[0]) from None
        raise


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
    numbers = _heard()
    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        _leave_to_the_system(numbers)


async def _tell_when_asked(stop: "Stop", tell: Callable[[Exit], None]) -> None:
    await stop.asked.wait()
    if stop.reason is not None:
        tell(stop.reason)


def _heard() -> list[signal.Signals]:
    """The signals that mean something; a hang-up that whoever started us wants to be ignored is ignored."""
    return [
        number for number in REASONS if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]


def _leave_to_the_system(numbers: list[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
