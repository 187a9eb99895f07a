"""The command line as users and scripts see it: output, errors, hints and exit codes."""

import asyncio
import contextlib
import fcntl
import gzip
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import IO, Any, Self
from urllib.request import urlopen

import pytest

from asyncexport.cli import main
from asyncexport.cli.commands import COMMANDS
from asyncexport.cli.finish import conclude
from asyncexport.cli.session import Session
from asyncexport.cli.status_text import LEGEND
from asyncexport.config import EXAMPLE
from asyncexport.core.bundles import ALL_TIME, DAY, Bundle, Range, day, show
from asyncexport.core.exits import MEANINGS, Exit
from asyncexport.core.exports import Export
from asyncexport.core.health.weeks import MARKS
from asyncexport.core.sentinel.memory import NOTE, SentinelMemory
from asyncexport.core.sentinel.shortfalls import Shortfall, ShortfallRule
from asyncexport.core.states import BundleRecord, Failed
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger import AcceptedGap, Ledger, LedgerQueries, LedgerReader, hold, holder
from asyncexport.sandbox import KEY, Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.json_lines import check

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 100.0
"""Limit for a process that hangs; on a busy machine a process may take long to start and to end."""

START = 1_767_225_600
"""2026-01-01 in seconds since 1970."""

DAYS = ("--start", "2026-01-01", "--end", "2026-01-01T02:00:00Z")
"""A range of four bundles."""

QUICK = SandboxBehaviour(operation_seconds=0.02, requests_per_minute=1e6, burst=1000, rows_per_hour=200.0)

SETTINGS = """\
[api]
base_url = "{url}"
[budget]
requests_per_minute = 1000000
burst = 1000
[polling]
min_interval = "5ms"
expected = "20ms"
[retry]
attempts = 2
before_split = 99
backoff_initial = "1ms"
backoff_max = "20ms"
outage = "200ms"
[output]
grace = "1s"
"""


class Service:
    """A sandbox in a thread of its own, since each command runs its own event loop."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.sandbox: Sandbox
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with serving(QUICK) as self.sandbox:
            self._ready.set()
            await self._end.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(TIMEOUT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(TIMEOUT_SECONDS)

    def behave(self, **changes: Any) -> None:
        """Change the behaviour from now on and reset the counts."""
        done = threading.Event()

        def change() -> None:
            self.sandbox.behave(replace(QUICK, **changes))
            self.sandbox.reset_counts()
            done.set()

        self._loop.call_soon_threadsafe(change)
        assert done.wait(TIMEOUT_SECONDS)

    @property
    def requests(self) -> int:
        """The number of requests that reached the API."""
        return sum(count for kind, count in self.sandbox.counts.items() if kind != "download")


@dataclass(frozen=True)
class Ran:
    """The output of a command and its exit code."""

    code: int
    out: list[str]
    err: list[str]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [check(json.loads(line)) for line in self.out]

    @property
    def summary(self) -> dict[str, Any]:
        """The last JSON line."""
        return self.records[-1]

    @property
    def errors(self) -> list[str]:
        """The error messages, without the program's name."""
        return [
            line.removeprefix("asyncexport: error: ") for line in self.err if line.startswith("asyncexport: error: ")
        ]

    @property
    def hint(self) -> str:
        """The single hint."""
        (hint,) = (
            line.removeprefix("asyncexport: hint: ") for line in self.err if line.startswith("asyncexport: hint: ")
        )
        return hint


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture
def service(shared: Service) -> Service:
    shared.behave()
    return shared


@pytest.fixture
def run(shared, tmp_path, monkeypatch, capsys) -> Callable[..., Ran]:
    """Run a command in an empty directory, with the key in the environment and settings that fit the sandbox."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("ASYNCEXPORT_", "FULLSTORY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FULLSTORY_API_KEY", KEY)
    Path("asyncexport.toml").write_text(SETTINGS.format(url=shared.sandbox.url))

    def ran(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        output = capsys.readouterr()
        return Ran(code, output.out.splitlines(), output.err.splitlines())

    return ran


def started(*arguments: str, **more: Any) -> "subprocess.Popen[str]":
    """Start a command in a process of its own, in the current directory, with the default action for SIGHUP."""
    more.setdefault("preexec_fn", lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "asyncexport", *arguments],
        stdout=more.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def archives() -> list[Path]:
    return sorted(Path("exports").rglob("*.gz"))


def lines(stream: IO[str] | None) -> Iterator[str]:
    assert stream is not None
    return iter(stream)


# Exit codes


def no_preparation() -> None:
    """Prepare nothing."""


def a_run_before() -> None:
    assert main(["-q", "backfill", *DAYS]) == 0


def a_night_before() -> None:
    assert main(["-q", "nightly", "--set", f"nightly.since={TWO_DAYS_AGO}"]) == 0


def a_parked_bundle() -> None:
    a_run_before()
    asyncio.run(park(Range(START + 7200, START + 9000)))


async def park(span: Range) -> None:
    """Record that a bundle failed."""
    ledger = await Ledger.open(Path("exports"))
    await ledger.append(BundleRecord(Bundle("everyone-events", span), 0, Failed("it failed")), at=time.time() - 60)
    await ledger.close()


async def find_short(span: Range) -> None:
    """Record that a run has found a shortfall."""
    ledger = await Ledger.open(Path("exports"))
    shortfall = Shortfall(Bundle("everyone-events", span), ShortfallRule.EMPTY, 5400, 0)
    made_at, last = await ledger.query(LedgerQueries.position)
    ledger.remember(NOTE, SentinelMemory(made_at, {"everyone-events": last}, (shortfall,)).to_text())
    await ledger.close()


def a_damaged_ledger() -> None:
    a_run_before()
    path = Path("exports/.asyncexport/ledger.sqlite3")
    path.write_bytes(b"SQLite format 3\0" + b"damage" * 1000)


def a_lost_ledger() -> None:
    a_run_before()
    delete_the_ledger()


def an_archive_is_cut() -> None:
    a_run_before()
    os.truncate(archives()[0], archives()[0].stat().st_size - 5)


def a_ledger_from_a_backup() -> None:
    assert main(["-q", "backfill", "--start", "2026-01-01", "--end", "2026-01-01T01:00:00Z"]) == 0
    shutil.copytree("exports/.asyncexport", "backup")
    a_run_before()
    shutil.rmtree("exports/.asyncexport")
    shutil.copytree("backup", "exports/.asyncexport")


def archives_that_overlap() -> None:
    a_run_before()
    first = archives()[0]
    shutil.copy(first, first.with_name(first.name.replace("T003000Z.", "T010000Z.")))
    shutil.rmtree("exports/.asyncexport")
    assert main(["-q", "verify", "--rebuild"]) == Exit.PARTIAL


def a_definition_is_lost() -> None:
    a_run_before()
    shutil.rmtree("exports/.asyncexport")
    shutil.copytree("exports/everyone-events", "exports/other")
    Path("exports/other/.export.json").unlink()


def a_hole_after_a_rebuild() -> None:
    an_archive_is_cut()
    delete_the_ledger()
    assert main(["-q", "verify", "--rebuild"]) == Exit.PARTIAL


def delete_the_ledger() -> None:
    for path in Path("exports/.asyncexport").iterdir():
        path.unlink()


def a_file_in_the_way() -> None:
    Path("file").write_text("")


def two_exports() -> None:
    with Path("asyncexport.toml").open("a") as file:
        file.write('[[export]]\nname = "checkout"\n[[export]]\nname = "people"\ntype = "individual"\n')


def fault(*specs: str) -> dict[str, Any]:
    return {"faults": tuple(map(SandboxFault.parse, specs))}


@dataclass(frozen=True)
class Case:
    """A command and its expected exit code."""

    name: str
    code: Exit
    arguments: tuple[str, ...]
    behaviour: dict[str, Any] = field(default_factory=dict)
    before: Callable[[], None] = no_preparation
    error: str = ""


BACKFILL = ("backfill", *DAYS)

ACCEPTED = ("2026-01-01", "2026-01-02", "--why", "the site was down")

TWO_DAYS_AGO = day(int(time.time()) - 2 * DAY)

ENDS = [
    Case("a range to export", Exit.DONE, BACKFILL),
    Case("a range that is already complete", Exit.DONE, BACKFILL, before=a_run_before),
    Case(
        "an end that is not settled",
        Exit.DONE,
        ("backfill", "--start", "1d", "--end", "today", "--set", "budget.burst=9"),
    ),
    Case("a start that is not settled", Exit.DONE, ("backfill", "--start", "today")),
    Case("a night", Exit.DONE, ("nightly", "--set", f"nightly.since={TWO_DAYS_AGO}", "--max-duration", "9m")),
    Case("a retry with nothing parked", Exit.DONE, ("retry",), before=a_run_before),
    Case("a plan", Exit.DONE, ("plan", *DAYS)),
    Case("a status without a ledger", Exit.DONE, ("status",)),
    Case("a status", Exit.DONE, ("status",), before=a_run_before),
    Case("an acceptance of a parked bundle", Exit.DONE, ("accept", *ACCEPTED), before=a_parked_bundle),
    Case(
        "an acceptance of nothing",
        Exit.USAGE,
        ("accept", *ACCEPTED),
        before=a_run_before,
        error="nothing to accept: no parked bundle and no shortfall of everyone-events lies within",
    ),
    Case(
        "an acceptance without a reason",
        Exit.USAGE,
        ("accept", *ACCEPTED[:2], "--why", " "),
        error="--why: must not be empty",
    ),
    Case(
        "an acceptance of a range that runs backwards",
        Exit.USAGE,
        ("accept", "2026-01-02", "2026-01-01", "--why", "a test"),
        before=a_run_before,
        error="TO: 2026-01-01T00:00:00Z is not after FROM, 2026-01-02T00:00:00Z",
    ),
    Case("an acceptance without a ledger", Exit.LEDGER, ("accept", *ACCEPTED), error="exports has no ledger"),
    Case("a health check after a night", Exit.DONE, ("status", "--check"), before=a_night_before),
    Case("a health check of old data", Exit.PARTIAL, ("status", "--check"), before=a_run_before),
    Case("a health check without a ledger", Exit.LEDGER, ("status", "--check")),
    Case("a health check with a damaged ledger", Exit.LEDGER, ("status", "--check"), before=a_damaged_ledger),
    Case("a health check without the ledger of its archives", Exit.LEDGER, ("status", "--check"), before=a_lost_ledger),
    Case("an invalid delay", Exit.USAGE, ("status", "--max-behind", "5"), error="--max-behind: expected a duration"),
    Case("fewer than no runs", Exit.USAGE, ("status", "--runs", "-1"), error="invalid value for '--runs'"),
    Case("intact archives", Exit.DONE, ("verify",), before=a_run_before),
    Case("a rebuild of a lost ledger", Exit.DONE, ("verify", "--rebuild"), before=a_lost_ledger),
    Case("a rebuild of a damaged ledger", Exit.DONE, ("verify", "--rebuild"), before=a_damaged_ledger),
    Case("a repair of a cut archive", Exit.DONE, ("verify", "--repair"), before=an_archive_is_cut),
    Case("segments", Exit.DONE, ("segments",)),
    Case("an unknown option", Exit.USAGE, ("backfill", "--strat", "1d"), error="no such option: --strat"),
    Case(
        "an unknown log format",
        Exit.USAGE,
        ("status", "--log-format", "xml"),
        error="'--log-format': 'xml' is not one of",
    ),
    Case(
        "an unknown command", Exit.USAGE, ("backfil",), error="there is no command 'backfil' (did you mean backfill?)"
    ),
    Case("no start", Exit.USAGE, ("backfill",), error="missing option '--start'"),
    Case("an invalid date", Exit.USAGE, ("backfill", "--start", "soon"), error="--start: 'soon' is not a date: write"),
    Case(
        "an end before its start", Exit.USAGE, ("plan", "--start", "2026-01-02", "--end", "2026-01-01"), error="--end:"
    ),
    Case(
        "a start in the future",
        Exit.USAGE,
        ("plan", "--start", "2999-01-01"),
        error="--start: 2999-01-01T00:00:00Z is in the future: it is now 20",
    ),
    Case("a plan of no range", Exit.USAGE, ("plan",), error="--start: is missing; give a date, or --nightly"),
    Case(
        "a plan of a range and a night",
        Exit.USAGE,
        ("plan", "--nightly", "--end", "today"),
        error="--end: does not go with --nightly",
    ),
    Case(
        "a plan of nights from a day to come",
        Exit.USAGE,
        ("plan", "--nightly", "--set", "nightly.since=2999-01-01"),
        error="nightly.since: 2999-01-01T00:00:00Z is in the future: it is now 20",
    ),
    Case(
        "nights from a day to come",
        Exit.USAGE,
        ("nightly", "--set", "nightly.since=2999-01-01"),
        error="nightly.since: 2999-01-01T00:00:00Z is in the future: it is now 20",
    ),
    Case(
        "a refresh of what is too old",
        Exit.USAGE,
        ("nightly", "--set", "nightly.refresh=48h,401d"),
        error="nightly.refresh[2] (on the command line): must not be longer than 400d",
    ),
    Case(
        "refreshes that never act",
        Exit.USAGE,
        ("nightly", "--set", "nightly.refresh=24h"),
        error="nightly.refresh (on the command line): has no effect: no age is longer than settle (26h)",
    ),
    Case(
        "an unknown export",
        Exit.USAGE,
        ("retry", "--export", "checkuot"),
        before=two_exports,
        error="(did you mean checkout?)",
    ),
    Case(
        "an unknown setting",
        Exit.USAGE,
        ("retry", "--set", "budget.brust=3"),
        error="budget.brust (on the command line)",
    ),
    Case("a setting without a table", Exit.USAGE, ("retry", "--set", "burst"), error="--set: expected TABLE.KEY=VALUE"),
    Case("an invalid duration", Exit.USAGE, ("retry", "--max-duration", "5"), error="--max-duration: expected a dur"),
    Case(
        "a duration of zero",
        Exit.USAGE,
        ("retry", "--max-duration", "0s"),
        error="--max-duration: must be longer than 0s",
    ),
    Case("a missing config file", Exit.USAGE, ("-c", "other.toml", "status"), error="-c: there is no file"),
    Case("verbose and quiet", Exit.USAGE, ("-qv", "status"), error="-q: cannot be combined with -v"),
    Case(
        "repair and rebuild",
        Exit.USAGE,
        ("verify", "--repair", "--rebuild"),
        error="--repair: cannot be combined with --rebuild",
    ),
    Case("init with an existing file", Exit.USAGE, ("init",), error="asyncexport.toml already exists"),
    Case("a refused export", Exit.USAGE, BACKFILL, fault("create:400"), error="everyone-events: "),
    Case("parked bundles", Exit.PARTIAL, BACKFILL, fault("operation:FAILED")),
    Case("a broken archive", Exit.PARTIAL, ("verify",), before=an_archive_is_cut),
    Case("a rebuild with a broken archive", Exit.PARTIAL, ("verify", "--rebuild", "--force"), before=an_archive_is_cut),
    Case("verify after such a rebuild", Exit.PARTIAL, ("verify",), before=a_hole_after_a_rebuild),
    Case("status after such a rebuild", Exit.PARTIAL, ("status",), before=a_hole_after_a_rebuild),
    Case("a repair after such a rebuild", Exit.DONE, ("verify", "--repair"), before=a_hole_after_a_rebuild),
    Case("a backfill after such a rebuild", Exit.DONE, BACKFILL, before=a_hole_after_a_rebuild),
    Case("a rebuild of an intact ledger", Exit.USAGE, ("verify", "--rebuild"), before=a_run_before, error="is intact"),
    Case(
        "archives that the ledger does not know",
        Exit.LEDGER,
        BACKFILL,
        before=a_ledger_from_a_backup,
        error="the ledger does not know",
    ),
    Case("verify with unknown archives", Exit.PARTIAL, ("verify",), before=a_ledger_from_a_backup),
    Case("a plan with unknown archives", Exit.LEDGER, ("plan", *DAYS), before=a_ledger_from_a_backup),
    Case("an adoption of unknown archives", Exit.DONE, ("verify", "--adopt"), before=a_ledger_from_a_backup),
    Case("status with overlapping archives", Exit.PARTIAL, ("status",), before=archives_that_overlap),
    Case("verify with overlapping archives", Exit.PARTIAL, ("verify",), before=archives_that_overlap),
    Case("an archive of an unknown export", Exit.PARTIAL, ("verify", "--rebuild"), before=a_definition_is_lost),
    Case("force without rebuild", Exit.USAGE, ("verify", "--force"), error="--force: needs --rebuild"),
    Case(
        "adopt and repair",
        Exit.USAGE,
        ("verify", "--adopt", "--repair"),
        error="--adopt: cannot be combined with --repair",
    ),
    Case(
        "an unreachable service",
        Exit.UNREACHABLE,
        BACKFILL,
        fault("api:503"),
        error="the service could not be reached for 200",
    ),
    Case("segments of an unreachable service", Exit.UNREACHABLE, ("segments",), fault("api:close")),
    Case("a refused key", Exit.KEY_REFUSED, BACKFILL, fault("api:401")),
    Case("status with a damaged ledger", Exit.LEDGER, ("status",), before=a_damaged_ledger),
    Case("a run with a damaged ledger", Exit.LEDGER, BACKFILL, before=a_damaged_ledger),
    Case(
        "archives without a ledger",
        Exit.LEDGER,
        BACKFILL,
        before=a_lost_ledger,
        error="exports contains archives but no",
    ),
    Case("status without the ledger of its archives", Exit.LEDGER, ("status",), before=a_lost_ledger),
    Case("a plan without the ledger of its archives", Exit.LEDGER, ("plan", *DAYS), before=a_lost_ledger),
    Case("verify without the ledger of its archives", Exit.LEDGER, ("verify",), before=a_lost_ledger),
    Case("a repair without the ledger of its archives", Exit.LEDGER, ("verify", "--repair"), before=a_lost_ledger),
    Case("verify without archives", Exit.LEDGER, ("verify",), error="exports has no ledger"),
    Case("an audit", Exit.DONE, ("audit", "--sample", "3"), before=a_run_before),
    Case("an audit with nothing old enough", Exit.TIME_UP, ("audit", "--older-than", "900d"), before=a_run_before),
    Case(
        "an audit that brings far fewer rows",
        Exit.PARTIAL,
        ("audit", "--sample", "3"),
        fault("operation:fewer-rows,rows=0"),
        before=a_run_before,
    ),
    Case("an audit without a ledger", Exit.LEDGER, ("audit",), error="exports has no ledger"),
    Case("an audit of nothing", Exit.USAGE, ("audit", "--sample", "0"), error="'--sample'"),
    Case(
        "an audit with a bad age",
        Exit.USAGE,
        ("audit", "--older-than", "2 days"),
        error="--older-than: expected a duration",
    ),
    Case(
        "an audit of individuals",
        Exit.USAGE,
        ("audit", "--export", "people"),
        before=two_exports,
        error="--export: people: rows of individuals are totals that always change",
    ),
    Case("a retry without a ledger", Exit.LEDGER, ("retry",), error="exports has no ledger"),
    Case("a directory that cannot be created", Exit.DISK, (*BACKFILL, "-d", "file/exports"), before=a_file_in_the_way),
    Case("a file as the directory of status", Exit.DISK, ("status", "-d", "file"), before=a_file_in_the_way),
    Case(
        "a file as the directory of a health check",
        Exit.DISK,
        ("status", "--check", "-d", "file"),
        before=a_file_in_the_way,
    ),
    Case("a file as the directory of a plan", Exit.DISK, ("plan", *DAYS, "-d", "file"), before=a_file_in_the_way),
    Case("a file as the directory of a run", Exit.DISK, (*BACKFILL, "-d", "file"), before=a_file_in_the_way),
    Case("a file as the directory of a demo", Exit.DISK, ("demo", "-d", "file"), before=a_file_in_the_way),
    Case("a demo in a directory that cannot be created", Exit.DISK, ("demo", "-d", "/dev/null/demo")),
    Case("init in a missing directory", Exit.DISK, ("-c", "nowhere/a.toml", "init")),
    Case("an empty directory name", Exit.USAGE, ("status", "-d", ""), error="'--directory': must not be empty"),
    Case(
        "a demo with an empty directory name", Exit.USAGE, ("demo", "-d", ""), error="'--directory': must not be empty"
    ),
    Case(
        "two directories",
        Exit.USAGE,
        ("status", "-d", "x", "--set", "output.directory=y"),
        error="-d: cannot be combined with --set output.directory",
    ),
    Case("a run out of time", Exit.TIME_UP, (*BACKFILL, "--max-duration", "300ms"), fault("operation:pending")),
]


@pytest.mark.parametrize("case", ENDS, ids=lambda case: case.name)
def test_a_command_ends_with_its_documented_exit_code(run, service, case):
    """The last JSON line always contains the same exit code."""
    case.before()
    service.behave(**case.behaviour)
    ran = run("--json", *case.arguments)
    assert ran.code == case.code, ran.err
    assert ran.summary["type"] == "summary"
    assert ran.summary["exit_code"] == case.code
    assert ran.summary["command"] == next((word for word in case.arguments if word in COMMANDS), "")
    assert [record["type"] for record in ran.records].count("summary") == 1
    counts = ran.summary["bundles"]
    assert counts["planned"] == counts["already"] + counts["stored"] + counts["failed"] + counts["unfinished"]
    assert len(ran.summary["problems"]) == counts["failed"]
    failed = case.code in (Exit.USAGE, Exit.LOCKED, Exit.UNREACHABLE, Exit.KEY_REFUSED, Exit.LEDGER, Exit.DISK)
    assert bool(ran.errors) is failed
    assert case.error in "\n".join(ran.errors)
    assert "error" in ran.summary or not failed
    assert all(line.startswith("asyncexport: ") for line in ran.err), ran.err
    if case.arguments[0] in COMMANDS:
        assert case.code in COMMANDS[case.arguments[0]].exits


@pytest.mark.parametrize(("order", "last"), [("newest", 0), ("oldest", -1)])
def test_a_night_exports_fresh_bundles_first_and_old_ones_in_the_configured_order(run, service, order, last):
    """With `newest`, the oldest bundle is the last one; with `oldest`, the newest of those that are not fresh."""
    service.behave()
    known = len(service.sandbox.operations)
    one_at_a_time = ("--set", "concurrency.operations=1")
    assert run("nightly", "--set", "nightly.since=80h", *one_at_a_time, "--set", f"nightly.order={order}").code == 0
    starts = [int(one.start) for one in service.sandbox.operations][known:]
    fresh = [one for one in starts if one + 1800 > time.time() - 26 * 3600 - 48 * 3600 + 60]
    old = sorted(set(starts) - set(fresh))
    assert 8 < len(old) < 14
    assert starts[: len(fresh)] == sorted(fresh)
    assert starts[-1] == old[last]


def test_an_end_that_is_required_and_not_settled_ends_with_9(run, service):
    """What is settled is exported, the summary has both ends, and the hint says when the rest is settled."""
    ends = ("--end", "today", "--require-end")
    service.behave()
    first = run("--json", "backfill", "--start", "36h", *ends)
    assert first.code == first.summary["exit_code"] == Exit.TIME_UP
    assert first.summary["bundles"]["stored"] > 15
    covered = first.summary["ranges"]["everyone-events"]
    assert covered["end"] == covered["settled_until"] < day(int(time.time()))
    assert covered["cut_back"]
    second = run("backfill", "--start", "36h", *ends)
    assert second.code == Exit.TIME_UP
    assert second.out[0].startswith("finished up to what is settled; the end that was asked for is not settled yet: ")
    assert (
        second.hint
        == f"run the same command again after {day(int(time.time()) + DAY)}T02:00:00Z, when the end is settled"
    )
    assert run("backfill", "--start", "36h", "--end", "30h", "--require-end").code == Exit.DONE
    assert run("nightly", "--set", "nightly.since=36h", *ends).code == Exit.TIME_UP


def test_a_failure_counts_more_than_a_required_end(run, service):
    """A run with parked bundles ends with 3, although the end that was asked for is not settled either."""
    service.behave(**fault("operation:FAILED,times=2"))
    ran = run("--json", "backfill", "--start", "28h", "--end", "today", "--require-end", "--set", "retry.attempts=1")
    assert ran.code == ran.summary["exit_code"] == Exit.PARTIAL
    assert ran.summary["ranges"]["everyone-events"]["cut_back"]


def test_a_required_end_needs_an_end(run, service):
    """`--require-end` without `--end` is a usage error that names both, before anything is requested."""
    ran = run("nightly", "--require-end")
    assert (ran.code, ran.errors) == (Exit.USAGE, ["--require-end: needs --end"])
    assert service.requests == 0


def test_a_code_that_counts_as_success_ends_the_process_with_0(run, service):
    """The summary and `status` keep the code of the run, and other codes are unchanged."""
    service.behave(**fault("operation:pending"))
    out_of_time = (*BACKFILL, "--max-duration", "300ms")
    ran = run("--json", *out_of_time, "--success-exit", "9", "--success-exit", "143")
    assert (ran.code, ran.summary["exit_code"]) == (0, Exit.TIME_UP)
    assert run(*out_of_time, "--success-exit", "3").code == Exit.TIME_UP
    assert [one["exit_code"] for one in run("--json", "status").records if one["type"] == "last_run"] == [Exit.TIME_UP]
    with hold(Path("exports"), command="nightly"):
        assert run("retry", "--success-exit", "4").code == 0
    service.behave()
    an_archive_is_missing()
    assert run("verify", "--success-exit", "3").code == 0


def an_archive_is_missing() -> None:
    shutil.rmtree("exports")
    a_run_before()
    archives()[0].unlink()


@pytest.mark.parametrize("code", ["0", "1", "2", "10", "nine", "-3", ""])
def test_only_codes_that_may_be_expected_count_as_success(run, code):
    """Codes that do not exist, success itself, bugs and wrong usage are refused."""
    ran = run("nightly", "--success-exit", code)
    assert ran.code == Exit.USAGE
    assert "--success-exit': must be one of 3, 4, 5, 6, 7, 8, 9, 130 and 143" in "\n".join(ran.errors)


def test_every_exit_code_is_tested():
    """Each code is in the table above, except those that have a test of their own."""
    elsewhere = {Exit.UNEXPECTED, Exit.LOCKED, Exit.INTERRUPTED, Exit.TERMINATED}
    assert {case.code for case in ENDS} | elsewhere == set(Exit) == set(MEANINGS)
    assert not {case.code for case in ENDS} & elsewhere


def flips(size: int) -> list[int]:
    """Return the positions of the bytes to change: some in the header and some all over the rest."""
    rest = range(100, size)
    return [*range(0, 100, 7), *sorted(Random(7).sample(rest, 100))]


def is_intact(directory: Path) -> bool:
    """Return whether a full check of the ledger passes."""
    try:
        with LedgerReader(directory) as ledger:
            ledger.check()
    except LedgerCorruptError:
        return False
    return True


def test_a_damaged_ledger_is_noticed_before_any_request(run, service):
    """One changed byte is enough: runs and verify end with 7, send no request and write nothing."""
    a_run_before()
    path, copy = Path("exports/.asyncexport/ledger.sqlite3"), Path("copy/.asyncexport/ledger.sqlite3")
    copy.parent.mkdir(parents=True)
    content = path.read_bytes()
    damaged = 0
    for at in flips(len(content)):
        changed = content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :]
        for one in (path, copy):
            for side in one.parent.glob("ledger.sqlite3-*"):
                side.unlink()
            one.write_bytes(changed)
        if is_intact(Path("copy")):
            continue
        damaged += 1
        service.behave()
        commands = (BACKFILL, ("nightly",), ("retry",), ("verify",), ("verify", "--repair"), ("status", "--check"))
        for command in commands[damaged % 2 :: 2] if damaged > 10 else commands:
            assert run(*command).code == Exit.LEDGER, (at, command)
            assert path.read_bytes() == changed, (at, command)
        assert service.requests == 0
    assert damaged > 20


@pytest.mark.parametrize("inside", [2, 0])
def test_verify_reports_rows_outside_their_range(run, inside):
    """They are counted by file; if all rows of all files are outside, a note says that the check is off."""
    a_run_before()
    for path in archives():
        start = f"{path.parent.name.removeprefix('date=')}T{path.name[9:11]}:{path.name[11:13]}"
        stamps = [f"{start}:01Z"] * inside + ["2020-01-01T00:00:00Z"]
        path.write_bytes(gzip.compress("".join(f'{{"EventStart":"{stamp}"}}\n' for stamp in stamps).encode()))
    run("verify", "--rebuild", "--force")
    ran = run("--json", "verify")
    assert ran.code == Exit.DONE
    kinds = [record["type"] for record in ran.records]
    assert kinds.count("outside") == len(archives())
    assert ran.summary["rows_outside"] == len(archives())
    assert kinds.count("note") == (inside == 0)
    if not inside:
        assert "EventStart" in next(record["message"] for record in ran.records if record["type"] == "note")


@pytest.mark.parametrize("command", [("plan", *DAYS), ("verify",), ("verify", "--repair"), BACKFILL])
def test_a_lost_ledger_is_rebuilt_as_the_hint_says(run, service, command):
    """Each command gives the same hint, and works after following it."""
    a_lost_ledger()
    assert "verify --rebuild" in run(*command).hint
    assert run("verify", "--rebuild").code == Exit.DONE
    assert run(*command).code == Exit.DONE


@pytest.mark.parametrize("command", [("status",), ("plan", *DAYS), ("verify",), BACKFILL, ("nightly",), ("retry",)])
@pytest.mark.parametrize("spoil", [a_lost_ledger, a_damaged_ledger])
@pytest.mark.parametrize("place", [("-d", "my exports"), ("--set", "output.directory=my exports")])
def test_a_hint_contains_the_directory_and_settings_of_the_command(run, service, command, spoil, place):
    """The suggested command repairs the directory that was named, also if another one is configured."""
    spoil()
    Path("exports").rename("my exports")
    Path("asyncexport.toml").rename("mine.toml")
    for extra in ((), ("--json",), ("--log-format", "json")):
        err = "\n".join(run("-c", "mine.toml", *extra, *command, *place).err)
        (pasted,) = re.findall(r"`asyncexport ([^`]*)`", err)
        assert shlex.split(pasted) == ["-c", "mine.toml", "verify", "--rebuild", *place]
    assert run(*shlex.split(pasted)).code == Exit.DONE
    assert not Path("exports").exists()


def test_a_file_instead_of_the_directory_is_reported(run):
    """The hint says to choose another directory."""
    a_file_in_the_way()
    assert run("status", "-d", "file/exports").hint == "file is a file; choose another directory"
    assert not run("demo", "-d", "/dev/null/demo").hint.startswith("`")


def test_a_refused_export_has_the_same_exit_code_when_run_again(run, service):
    """The code is 2 until something of each export was stored; the other exports are completed."""
    with Path("asyncexport.toml").open("a") as file:
        file.write('[[export]]\nname = "good"\n[[export]]\nname = "bad"\nsegment = "nobody-knows-it"\n')
    assert [run(*BACKFILL).code for _ in range(2)] == [Exit.USAGE, Exit.USAGE]
    assert [run(*BACKFILL, "--export", "bad").code for _ in range(2)] == [Exit.USAGE, Exit.USAGE]
    assert [run(*BACKFILL, "--export", "good").code for _ in range(2)] == [Exit.DONE, Exit.DONE]


def test_retry_creates_no_directory(run, service):
    """A mistyped directory is reported and not created."""
    ran = run("retry", "-d", "exprots")
    assert (ran.code, ran.errors) == (Exit.LEDGER, ["exprots has no ledger"])
    assert not Path("exprots").exists()


def test_an_audit_says_what_it_proves(run, service):
    """It prints the limit for all bundles, and lists what differs and was kept with the next step."""
    a_run_before()
    text = run("audit", "--sample", "4").out
    assert "audit: of 4 exported again 0 differ: fewer than 53 % do, at 95 %" in text
    plan = run("--json", "plan", "--nightly", "--set", "nightly.since=2026-01-01", "--set", "nightly.audit=4").records
    (planned,) = (one for one in plan if one["type"] == "plan")
    (creates,) = {one["creates"] for one in plan if one["type"] == "estimate"}
    assert (planned["audits"], creates - planned["to_do"]) == (4, 4)
    service.behave(**fault("operation:fewer-rows,rows=0"))
    ran = run("audit", "--sample", "4")
    assert ran.code == Exit.PARTIAL
    assert any(re.fullmatch(r"differs: everyone-events \S+: 0 rows instead of \d+, .*kept", one) for one in ran.out)
    assert "`asyncexport retry --accept-fewer` replaces the archives" in ran.hint


def test_a_quiet_audit_prints_only_differences(run, service):
    """With `-q`, an audit prints one line if rows came late, although all is stored now, and nothing otherwise."""
    service.behave(**fault("operation:fewer-rows,rows=9"))
    a_run_before()
    service.behave()
    audit = ("-q", "audit", "--sample", "4")
    found = run(*audit)
    assert (found.code, found.out) == (0, ["audit: of 4 exported again 1 differs: fewer than 76 % do, at 95 %"])
    assert run(*audit).out == []


def test_a_locked_directory_reports_the_other_run(run):
    """The error contains the other run's command and process, and nothing is changed."""
    with hold(Path("exports"), command="nightly"):
        ran = run("--json", *BACKFILL)
        status = run("--json", "status")
    assert ran.code == ran.summary["exit_code"] == Exit.LOCKED
    assert f"nightly, process {os.getpid()} on " in ran.errors[0]
    assert status.code == Exit.DONE
    assert not list(Path("exports").glob("*.gz"))


def test_without_a_key_nothing_is_sent(run, service, monkeypatch):
    """A missing key is found before the first request, and the hint says where to put it."""
    monkeypatch.delenv("FULLSTORY_API_KEY")
    ran = run(*BACKFILL)
    assert ran.code == Exit.KEY_REFUSED
    assert "FULLSTORY_API_KEY" in ran.hint
    assert service.requests == 0


def test_an_unexpected_error_is_one_line_and_a_hint(capsys):
    """The code is 1 and the line has the place but not the text, which may contain a secret; `-vv` shows all."""

    def bug() -> int:
        raise KeyError("na1.SECRET")

    for verbose in (0, 2):
        session = Session(as_json=True)
        session.take("verbose", verbose)
        session.begin()
        assert conclude(session, bug) == Exit.UNEXPECTED
        output = capsys.readouterr()
        assert json.loads(output.out.splitlines()[-1])["exit_code"] == 1
        assert re.search(r"^asyncexport: error: unexpected KeyError at \S+test_cli.py:\d+$", output.err, re.MULTILINE)
        assert "report it" in output.err
        assert ("Traceback" in output.err) is (verbose == 2)
        assert ("SECRET" in output.out + output.err) is (verbose == 2)


def test_all_problems_are_reported_at_the_same_time(run):
    """One run of a command reports every fault of its options and settings."""
    ran = run(
        "backfill",
        *("--start", "2026-13-01", "--end", "x", "--max-duration", "5x", "--set", "budget.burst=no"),
        *("--set", "polling.prefer=sped"),
    )
    assert ran.code == Exit.USAGE
    assert len(ran.errors) == 5
    assert len(ran.err) == 6
    assert "asyncexport init" in ran.hint


def test_a_fault_in_a_config_file_is_reported_with_the_file(run, monkeypatch):
    """The error contains the path as the user wrote it; faults of other sources are reported with those."""
    Path("bad.toml").write_text('[budgte]\nburst = 3\n[[export]]\nname = "a"\nformat = "xml"\n[output]\ngrace = 5\n')
    ran = run("-c", "bad.toml", "status", "--set", "budget.burst=x")
    assert {error.split(": ")[0] for error in ran.errors} == {"bad.toml", "budget.burst (on the command line)"}
    assert "bad.toml: budgte: unknown table (did you mean [budget]?)" in ran.errors
    assert any(error.startswith('bad.toml: export "a".format: ') for error in ran.errors)
    Path("bad.toml").rename("asyncexport.toml")
    assert any(error.startswith("asyncexport.toml: budgte: ") for error in run("status").errors)
    monkeypatch.setenv("ASYNCEXPORT_CONFIG", "elsewhere.toml")
    Path("asyncexport.toml").rename("elsewhere.toml")
    assert run("--json", "status").summary["error"].startswith("elsewhere.toml: ")


def test_an_option_without_a_value_refers_to_the_help_of_its_command(run):
    """The hint names the command's help, not the program's."""
    assert run("backfill", "--start").hint == "`asyncexport backfill --help` lists the options"


def test_help_is_also_a_command(run):
    """`asyncexport help` equals `--help`, with and without a command."""
    assert run("help") == run("--help")
    assert run("help", "backfill").out[1:] == run("backfill", "--help").out[1:]
    assert run("help", "backfil").hint == "`asyncexport --help` lists the commands"


def test_a_failed_retry_does_not_suggest_a_retry(run, service):
    """The hint leads to `status`, which shows the reasons."""
    service.behave(**fault("operation:FAILED"))
    assert "`asyncexport retry`" in run(*BACKFILL).hint
    ran = run("retry")
    assert (ran.code, "`asyncexport status`" in ran.hint, "asyncexport retry" in ran.hint) == (3, True, False)


def test_the_nearest_option_is_suggested(run):
    """A mistyped option is answered with the most similar one."""
    assert run("backfill", "--exprot", "a").errors == ["no such option: --exprot (did you mean --export?)"]
    assert run("verify", "--rebiuld").errors == ["no such option: --rebiuld (did you mean --rebuild?)"]


def test_a_flag_overrides_the_environment_which_overrides_the_file(run, monkeypatch):
    """The order is flag, environment, file."""
    with Path("asyncexport.toml").open("a") as file:
        file.write('directory = "from-file"\n')
    assert run("--json", "status").summary["directory"] == "from-file"
    monkeypatch.setenv("ASYNCEXPORT_OUTPUT__DIRECTORY", "from-environment")
    assert run("--json", "status").summary["directory"] == "from-environment"
    assert run("--json", "status", "--set", "output.directory=set").summary["directory"] == "set"
    assert run("--json", "status", "-d", "flag").summary["directory"] == "flag"


def unmoved(ran: Ran) -> list[dict[str, Any]]:
    """Return a plan's records without the finish time, which depends on the current time."""
    return [{key: value for key, value in record.items() if key != "ends_at"} for record in ran.records[:-1]]


def test_global_options_go_before_or_after_the_command(run, service):
    """Both positions mean the same."""
    assert unmoved(run("--json", "plan", *DAYS)) == unmoved(run("plan", *DAYS, "--json"))
    quiet = run("backfill", *DAYS, "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, [], [])
    verbose = run("status", "-vv", "--log-format", "json")
    assert verbose.code == 0
    Path("other.toml").write_text('[output]\ndirectory = "elsewhere"\n')
    assert run("status", "--json", "-c", "other.toml").summary["directory"] == "elsewhere"


def test_plan_reports_what_a_backfill_would_refuse(run, service):
    """A changed definition under an old name is an error in `plan`, before a run fails for it."""
    a_run_before()
    with Path("asyncexport.toml").open("a") as file:
        file.write('[[export]]\nfields = ["EventStart"]\n')
    output = [run(command, *DAYS) for command in ("plan", "backfill")]
    assert [ran.code for ran in output] == [Exit.LEDGER, Exit.LEDGER]
    assert output[0].errors == output[1].errors


def test_a_hint_repeats_only_settings_that_matter_to_its_command(run, service):
    """The suggested `retry` leaves out the settings of `nightly`."""
    service.behave(**fault("operation:FAILED"))
    run(*BACKFILL)
    sets = ("--set", "nightly.since=2026-01-01", "--set", "nightly.refresh=48h", "--set", "budget.burst=900")
    assert run("status", *sets).hint == "`asyncexport retry --set budget.burst=900` retries parked bundles"


def counted_requests() -> dict[tuple[str, int], int]:
    """Return how many requests the ledger has counted by kind and status, whatever their hour."""
    with LedgerReader(Path("exports")) as ledger:
        hours = ledger.hours()
        counted: dict[tuple[str, int], int] = {}
        for one in hours:
            counted[one.kind, one.status] = counted.get((one.kind, one.status), 0) + one.requests
        assert len(ledger.requests_since(0)) == sum(counted.values())
    return counted


@pytest.mark.parametrize(
    ("arguments", "behaviour", "code"),
    [
        (("backfill", "--start", "2026-01-01", "--end", "2026-01-01T03:00:00Z"), {}, Exit.DONE),
        (BACKFILL, {}, Exit.DONE),
        (("nightly", "--set", f"nightly.since={TWO_DAYS_AGO}"), {}, Exit.DONE),
        (("retry",), {}, Exit.DONE),
        (("verify", "--repair"), {}, Exit.DONE),
        (("backfill", "--start", "2026-01-02", "--end", "2026-01-03"), fault("operation:FAILED"), Exit.PARTIAL),
        (("backfill", "--start", "2026-01-02", "--end", "2026-01-03"), fault("api:503"), Exit.UNREACHABLE),
        (("backfill", "--start", "2026-01-02", "--end", "2026-01-03"), fault("api:401"), Exit.KEY_REFUSED),
        (
            ("backfill", "--start", "2026-01-02", "--end", "2026-01-03", "--max-duration", "300ms"),
            fault("operation:pending"),
            Exit.TIME_UP,
        ),
    ],
    ids=["backfill", "nothing to do", "nightly", "retry", "repair", "parked", "unreachable", "key refused", "time up"],
)
def test_every_run_has_its_row_and_every_request_its_hour(run, service, arguments, behaviour, code):
    """However a run ends, the ledger has its row and counts each request that the service has seen."""
    a_run_before()
    archives()[0].unlink()
    before = counted_requests()
    service.behave(**behaviour)
    assert run("-q", *arguments).code == code
    counted = {key: count - before.get(key, 0) for key, count in counted_requests().items()}
    # A request that was cancelled just before it was sent is counted, and the service never sees it.
    answered = sum(count for (_, status), count in counted.items() if status)
    assert answered <= service.requests <= sum(counted.values())
    with LedgerReader(Path("exports")) as ledger:
        first, last = ledger.runs()
    assert (first.command, last.command) == ("backfill", arguments[0])
    assert (last.exit_code, sum(last.counts["requests"].values())) == (code, sum(counted.values()))


def test_requests_for_segments_are_counted(run, service):
    """They count like those of runs, so that the next run's budget and the counts per hour know of them."""
    assert run("segments").code == 0
    assert not Path("exports").exists()
    a_run_before()
    before = counted_requests()
    service.behave(segments=150, **fault("segments:503,nth=2"))
    assert run("segments").code == Exit.UNREACHABLE
    after = counted_requests()
    changed = {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}
    assert changed == {("other", 200): 1, ("other", 503): 1}
    with LedgerReader(Path("exports")) as ledger:
        assert len(ledger.runs()) == 1


def test_requests_for_segments_are_not_counted_during_a_run(run, service):
    """Only the run writes to the ledger; the command does not fail."""
    a_run_before()
    before = counted_requests()
    with hold(Path("exports"), command="backfill"):
        ran = run("-v", "segments")
    assert ran.code == 0
    assert any("does not count the requests of this command: another run holds exports" in line for line in ran.err)
    assert counted_requests() == before


def test_segments_leave_a_damaged_ledger_as_it_is(run, service):
    """A changed byte that only a complete check finds is not written over."""
    a_run_before()
    path = Path("exports/.asyncexport/ledger.sqlite3")
    content = path.read_bytes()
    checked = 0
    for at in flips(len(content)):
        changed = content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :]
        for side in path.parent.glob("ledger.sqlite3-*"):
            side.unlink()
        path.write_bytes(changed)
        if is_intact(Path("exports")):
            continue
        assert run("segments").code in (0, Exit.LEDGER)
        assert path.read_bytes() == changed, at
        checked += 1
        if checked == 30:
            break
    assert checked == 30


def test_segments_of_an_unreachable_service(run):
    """The request is counted, and the hint says what to check."""
    ran = run("segments", "--json", "--set", "api.base_url=http://127.0.0.1:1")
    assert ran.code == Exit.UNREACHABLE
    assert ran.summary["requests"]["other"] == 1
    assert "[api] base_url" in ran.hint


def test_status_reports_the_gaps_that_nightly_would_fill(run, service):
    """With `[nightly] since` gaps before the first and after the last archive count, too."""
    a_run_before()
    assert run("status", "--json").records[0]["gaps"] == []
    [export, *_] = run("status", "--json", "--set", "nightly.since=2025-12-31").records
    assert export["since"] == "2025-12-31T00:00:00Z"
    before, after = export["gaps"]
    assert before == {
        "start": "2025-12-31T00:00:00Z",
        "end": "2026-01-01T00:00:00Z",
        "reason": "never asked",
        "command": "asyncexport backfill --start 2025-12-31 --end 2026-01-01 --set nightly.since=2025-12-31",
    }
    assert (after["start"], after["end"]) == ("2026-01-01T02:00:00Z", export["settled_until"])
    assert (after["reason"], after["command"]) == ("behind", "asyncexport nightly --set nightly.since=2025-12-31")
    [export, *_] = run("status", "--json", "--set", "nightly.since=2026-01-01T01:00:00Z").records
    assert [one["start"] for one in export["gaps"]] == ["2026-01-01T02:00:00Z"]


def test_status_reports_deleted_and_cut_archives(run, service):
    """Status compares presence and size; only `verify --repair` exports such archives again."""
    a_run_before()
    first, second, *_ = archives()
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    ran = run("status", "--json")
    assert ran.code == Exit.PARTIAL
    altered = ran.records[0]["altered"]
    assert [
        (one["start"][11:16], one["path"] in str(path)) for one, path in zip(altered, (first, second), strict=True)
    ] == [
        ("00:00", True),
        ("00:30", True),
    ]
    size = second.stat().st_size
    assert [one["reason"] for one in altered] == [
        "the file does not exist",
        f"the file has {size:,} bytes instead of {size + 1:,}",
    ]
    assert (ran.summary["bundles"]["already"], ran.summary["bundles"]["failed"]) == (2, 2)
    assert run("status").hint == "`asyncexport verify --repair` exports missing and broken archives again"
    assert run("verify", "--repair").code == 0
    assert run("status").code == 0


def test_an_unknown_export_is_reported_with_the_known_ones(run, service):
    """An export that is both configured and stored is listed once."""
    a_run_before()
    assert run("status", "--export", "nope").errors == [
        "--export: there is no export 'nope' (known: everyone-events)",
    ]


# stdout and stderr


def test_results_go_to_stdout_and_all_else_to_stderr(run, service):
    """Redirected stdout contains the result and nothing else."""
    service.behave(**fault("operation:FAILED"))
    ran = run(*BACKFILL)
    assert ran.code == Exit.PARTIAL
    assert ran.out[0] == "finished, but not everything is done: 0 of 4 bundles stored, 4 parked"
    assert "the files are in exports" not in ran.out, "there are none"
    (parked,) = (line for line in ran.out if line.startswith("parked: "))
    assert " (4 bundles): " in parked
    assert not [line for line in ran.err if "parked: " in line], "it is printed on stdout already"
    assert ran.hint == "`asyncexport retry` retries parked bundles"


def test_with_v_every_stored_bundle_has_a_line(run, service):
    """The line contains the bundle, its rows and its bytes."""
    service.behave()
    ran = run("-v", *BACKFILL)
    stored_lines = [line for line in ran.err if ": stored, " in line]
    assert len(stored_lines) == 4
    pattern = (
        r"asyncexport: info: (\S+Z )?everyone-events 2026-01-01T\S+Z to 2026-01-01T\S+Z: stored, \d+ rows, [\d,]+ bytes"
    )
    assert all(re.fullmatch(pattern, line) for line in stored_lines)


def test_with_vv_requests_are_logged_with_their_bundle_or_operation(run, service):
    """The log of a bundle contains its create, operation and download, and no signed link."""
    service.behave()
    ran = run("-vv", *BACKFILL)
    first = "everyone-events 2026-01-01T00:00:00Z to 2026-01-01T00:30:00Z: "
    about = [line.partition(first)[2] for line in ran.err if first in line]
    assert about[0] == "sending its create, attempt 1"
    assert about[1].startswith("operation ")
    assert about[2] == "downloading its file from byte 0 on"
    assert about[3].startswith("stored, ")
    assert [line for line in ran.err if "/search/v1/exports/" in line]
    assert not [line for line in ran.err if "X-Goog" in line or "ignature" in line]


def test_with_q_a_run_prints_one_line_or_nothing(run, service):
    """A successful run prints nothing, so that cron sends no mail; any other prints one line."""
    service.behave(**fault("operation:FAILED"))
    ran = run("-q", *BACKFILL)
    assert ran.code == Exit.PARTIAL
    assert len(ran.out + ran.err) == 1
    service.behave()
    again = run("-q", "retry")
    assert (again.code, again.out, again.err) == (0, [], [])


def test_the_closing_text_shows_how_to_read_an_archive(run, service):
    """The last line is a command that prints a row of an archive."""
    ran = run(*BACKFILL)
    assert ran.code == 0
    command = ran.out[-1].removeprefix("view one: ")
    shown = subprocess.run(command, shell=True, capture_output=True, check=True, text=True).stdout
    assert "EventStart" in json.loads(shown)
    again = run(*BACKFILL)
    assert again.out[:2] == ["done: 4 of 4 bundles stored, 4 of them by earlier runs", "no request was needed"]
    assert again.out[-1].startswith("view one: gzip -dc exports/")


def test_a_finished_range_costs_no_request(run, service):
    """The second run of a range sends nothing."""
    run(*BACKFILL)
    service.behave()
    ran = run("--json", *BACKFILL)
    assert ran.code == 0
    assert service.requests == 0
    assert set(ran.summary["requests"].values()) == {0}


def test_json_lines_of_a_run(run, service):
    """There is one object per stored bundle and the documented summary at the end."""
    ran = run("--json", *BACKFILL)
    stored = [record for record in ran.records if record["type"] == "stored"]
    assert [one["start"][11:16] for one in sorted(stored, key=lambda one: one["start"])] == [
        "00:00",
        "00:30",
        "01:00",
        "01:30",
    ]
    assert sum(one["rows"] for one in stored) == ran.summary["rows"]
    assert sum(one["bytes"] for one in stored) == ran.summary["bytes"] == sum(p.stat().st_size for p in archives())
    assert ran.summary["requests"]["create"] == 4
    assert ran.summary["bundles"]["stored"] == 4
    keys = "type command exit_code seconds bundles refreshed rows bytes requests refused possible_duplicates"
    assert list(ran.summary) == [*keys.split(), "rows_outside", "shortfalls", "directory", "ranges", "problems"]


def test_stderr_as_json_is_json_to_the_last_line(run, service):
    """With `--log-format json` log lines, errors and hints are JSON objects."""
    service.behave(**fault("operation:FAILED"))
    output = (
        run("-vv", "--log-format", "json", *BACKFILL).err + run("--log-format", "json", "retry", "--export", "x").err
    )
    read = [json.loads(line) for line in output]
    assert {one["level"] for one in read} >= {"debug", "info", "error"}
    assert all({"time", "level", "message"} <= set(one) for one in read)


def test_no_secret_is_printed_or_stored(run, service, tmp_path):
    """Neither the key nor a signed link is in any output, file or ledger at the highest verbosity."""
    for behaviour in ({}, fault("api:401"), fault("download:403")):
        service.behave(**behaviour)
        ran = run("-vv", "--json", *BACKFILL, "-d", f"out{len(behaviour)}")
        output = "\n".join(ran.out + ran.err)
        assert len(ran.err) > 2
        assert KEY.split("/")[1] not in output
        assert "ignature" not in output
        assert "X-Goog" not in output
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert KEY.encode() not in content
            assert b"ignature" not in content


def test_a_refused_export_is_reported_with_its_name(run, service):
    """The error begins with the name of the export that the service refused."""
    two_exports()
    service.behave(**fault("create:400"))
    ran = run(*BACKFILL, "--export", "checkout")
    assert ran.code == Exit.USAGE
    assert len(ran.errors) == 1
    assert ran.errors[0].startswith("checkout: ")


# The commands


def test_plan_needs_no_key_and_no_request(run, service, monkeypatch):
    """A plan leaves no files behind and has an estimate for each scope and bundle width."""
    monkeypatch.delenv("FULLSTORY_API_KEY")
    before = set(Path().rglob("*"))
    ran = run("--json", "plan", "--start", "2026-01-01", "--end", "2026-01-31", *at_the_real_pace())
    assert ran.code == 0
    assert service.requests == 0
    assert set(Path().rglob("*")) == before
    (plan,) = (record for record in ran.records if record["type"] == "plan")
    assert (plan["to_do"], plan["already"]) == (1440, 0)
    estimates = {(one["width_seconds"], one["reading"]): one for one in ran.records if one["type"] == "estimate"}
    assert {width for width, _ in estimates} == {None, 1800, 3600, 21_600, 86_400}
    assert {reading for _, reading in estimates} == {"create", "all", "all, no list"}
    assert estimates[None, "create"]["requests"] == 1440
    assert estimates[86_400, "create"]["bundles"] == 30
    # The creates alone take 11.6 h, from a full bucket with one reserve token; then the last operation runs.
    assert estimates[None, "create"]["seconds"] == pytest.approx((1440 - 49) * 30 + 300)


def at_the_real_pace() -> tuple[str, ...]:
    return ("--set", "budget.requests_per_minute=2", "--set", "budget.burst=50", "--set", "polling.expected=5m")


def test_plan_counts_stored_bundles_and_used_tokens(run, service):
    """Stored bundles are not planned again, and requests of the last run reduce the bucket's level."""
    run(*BACKFILL, *at_the_real_pace(), "--set", "polling.expected=20ms")
    ran = run("--json", "plan", "--start", "2026-01-01", "--end", "2026-01-02", *at_the_real_pace())
    assert ran.summary["bundles"] == {
        "planned": 48,
        "already": 4,
        "stored": 0,
        "empty": 0,
        "failed": 0,
        "unfinished": 44,
    }
    text = run("plan", "--start", "2026-01-01", "--end", "2026-01-02", *at_the_real_pace()).out
    assert text[1] == "  44 bundles to do, 4 already stored"
    (creates,) = (line for line in text if line.startswith("only creates"))
    assert re.fullmatch(r"only creates +44 +4[5-8] +\S.*UTC", creates)


def test_a_plan_with_nothing_to_do_says_so(run, service):
    """No table follows; as JSON there is a line for the export, and no estimate."""
    a_run_before()
    assert run("plan", *DAYS).out == [
        "everyone-events: 2026-01-01T00:00:00Z to 2026-01-01T02:00:00Z, in bundles of 30m",
        "  0 bundles to do, 4 already stored",
        "nothing to do: the run would send no request",
    ]
    assert [record["type"] for record in run("--json", "plan", *DAYS).records] == ["plan", "summary"]


def test_a_plan_of_a_night_says_what_the_night_costs(run, service):
    """New bundles and due refreshes are planned with as many creates as the night sends, and a done night with none."""
    night = ("--set", f"nightly.since={TWO_DAYS_AGO}", "--set", "nightly.refresh=27h,400d")
    planned, creates = planned_night(run(*PLAN_OF_A_NIGHT, *night))
    assert (planned["already"], planned["refreshes"], planned["resting"]) == (0, 0, 0)
    summary = run("--json", "nightly", *night).summary
    # Another bundle may settle between the two commands.
    assert summary["requests"]["create"] - creates in (0, 1)
    assert planned["to_do"] == creates >= 44
    assert run("plan", "--nightly", *night).out[-1] == "nothing to do: the run would send no request"

    date_back(3, age=26.5 * 3600)
    planned, creates = planned_night(run(*PLAN_OF_A_NIGHT, *night))
    assert (planned["to_do"], planned["refreshes"], creates) == (3, 3, 3)
    text = run("plan", "--nightly", *night).out
    assert text[1] == f"  3 bundles to do (3 to refresh), {summary['bundles']['stored'] - 3} already stored"
    assert "3 creates to send" in text
    assert not [line for line in text if line.startswith("bundles of")]
    summary = run("--json", "nightly", *night).summary
    assert (summary["refreshed"]["bundles"], summary["requests"]["create"]) == (3, 3)


PLAN_OF_A_NIGHT = ("--json", "plan", "--nightly")


def planned_night(ran: Ran) -> tuple[dict[str, Any], int]:
    """Return the plan, and the number of creates, on which all estimates agree."""
    (plan,) = (one for one in ran.records if one["type"] == "plan")
    (creates,) = {one["creates"] for one in ran.records if one["type"] == "estimate"}
    return plan, creates


def date_back(count: int, *, age: float) -> None:
    """Record the first archives as exported when their bundles were `age` seconds old."""

    async def append() -> None:
        ledger = await Ledger.open(Path("exports"))
        found = await ledger.query(lambda queries: list(queries.stored("everyone-events", ALL_TIME)))
        for record in found[:count]:
            assert record.stored is not None
            at = record.bundle.range.end + age
            archive = replace(record.stored, exported_at=at, asked_at=at)
            await ledger.append(replace(record, revision=1, state=archive, stored=archive), at=time.time())
        await ledger.close()

    asyncio.run(append())


def test_plan_of_individuals_has_no_narrower_bundles(run):
    """Individuals are exported in bundles of a day, so no estimate for a narrower width is shown."""
    two_exports()
    ran = run("--json", "plan", *("--start", "2026-01-01", "--end", "2026-01-03"), "--export", "people")
    assert {one["width_seconds"] for one in ran.records if one["type"] == "estimate"} == {None, 86_400}
    assert not [line for line in run("plan", *DAYS, "--export", "people").out if line.startswith("bundles of")]


def test_plan_says_which_scope_a_run_would_assume(run):
    """The scope comes from the setting, else from what an earlier run learned, else it is unknown."""

    def assumed(*arguments: str) -> str:
        output: list[str] = run("plan", *DAYS, *arguments).out
        return next(line for line in output if line.startswith("a run assumes the "))

    assert assumed("--set", "budget.scope=create") == "a run assumes the first line, as set by [budget] scope"
    assert assumed("--set", "budget.scope=all").startswith("a run assumes the second line, as set by [budget] scope")
    assert "until the service's answers show that another one applies" in assumed()

    async def learn(at: float) -> None:
        ledger = await Ledger.open(Path("exports"))
        ledger.remember("all_counted_since", repr(at))
        await ledger.close()

    now = time.time()
    asyncio.run(learn(now - DAY))
    assert assumed() == f"a run assumes the second line: it learned at {show(now - DAY)} that every request counts"
    asyncio.run(learn(now - 8 * DAY))
    assert "first line" in assumed()


def test_an_end_that_is_not_settled_is_cut_back(run):
    """A log line says where the range ends, and it is no error."""
    ran = run("plan", "--start", "3d", "--end", "today")
    assert ran.code == 0
    assert [line for line in ran.err if "so the range ends there" in line]


def test_status_reports_gaps_and_parked_bundles(run, service):
    """Status shows what is stored, what is missing and the reason."""
    run("-q", "backfill", "--start", "2026-01-01T00:00:00Z", "--end", "2026-01-01T00:30:00Z")
    run("-q", "backfill", "--start", "2026-01-01T01:30:00Z", "--end", "2026-01-01T02:00:00Z")
    service.behave(**fault("operation:FAILED"))
    run("-q", "backfill", "--start", "2026-01-01T00:30:00Z", "--end", "2026-01-01T01:00:00Z")
    ran = run("--json", "status")
    assert ran.code == Exit.PARTIAL
    (export,) = (record for record in ran.records if record["type"] == "export")
    assert export["stored"] == 2
    parked, never_asked = export["gaps"]
    assert (parked["start"], parked["end"], parked["reason"]) == (
        "2026-01-01T00:30:00Z",
        "2026-01-01T01:00:00Z",
        "parked",
    )
    assert parked["command"] == "asyncexport retry --start 2026-01-01T00:30:00Z --end 2026-01-01T01:00:00Z"
    assert (never_asked["end"], never_asked["reason"]) == ("2026-01-01T01:30:00Z", "never asked")
    assert never_asked["command"].startswith("asyncexport backfill --start 2026-01-01T01:00:00Z ")
    assert export["parked"][0]["start"] == "2026-01-01T00:30:00Z"
    assert export["parked"][0]["reason"].startswith("the operation failed: ")
    due = [one["next_try"] for one in export["parked"]]
    assert [one["next_try"] for one in ran.summary["problems"]] == due
    assert (
        export["rows"]
        == ran.summary["rows"]
        == sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in archives())
    )
    text = "\n".join(run("status").out)
    assert "2026-01-01T00:30:00Z to 2026-01-01T01:00:00Z (30 min): parked\n    asyncexport retry --start " in text
    assert "2026-01-01T00:30:00Z: the operation failed: " in text
    service.behave()
    assert run("-q", "retry").code == 0
    assert run("--json", "status").records[0]["parked"] == []


def test_status_reports_how_the_last_run_ended(run, service):
    """The exit code and the error of the last run are shown."""
    run("-q", *BACKFILL)
    assert re.fullmatch(r"last run: backfill ended with exit code 0 at \S+Z", run("status").out[1])
    service.behave(**fault("create:503"))
    run("-q", "backfill", "--start", "2026-01-02", "--end", "2026-01-02T02:00:00Z")
    (last,) = (record for record in run("--json", "status").records if record["type"] == "last_run")
    assert (last["command"], last["exit_code"]) == ("backfill", Exit.UNREACHABLE)
    assert last["began"] <= last["ended"]
    assert "could not be reached" in last["error"]
    line = run("status").out[1]
    assert line == f"last run: backfill ended with exit code 5 at {last['ended']}: {last['error']}"


def test_status_reports_a_killed_run(run, service):
    """A run that could not record its end is shown as one that did not end."""
    service.behave(**fault("operation:pending,nth=4"))
    process = started("--json", *BACKFILL)
    with ending(process):
        assert json.loads(next(lines(process.stdout)))["type"] == "stored"
        process.kill()
        process.wait()
    text = run("status").out
    assert re.fullmatch(
        r"last run: backfill started at \S+Z and did not finish: .*; run the same command again to resume", text[1]
    )
    (in_progress,) = (line for line in text if line.startswith("  in progress "))
    assert re.search(r" [1-3] bundles? (in flight at the service|ready to download)", in_progress)


def test_a_health_check_is_one_line_with_its_reason(run, service):
    """Text has one line on stdout, JSON the same verdict as the whole status; a hint leads to the details."""
    a_night_before()
    good = run("status", "--check")
    (line,) = good.out
    assert re.fullmatch(
        r"healthy: the last run \(nightly\) ended well at \S+Z; everything since \S+ is stored up to \S+:[03]0:00Z",
        line,
    )
    assert (good.code, good.err, run("-q", "status", "--check").out) == (0, [], [])
    archives()[0].unlink()
    bad = run("status", "--check")
    (reason,) = bad.out
    assert bad.code == Exit.PARTIAL
    assert reason == (
        f"not healthy: everyone-events: 1 archive deleted or changed, the first at {TWO_DAYS_AGO}T00:00:00Z: "
        "the file does not exist"
    )
    assert bad.hint == "`asyncexport status` shows details and the commands that help"
    assert run("-q", "status", "--check").out == bad.out
    checked, shown = run("--json", "status", "--check").records, run("--json", "status").records
    assert [record["type"] for record in checked] == ["health", "summary"]
    (health,) = (record for record in shown if record["type"] == "health")
    assert checked[0] == health == {"type": "health", "healthy": False, "reason": reason[13:]}
    assert {(one[-1]["healthy"], one[-1]["reason"]) for one in (checked, shown)} == {(False, reason[13:])}
    assert reason in run("status").out


def test_status_lists_accepted_gaps_as_no_fault(run, service):
    """A parked bundle that the user has accepted is listed with the reason, and no longer makes exit code 3."""
    service.behave(**fault(f"operation:FAILED,window={TWO_DAYS_AGO}T01:00:00Z/{TWO_DAYS_AGO}T01:30:00Z"))
    sets = ("--set", f"nightly.since={TWO_DAYS_AGO}", "--set", "retry.before_split=9")
    assert run("-q", "nightly", *sets).code == Exit.PARTIAL
    assert run("status").code == run("status", "--check").code == Exit.PARTIAL
    with LedgerReader(Path("exports")) as ledger:
        (known,) = ledger.overviews()
    gaps = [AcceptedGap(one.bundle, "the tag was off", time.time()) for one in known.parked]

    async def accept() -> None:
        ledger = await Ledger.open(Path("exports"))
        for gap in gaps:
            await ledger.accept(gap)
        await ledger.close()

    asyncio.run(accept())
    ran = run("--json", "status")
    bundles = ran.summary["bundles"]
    assert (ran.code, bundles["failed"], bundles["planned"]) == (0, 0, bundles["already"])
    export = ran.records[0]
    assert export["gaps"] == []
    assert [(one["reason"], one["start"]) for one in export["accepted"]] == [
        ("the tag was off", one["start"]) for one in export["parked"]
    ]
    assert {one["accepted"] for one in export["parked"]} == {True}
    assert run("status", "--check").code == 0
    assert any(line.startswith("  accepted    ") for line in run("status").out)


def test_a_health_check_allows_a_delay(run, service):
    """Data that was settled longer ago than `--max-behind` must be stored, from the start of nights on."""
    since = day(int(time.time()) - 4 * DAY)
    sets = ("--set", f"nightly.since={since}")
    assert run("-q", "backfill", "--start", since, "--end", TWO_DAYS_AGO).code == 0
    assert run("status", "--check", "--max-behind", "50h", *sets).code == 0
    late = run("status", "--check", "--max-behind", "1s", *sets)
    assert late.code == Exit.PARTIAL
    assert f"everyone-events: stored up to {TWO_DAYS_AGO}T00:00:00Z, " in late.out[0]
    assert "behind the settled data (allowed: 1 s)" in late.out[0]


def test_a_health_check_without_a_ledger_has_a_reason(run):
    """The reason is on stdout, and the error with its hint on stderr."""
    ran = run("status", "--check")
    assert (ran.code, ran.out, ran.errors) == (
        Exit.LEDGER,
        ["not healthy: exports has no ledger"],
        ["exports has no ledger"],
    )


def test_a_health_check_of_a_damaged_ledger_has_a_reason(run, service):
    """The reason is on stdout, as text and as JSON, and the error with its hint on stderr."""
    a_damaged_ledger()
    ran = run("status", "--check")
    assert ran.code == Exit.LEDGER
    (reason,) = ran.out
    assert reason == f"not healthy: {ran.errors[0]}"
    assert "verify --rebuild" in ran.hint
    health, summary = run("--json", "status", "--check").records
    assert (health["healthy"], health["reason"], summary["error"]) == (False, ran.errors[0], ran.errors[0])


def test_status_lists_the_last_runs(run, service):
    """`--runs` says how many; each has its time, its command, its duration and its outcome."""
    for hour in range(1, 4):
        run("-q", "backfill", "--start", "2026-01-01", "--end", f"2026-01-01T0{hour}:00:00Z")
    service.behave(**fault("operation:FAILED"))
    failing = ("backfill", "--start", "2026-01-02", "--end", "2026-01-02T01:00:00Z")
    run("-q", *failing)
    (runs,) = (record["runs"] for record in run("--json", "status", "--runs", "2").records if record["type"] == "runs")
    assert [(one["command"], one["exit_code"]) for one in runs] == [("backfill", 0), ("backfill", 3)]
    out = run("status", "--runs", "2").out
    first, second = out[out.index("last runs:") + 1 :][:2]
    assert re.fullmatch(r"  \S+ \S+ UTC  backfill  +\d+ m?s  exit 0  2 bundles stored", first)
    assert re.fullmatch(r"  \S+ \S+ UTC  backfill  +\d+ m?s  exit 3  0 bundles stored, 2 parked", second)
    assert "last runs:" not in run("status", "--runs", "0").out


def test_status_shows_coverage_by_week(run, service):
    """A week is a line of at most 80 columns; older weeks that are alike share one."""
    a_night_before()
    run("-q", "backfill", "--start", "2026-01-01", "--end", "2026-01-01T01:00:00Z")
    out = run("status", "--set", "nightly.since=2026-01-01").out
    at = next(number for number, line in enumerate(out) if line.startswith("  weeks "))
    weeks = out[at : at + 9]
    assert weeks[:4] == [
        "  weeks       a character for every six hours, UTC",
        "    # stored  . not due  - missing",
        "    week of     Mon  Tue  Wed  Thu  Fri  Sat  Sun",
        "    2025-12-29                 ---- ---- ---- ----  3 d 23 h missing",
    ]
    assert re.fullmatch(r"    2026-01-05  to \S+: \d+ weeks missing", weeks[4])
    assert max(map(len, weeks)) <= 80
    assert max(len(f"    {'  '.join(LEGEND)}"), 44 + len("  451 d 15 h missing")) <= 80
    assert {entry[0] for entry in LEGEND} == set(MARKS.values())


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("command", [("status",), ("doctor",), ("plan", "--start", "2025-12-31"), ("load", "--again")])
def test_results_are_broken_between_words_on_a_narrow_terminal(run, service, command, columns):
    """Only commands are longer than a line; through a pipe, no line is broken."""
    run("-q", *BACKFILL)
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, columns))
    process = started(*command, stdout=inner)
    os.close(inner)
    with os.fdopen(outer, "rb", buffering=0) as terminal, ending(process):
        shown = b""
        # The end of the other side is an error on Linux.
        with contextlib.suppress(OSError):
            while part := terminal.read(4096):
                shown += part
        process.wait()
    lines = shown.decode().splitlines()
    long = [line for line in lines if len(line) > columns and not line.lstrip().startswith("asyncexport ")]
    # A path is one word, which is not broken.
    assert all(str(Path.cwd()) in line and len(line.split()) < 4 for line in long), long
    piped = run(*command).out
    assert len(lines) > len(piped) or (columns == 80 and len(lines) == len(piped))
    if command != ("plan", "--start", "2025-12-31"):
        assert len(" ".join(lines).split()) == len(" ".join(piped).split())


def test_status_without_a_ledger_is_no_failure(run):
    """Text and JSON say that the directory is empty."""
    assert run("status").out == ["nothing exported yet: exports has no ledger"]
    note, summary = run("--json", "status").records, run("--json", "status").summary
    assert note[0] == {"type": "note", "message": "nothing exported yet: exports has no ledger"}
    assert summary["exit_code"] == 0


def test_status_counts_a_bundle_with_a_parked_revision_once(run, service):
    """A bundle with an archive and a failed repair counts as parked and not as done."""
    run("-q", "backfill", *DAYS)
    archives()[0].unlink()
    service.behave(**fault("operation:FAILED"))
    run("-q", "verify", "--repair")
    bundles = run("--json", "status").summary["bundles"]
    assert bundles == {"planned": 4, "already": 3, "stored": 0, "empty": 0, "failed": 1, "unfinished": 0}


def test_a_refresh_with_far_fewer_rows_is_reported_and_accepted(run, service):
    """Run and `status` show both row counts; of the runs of that day, only `retry --accept-fewer` exports it again."""
    run("-q", "backfill", *DAYS)
    rows = rows_by_start(run)
    refuse(run, service)
    start, before = "2026-01-01T00:00:00Z", rows["2026-01-01T00:00:00Z"]
    why = f"the archive was kept because the new export has far fewer rows: 0 instead of {before}"
    ran = run("status")
    assert ran.code == Exit.PARTIAL
    assert ran.out[-3] == "  kept        1"
    listed, _, due = ran.out[-2].partition("; retried by the first nightly run after ")
    assert listed == f"                {start} to 2026-01-01T00:30:00Z: {why}"
    assert "`asyncexport retry --accept-fewer` replaces the archives with new exports" in ran.hint
    status = run("--json", "status")
    (parked,) = next(record for record in status.records if record["type"] == "export")["parked"]
    assert (parked["start"], parked["reason"], parked["rows_before"], parked["rows_found"]) == (start, why, before, 0)
    assert parked["next_try"] == due
    assert status.summary["bundles"]["already"] == 3
    assert run("--json", "plan", *DAYS).summary["bundles"] | {"planned": 4, "already": 4} == {
        **dict.fromkeys(("planned", "already"), 4),
        **dict.fromkeys(("stored", "empty", "failed", "unfinished"), 0),
    }
    service.behave(**fault("operation:fewer-rows"))
    plain = run("retry")
    assert plain.code == 0
    assert any("`retry --accept-fewer` replaces the archives" in line for line in plain.err)
    assert run(*BACKFILL).code == 0
    assert run("-q", "retry", "--accept-fewer", "--start", "2026-01-01T01:00:00Z").code == 0
    assert service.requests == 0
    accepted = run("retry", "--accept-fewer", "--end", "2026-01-01T01:00:00Z")
    assert accepted.code == 0
    assert f"refreshed: 1 bundle, 1 of them changed; 0 rows added, {before} removed" in accepted.out
    assert run("status").code == 0


def rows_by_start(run: Callable[..., Ran]) -> dict[str, int]:
    """Return the rows of each bundle, counted in its archive."""
    assert run("-q", "verify").code == 0
    starts = ("2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z", "2026-01-01T01:00:00Z", "2026-01-01T01:30:00Z")
    return {
        start: gzip.decompress(path.read_bytes()).count(b"\n") for start, path in zip(starts, archives(), strict=True)
    }


def refuse(run: Callable[..., Ran], service: Service) -> None:
    """Let a repair of the first bundle find far fewer rows while the archive is intact, so that the archive is kept."""
    path = archives()[0]
    content = path.read_bytes()
    path.unlink()
    service.behave(**fault("operation:FAILED"))
    run("-q", "verify", "--repair")
    path.write_bytes(content)
    service.behave(**fault("operation:fewer-rows"))
    ran = run("retry")
    assert ran.code == Exit.PARTIAL
    assert "refreshed: 1 bundle, 0 of them changed; 0 rows added, 0 removed; 1 archive kept" in ran.out
    assert "`asyncexport retry --accept-fewer` replaces the archives with new exports" in ran.hint


def test_a_repair_with_far_fewer_rows_ends_with_3(run, service):
    """The rows are stored, since no archive is left to keep, and both counts are reported."""
    run("-q", "backfill", *DAYS)
    before = rows_by_start(run)["2026-01-01T00:00:00Z"]
    archives()[0].unlink()
    service.behave(**fault("operation:fewer-rows,rows=1"))
    ran = run("verify", "--repair")
    assert ran.code == Exit.PARTIAL
    why = f"there was no intact archive to keep, and the new export has far fewer rows: 1 instead of {before}"
    assert f"fewer rows: everyone-events 2026-01-01T00:00:00Z: {why}" in ran.out
    assert run("-q", "verify").code == 0


def test_status_works_during_a_run(run, service):
    """Status does not disturb the run and names its process."""
    service.behave(**fault("operation:pending,nth=4"))
    process = started("--json", *BACKFILL)
    with ending(process):
        assert json.loads(next(lines(process.stdout)))["type"] == "stored"
        ran = run("--json", "status")
        assert ran.code == 0
        assert ran.records[0]["type"] == "run"
        assert ran.records[0]["pid"] == process.pid
        assert run("status").out[0].startswith(f"a run is in progress: backfill, process {process.pid} on ")


def wait_for(service: Service, kind: str, process: "subprocess.Popen[str]") -> None:
    """Wait until a request of this kind has arrived."""
    while not service.sandbox.counts[kind]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@contextlib.contextmanager
def ending(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kill the process at the end of the block."""
    try:
        yield
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_SECONDS)


def test_verify_reports_broken_archives_and_repairs_them(run, service):
    """Missing, broken and foreign files are reported; a repair exports exactly the missing and broken ones again."""
    a_run_before()
    first, second, *_ = archives()
    first.unlink()
    second.write_bytes(b"no gzip")
    Path("exports/everyone-events/notes.txt").write_text("mine")
    ran = run("--json", "verify")
    assert ran.code == Exit.PARTIAL
    found = {record["type"]: record["path"] for record in ran.records[:-1]}
    assert found["missing"] == str(first.relative_to("exports"))
    assert found["broken"] == str(second.relative_to("exports"))
    assert found["foreign"] == "everyone-events/notes.txt"
    assert ran.summary["bundles"]["already"] == 2
    counts = {"intact": 2, "missing": 1, "broken": 1, "foreign": 1}
    nothing = dict.fromkeys(("damaged", "outside", "overlapping", "adopted", "unknown"), 0)
    assert ran.summary["checked"] == counts | nothing
    assert "archives: 2 intact, 1 missing, 1 broken; 1 other file" in run("verify").out
    service.behave()
    assert run("-q", "verify", "--repair").code == 0
    assert service.sandbox.counts["create"] == 2
    assert run("--json", "verify").summary["bundles"]["already"] == 4


def test_a_repair_includes_exports_that_are_no_longer_configured(run, service):
    """The repair uses the definition recorded in the ledger."""
    with Path("asyncexport.toml").open("a") as file:
        file.write('[[export]]\nname = "old"\n')
    a_run_before()
    Path("asyncexport.toml").write_text(SETTINGS.format(url=service.sandbox.url))
    archives()[0].unlink()
    assert run("-q", "verify", "--repair").code == 0
    assert run("--json", "verify").summary["bundles"]["already"] == 4


def test_segments_are_printed_as_they_are_read(run, service):
    """There is a line with id and name for each segment, built-in ones included, and the requests are counted."""
    service.behave(segments=150)
    ran = run("--json", "segments")
    names = {record["id"]: record["name"] for record in ran.records[:-1]}
    assert names["everyone"] == "Everyone"
    assert len(names) > 150
    assert ran.summary["requests"]["other"] == service.sandbox.counts["segments"] == 2
    assert len(run("segments").out) == len(names)


def test_init_writes_the_example_and_overwrites_only_with_force(run):
    """The written file contains every setting with its default."""
    Path("asyncexport.toml").write_text("# mine\n")
    assert run("init").code == Exit.USAGE
    assert Path("asyncexport.toml").read_text() == "# mine\n"
    assert run("init", "--force").code == 0
    assert Path("asyncexport.toml").read_text() == EXAMPLE
    assert run("status").code == 0
    assert run("-c", "other.toml", "init").code == 0
    assert tomllib.loads(Path("other.toml").read_text())["budget"]["burst"] == 50


# Signals and pipes

SIGNALS = [
    (signal.SIGINT, Exit.INTERRUPTED),
    (signal.SIGTERM, Exit.TERMINATED),
    (signal.SIGHUP, Exit.TERMINATED),
]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_stops_a_run_and_the_same_command_resumes_it(run, service, number, code):
    """The first signal logs what the run waits for, keeps the state and ends it with the signal's exit code."""
    service.behave(**fault("results:stall,nth=4"))
    process = started("--json", *BACKFILL)
    with ending(process):
        for line in lines(process.stdout):
            if json.loads(line)["type"] == "stored":
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == code
    assert "asyncexport: stopping: " in err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["exit_code"] == code
    service.behave()
    ran = run("--json", *BACKFILL)
    assert ran.code == 0
    assert ran.summary["requests"]["create"] == 0
    assert len(archives()) == 4


def test_a_run_under_nohup_ignores_sighup(run, service):
    """A SIGHUP that was ignored when the run started stays ignored."""
    service.behave(**fault("results:late,seconds=0.3"))
    process = started("--json", *BACKFILL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    with ending(process):
        wait_for(service, "create", process)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["bundles"]["stored"] == 4


def test_a_second_signal_stops_immediately(run, service):
    """The second signal does not wait for `[output] grace`."""
    service.behave(**fault("download:drip"))
    process = started("-v", *BACKFILL, "--set", "output.grace=1h")
    with ending(process):
        wait_for(service, "download", process)
        process.send_signal(signal.SIGINT)
        for line in lines(process.stderr):
            if "stopping" in line:
                break
        assert "press Ctrl-C again to stop immediately" in line
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)  # nothing else would end it within 30 s
    assert process.returncode == Exit.INTERRUPTED


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_command_that_has_nothing_to_save(run, service, number, code):
    """A waiting command ends with the signal's exit code and, with `--json`, its summary."""
    service.behave(**fault("segments:stall"))
    process = started("--json", "segments")
    with ending(process):
        wait_for(service, "segments", process)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)  # the read timeout is 60 s
    assert process.returncode == code
    assert json.loads(out.splitlines()[-1])["exit_code"] == code
    assert "Traceback" not in err


def test_a_closed_stdout_does_not_end_a_run(run, service):
    """`backfill --json | head -1` exports the whole range."""
    service.behave(operation_seconds=0.5)
    process = started("--json", *BACKFILL)
    with ending(process):
        next(lines(process.stdout))
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=TIMEOUT_SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert len(archives()) == 4


@contextlib.contextmanager
def an_unread_pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe of the smallest size; yield its reading and its writing end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        os.close(reader)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="the size of a pipe cannot be set here")
@pytest.mark.parametrize("ended_by", ["a reader", signal.SIGINT, signal.SIGTERM])
def test_a_reader_that_does_not_read_does_not_block_a_run(run, service, ended_by):
    """With `--json | less` the run ends and unlocks the directory before it waits for the reader.

    If the reader reads on, it gets every line; otherwise the first signal ends the wait.
    """
    with an_unread_pipe() as (reader, writer):
        process = started("--json", "backfill", "--start", "2026-01-01", "--end", "2026-01-02", stdout=writer)
        os.close(writer)
        with ending(process):
            while len(archives()) < 48 or holder(Path("exports")) is not None:
                assert process.poll() is None
                time.sleep(0.01)
            assert process.poll() is None, "it still has output to write"
            if isinstance(ended_by, signal.Signals):
                process.send_signal(ended_by)
                # Between the run's end and the wait, the signal's default action may end the process.
                assert process.wait(timeout=TIMEOUT_SECONDS) in {128 + ended_by, -ended_by}
                return
            with os.fdopen(os.dup(reader), encoding="utf-8") as stdout:
                records = [json.loads(line) for line in stdout]
            assert process.wait(timeout=TIMEOUT_SECONDS) == 0
    assert [one["type"] for one in records] == ["stored"] * 48 + ["summary"]


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream_changes_nothing(run, service, closed):
    """With `>&-` the work is done, and no file that is opened gets the stream's descriptor."""
    process = started("--json", *BACKFILL, preexec_fn=lambda: os.close(closed))
    with ending(process):
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0
    assert err == ""
    assert (out == "") is (closed == 1)
    assert len(archives()) == 4
    assert main(["-q", "verify"]) == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="a name of a file is UTF-8 there")
@pytest.mark.parametrize(
    "locale",
    [
        {},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["unchanged", "ascii", "no locale"],
)
def test_a_non_utf8_directory_and_an_ascii_locale_work(run, service, locale):
    """The range is exported and the summary printed with a file name that is not UTF-8 and streams without Unicode."""
    directory = b"n\xc3\xa4h-caf\xe9"
    for command in (BACKFILL, ("status",), ("verify",), ("plan", *DAYS)):
        process = started("--json", *command, "-d", os.fsdecode(directory), env={**os.environ, **locale})
        with ending(process):
            out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        assert (process.returncode, err) == (0, ""), command
        assert json.loads(out.splitlines()[-1])["type"] == "summary"
        assert json.loads(out.splitlines()[-1])["directory"].endswith("h-caf\\udce9")
    assert len(list(Path(os.fsdecode(directory)).rglob("*.gz"))) == 4


def test_segments_stops_when_stdout_is_closed(run, service):
    """With `segments | head` no further pages are requested."""
    service.behave(segments=3_000)
    process = started("segments")
    with ending(process):
        next(lines(process.stdout))
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=TIMEOUT_SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert service.sandbox.counts["segments"] < 20


def test_a_full_disk_under_stdout_is_an_error(run, service):
    """Results that could not be written end with exit code 8."""
    with Path("/dev/full").open("w") as full:
        process = started("plan", *DAYS, stdout=full)
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == Exit.DISK
    assert "asyncexport: error: cannot write to stdout: No space left on device" in err


@pytest.mark.parametrize("asked", [["--help"], ["--version"], ["status", "--help"]])
def test_help_that_cannot_be_written_is_an_error(asked):
    """The error is the same as for other output."""
    with Path("/dev/full").open("w") as full:
        process = started(*asked, stdout=full)
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, err) == (8, "asyncexport: error: cannot write to stdout: No space left on device\n")


# The demo


def test_the_demo_does_the_whole_job_and_a_second_run_finds_it_done(run, monkeypatch):
    """Without key or config a day is exported, checked and compared; the second run sends no request."""
    monkeypatch.delenv("FULLSTORY_API_KEY")
    Path("asyncexport.toml").write_text("this is = not TOML")
    ran = run("--json", "demo")
    assert ran.code == 0, ran.err
    assert ran.summary["bundles"]["stored"] == 48
    (checked,) = (record for record in ran.records if record["type"] == "checked")
    assert checked["archives"] == 48
    assert checked["rows"] == ran.summary["rows"] > 1000
    assert checked["missing"] == checked["extra"] == 0
    again = run("demo")
    assert again.code == 0
    assert "no request was needed" in again.out
    assert [
        line
        for line in again.out
        if line.startswith("checked: 48 archives are intact and contain each of the sandbox's ")
    ]
    assert again.out[-1] == "run it again to see that nothing is left to do; to start over: rm -r asyncexport-demo"


def test_the_demo_refuses_a_directory_with_other_data(run, service):
    """Synthetic rows never get into a directory that contains other archives."""
    a_run_before()
    before = archives()
    ran = run("demo", "-d", "exports")
    assert ran.code == Exit.USAGE
    assert ran.errors == ["-d: exports contains files that are not from a demo"]
    assert archives() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_sandbox_ends_with_the_demo(run, number):
    """However the demo ends, its sandbox ends too and leaves no temporary files."""
    Path("temporary").mkdir()
    process = started("--json", "demo", env={**os.environ, "TMPDIR": str(Path("temporary").absolute())})
    with ending(process):
        first = json.loads(next(lines(process.stdout)))
        assert first["type"] == "sandbox"
        with urlopen(f"{first['url']}/sandbox/counts") as answer:
            assert answer.status == 200
        process.send_signal(number)
        process.wait(timeout=TIMEOUT_SECONDS)
    port = int(first["url"].rpartition(":")[2])
    give_up_at = time.monotonic() + TIMEOUT_SECONDS
    while is_listening(port):
        assert time.monotonic() < give_up_at, "the sandbox is still there"
        time.sleep(0.02)
    assert not list(Path("temporary").iterdir())


def is_listening(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


# Help


def test_help_lists_every_command_and_exit_code(run):
    """The program's help contains the same texts as the tables."""
    ran = run("--help")
    assert ran.code == 0
    text = " ".join(" ".join(ran.out).split())
    for name, entry in COMMANDS.items():
        assert f"{name} {entry.does}" in text
    for code, meaning in MEANINGS.items():
        assert f"{int(code)} {meaning.replace('`', '')}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_lists_its_exit_codes(run, name):
    """A command's help contains its purpose, its options and its exit codes, in at most 80 columns."""
    ran = run(name, "--help")
    assert ran.code == 0
    text = " ".join(" ".join(ran.out).split())
    assert COMMANDS[name].does[1:] in text
    _, _, codes = text.partition("Exit codes: ")
    listed = {int(code) for code in re.findall(r"(?<!\S)(\d+) (?=[a-z])", codes)}
    assert {int(code) for code in COMMANDS[name].exits} <= listed
    assert set(COMMANDS[name].exits) >= {Exit.DONE, Exit.UNEXPECTED, Exit.USAGE}
    assert [line for line in ran.out if len(line) > 80] == []


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (("deploy",), "missing argument 'TARGET': choose from systemd, cron, kubernetes, airflow"),
        (("completion",), "missing argument 'SHELL': choose from bash, zsh, fish"),
        (("accept",), "missing argument 'FROM'"),
        (("status", "--runs", "-1"), "invalid value for '--runs': must be greater than or equal to 0"),
        (
            ("deploy", "now"),
            "invalid value for 'TARGET': 'now' is not one of 'systemd', 'cron', 'kubernetes', 'airflow'",
        ),
    ],
)
def test_an_error_of_usage_is_one_complete_line(run, command, error):
    """Typer writes some of them over several lines, and pydantic has its own beginnings."""
    ran = run(*command)
    assert (ran.code, ran.errors[0]) == (Exit.USAGE, error)


def test_a_missing_command_is_a_usage_error(run):
    """The hint refers to the help."""
    ran = run()
    assert ran.code == Exit.USAGE
    assert ran.errors == ["missing command"]
    assert ran.hint == "`asyncexport --help` lists the commands"


def test_the_version_can_be_printed(run):
    """`--version` prints the name and three numbers."""
    assert re.fullmatch(r"asyncexport \d+\.\d+\.\d+", run("--version").out[0])


def test_help_imports_no_slow_module():
    """The help does not import the slow modules that a run needs."""
    probe = (
        "import sys; from asyncexport.cli import main; code = main(sys.argv[1:]); "
        "slow = 'asyncio aiohttp pydantic rich sqlite3 orjson logging'.split(); "
        "print([name for name in slow if name in sys.modules], code, file=sys.stderr)"
    )
    # typer itself uses pydantic to parse an option's value.
    for arguments, more in ((["--help"], []), (["--version"], []), (["backfill", "--help"], ["pydantic"])):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert done.stderr.strip() == f"{more} 0", arguments


def test_a_shortfall_fails_a_run_only_if_fail_is_set_and_until_it_is_accepted(run, service):
    """`status` and, with `fail`, a run list it and suggest the command that accepts it, which then makes both well."""
    a_run_before()
    asyncio.run(find_short(Range(START, START + 3600)))
    text = "no rows from 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z, where about 5,400 are usual"
    fail = ("--set", "sentinel.fail=true")
    status, failing = run("status"), run("status", *fail)
    assert (status.code, failing.code) == (Exit.DONE, Exit.PARTIAL)
    at = status.out.index("  few rows    1")
    assert status.out[at + 1] == "    2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z: 0 rows, about 5,400 are usual"
    assert len(status.out[at + 1]) <= 80
    unwell = run("--json", "status", *fail)
    assert "everyone-events: 1 shortfall of rows, the first: " + text in unwell.records[-2]["reason"]
    assert [one["rule"] for one in unwell.summary["shortfalls"]] == ["empty"]
    assert run("-q", *BACKFILL).out == []
    (quiet,) = run("-q", *BACKFILL, *fail).out
    assert text in quiet
    ran = run(*BACKFILL, *fail)
    assert ran.code == Exit.PARTIAL
    assert f"few rows: everyone-events: {text}" in ran.out
    command = shlex.split(ran.hint.partition("`")[2].partition("`")[0])
    assert command[:2] == ["asyncexport", "accept"]
    accepted = run(*command[1:])
    assert accepted.code == Exit.DONE
    assert accepted.out == [
        "accepted: everyone-events 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z: REASON",
        "0 parked bundles and 1 shortfall no longer count as problems",
    ]
    assert (run(*BACKFILL, *fail).code, run("status", *fail).code) == (Exit.DONE, Exit.DONE)


def test_accept_needs_the_name_of_one_of_several_exports(run, service):
    """Without it, the error lists them; while a run holds the directory, nothing is accepted."""
    two_exports()
    asyncio.run(park_two())
    unnamed = run("accept", *ACCEPTED)
    assert (unnamed.code, unnamed.errors) == (
        Exit.USAGE,
        ["--export: is needed: the ledger has everyone-events, checkout"],
    )
    assert run("accept", *ACCEPTED, "--export", "chekout").code == Exit.USAGE
    with hold(Path("exports"), command="nightly"):
        locked = run("accept", *ACCEPTED, "--export", "checkout")
    assert (locked.code, locked.hint) == (Exit.LOCKED, "wait until it has ended, or let `--wait` do that")
    assert run("accept", *ACCEPTED, "--export", "checkout").code == Exit.DONE


async def park_two() -> None:
    """Record that a bundle of each of two exports failed."""
    ledger = await Ledger.open(Path("exports"))
    await ledger.register([Export("everyone-events"), Export("checkout")])
    for name in ("everyone-events", "checkout"):
        record = BundleRecord(Bundle(name, Range(START, START + 1800)), 0, Failed("it failed"))
        await ledger.append(record, at=time.time() - 60)
    await ledger.close()
