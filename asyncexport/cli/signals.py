"""SIGINT (Ctrl-C), SIGTERM, and SIGHUP, which a closing terminal sends. SIGHUP works like SIGTERM, except under nohup.

1. The first signal asks a run to stop cleanly, the second one to stop immediately. After that the default handlers are
   back in place.
2. Any other command has no state to save: the first signal ends it.
3. In both cases the event loop cleans up: a signal never ends the process from outside the loop.
4. When a command is done and only waits for readers of its output, the first signal ends the wait.
5. A signal that comes before one of these handlers is there was noted (`early_signals`) and has the same effect.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from asyncexport.cli.early_signals import handled, kept_handlers, restore_defaults
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
                restore_defaults(numbers)
            if not done:
                loop.call_soon_threadsafe(stop.ask, REASONS[received[-1]])

        numbers = handled()
        for number in numbers:
            # Not with `loop.add_signal_handler`, which loses a signal that comes while the handler is being removed.
            signal.signal(number, on_signal)
        if received:
            stop.ask(REASONS[received[0]])
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

        numbers = handled()
        for number in numbers:
            loop.add_signal_handler(number, on_signal, number)
        return await working

    try:
        # The event loop leaves the default handlers behind.
        with kept_handlers():
            return asyncio.run(carried_out())
    except asyncio.CancelledError:
        if reasons:
            raise Stopped(reasons[0]) from None
        raise


@contextmanager
def interruptible(received: list[signal.Signals] | None = None) -> Iterator[None]:
    """Let a signal interrupt the body of the `with` statement; for code without an event loop.

    Args:
        received: Signals that came before, each of which counts as if it came now; others are added to it.

    Raises:
        Stopped: a signal ended it.
    """
    noted = [] if received is None else received

    def on_signal(number: int, _frame: FrameType | None) -> None:
        noted.append(signal.Signals(number))
        raise Stopped(REASONS[noted[-1]])

    with kept_handlers() as numbers:
        for number in numbers:
            signal.signal(number, on_signal)
        if noted:
            raise Stopped(REASONS[noted[0]])
        yield


async def _call_when_asked(stop: "Stop", on_stop: Callable[[Exit], None]) -> None:
    await stop.asked.wait()
    if stop.reason is not None:
        on_stop(stop.reason)
