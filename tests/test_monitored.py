"""Runs that are reported: pings, the text file, and metrics that are served; none of them ever harms a run."""

import asyncio
import json
import logging
import os
import re
import socket
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import asyncexport
from asyncexport import Exit, Summary
from asyncexport.core.summary import Tally
from asyncexport.errors import UnauthorizedError
from asyncexport.run.monitored import monitored, report_end
from asyncexport.run.pings import MOST_BODY_BYTES, RunPings
from asyncexport.run.spec import Nightly
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests import raw_server
from tests.exporting import QUICK
from tests.raw_server import http, sends, stays_silent_after

QUIET = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4)

PATH = "/ping/2f5CANARY-1234-4c5d"

RANGE: dict[str, Any] = {"start": "2026-01-01", "end": "2026-01-01T02:00:00Z"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serving(QUIET) as found:
        yield found


def settings_for(sandbox: Sandbox, directory: Path, **flags: Any) -> asyncexport.Settings:
    """Return settings for a sandbox; in the names of flags, `__` stands for a dot."""
    known = {f"{table}.{key}": value for table, keys in QUICK.items() for key, value in keys.items()}
    known |= {"api.base_url": sandbox.url, "output.directory": directory / "exports", "ping.timeout": "2s"}
    known |= {name.replace("__", "."): value for name, value in flags.items()}
    return asyncexport.load_settings(environ={}, flags=known, working_directory=directory)


def pings(server: raw_server.Server) -> list[tuple[str, dict[str, Any]]]:
    """Return what came after the configured path, and the body of each ping."""
    found = []
    for request in server.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        assert method == "POST"
        assert b"Authorization" not in head
        assert path.startswith(PATH)
        found.append((path.removeprefix(PATH), json.loads(body)))
    return found


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings, none of which may contain the secret URL."""
    assert "CANARY" not in caplog.text
    ours = [one for one in caplog.records if one.name.startswith("asyncexport")]
    return [one.getMessage() for one in ours if one.levelno >= logging.WARNING]


# Pings


async def test_a_run_pings_its_start_and_its_success(tmp_path, sandbox, caplog):
    """The last ping has the summary as its body; the key and the URL are nowhere in either."""
    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}")
        summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
    (start, first), (end, last) = pings(server)
    assert (start, end) == ("/start", "")
    assert first == {"command": "backfill"}
    assert last == summary.to_dict()
    assert "CANARY" not in repr(settings)
    assert sandbox.key.encode() not in b"".join(server.requests)
    assert warnings(caplog) == []


async def test_a_run_that_fails_pings_its_failure(tmp_path, sandbox):
    """The body says why; a query of the URL stays behind its path."""
    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}/?rid=1")
        summary = await asyncexport.backfill(settings, **RANGE, key="na1.wrong-key-of-nobody")
    assert summary.exit_code is Exit.KEY_REFUSED
    assert [one for one, _ in pings(server)] == ["/start?rid=1", "/fail?rid=1"]
    assert pings(server)[1][1]["error"] == str(summary.error)


async def test_a_run_that_stops_at_its_maximum_duration_is_a_success(tmp_path, sandbox):
    """Exit code 9 after --max-duration is how such a run should end; without it, 9 is a failure."""
    sandbox.behave(SandboxBehaviour(operation_seconds=3600))
    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}")
        summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key, max_duration=0.2)
        assert summary.exit_code is Exit.TIME_UP
        assert [one for one, _ in pings(server)] == ["/start", ""]
        await report_end(settings, Nightly(settings.exports), summary, RunPings(settings, None))
    assert [one for one, _ in pings(server)][2:] == ["/fail"]


async def test_an_end_that_is_not_settled_is_no_success_of_a_run_with_a_maximum_duration(tmp_path, sandbox):
    """Such a run ends with 9 before its maximum duration, and the interval that was asked for is not complete."""
    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}")
        order: dict[str, Any] = {"start": "36h", "end": "24h", "require_end": True, "max_duration": "1h"}
        summary = await asyncexport.backfill(settings, **order, key=sandbox.key)
    assert (summary.exit_code, summary.tally.unfinished) == (Exit.TIME_UP, 0)
    assert [one for one, _ in pings(server)] == ["/start", "/fail"]


async def test_a_run_that_cannot_begin_pings_its_failure(tmp_path, sandbox, monkeypatch):
    """Without an API key there is no run, and the monitoring service is told so."""
    monkeypatch.delenv("FULLSTORY_API_KEY", raising=False)
    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}")
        with pytest.raises(UnauthorizedError):
            await asyncexport.nightly(settings)
    assert [one for one, _ in pings(server)] == ["/fail"]
    assert pings(server)[0][1]["exit_code"] == Exit.KEY_REFUSED


async def test_a_bug_pings_a_failure_and_is_raised(tmp_path, sandbox):
    """An unexpected exception is reported without its text, which may contain secrets."""

    async def work() -> Summary:
        raise ZeroDivisionError("CANARY")

    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}")
        with pytest.raises(ZeroDivisionError):
            await monitored(settings, Nightly(settings.exports), work, key=None)
    assert pings(server)[1] == (
        "/fail",
        {"command": "nightly", "exit_code": 1, "error": "unexpected ZeroDivisionError"},
    )


async def test_a_cancelled_run_reports_nothing_more(tmp_path, sandbox):
    """A run that is cancelled ends immediately; its last ping never comes."""
    sandbox.behave(SandboxBehaviour(operation_seconds=3600))
    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}")
        task = asyncio.create_task(asyncexport.backfill(settings, **RANGE, key=sandbox.key))
        while not server.requests or not sandbox.counts.get("create"):  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [one for one, _ in pings(server)] == ["/start"]


FAULTS: dict[str, tuple[raw_server.Answer, str, int]] = {
    "refused": (sends(http(b"not found", "404 Not Found")), "127.0.0.1 answered 404", 2),
    "moved": (sends(http(b"", "301 Moved", Location="https://elsewhere")), "127.0.0.1 answered 301", 2),
    "failed": (sends(http(b"", "503 Down")), "127.0.0.1 answered 503", 4),
    "cut": (sends(b"HTTP/1.1 200", reset=True), "the connection to 127.0.0.1 was lost before it answered", 4),
    "not HTTP": (sends(b"hello\r\n\r\n"), "the answer of 127.0.0.1 is not valid HTTP", 2),
    "silent": (stays_silent_after(), "127.0.0.1 did not answer in time", 3),
}


@pytest.mark.may_idle(1.0)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_ping_that_fails_is_one_warning(tmp_path, sandbox, caplog, fault):
    """It is sent twice if that may help, delays the run by less than its time limit, and fails nothing."""
    answer, message, attempts = FAULTS[fault]
    time = asyncio.get_running_loop().time
    async with raw_server.serving(answer) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}", ping__timeout="600ms")
        began = time()
        summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
        delay = time() - began - summary.seconds
    assert summary.exit_code is Exit.DONE
    (warning,) = warnings(caplog)
    assert re.fullmatch(rf"the (start|end) of the run could not be reported to \[ping\] url: {message}", warning)
    assert attempts - 1 <= len(server.requests) <= 4
    assert delay < 0.6 + 1.0 + 1.0, "the time limit, the wait for the first ping, and a slow machine"


async def test_a_ping_is_repeated_once(tmp_path, sandbox, caplog):
    """A failure that passes costs one more attempt and no warning."""
    ok = sends(http(b"OK"))
    async with raw_server.serving(ok, sends(http(b"", "502 Bad Gateway")), ok) as server:
        settings = settings_for(sandbox, tmp_path, ping__url=f"{server.url}{PATH}")
        await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
    assert [one for one, _ in pings(server)] == ["/start", "", ""]
    assert warnings(caplog) == []


async def test_a_long_summary_is_shortened(tmp_path, sandbox):
    """A body that the service would cut keeps the first problems and says how many are left out."""
    sandbox.behave(SandboxBehaviour(operation_seconds=0.0, faults=(SandboxFault.parse("operation:FAILED"),)))
    async with raw_server.serving(sends(http(b"OK"))) as server:
        settings = settings_for(
            sandbox, tmp_path, ping__url=f"{server.url}{PATH}", retry__attempts=1, retry__before_split=2
        )
        summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
        long = summary.to_dict()
        long["problems"] = long["problems"] * 500
        pinged = RunPings(settings, None)
        await pinged.end(long, is_success=False)
    body = pings(server)[-1][1]
    assert len(json.dumps(body)) < MOST_BODY_BYTES
    assert body["problems_left_out"] + len(body["problems"]) == len(long["problems"])


# The text file


def read_file(path: Path) -> dict[str, float]:
    """Return the samples of a text file by name; of several with one name, the last one."""
    families = text_string_to_metric_families(path.read_text())
    return {one.name.removeprefix("asyncexport_"): one.value for family in families for one in family.samples}


async def test_a_run_writes_its_text_file(tmp_path, sandbox, caplog):
    """It is there after a run, also one that failed before it could open the ledger."""
    file = tmp_path / "asyncexport.prom"
    settings = settings_for(sandbox, tmp_path, metrics__textfile=file)
    await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
    found = read_file(file)
    assert found["stored_bundles"] == 4
    assert found["last_exit_code"] == 0
    assert file.stat().st_mode & 0o777 == 0o644, "node_exporter runs as another user"
    (tmp_path / "exports" / ".asyncexport" / "ledger.sqlite3").write_bytes(b"SQLite format 3\0" + b"damage" * 1000)
    summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
    assert summary.exit_code is Exit.LEDGER
    found = read_file(file)
    assert (found["ledger_readable"], found["last_exit_code"]) == (0, Exit.LEDGER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asyncexport.prom", "exports"]
    assert warnings(caplog) == []


@pytest.mark.parametrize("place", ["missing/m.prom", "folder", "file/m.prom"])
async def test_a_text_file_that_cannot_be_written_is_one_warning(tmp_path, sandbox, caplog, place):
    """The run ends as it would without it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    settings = settings_for(sandbox, tmp_path, metrics__textfile=tmp_path / place)
    summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
    assert summary.exit_code is Exit.DONE
    (warning,) = warnings(caplog)
    assert warning.startswith(f"the metrics could not be written to [metrics] textfile: {tmp_path / place} cannot")


# Metrics that are served


def scraped(url: str) -> dict[str, float]:
    """Scrape metrics as Prometheus does."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {one.name.removeprefix("asyncexport_"): one.value for family in families for one in family.samples}


async def test_a_directory_whose_name_is_no_text_has_metrics(tmp_path, sandbox, caplog):
    """Bytes that cannot be decoded are shown in hexadecimal; the text file and the server work as usual."""
    file = tmp_path / "asyncexport.prom"
    directory = tmp_path / os.fsdecode(b"ex\xffports")
    flags = {"metrics__textfile": str(file), "metrics__listen": "127.0.0.1:0", "output__directory": directory}
    summary = await asyncexport.backfill(settings_for(sandbox, tmp_path, **flags), **RANGE, key=sandbox.key)
    assert summary.exit_code is Exit.DONE
    assert not warnings(caplog)
    assert read_file(file)["ledger_readable"] == 1
    assert "ex\\\\xffports" in file.read_text(encoding="utf-8")


async def test_a_bug_in_the_metrics_harms_no_run(tmp_path, sandbox, caplog):
    """They are not served or written, with a warning each."""
    settings = settings_for(sandbox, tmp_path, metrics__listen="127.0.0.1:0", metrics__textfile=str(tmp_path / "x"))
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Refusing())
    spec = asyncexport.Backfill(settings.exports, 1_767_225_600, 1_767_229_200)

    async def work() -> Summary:
        return Summary("backfill", Exit.DONE, 0.0, Tally(), {}, 0, "")

    assert (await monitored(settings, spec, work, key=None)).exit_code is Exit.DONE
    loop.set_default_executor(ThreadPoolExecutor())
    assert warnings(caplog) == [
        "the metrics are not served: unexpected ZeroDivisionError",
        "the metrics could not be written to [metrics] textfile: unexpected ZeroDivisionError",
    ]


class _Refusing(ThreadPoolExecutor):
    """An executor whose work always fails."""

    def submit(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise ZeroDivisionError


async def test_metrics_are_served_during_a_run(tmp_path, sandbox, caplog):
    """The log says where; they show the run that is in progress, and end with it."""
    caplog.set_level(logging.INFO, "asyncexport")
    sandbox.behave(SandboxBehaviour(operation_seconds=3600))
    settings = settings_for(sandbox, tmp_path, metrics__listen="127.0.0.1:0")
    stop = asyncexport.Stop()
    task = asyncio.create_task(asyncexport.backfill(settings, **RANGE, key=sandbox.key, stop=stop))
    while sandbox.counts.get("create", 0) < 4:  # noqa: ASYNC110 - nothing sets an event
        await asyncio.sleep(0.01)
    (url,) = re.findall(r"the metrics are served at (http://127\.0\.0\.1:\d+/metrics)", caplog.text)
    found = await asyncio.to_thread(scraped, url)
    assert found["run_in_progress"] == 1
    assert found["build_info"] == 1
    stop.ask(Exit.INTERRUPTED)
    assert (await task).exit_code is Exit.INTERRUPTED
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scraped, url)


async def test_a_reader_that_stalls_does_not_delay_the_end_of_a_run(tmp_path, sandbox, caplog):
    """A connection that asks for nothing is closed when the run ends."""
    caplog.set_level(logging.INFO, "asyncexport")
    settings = settings_for(sandbox, tmp_path, metrics__listen="127.0.0.1:0")
    connected = asyncio.Event()

    async def work() -> Summary:
        (port,) = re.findall(r"127\.0\.0\.1:(\d+)/metrics", caplog.text)
        readers.append(await asyncio.open_connection("127.0.0.1", int(port)))
        readers[0][1].write(b"GET /metrics HTTP/1.1\r\n")
        connected.set()
        return await asyncexport.export(settings, spec, key=asyncexport.ApiKey(sandbox.key))

    readers: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    spec = asyncexport.Backfill(settings.exports, 1_767_225_600, 1_767_229_200)
    async with asyncio.timeout(20):
        summary = await monitored(settings, spec, work, key=None)
    assert summary.exit_code is Exit.DONE
    assert await readers[0][0].read() == b""
    readers[0][1].close()


async def test_a_port_in_use_is_one_warning(tmp_path, sandbox, caplog):
    """The run is carried out without the server."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = settings_for(sandbox, tmp_path, metrics__listen=address)
        summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
    assert summary.exit_code is Exit.DONE
    assert warnings(caplog) == [
        f"the metrics are not served: [metrics] listen {address} cannot be used: address already in use"
    ]
