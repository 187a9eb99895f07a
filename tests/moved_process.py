"""Runs the command line on a host whose clock is moved, and whose disk may become full.

`python -m tests.moved_process SECONDS WRITES ARGUMENT...` adds SECONDS to the time of day and to the machine's uptime.
After WRITES writes of the storage the disk is full; 0 means that it has room.
"""

import errno
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.failpoints import at_failpoints


def move_clock(seconds: float) -> None:
    """Move the clocks of this process. Only the monotonic clock stays, which asyncio waits with."""
    wall, clock = time.time, time.clock_gettime
    time.time = lambda: wall() + seconds
    time.clock_gettime = lambda which: clock(which) + seconds


def full_after(writes: int) -> Callable[[str], None]:
    """Return a listener for failpoints under which this many writes succeed, and the following ones fail."""
    left = writes

    def fill(name: str) -> None:
        nonlocal left
        if name.startswith(("ledger", "lock")) or not name.endswith(":before"):
            return
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fill


def main() -> int:
    """Run the command line."""
    seconds, writes, *arguments = sys.argv[1:]
    move_clock(float(seconds))
    # The command line is loaded afterwards, so that no module keeps the real clock.
    from asyncexport.cli import main as command_line  # noqa: PLC0415

    sys.argv[1:] = arguments
    with ExitStack() as stack:
        if int(writes):
            stack.enter_context(at_failpoints(full_after(int(writes))))
        return command_line()


if __name__ == "__main__":
    sys.exit(main())
