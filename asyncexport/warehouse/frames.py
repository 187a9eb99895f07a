"""Messages between a load and its workers: a length of eight bytes, then the value, pickled.

Both ends are this program on this machine, so pickle is safe.
"""

import asyncio
import pickle
from typing import Any, BinaryIO

LENGTH_BYTES = 8


def frame(value: Any) -> bytes:
    """Return a value as a message."""
    data = pickle.dumps(value)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def read_frame(file: BinaryIO) -> Any:
    """Read a message.

    Raises:
        EOFError: the other end has closed the pipe.
    """
    return pickle.loads(_exactly(file, int.from_bytes(_exactly(file, LENGTH_BYTES), "big")))  # noqa: S301 - see above


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


async def receive_frame(reader: asyncio.StreamReader) -> Any:
    """Read a message in the event loop.

    Raises:
        asyncio.IncompleteReadError: the other end has closed the pipe.
    """
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    return pickle.loads(await reader.readexactly(length))  # noqa: S301 - see above
