"""What all tests share."""

import asyncio


def pytest_configure() -> None:
    """Without a loop set, pytest-asyncio would have one made to put back afterwards, and leave it unclosed."""
    asyncio.set_event_loop(None)
