"""Hooks and fixtures for all tests."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import s3_server
from tests.idling import IDLING, LONGEST_SECONDS, Idling, NotingLoop

LINES = pytest.StashKey[list[str]]()

FOREIGN = (
    *("ASYNCEXPORT_", "FULLSTORY_"),  # our own settings and key
    *("AWS_", "AZURE_"),  # object stores
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC", "SSL_CERT_", "SSLKEYLOGFILE"),  # the network
    *("COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TTY_", "COLORTERM", "JUPYTER_"),  # rich
    *("TERMINAL_WIDTH", "TYPER_", "_TYPER_"),  # typer
    *("PYTHONASYNCIODEBUG", "PYTHONWARNINGS", "PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONIOENCODING"),  # Python itself
    "PYTHONDONTWRITEBYTECODE",  # would have each of the hundreds of processes compile all modules again
)
"""Prefixes, in capitals, of environment variables that would change what is tested."""

TIME_ZONE = "ODD-05:45"
"""A time zone that no machine has, so that code which wrongly uses local time fails on every machine."""

# A busy machine may be slow, so there is no deadline. A failure prints how to reproduce it.
hypothesis.settings.register_profile(
    "whole", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("whole"), max_examples=20)


def pytest_configure(config: pytest.Config) -> None:
    """Configure hypothesis and asyncio before the tests are collected."""
    # The quick check tries fewer examples than the complete suite.
    hypothesis.settings.load_profile("quick" if config.option.markexpr == "not slow" else "whole")
    # Otherwise pytest-asyncio would create a loop to restore it afterwards, and would never close it.
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def _neutral_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the user's settings, proxies, terminal, time zone and home from the tests and the processes they start."""
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests may take longest: if one of them came last, it would run alone (.ci/run)."""
    longest: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0.0), marker.args[0] if marker else 0.0)
    items.sort(key=lambda item: -longest[item.path])


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async tests on a loop that records how long it waits."""
    return {"noting": NotingLoop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that idles too long in real time: it should use virtual time or wait for something shorter."""
    IDLING.forget()
    yield
    marker = item.get_closest_marker("may_idle")
    allowed = marker.args[0] if marker else LONGEST_SECONDS
    if IDLING.longest_seconds > allowed:
        pytest.fail(
            f"the test slept for {IDLING.longest_seconds:.3g} s of real time; {allowed:g} s are allowed: "
            "is `on_virtual_time` missing? (tests/idling.py)"
        )


@pytest.fixture
def idling() -> Idling:
    """How long the test has idled so far."""
    return IDLING


@pytest.fixture(scope="session", name="s3_server")
def _s3_server() -> Iterator[s3_server.S3Server]:
    """Run an S3 server for all tests of the process that need one."""
    with s3_server.running() as server:
        yield server


@pytest.fixture(scope="session")
def summary_line(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line at the end of the test run."""
    return request.config.stash.setdefault(LINES, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of a parallel run, pass the lines to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["summary_lines"] = session.config.stash.get(LINES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Collect the lines of a worker."""
    config, output = getattr(node, "config"), getattr(node, "workeroutput", {})  # noqa: B009 - pytest-xdist has no types
    config.stash.setdefault(LINES, []).extend(output.get("summary_lines", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the lines that tests have added."""
    for line in terminalreporter.config.stash.get(LINES, []):
        terminalreporter.write_line(line)


@pytest.fixture
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that the test logs no key and no signature, all of which contain CANARY."""
    caplog.set_level(logging.DEBUG)
    yield
    assert "CANARY" not in caplog.text
