"""Running out of file handles."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def handles_left(count: int) -> Iterator[None]:
    """Let this process open only `count` more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    highest = max(opened, default=0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, 64) + 1, hard))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for file in opened[:count]:
            os.close(file)
        del opened[:count]
        yield
    finally:
        for file in opened:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
