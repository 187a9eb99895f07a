"""SIGINT (Ctrl-C), SIGTERM, and SIGHUP, which a closing terminal sends. SIGHUP works like SIGTERM, except under nohup.

1. The first signal asks a run to stop cleanly, the second one to stop immediately. After that the default handlers are
   back in place.
2. Any other command has no state to save: the first signal ends it.
3. In both cases the event loop cleans up: a signal never ends the process from outside the loop.
4. When a command is done and only waits for readers of its output, the first signal ends the wait.
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


def run_gracefully(
    work: "Callable[[Stop], Awaitable[T]]", *, on_stop: Callable[[Exit], None], received: list[signal.Signals]
) -> T:
    """Run work that can be asked to stop.

    Args:
        work: The coroutine function to run.
        on_stop: Called with the reason when the work is asked to stop.
        received: A list to which each signal is added, including one that comes after the work is done.
    """
    from asyncexport.engine.scheduler import Stop

    async def carried_out() -> T:
        stop = Stop()
        loop = asyncio.get_running_loop()
        done = False

        def on_signal(number: int, _frame: FrameType | None) -> None:
            received.append(signal.Signals(number))
            if done or len(received) > 1:
                _restore_defaults(numbers)
            if not done:
                loop.call_soon_threadsafe(stop.ask, REASONS[received[-1]])

        numbers = _handled()
        for number in numbers:
            # Not with `loop.add_signal_handler`, which loses a signal that comes while the handler is being removed.
            signal.signal(number, on_signal)
        waiting = asyncio.create_task(_call_when_asked(stop, on_stop))
        try:
            return await work(stop)
        finally:
            waiting.cancel()
            done = True

    return asyncio.run(carried_out())


def run_interruptibly(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run work that has no state to save; the first signal cancels it.

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

        numbers = _handled()
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
def interruptible() -> Iterator[None]:
    """Let a signal interrupt the body of the `with` statement; for code without an event loop.

    Raises:
        Stopped: a signal ended it.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        raise Stopped(REASONS[signal.Signals(number)])

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread receives signals.
        yield
        return
    numbers = _handled()
    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        _restore_defaults(numbers)


async def _call_when_asked(stop: "Stop", on_stop: Callable[[Exit], None]) -> None:
    await stop.asked.wait()
    if stop.reason is not None:
        on_stop(stop.reason)


def _handled() -> list[signal.Signals]:
    """Return the signals to handle: not SIGHUP if it is ignored already, as under nohup."""
    return [
        number for number in REASONS if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]


def _restore_defaults(numbers: list[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
