"""`verify --rebuild` killed at every step: no old log is adopted, and no exit code of 0 hides a missing row."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from asyncexport.core.summary import Exit
from asyncexport.errors import LedgerError
from asyncexport.ledger import LedgerReader, has_remains, set_aside
from asyncexport.ledger.files import SIDE_FILES, create, ledger_path
from asyncexport.run.findings import Damaged, Intact
from asyncexport.run.rebuild import rebuild
from asyncexport.run.verify import verify
from asyncexport.sandbox import Sandbox, SandboxBehaviour, serving
from tests.exporting import archives, rows_in, run, truth
from tests.failpoints import at_failpoints

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

FAST = SandboxBehaviour(
    operation_seconds=0.01, operation_sigma=0.0, requests_per_minute=1e6, burst=10_000, rows_per_hour=6
)
START, END = "2026-01-06", "2026-01-08"
CHANGES = {"export": [{"bundle": "6h"}]}
BUNDLES = 8

KILLER = """
import asyncio, os, pathlib, shutil, signal, sys
from asyncexport.run.rebuild import rebuild
from tests.failpoints import at_failpoints

template, place = map(pathlib.Path, sys.argv[1:])

async def rebuilt(directory, kill_at):
    step = 0
    def boundary(name):
        nonlocal step
        step += name.endswith(":after")
        if step == kill_at:
            os.write(1, f"{name}\\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
    with at_failpoints(boundary):
        async for _ in rebuild(directory, force=True):
            pass

kill_at, code = 0, -signal.SIGKILL
while code == -signal.SIGKILL:
    kill_at += 1
    directory = place / str(kill_at)
    shutil.copytree(template, directory)
    child = os.fork()
    if child == 0:
        asyncio.run(rebuilt(directory, kill_at))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(code)
"""
"""Rebuilds copies of a directory, each killed one step later than the one before, until one finishes."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return the directory of a run killed after its last archive: all rows of its ledger are still in the log."""
    place = tmp_path_factory.mktemp("killed")
    taken = place / "taken"

    def boundary(name: str) -> None:
        if name == "ledger.commit:after" and len(archives(place / "out")) == BUNDLES and not taken.exists():
            shutil.copytree(place / "out", taken)

    async def taking() -> None:
        async with serving(FAST) as sandbox:
            await run(sandbox, place / "out", start=START, end=END, changes=CHANGES, boundary=boundary)

    asyncio.run(taking())
    assert side_file(taken, "-wal").stat().st_size > 0
    return taken


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox with the same rows as that run had."""
    async with serving(FAST) as sandbox:
        yield sandbox


def side_file(directory: Path, suffix: str) -> Path:
    """Return the path of a side file of the ledger."""
    return Path(f"{ledger_path(directory)}{suffix}")


def whole(_ledger: Path) -> None:
    """Leave the ledger intact: the rebuild was not needed."""


def rotten(ledger: Path) -> None:
    """Make the ledger unreadable."""
    with ledger.open("r+b") as file:
        file.write(b"rotten" * 20)


def lost(ledger: Path) -> None:
    """Delete the ledger but not its log."""
    ledger.unlink()


def rotten_without_mark(ledger: Path) -> None:
    """Make the ledger unreadable and delete its high-water mark."""
    rotten(ledger)
    Path(f"{ledger}-mark").unlink()


def lost_with_journal(ledger: Path) -> None:
    """Delete the ledger and leave a journal that SQLite would roll back into any new file of that name."""
    ledger.unlink()
    Path(f"{ledger}-journal").write_bytes(b"a journal of another life")


def log_lost_without_mark(ledger: Path) -> None:
    """Delete the log and the mark, so that the ledger looks like one in which little was ever written."""
    Path(f"{ledger}-wal").unlink()
    Path(f"{ledger}-mark").unlink()


def killed_at_every_step(template: Path, place: Path) -> list[str]:
    """Rebuild copies of a directory, each killed at another step; return the names of all steps."""
    command = [sys.executable, "-c", KILLER, str(template), str(place)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return done.stdout.decode().split()


async def finished(sandbox: Sandbox, directory: Path) -> Exit:
    """Run the same `backfill` again and return its exit code."""
    return (await run(sandbox, directory, start=START, end=END, changes=CHANGES)).exit_code


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "happens", [whole, rotten, lost, rotten_without_mark, lost_with_journal, log_lost_without_mark]
)
async def test_a_rebuild_killed_at_any_step_loses_no_row(killed, sandbox, tmp_path, happens: Callable[[Path], None]):
    """After a kill at any step, a run refuses to start or has every row, and a second rebuild recovers every row."""
    template, place = tmp_path / "template", tmp_path / "killed"
    shutil.copytree(killed, template)
    happens(ledger_path(template))
    cut = max(archives(template), key=lambda path: path.stat().st_size)
    cut.write_bytes(cut.read_bytes()[:40])
    kinds = {name.partition(":")[0] for name in await asyncio.to_thread(killed_at_every_step, template, place)}
    assert kinds >= {"ledger.create", "ledger.commit", "ledger.aside", "aside", "ledger.place"}
    old = {path.name: path.read_bytes() for path in ledger_path(template).parent.glob("ledger.sqlite3*")}
    all_rows = truth(sandbox, START, END)
    for directory in place.iterdir():
        at = f"{happens.__name__}, killed at step {directory.name}"
        again = directory.with_name(f"{directory.name}-again")
        shutil.copytree(directory, again)
        moved = not (again / cut.relative_to(template)).exists()
        code = await finished(sandbox, directory)
        assert code in (Exit.DONE, Exit.LEDGER), at
        if code is Exit.DONE and moved:
            assert rows_in(directory) == all_rows, at
        found = [one async for one in rebuild(again, force=True)]
        assert len(found) == BUNDLES, at
        assert sum(isinstance(one, Intact) for one in found) == BUNDLES - 1, at
        assert moved or any(isinstance(one, Damaged) for one in found), at
        assert await finished(sandbox, again) is Exit.DONE, at
        assert rows_in(again) == all_rows, at
        checked = [one async for one in verify(again)]
        assert sum(isinstance(one, Intact) for one in checked) == BUNDLES, at
        assert _kept(again, old), at


def _kept(directory: Path, old: dict[str, bytes]) -> bool:
    """Whether all files of the old ledger that may hold rows are set aside under the same number."""
    folder = ledger_path(directory).parent
    names = [name for name in old if not name.endswith(("-shm", "-mark"))]
    return any(
        all(
            (aside := folder / name.replace("sqlite3", f"sqlite3.damaged-{number}")).exists()
            and aside.read_bytes() == old[name]
            for name in names
        )
        for number in (1, 2)
    )


class Killed(BaseException):
    """Raised to stop after a step."""


def stopped_after(directory: Path, steps: int) -> bool:
    """Set the ledger aside, stopping after that many steps; return whether it was stopped."""
    left = steps

    def boundary(name: str) -> None:
        nonlocal left
        left -= name.endswith(":after")
        if not left:
            raise Killed

    try:
        with at_failpoints(boundary):
            set_aside(directory)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("missing", ["", *SIDE_FILES])
def test_files_set_aside_across_a_crash_form_one_set(tmp_path, missing):
    """After a crash the remaining files get the same number, and the next ledger gets a number of its own."""
    names = [suffix for suffix in ("", *SIDE_FILES) if suffix != missing]
    for steps in (1, 2, 3, 4):
        directory = tmp_path / str(steps)
        folder = ledger_path(directory).parent
        folder.mkdir(parents=True)
        for number in (1, 2):
            for suffix in names:
                side_file(directory, suffix).write_text(f"{suffix} of {number}")
            assert stopped_after(directory, steps)
            assert missing == "" or not ledger_path(directory).exists()
            assert has_remains(directory)
            set_aside(directory)
            assert set_aside(directory) is None
            for suffix in names:
                aside = folder / f"ledger.sqlite3.damaged-{number}{suffix}"
                assert aside.read_text() == f"{suffix} of {number}"
            assert len(list(folder.iterdir())) == number * len({*names, "-mark"})


def test_a_set_that_lacks_only_its_mark_is_complete(tmp_path):
    """A log that appears later is not added to a set that was already complete."""
    folder = ledger_path(tmp_path).parent
    folder.mkdir()
    ledger_path(tmp_path).write_text("first")
    assert stopped_after(tmp_path, 1)
    assert set_aside(tmp_path) is None
    side_file(tmp_path, "-wal").write_text("of the second")
    set_aside(tmp_path)
    assert not (folder / "ledger.sqlite3.damaged-1-wal").exists()
    assert (folder / "ledger.sqlite3.damaged-2-wal").read_text() == "of the second"


def test_a_ledger_starts_a_new_set(tmp_path):
    """A new ledger is not added to an unfinished set that holds the log of an earlier one."""
    folder = ledger_path(tmp_path).parent
    folder.mkdir()
    side_file(tmp_path, "-wal").write_text("of the first")
    assert stopped_after(tmp_path, 1)
    ledger_path(tmp_path).write_text("second")
    set_aside(tmp_path)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "ledger.sqlite3.damaged-1-wal": "of the first",
        "ledger.sqlite3.damaged-1-mark": "",
        "ledger.sqlite3.damaged-2": "second",
        "ledger.sqlite3.damaged-2-mark": "",
    }


@pytest.mark.parametrize("number", [999_999_999, 1_000_000_000, 10**18])
def test_a_large_set_number_overwrites_nothing(tmp_path, number):
    """The next set gets the next higher number, however large that is."""
    folder = ledger_path(tmp_path).parent
    folder.mkdir()
    for suffix in ("", "-mark"):
        folder.joinpath(f"ledger.sqlite3.damaged-{number}{suffix}").write_text("old")
    for life in (1, 2):
        ledger_path(tmp_path).write_text(f"life {life}")
        set_aside(tmp_path)
    found = [folder.joinpath(f"ledger.sqlite3.damaged-{number + life}").read_text() for life in (0, 1, 2)]
    assert found == ["old", "life 1", "life 2"]


@pytest.mark.parametrize("suffix", SIDE_FILES)
def test_a_new_ledger_does_not_adopt_files_of_an_earlier_one(tmp_path, suffix):
    """Side files of an earlier ledger are set aside before a new ledger is created, neither adopted nor removed."""
    path = ledger_path(tmp_path)
    path.parent.mkdir()
    Path(f"{path}{suffix}").write_bytes(b"of another life")
    seen = []

    def boundary(name: str) -> None:
        if name == "ledger.create:before":
            seen.append(Path(f"{path}{suffix}").exists())

    with at_failpoints(boundary):
        create(path, now=1.0)
    assert seen == [False]
    assert Path(f"{path}.damaged-1{suffix}").read_bytes() == b"of another life"


async def test_a_run_refuses_to_start_on_remains_of_a_ledger(killed, sandbox, tmp_path):
    """A run refuses to start if only remains of a ledger are left, even without archives, and hints at a rebuild."""
    shutil.copytree(killed, tmp_path / "out")
    for path in archives(tmp_path / "out"):
        path.unlink()
    ledger_path(tmp_path / "out").unlink()
    summary = await run(sandbox, tmp_path / "out", start=START, end=END, changes=CHANGES)
    assert summary.exit_code is Exit.LEDGER
    assert isinstance(summary.error, LedgerError)
    assert "verify --rebuild" in summary.error.hint
    assert not any(sandbox.counts.values())
    assert [one async for one in rebuild(tmp_path / "out")] == []
    assert await finished(sandbox, tmp_path / "out") is Exit.DONE
    assert rows_in(tmp_path / "out") == truth(sandbox, START, END)


async def test_a_lone_log_does_not_stop_a_first_run(killed, sandbox, tmp_path):
    """A log without a ledger or archives is set aside, and the run starts."""
    folder = ledger_path(tmp_path / "out").parent
    folder.mkdir(parents=True)
    log = side_file(killed, "-wal").read_bytes()
    (folder / "ledger.sqlite3-wal").write_bytes(log)
    assert await finished(sandbox, tmp_path / "out") is Exit.DONE
    assert rows_in(tmp_path / "out") == truth(sandbox, START, END)
    assert (folder / "ledger.sqlite3.damaged-1-wal").read_bytes() == log


def test_sqlite_itself_adopts_an_old_log(killed, tmp_path):
    """Control: SQLite itself adopts an old log, with all its rows, for a new ledger file."""
    path = ledger_path(tmp_path)
    path.parent.mkdir()
    create(path, now=1.0)
    shutil.copyfile(side_file(killed, "-wal"), side_file(tmp_path, "-wal"))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM bundle").fetchone() == (BUNDLES,)
    connection.close()


def test_an_intact_ledger_has_no_remains(killed):
    """A ledger that is in its place and intact counts as having no remains."""
    assert not has_remains(killed)
    with LedgerReader(killed) as ledger:
        ledger.check()
