"""`demo`: the whole main job against a sandbox on this machine.

1. It needs nothing: no key, no settings, no network. What the user has set for real is not looked at.
2. The sandbox is a process of its own and ends with the demo, however that ends: it waits for the end of its standard
   input, which comes when the demo closes it, or when the system does because there is no demo any more.
3. Made-up rows must not get among real ones: a directory that holds anything but a demo is refused.
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
"""2025-06-02, a Monday: the same for everybody, so that everybody gets the same rows."""

SPEED = 300
"""An operation takes a second in place of five minutes."""

MARK = "made-up-rows.txt"

MARK_TEXT = """All rows below this directory were made up by `asyncexport demo`. Remove the directory to start over.
"""

START_SECONDS = 30.0
"""A slow machine may need so long to start the sandbox."""

TABLES = {"api", "budget", "polling", "retry"}
"""What the sandbox says of itself; when all of it is there, it listens."""

CHILD = "from asyncexport.cli.demo import be_the_sandbox; be_the_sandbox()"


def demo(
    ctx: typer.Context,
    *,
    directory: Annotated[
        Path, typer.Option("-d", "--directory", metavar="DIR", parser=named, help="Where the archives go.")
    ] = Path(DIRECTORY),
) -> Summary:
    """Try it out.

    It starts a stand-in of the service, exports a day of made-up events in 48 bundles, checks every archive, and
    compares all rows with those that the stand-in has. It takes some seconds, and needs no key and no settings. Run it
    again to see that nothing is left to do.
    """
    from asyncexport.cli.run_command import export_watched, say_closing
    from asyncexport.run.spec import Backfill

    session: Session = ctx.obj
    session.directory, session.invocation.directory = str(directory), directory
    check_key_log(os.environ)
    _take_place(directory)
    with sandbox_running() as said:
        settings, url = _settings(said, directory), str(said["api"]["base_url"])
        session.record("sandbox", url=url)
        _say(session, f"a sandbox of the service runs on this machine; a day of it, {day(THE_DAY.start)}, is exported")
        spec = Backfill(settings.exports, start=THE_DAY.start, end=THE_DAY.end, command="demo")
        summary, example = export_watched(session, settings, spec, key=_key())
        if summary.exit_code is Exit.DONE:
            summary = _checked(session, settings, summary, url)
    say_closing(session, settings, spec, summary, example=example)
    if summary.exit_code is Exit.DONE:
        _say(session, f"run it again: nothing is left to do; rm -r {directory} starts over")
    return summary


def _say(session: Session, text: str) -> None:
    if not session.quiet:
        session.say(text)


@contextmanager
def sandbox_running() -> Iterator[dict[str, Any]]:
    """A sandbox in a process of its own: the settings that fit it, as it says them.

    Raises:
        ExportError: it does not start.
    """
    # Files without a name: a demo that is killed leaves none behind.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        # -P: no file of the working directory is taken for a module. A session of its own: Ctrl-C is for the demo.
        process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-P", "-c", CHILD, "sandbox", "--port", "0", "--speed", str(SPEED)],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            yield _said(process, stdout.fileno(), stderr.fileno())
        finally:
            _end(process)


def be_the_sandbox() -> None:
    """What the process runs: the sandbox, until standard input ends."""
    from asyncexport.cli import main

    threading.Thread(target=_end_with_the_demo, daemon=True).start()
    sys.exit(main())


def _end_with_the_demo() -> None:
    # Not by way of `sys.stdin`: whoever waits in that at the end of the program stops it in its tracks.
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def _said(process: "subprocess.Popen[bytes]", stdout: int, stderr: int) -> dict[str, Any]:
    """Wait until it listens; what it says of itself."""
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            said = tomllib.loads(_text(stdout))
        except tomllib.TOMLDecodeError:
            said = {}
        if said.keys() >= TABLES:
            return said
        time.sleep(0.02)
    last = _text(stderr).strip().splitlines()[-1:]
    raise ExportError(f"the sandbox did not start: {''.join(last) or 'it said nothing'}")


def _text(file: int) -> str:
    """All of a file that somebody else goes on writing: the place they share is left where it is."""
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
    """Rule 3.

    Raises:
        ConfigError: it is somebody else's.
        StorageError: it cannot be written.
    """
    check_place(directory)
    mark = directory / MARK
    if mark.exists():
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError(
                [Problem("-d", f"{directory} holds something that is no demo")],
                hint="choose a directory that is empty, or does not exist",
            )
        mark.write_text(MARK_TEXT, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{directory} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="choose a directory that can be written to, by -d",
        ) from error


def _settings(said: dict[str, Any], directory: Path) -> "Settings":
    from asyncexport.config import load_settings

    flags = {f"{table}.{key}": value for table, keys in said.items() for key, value in keys.items()}
    # What an interrupted demo left running died with its sandbox: it need not be believed in for long.
    flags |= {"output.directory": directory, "polling.operation_deadline": "10s"}
    return load_settings(file=Path(os.devnull), environ={}, flags=flags, working_directory=Path.cwd())


def _key() -> "ApiKey":
    """The sandbox's: it is no secret."""
    from asyncexport.config import load_key
    from asyncexport.sandbox import KEY

    return load_key({"FULLSTORY_API_KEY": KEY}, file=None)


def _checked(session: Session, settings: "Settings", summary: Summary, url: str) -> Summary:
    """Check every archive, and compare all rows with the truth; the summary, with an error where they differ."""
    from asyncexport.cli.signals import run_abruptly

    where = settings.output.directory
    sound, unsound = run_abruptly(lambda: _look_at_all(where))
    stored, truth = _rows_in(where / path for path in sound), _rows_of(url)
    missing, extra = (truth - stored).total(), (stored - truth).total()
    session.record("checked", archives=len(sound), rows=stored.total(), missing=missing, extra=extra)
    if unsound or missing or extra:
        told = f"{len(unsound)} archives are not sound, {missing} rows are missing, {extra} are there too often"
        return replace(summary, exit_code=Exit.UNEXPECTED, error=ExportError(told, hint=BUG_HINT))
    told = (
        f"{len(sound)} archives are sound, and hold each of the sandbox's {show_count(truth.total())} rows exactly once"
    )
    return replace(summary, notes=(f"checked: {told}",))


async def _look_at_all(where: Path) -> tuple[list[str], list[str]]:
    """The paths of the archives that are sound, and of those that are not."""
    from asyncexport.run.findings import Intact, Unrecorded
    from asyncexport.run.verify import verify

    findings = [finding async for finding in verify(where) if not isinstance(finding, Unrecorded)]
    sound = [finding.path for finding in findings if isinstance(finding, Intact)]
    return sound, [finding.path for finding in findings if not isinstance(finding, Intact)]


def _rows_in(paths: Iterable[Path]) -> Counter[bytes]:
    rows: Counter[bytes] = Counter()
    for path in paths:
        with gzip.open(path) as lines:
            rows.update(_canonical(line) for line in lines)
    return rows


def _rows_of(url: str) -> Counter[bytes]:
    """The truth, from the sandbox itself; by no proxy, whatever the environment says."""
    address = f"{url}/sandbox/rows?start={show(THE_DAY.start)}&end={show(THE_DAY.end)}"
    with build_opener(ProxyHandler({})).open(address, timeout=60) as lines:
        return Counter(_canonical(line) for line in lines)


def _canonical(line: bytes) -> bytes:
    """A row, whatever the order of its keys."""
    import orjson

    return orjson.dumps(orjson.loads(line), option=orjson.OPT_SORT_KEYS)
