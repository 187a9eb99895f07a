"""What all tests share."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from tests.idling import IDLING, LONGEST_SECONDS, Idling, NotingLoop

TOLD = pytest.StashKey[list[str]]()

FOREIGN = (
    *("ASYNCEXPORT_", "FULLSTORY_"),  # our own settings and key
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC", "SSL_CERT_", "SSLKEYLOGFILE"),  # the network
    *("COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TTY_", "COLORTERM", "JUPYTER_"),  # rich
    *("TERMINAL_WIDTH", "TYPER_", "_TYPER_"),  # typer
    *("PYTHONASYNCIODEBUG", "PYTHONWARNINGS", "PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONIOENCODING"),  # Python itself
)
"""Beginnings of the names of variables that would change what is tested, written in capitals."""

TIME_ZONE = "ODD-05:45"
"""No machine's own, so that whatever goes by local time shows on every machine."""

# A busy machine is slow, and that is no fault of what is tested. How to see the same again is told with a failure.
hypothesis.settings.register_profile(
    "whole", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("whole"), max_examples=20)


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is read."""
    # The check of a minute tries fewer examples, the whole suite as many as ever.
    hypothesis.settings.load_profile("quick" if config.option.markexpr == "not slow" else "whole")
    # Without a loop set, pytest-asyncio would have one made to put back afterwards, and leave it unclosed.
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def _environment_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes they start, see nothing of who runs them: no settings, proxy, terminal, zone or home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith(FOREIGN)]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TZ", TIME_ZONE)
        time.tzset()
        mask = os.umask(0o022)
        yield
        os.umask(mask)
    time.tzset()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Async tests run on a loop that notes what it waits for."""
    return {"noting": NotingLoop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that waits in vain for longer than it may has failed: it should be on virtual time, or wait for less."""
    IDLING.forget()
    yield
    marker = item.get_closest_marker("may_idle")
    allowed = marker.args[0] if marker else LONGEST_SECONDS
    if IDLING.longest_seconds > allowed:
        pytest.fail(
            f"it slept for {IDLING.longest_seconds:.3g} s of real time, and may for {allowed:g} s: "
            "is `on_virtual_time` missing? (tests/idling.py)"
        )


@pytest.fixture
def idling() -> Idling:
    """What the test has waited for so far."""
    return IDLING


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a line at the end of it all: what was counted."""
    return request.config.stash.setdefault(TOLD, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run side by side, pass on to the process that talks what is to be said."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["told"] = session.config.stash.get(TOLD, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over what a worker has to say."""
    config, output = getattr(node, "config"), getattr(node, "workeroutput", {})  # noqa: B009 - pytest-xdist has no types
    config.stash.setdefault(TOLD, []).extend(output.get("told", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests wanted to be said."""
    for line in terminalreporter.config.stash.get(TOLD, []):
        terminalreporter.write_line(line)


@pytest.fixture
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The test, whatever goes wrong in it, leaves no key and no signature in a log: each has CANARY in it."""
    caplog.set_level(logging.DEBUG)
    yield
    assert "CANARY" not in caplog.text
