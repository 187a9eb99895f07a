"""`demo`: a full export from a sandbox on this machine.

1. It needs no key, no settings and no network. The user's real settings are ignored.
2. The sandbox is a separate process that always ends with the demo: it exits when its standard input is closed, by the
   demo or, if the demo was killed, by the operating system.
3. Made-up rows must not be mixed with real ones: a directory with anything but a demo in it is refused.
"""

import gzip
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.request import ProxyHandler, build_opener

import typer

from asyncexport.cli.configuration import check_place
from asyncexport.cli.finish import BUG_HINT
from asyncexport.cli.options import named
from asyncexport.cli.session import Session
from asyncexport.client.key_log import check_key_log
from asyncexport.core.bundles import DAY, Range, day, show
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.display import show_count
from asyncexport.errors import ConfigError, ExportError, Problem, StorageError

if TYPE_CHECKING:
    from asyncexport.config import ApiKey, Settings

DIRECTORY = "asyncexport-demo"

THE_DAY = Range(1_748_822_400, 1_748_822_400 + DAY)
"""2025-06-02, a Monday: always the same day, so that the rows are always the same."""

QUERY = (
    'SELECT "EventType", count(*) AS events, count(DISTINCT "UserId") AS users FROM everyone_events'
    " GROUP BY ALL ORDER BY events DESC LIMIT 5"
)
"""The query that `--load` shows with its answer."""

SPEED = 300
"""An operation takes one second instead of five minutes."""

MARK = "made-up-rows.txt"

MARK_TEXT = """All rows below this directory were made up by `asyncexport demo`. Remove the directory to start over.
"""

START_SECONDS = 30.0
"""How long a slow machine may take to start the sandbox."""

TABLES = {"api", "budget", "polling", "retry"}
"""The tables of settings that the sandbox prints; once all of them are printed, it is listening."""

CHILD = "from asyncexport.cli.demo import be_the_sandbox; be_the_sandbox()"


def demo(
    ctx: typer.Context,
    *,
    directory: Annotated[
        Path, typer.Option("-d", "--directory", metavar="DIR", parser=named, help="Directory for the archives.")
    ] = Path(DIRECTORY),
    load: Annotated[
        bool, typer.Option("--load", help="Also load the day into tables, and show a query and its answer.")
    ] = False,
) -> Summary:
    """Try asyncexport.

    Starts a local stand-in for the service (the sandbox), exports a day of made-up events in 48 bundles, checks every
    archive, and compares all rows with those of the sandbox. Takes some seconds. Run it again to see that nothing is
    left to do. With --load, which needs pip install 'asyncexport[load]', the day becomes a table that is then queried.
    """
    from asyncexport.cli.load import lane_of
    from asyncexport.cli.run_command import export_watched, say_closing
    from asyncexport.run.spec import Backfill

    session: Session = ctx.obj
    session.directory, session.invocation.directory = str(directory), directory
    check_key_log(os.environ)
    _take_place(directory)
    with sandbox_running() as printed:
        settings, url = _settings(printed, directory), str(printed["api"]["base_url"])
        session.record("sandbox", url=url)
        _say(session, f"exporting one day, {day(THE_DAY.start)}, from a sandbox of the service on this machine")
        spec = Backfill(settings.exports, start=THE_DAY.start, end=THE_DAY.end, command="demo")
        lane = lane_of(session, settings, [one.name for one in settings.exports]) if load else None
        summary, example = export_watched(session, settings, spec, key=_key(), lane=lane)
        if summary.exit_code is Exit.DONE:
            summary = _checked(session, settings, summary, url)
    say_closing(session, settings, spec, summary, example=example)
    if load and summary.exit_code is Exit.DONE:
        _ask(session, settings)
    if summary.exit_code is Exit.DONE:
        _say(session, f"run it again to see that nothing is left to do; to start over: rm -r {directory}")
    return summary


def _ask(session: Session, settings: "Settings") -> None:
    """Show a query of the tables and its answer."""
    from asyncexport.display import table
    from asyncexport.warehouse.asking import ask

    file = settings.load.directory / settings.load.duckdb.path
    names, rows = ask(file, QUERY)
    session.record("answer", query=QUERY, columns=names, rows=[list(row) for row in rows])
    _say(session, f"a query of {file}, and its answer:")
    _say(session, f"  {QUERY}")
    for line in table([names, *([str(value) for value in row] for row in rows)], right=frozenset({1, 2})):
        _say(session, f"  {line}")


def _say(session: Session, text: str) -> None:
    if not session.quiet:
        session.say(text)


@contextmanager
def sandbox_running() -> Iterator[dict[str, Any]]:
    """Run a sandbox in a process of its own and yield the settings that it prints.

    Raises:
        ExportError: the sandbox does not start.
    """
    # The files have no name, so that a killed demo leaves nothing behind.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        # -P: do not import modules from the working directory. A session of its own: Ctrl-C goes to the demo only.
        process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-P", "-c", CHILD, "sandbox", "--port", "0", "--speed", str(SPEED)],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            yield _printed_settings(process, stdout.fileno(), stderr.fileno())
        finally:
            _end(process)


def be_the_sandbox() -> None:
    """Run the sandbox until standard input is closed; called in the process of its own."""
    from asyncexport.cli import main

    threading.Thread(target=_end_with_the_demo, daemon=True).start()
    sys.exit(main())


def _end_with_the_demo() -> None:
    # Not `sys.stdin.read`: a thread blocked in it would crash the interpreter at exit.
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def _printed_settings(process: "subprocess.Popen[bytes]", stdout: int, stderr: int) -> dict[str, Any]:
    """Wait until the sandbox listens and return the settings that it printed."""
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            printed = tomllib.loads(_text(stdout))
        except tomllib.TOMLDecodeError:
            printed = {}
        if printed.keys() >= TABLES:
            return printed
        time.sleep(0.02)
    last = _text(stderr).strip().splitlines()[-1:]
    raise ExportError(f"the sandbox did not start: {''.join(last) or 'it printed nothing'}")


def _text(file: int) -> str:
    """Read all of a file that the sandbox is still writing, without moving the file offset that both share."""
    return os.pread(file, 2**20, 0).decode("utf-8", "replace")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _take_place(directory: Path) -> None:
    """Create the directory and mark it as a demo's (rule 3).

    Raises:
        ConfigError: the directory contains other files.
        StorageError: the directory cannot be written.
    """
    check_place(directory)
    mark = directory / MARK
    if mark.exists():
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError(
                [Problem("-d", f"{directory} contains files that are not from a demo")],
                hint="choose an empty directory, or one that does not exist",
            )
        mark.write_text(MARK_TEXT, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{directory} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="choose a writable directory with -d",
        ) from error


def _settings(printed: dict[str, Any], directory: Path) -> "Settings":
    from asyncexport.config import load_settings

    flags = {f"{table}.{key}": value for table, keys in printed.items() for key, value in keys.items()}
    # Operations of an interrupted demo died with its sandbox, so they are soon given up.
    flags |= {"output.directory": directory, "polling.operation_deadline": "10s"}
    flags |= {"load.directory": directory / "warehouse"}
    return load_settings(file=Path(os.devnull), environ={}, flags=flags, working_directory=Path.cwd())


def _key() -> "ApiKey":
    """Return the sandbox's key, which is not a secret."""
    from asyncexport.config import load_key
    from asyncexport.sandbox import KEY

    return load_key({"FULLSTORY_API_KEY": KEY}, file=None)


def _checked(session: Session, settings: "Settings", summary: Summary, url: str) -> Summary:
    """Check every archive and compare all rows with the sandbox; return the summary, with an error if they differ."""
    from asyncexport.cli.signals import run_interruptibly

    where = settings.output.directory
    intact, faulty = run_interruptibly(lambda: _check_all(where))
    stored, truth = _rows_in(where / path for path in intact), _rows_of(url)
    missing, extra = (truth - stored).total(), (stored - truth).total()
    session.record("checked", archives=len(intact), rows=stored.total(), missing=missing, extra=extra)
    if faulty or missing or extra:
        message = (
            f"{len(faulty)} archives are not intact, {missing} rows are missing, {extra} are duplicates or unknown"
        )
        return replace(summary, exit_code=Exit.UNEXPECTED, error=ExportError(message, hint=BUG_HINT))
    rows = show_count(truth.total())
    note = f"checked: {len(intact)} archives are intact and contain each of the sandbox's {rows} rows exactly once"
    return replace(summary, notes=(note,))


async def _check_all(where: Path) -> tuple[list[str], list[str]]:
    """Return the paths of the intact archives, and those of the others."""
    from asyncexport.run.findings import Intact, Unrecorded
    from asyncexport.run.verify import verify

    findings = [finding async for finding in verify(where) if not isinstance(finding, Unrecorded)]
    intact = [finding.path for finding in findings if isinstance(finding, Intact)]
    return intact, [finding.path for finding in findings if not isinstance(finding, Intact)]


def _rows_in(paths: Iterable[Path]) -> Counter[bytes]:
    rows: Counter[bytes] = Counter()
    for path in paths:
        with gzip.open(path) as lines:
            rows.update(_canonical(line) for line in lines)
    return rows


def _rows_of(url: str) -> Counter[bytes]:
    """Fetch the true rows from the sandbox, without any proxy of the environment."""
    address = f"{url}/sandbox/rows?start={show(THE_DAY.start)}&end={show(THE_DAY.end)}"
    with build_opener(ProxyHandler({})).open(address, timeout=60) as lines:
        return Counter(_canonical(line) for line in lines)


def _canonical(line: bytes) -> bytes:
    """Return a row with its keys in sorted order."""
    import orjson

    return orjson.dumps(orjson.loads(line), option=orjson.OPT_SORT_KEYS)
