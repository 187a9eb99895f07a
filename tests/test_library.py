"""The library: what a program can import from the package, and what it can rely on."""

import ast
import asyncio
import inspect
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import asyncexport
from asyncexport import Exit
from asyncexport.core.bundles import DAY, HOUR, Ago
from asyncexport.run import library
from asyncexport.run.moments import read_range
from asyncexport.sandbox import Sandbox, SandboxBehaviour, serving
from tests.exporting import QUICK, archives
from tests.json_lines import check

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

QUIET = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4)

FIRST = 1_767_225_600


def settings_for(sandbox: Sandbox, directory: Path) -> asyncexport.Settings:
    """Return settings for a sandbox, as a program has them."""
    flags: dict[str, Any] = {f"{table}.{key}": value for table, keys in QUICK.items() for key, value in keys.items()}
    flags |= {"api.base_url": sandbox.url, "output.directory": directory / "exports"}
    return asyncexport.load_settings(environ={}, flags=flags, working_directory=directory)


@contextmanager
def signal_handlers_unchanged() -> Iterator[None]:
    """Check that the block leaves all signal handlers unchanged."""
    numbers = sorted(signal.valid_signals())
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


# Names


def test_every_public_name_can_be_imported():
    """Each public name exists and equals the name of its class or function."""
    found = {name: getattr(asyncexport, name) for name in asyncexport.__all__}
    named = {name: value for name, value in found.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert len(named) > 40
    assert {name: value.__name__ for name, value in named.items()} == {name: name for name in named}
    with pytest.raises(AttributeError, match="no attribute 'Order'"):
        _ = asyncexport.Order


def test_the_package_run_can_be_called():
    """`asyncexport.run` is a function and a package, in any order of use."""
    probe = (
        "import asyncexport, asyncio; print(asyncexport.run(asyncio.sleep(0, 1))); "
        "import asyncexport.run.spec; from asyncexport.run.spec import Backfill; from asyncexport import run; "
        "print(asyncexport.run(asyncio.sleep(0, 2)), run is asyncexport.run, run.spec.Backfill is Backfill)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2", "True", "True"]


def test_the_library_logs_only_where_the_program_wants_it():
    """Warnings are not written to stderr unless the program has set up logging."""
    probe = "import logging; from asyncexport import run; {}logging.getLogger('asyncexport.x').warning('disk is slow')"
    for setup, written in (("", ""), ("logging.basicConfig(); ", "WARNING:asyncexport.x:disk is slow\n")):
        command = [sys.executable, "-c", probe.format(setup)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", written)


async def test_run_within_a_running_loop_is_an_error_with_a_hint():
    """In a notebook the error says to await the function, and the coroutine is closed without a warning."""
    work = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="await the function instead"):
        asyncexport.run(work)
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_run_works_in_a_thread_next_to_a_loop():
    """A worker thread of an asyncio program can use it."""
    assert await asyncio.to_thread(lambda: asyncexport.run(asyncio.sleep(0, 7))) == 7


# Runs


async def test_a_program_can_run_a_backfill(tmp_path: Path) -> None:
    """Public names are enough to load settings and key, survey the work, run it and receive events."""
    heard: list[asyncexport.Event] = []
    async with serving(QUIET) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        key = asyncexport.load_key({"FULLSTORY_API_KEY": sandbox.key}, file=settings.api.api_key_file)
        spec = asyncexport.Backfill(settings.exports, start=FIRST, end=FIRST + HOUR)
        assert sum(plan.count for plan in asyncexport.survey(settings, spec, now=sandbox.now).plans) == 2
        summary = await asyncexport.export(settings, spec, key=key, listeners=(heard.append,))
    assert (summary.exit_code, len(archives(tmp_path / "exports"))) == (Exit.DONE, 2)
    assert sum(type(event).__name__ == "BundleStored" for event in heard) == 2


async def test_each_command_has_a_function(tmp_path, capfd):
    """Backfill, retry, verify, repair and audit return their summaries and print nothing."""
    dates: dict[str, Any] = {"start": "2026-01-01", "end": datetime(2026, 1, 1, 1, tzinfo=UTC)}
    findings: list[asyncexport.Finding] = []
    async with serving(QUIET) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        with signal_handlers_unchanged():
            first = await asyncexport.backfill(settings, **dates, key=sandbox.key)
            again = await asyncexport.backfill(settings, **dates, key=asyncexport.ApiKey(sandbox.key))
            retried = await asyncexport.retry(settings, key=sandbox.key)
            archives(tmp_path / "exports")[0].unlink()
            checked = await asyncexport.verify(settings, exports="everyone-events", on_finding=findings.append)
            repaired = await asyncexport.verify(settings, repair=True, key=sandbox.key)
            intact = await asyncexport.verify(settings)
            audited = await asyncexport.audit(settings, sample=1, older_than="3d", key=sandbox.key)
    summaries = [first, again, retried, checked, repaired, intact, audited]
    codes = [summary.exit_code for summary in summaries]
    assert codes == [Exit.DONE, Exit.DONE, Exit.DONE, Exit.PARTIAL, Exit.DONE, Exit.DONE, Exit.DONE]
    commands = ["backfill", "backfill", "retry", "verify", "verify", "verify", "audit"]
    assert [one.command for one in summaries] == commands
    assert [len(one.tally.audit.comparisons) for one in summaries] == [0] * 6 + [1]
    assert [type(finding) for finding in findings] == [asyncexport.Missing, asyncexport.Intact]
    assert (first.tally.stored, again.tally.stored_before, repaired.tally.stored) == (2, 2, 1)
    assert (checked.tally.failed, checked.tally.stored_before, intact.tally.stored_before) == (1, 1, 2)
    assert [check(summary.to_dict()) for summary in summaries]
    assert capfd.readouterr() == ("", "")


async def test_a_sample_must_make_sense(tmp_path):
    """A sample of no bundles and an age that cannot be read are reported together, before anything starts."""
    settings = asyncexport.load_settings(environ={}, working_directory=tmp_path)
    with pytest.raises(asyncexport.ConfigError) as caught:
        await asyncexport.audit(settings, sample=0, older_than="2 days")
    assert [one.place for one in caught.value.problems] == ["sample", "older_than"]


async def test_a_night_finds_its_settings_and_key_like_the_command(tmp_path, monkeypatch):
    """Without arguments the config file and the environment are used."""
    async with serving(QUIET) as sandbox:
        since = datetime.fromtimestamp(int(sandbox.now) // DAY * DAY - 2 * DAY, UTC)
        (tmp_path / "asyncexport.toml").write_text(
            f"[api]\nbase_url = '{sandbox.url}'\n[nightly]\nsince = '{since:%Y-%m-%d}'\n[budget]\nburst = 1000\n"
            "[polling]\nmin_interval = '5ms'\n[[export]]\nbundle = '24h'\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FULLSTORY_API_KEY", sandbox.key)
        summary = await asyncexport.nightly(max_duration=timedelta(minutes=5))
    assert (summary.command, summary.exit_code, summary.tally.stored) == ("nightly", Exit.DONE, 1)
    assert len(archives(tmp_path / "exports")) == 1


async def test_two_runs_in_one_program_do_not_share_a_directory(tmp_path):
    """The lock keeps the second run out, although both are in one process."""
    begun = asyncio.Event()

    async def watch(_snapshot: object) -> None:
        begun.set()

    async with serving(QUIET) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        arguments: dict[str, Any] = {"start": FIRST, "end": FIRST + HOUR, "key": sandbox.key}
        first = asyncio.create_task(asyncexport.backfill(settings, **arguments, watch=watch))
        await begun.wait()
        assert (await asyncexport.backfill(settings, **arguments)).exit_code is Exit.LOCKED
        assert (await first).exit_code is Exit.DONE


async def test_a_run_can_be_stopped_gracefully(tmp_path):
    """`Stop` ends the run, and the next one does the rest."""
    stop = asyncexport.Stop()

    def listen(event: asyncexport.Event) -> None:
        if isinstance(event, asyncexport.BundleStored):
            stop.ask(Exit.TERMINATED)

    async with serving(QUIET) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        arguments: dict[str, Any] = {"start": FIRST, "end": FIRST + 10 * HOUR, "key": sandbox.key}
        halted = await asyncexport.backfill(settings, **arguments, stop=stop, listeners=[listen])
        assert (halted.exit_code, 0 < halted.tally.stored <= 20) == (Exit.TERMINATED, True)
        assert (await asyncexport.backfill(settings, **arguments)).exit_code is Exit.DONE
        assert len(archives(tmp_path / "exports")) == 20
        assert sandbox.counts["create"] == 20


async def test_a_cancelled_run_releases_the_directory(tmp_path):
    """Its task raises CancelledError, and the next run resumes."""
    stored = asyncio.Event()

    def listen(event: asyncexport.Event) -> None:
        if isinstance(event, asyncexport.BundleStored):
            stored.set()

    async with serving(QUIET) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        arguments: dict[str, Any] = {"start": FIRST, "end": FIRST + 10 * HOUR, "key": sandbox.key}
        task = asyncio.create_task(asyncexport.backfill(settings, **arguments, listeners=[listen]))
        await stored.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        resumed = await asyncexport.backfill(settings, **arguments)
        assert (resumed.exit_code, len(archives(tmp_path / "exports"))) == (Exit.DONE, 20)
        assert [one for one in asyncio.all_tasks() if one.get_name() in {"viewer", "max duration"}] == []


async def test_invalid_arguments_are_raised_immediately(tmp_path):
    """All problems are in one error, with the names of the arguments."""
    settings = asyncexport.load_settings(environ={}, working_directory=tmp_path)
    wrong: dict[str, Any] = {"start": "2026-13-01", "end": 1.5, "exports": ["everyone"], "max_duration": "5x"}
    with pytest.raises(asyncexport.ConfigError) as caught:
        await asyncexport.backfill(settings, **wrong)
    assert [problem.place for problem in caught.value.problems] == ["exports", "start", "end", "max_duration"]
    with pytest.raises(asyncexport.ConfigError, match="end: 2026-01-01 is not after the start, 2026-01-01"):
        await asyncexport.backfill(settings, start=date(2026, 1, 1), end="2026-01-01", key="k")
    with pytest.raises(asyncexport.ConfigError, match="max_duration: must be longer than 0s"):
        await asyncexport.nightly(settings, max_duration=0)
    with pytest.raises(asyncexport.UnauthorizedError, match="key does not contain an API key"):
        await asyncexport.retry(settings, key=" ")
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_key_is_raised_and_no_directory_created(tmp_path, monkeypatch):
    """The error is the one for which the command exits with 6."""
    monkeypatch.delenv("FULLSTORY_API_KEY", raising=False)
    settings = asyncexport.load_settings(environ={}, working_directory=tmp_path)
    for work in (asyncexport.backfill(settings, start="30d"), asyncexport.verify(settings, repair=True)):
        with pytest.raises(asyncexport.UnauthorizedError, match="there is no API key"):
            await work
    assert list(tmp_path.iterdir()) == []


async def test_verify_without_a_ledger_ends_like_the_command(tmp_path):
    """The summary has exit code 7; an export that the ledger does not know is a ConfigError."""
    settings = asyncexport.load_settings(environ={}, working_directory=tmp_path)
    summary = await asyncexport.verify(settings)
    assert (summary.exit_code, isinstance(summary.error, asyncexport.LedgerError)) == (Exit.LEDGER, True)
    async with serving(QUIET) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        await asyncexport.backfill(settings, start=FIRST, end=FIRST + HOUR, key=sandbox.key)
    with pytest.raises(asyncexport.ConfigError, match="exports: there is no export 'everyone-event'"):
        await asyncexport.verify(settings, exports=["everyone-event"])


def test_faults_of_settings_are_reported_in_terms_of_the_arguments(tmp_path):
    """Messages name `file` and `flags` instead of `-c` and the command line."""
    with pytest.raises(asyncexport.ConfigError, match=r"file: there is no file .*nope\.toml"):
        asyncexport.load_settings("nope.toml", environ={}, working_directory=tmp_path)
    with pytest.raises(asyncexport.ConfigError, match=r"budget.burst \(in flags\): "):
        asyncexport.load_settings(environ={}, flags={"budget.burst": "x"}, working_directory=tmp_path)


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (FIRST, FIRST),
        ("2026-01-01", FIRST),
        (date(2026, 1, 1), FIRST),
        (datetime(2026, 1, 1), FIRST),  # noqa: DTZ001 - what it tests
        (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), FIRST),
        ("36h", Ago(36, HOUR)),
    ],
)
def test_a_time_may_be_of_any_of_the_usual_types(value, time):
    """A `datetime` without a time zone is UTC, like text without one."""
    assert read_range(value, None, []) == (time, None)


def test_a_key_file_that_others_can_read_is_logged(tmp_path, caplog, monkeypatch):
    """The warning goes to the program's logging, and nothing is printed."""
    file = tmp_path / "key"
    file.write_text("na1.secret-secret")
    file.chmod(0o644)
    flags = {"api.api_key_file": file}
    settings = asyncexport.load_settings(environ={}, flags=flags, working_directory=tmp_path)
    monkeypatch.delenv("FULLSTORY_API_KEY", raising=False)
    with caplog.at_level(logging.WARNING):
        library._key_of(settings, None)
    assert ["chmod 600" in message for message in caplog.messages] == [True]


# The examples


@pytest.fixture
async def example_sandbox(tmp_path, monkeypatch):
    """A sandbox, a config file for it, and the key in the environment."""
    async with serving(QUIET) as sandbox:
        since = datetime.fromtimestamp(int(sandbox.now) // DAY * DAY - 3 * DAY, UTC)
        (tmp_path / "asyncexport.toml").write_text(
            f"[api]\nbase_url = '{sandbox.url}'\n[nightly]\nsince = '{since:%Y-%m-%d}'\n[budget]\nburst = 1000\n"
            "[polling]\nmin_interval = '5ms'\n[[export]]\nbundle = '24h'\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FULLSTORY_API_KEY", sandbox.key)
        yield sandbox


async def test_the_first_example_of_the_readme_runs(tmp_path, example_sandbox):
    """The example runs as a program, prints nothing and exits with 0."""
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[0])
    done = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await done.communicate()
    assert (output.decode(), done.returncode) == ("", 0)
    assert len(archives(tmp_path / "exports")) == 1


async def test_the_second_example_of_the_readme_runs(tmp_path, example_sandbox):
    """The example runs as a notebook cell, within a running loop."""
    cell = compile(EXAMPLES[1], "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {}
    await eval(cell, names)
    assert (names["summary"].exit_code, names["checked"].exit_code) == (Exit.DONE, Exit.DONE)
    assert len(names["stored"]) == len(archives(tmp_path / "exports")) == 2
