"""What all tests share."""

import asyncio
from collections.abc import Callable

import pytest

TOLD = pytest.StashKey[list[str]]()


def pytest_configure() -> None:
    """Without a loop set, pytest-asyncio would have one made to put back afterwards, and leave it unclosed."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a line at the end of it all: what was counted."""
    return request.config.stash.setdefault(TOLD, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests wanted to be said."""
    for line in terminalreporter.config.stash.get(TOLD, []):
        terminalreporter.write_line(line)
