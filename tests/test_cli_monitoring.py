# ruff: noqa: F811 - fixtures are imported by their names
"""Monitoring on the command line: `--quiet`, `metrics`, `doctor`, and settings that are refused."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from asyncexport.core.diagnosis import RUN_ORDER
from asyncexport.core.exits import Exit
from asyncexport.ledger import hold
from asyncexport.monitor.alert_rules import ALERT_RULES
from tests import raw_server
from tests.raw_server import http, sends
from tests.test_cli import DAYS, TIMEOUT_SECONDS, fault, run, service, shared  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

ONE_FAILS = fault("operation:FAILED,window=2026-01-01T01:00:00Z/2026-01-01T01:30:00Z")

SECRET = "/2f5CANARY-1234-4c5d"


@pytest.fixture
def monitor() -> Iterator[raw_server.Server]:
    """Return a monitoring service that runs in a thread of its own and accepts every ping."""
    ready, found = threading.Event(), list[Any]()

    async def serve() -> None:
        end = asyncio.Event()
        async with raw_server.serving(sends(http(b"OK"))) as server:
            found.extend((server, asyncio.get_running_loop(), end))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(TIMEOUT_SECONDS)
    server, loop, end = found
    yield server
    loop.call_soon_threadsafe(end.set)
    thread.join(TIMEOUT_SECONDS)


def pinged(monitor: raw_server.Server) -> list[str]:
    """Return the path of each ping after the configured one."""
    paths = [request.split(b" ")[1].decode() for request in monitor.requests]
    return [path.removeprefix(SECRET) for path in paths]


def test_a_quiet_run_prints_nothing_if_it_ends_as_it_should(run, service, monitor):
    """That is 0, or 9 after --max-duration; the pings say success."""
    ping = ("--set", f"ping.url={monitor.url}{SECRET}")
    for arguments, code in ((DAYS, 0), ((*DAYS, "--max-duration", "0.3s"), Exit.TIME_UP)):
        ran = run("-q", "backfill", *arguments, *ping)
        assert (ran.code, ran.out, ran.err) == (code, [], [])
        service.behave(operation_seconds=3600.0)
        Path("exports").rename(f"exports-{int(code)}")
    assert pinged(monitor) == ["/start", "", "/start", ""]


def test_a_quiet_run_prints_one_line_if_it_does_not(run, service, monitor, monkeypatch):
    """The line has the exit code or the error, and what to do; secrets are not in it."""
    ping = ("--set", f"ping.url={monitor.url}{SECRET}")
    service.behave(**ONE_FAILS)
    ran = run("-q", "backfill", *DAYS, *ping, "--set", "retry.before_split=99")
    assert ran.code == Exit.PARTIAL
    (line,) = ran.out + ran.err
    assert line.startswith("backfill, exit code 3: finished, but not everything is done: ")
    assert ": 3 of 4 bundles stored, " in line
    assert "1 parked; first problem: everyone-events 2026-01-01T01:00:00Z: the operation failed: " in line
    assert line.endswith("; `asyncexport status` shows details")
    assert "--set 'ping.url=***' shows details" not in ran.out[0], "the URL does not matter to `status`"
    with hold(Path("exports"), command="backfill"):
        ran = run("-q", "backfill", *DAYS, *ping)
    assert (ran.code, ran.out, len(ran.err)) == (Exit.LOCKED, [], 1)
    assert ran.err[0].endswith("; wait until it has ended, or choose another [output] directory")
    monkeypatch.delenv("FULLSTORY_API_KEY")
    ran = run("-q", "backfill", *DAYS, *ping)
    assert (ran.code, ran.out, len(ran.err)) == (Exit.KEY_REFUSED, [], 1)
    assert pinged(monitor) == ["/start", "/fail", "/start", "/fail", "/fail"]


def test_the_url_of_pings_is_never_printed(run, service):
    """Neither a failed ping, nor a hint, nor a fault in the URL itself shows it."""
    service.behave(**ONE_FAILS)
    url = f"http://127.0.0.1:1{SECRET}"
    ran = run("backfill", *DAYS, "-v", "--set", f"ping.url={url}", "--set", "retry.before_split=99")
    assert [line for line in ran.err if "warning" in line and "[ping] url: 127.0.0.1 could not be reached" in line]
    again = run("status", "--set", f"ping.url={url}")
    wrong = run("backfill", *DAYS, "--set", f"ping.url=http://example.com{SECRET}")
    assert wrong.code == Exit.USAGE
    assert wrong.errors[0].startswith("ping.url (on the command line): must be https: over http, others could read")
    for one in (ran, again, wrong):
        assert "CANARY" not in "".join([*one.out, *one.err])


def test_metrics_are_printed_from_the_ledger(run, service):
    """The official parser reads them; without a ledger, they say so and the exit code is 7."""
    ran = run("metrics")
    assert ran.code == Exit.LEDGER
    assert next(line for line in ran.out if line.startswith("asyncexport_ledger_readable{")).endswith(" 0.0")
    assert "has no ledger" in ran.errors[0]
    run("-q", "backfill", *DAYS)
    ran = run("metrics")
    assert (ran.code, ran.err) == (0, [])
    values = {
        one.name: one.value for family in text_string_to_metric_families("\n".join(ran.out)) for one in family.samples
    }
    assert values["asyncexport_stored_bundles"] == 4
    with hold(Path("exports"), command="backfill"):
        assert run("metrics").code == 0, "during a run, too"
    assert run("--json", "metrics").records[0]["text"].startswith("# HELP asyncexport_build_info")
    assert service.requests > 0
    service.behave()
    run("metrics")
    assert service.requests == 0


def test_alert_rules_are_printed(run, service):
    """They need neither a configuration nor a ledger."""
    Path("asyncexport.toml").unlink()
    ran = run("metrics", "--alert-rules")
    assert ran.code == 0
    assert yaml.safe_load("\n".join(ran.out)) == yaml.safe_load(ALERT_RULES)
    assert run("--json", "metrics", "--alert-rules").records[0] == {"type": "alert_rules", "text": ALERT_RULES}


def test_a_public_address_needs_consent(run, service):
    """Without it, the command ends with 2 and one line."""
    for address in ("0.0.0.0:9464", "[::]:9464", "example.com:80"):
        ran = run("backfill", *DAYS, "--set", f"metrics.listen={address}")
        assert ran.code == Exit.USAGE
        (error,) = ran.errors
        assert error.startswith("metrics.listen (on the command line): lets other machines read the metrics: ")
    ran = run("-q", "backfill", *DAYS, "--set", "metrics.public=true", "--set", "metrics.listen=0.0.0.0:0")
    assert (ran.code, ran.err) == (0, [])


def test_a_public_page_needs_consent(run, service):
    """Without it, the command ends with 2 and one line; with it, the run says where the page is."""
    for command in (("backfill", *DAYS), ("nightly",), ("retry",), ("audit",), ("verify", "--repair")):
        ran = run(*command, "--dashboard", "0.0.0.0:0")
        assert ran.code == Exit.USAGE
        (error,) = ran.errors
        assert error.startswith("--dashboard: lets other machines read the page: ")
    ran = run("backfill", *DAYS, "--dashboard", "127.0.0.1:0", "--set", "dashboard.listen=127.0.0.1:0")
    assert ran.errors == ["--dashboard: cannot be combined with --set dashboard.listen"]
    assert run("verify", "--dashboard", "127.0.0.1:0").errors == ["--dashboard: needs --repair"]
    ran = run("backfill", *DAYS, "--dashboard", "0.0.0.0:0", "--set", "dashboard.public=true")
    assert ran.code == 0
    assert sum("http://0.0.0.0:" in line for line in ran.err) == 1
    assert run("-q", "backfill", *DAYS, "--dashboard", "127.0.0.1:0").err == []


def test_doctor_prints_a_line_per_check(run, service):
    """Each line begins with ok, warn or fail, and advice is below its line."""
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, [])
    assert [line.split()[0] for line in ran.out[:-2]] == ["ok"] * 11
    assert ran.out[-2:] == ["", "a run can start"]
    ran = run("--json", "doctor", "--offline")
    assert [one["name"] for one in ran.records[:-1]] == [
        "configuration",
        "key",
        "lock",
        "ledger",
        "permissions",
        "disk",
    ]
    assert {one["name"] for one in ran.records[:-1]} <= set(RUN_ORDER)
    assert sum(ran.summary["requests"].values()) == 0


@pytest.mark.parametrize(
    ("arguments", "prepare", "line", "code"),
    [
        (("--set", "budget.brust=4"), "", "fail  configuration  budget.brust (on the command line): unknown key", 2),
        ((), "no key", "fail  key            there is no API key", 6),
        ((), "wrong key", "fail  key            checking the API key: the service refused the API key (401)", 6),
        (("--set", "api.base_url=http://127.0.0.1:1"), "", "fail  host           checking the API key: 127.0.0.1", 5),
        (("-d", "file"), "a file", "fail  permissions    file cannot be used: not a directory", 8),
        (("--set", "api.proxy=environment"), "bad proxy", "fail  TLS and proxy  HTTP_PROXY: expected a URL such as", 2),
        ((), "open key file", "warn  key            every user of this machine can read the API key", 0),
        ((), "lost ledger", "fail  ledger         exports contains archives but no ledger", 7),
    ],
)
def test_doctor_ends_with_the_code_of_a_run(run, service, monkeypatch, arguments, prepare, line, code):  # noqa: PLR0917
    """Each fault is one line with advice; `backfill` ends with the same code."""
    match prepare:
        case "no key" | "open key file":
            monkeypatch.delenv("FULLSTORY_API_KEY")
            if prepare == "open key file":
                Path("key").write_text(service.sandbox.key)
                arguments = ("--set", "api.api_key_file=key")
        case "wrong key":
            monkeypatch.setenv("FULLSTORY_API_KEY", "na1.another-key-that-is-wrong")
        case "a file":
            Path("file").touch()
        case "bad proxy":
            monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
        case "lost ledger":
            run("-q", "backfill", *DAYS)
            for path in Path("exports/.asyncexport").iterdir():
                path.unlink()
    ran = run("doctor", *arguments)
    assert ran.code == code
    (found,) = [number for number, one in enumerate(ran.out) if one.startswith(line)]
    assert ran.out[found + 1].startswith(" " * 21)
    assert ran.out[-1] == ("a run can start; warnings: 1" if code == 0 else f"a run would end with exit code {code}")
    assert run("-q", "backfill", *DAYS, *arguments).code == code
    assert json.loads(run("--json", "doctor", *arguments).out[-1])["exit_code"] == code


def test_without_the_library_only_metrics_are_missing(run, service):
    """`metrics` says how to install it; a run that should write a text file warns once and is not harmed."""
    probe = "import sys; sys.modules['prometheus_client'] = None; from asyncexport.cli import main; sys.exit(main())"

    def without(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=False)

    ran = without("metrics")
    assert ran.returncode == Exit.USAGE
    assert "asyncexport: hint: install it: pip install 'asyncexport[metrics]'" in ran.stderr
    for option in ("metrics.textfile=m.prom", "metrics.listen=127.0.0.1:0"):
        ran = without("backfill", *DAYS, "--set", option)
        assert ran.returncode == 0
        warnings = [line for line in ran.stderr.splitlines() if "warning" in line]
        assert len(warnings) == 1
        assert "prometheus_client" in warnings[0]
        assert without("doctor", "--offline", "--set", option).stdout.startswith("warn  configuration")
    assert without("metrics", "--alert-rules").returncode == 0
