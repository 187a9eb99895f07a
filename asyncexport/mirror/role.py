"""Asks whether there is a service that gives this machine the key of its role."""

import asyncio
from contextlib import suppress

SECONDS = 3.0
"""How long the service may take to accept a connection; it runs on the same host."""


async def answers(service: tuple[str, int]) -> bool:
    """Whether the service at a host and port accepts connections."""
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(*service)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
