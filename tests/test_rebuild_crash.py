"""`verify --rebuild` killed at every step: no old log is adopted, and no row is missing behind an exit code of 0."""

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
from tests.failpoints import telling

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
from tests.failpoints import telling

template, place = map(pathlib.Path, sys.argv[1:])

async def rebuilt(directory, kill_at):
    step = 0
    def boundary(name):
        nonlocal step
        step += name.endswith(":after")
        if step == kill_at:
            os.write(1, f"{name}\\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
    with telling(boundary):
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
"""Rebuilds copies of a directory, each killed one step later than the one before, until one comes to its end."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What a run left that was killed after its last archive was stored: all rows of its ledger are in the log."""
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
    """One that has the same rows as that run had."""
    async with serving(FAST) as sandbox:
        yield sandbox


def side_file(directory: Path, suffix: str) -> Path:
    """Where it lies."""
    return Path(f"{ledger_path(directory)}{suffix}")


def whole(_ledger: Path) -> None:
    """Ordered by mistake."""


def rotten(ledger: Path) -> None:
    """A ledger that cannot be read."""
    with ledger.open("r+b") as file:
        file.write(b"rotten" * 20)


def lost(ledger: Path) -> None:
    """Its log lies there still."""
    ledger.unlink()


def rotten_without_mark(ledger: Path) -> None:
    """Nothing says how many commits there were."""
    rotten(ledger)
    Path(f"{ledger}-mark").unlink()


def lost_with_journal(ledger: Path) -> None:
    """What SQLite would roll back into any file of the ledger's name."""
    ledger.unlink()
    Path(f"{ledger}-journal").write_bytes(b"a journal of another life")


def log_lost_without_mark(ledger: Path) -> None:
    """Nothing tells this ledger from one in which little was ever written."""
    Path(f"{ledger}-wal").unlink()
    Path(f"{ledger}-mark").unlink()


def killed_at_every_step(template: Path, place: Path) -> list[str]:
    """Have copies of a directory rebuilt and killed; the names of all the steps."""
    command = [sys.executable, "-c", KILLER, str(template), str(place)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return done.stdout.decode().split()


async def finished(sandbox: Sandbox, directory: Path) -> Exit:
    """Run the same `backfill` again; how it ended."""
    return (await run(sandbox, directory, start=START, end=END, changes=CHANGES)).exit_code


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "happens", [whole, rotten, lost, rotten_without_mark, lost_with_journal, log_lost_without_mark]
)
async def test_a_rebuild_killed_at_any_step_loses_no_row(killed, sandbox, tmp_path, happens: Callable[[Path], None]):
    """A run after it refuses to begin, or has every row; a second rebuild succeeds, and then a run has every row."""
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
    """Whether each file of the old ledger that may hold rows lies aside, all of them in the set with one number."""
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
    """Nothing after this step is done."""


def stopped_after(directory: Path, steps: int) -> bool:
    """Set aside, and stop after so many steps; whether it was stopped."""
    left = steps

    def boundary(name: str) -> None:
        nonlocal left
        left -= name.endswith(":after")
        if not left:
            raise Killed

    try:
        with telling(boundary):
            set_aside(directory)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("missing", ["", *SIDE_FILES])
def test_what_was_set_aside_in_pieces_is_one_set(tmp_path, missing):
    """After a crash the rest gets the same number; the next ledger, or what is left of it, gets one of its own."""
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


def test_a_set_that_lacks_only_its_sign_is_complete(tmp_path):
    """A log that comes to light later is not put beside the ledger that was set aside before."""
    folder = ledger_path(tmp_path).parent
    folder.mkdir()
    ledger_path(tmp_path).write_text("first")
    assert stopped_after(tmp_path, 1)
    assert set_aside(tmp_path) is None
    side_file(tmp_path, "-wal").write_text("of the second")
    set_aside(tmp_path)
    assert not (folder / "ledger.sqlite3.damaged-1-wal").exists()
    assert (folder / "ledger.sqlite3.damaged-2-wal").read_text() == "of the second"


def test_a_ledger_begins_a_set_of_its_own(tmp_path):
    """It is not put beside the log of another life, whose setting aside a crash has left unfinished."""
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
def test_however_large_the_number_of_a_set_nothing_is_overwritten(tmp_path, number):
    """The next one is larger."""
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
def test_no_new_ledger_lies_beside_a_file_of_an_earlier_one(tmp_path, suffix):
    """In a fresh directory: what lies around is set aside, not adopted, and not removed."""
    path = ledger_path(tmp_path)
    path.parent.mkdir()
    Path(f"{path}{suffix}").write_bytes(b"of another life")
    seen = []

    def boundary(name: str) -> None:
        if name == "ledger.create:before":
            seen.append(Path(f"{path}{suffix}").exists())

    with telling(boundary):
        create(path, now=1.0)
    assert seen == [False]
    assert Path(f"{path}.damaged-1{suffix}").read_bytes() == b"of another life"


async def test_remains_of_a_ledger_are_no_beginning(killed, sandbox, tmp_path):
    """Also where there is no archive: operations that only the lost ledger knew would be made twice."""
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


async def test_a_log_without_anything_to_rebuild_from_does_not_stop_a_first_run(killed, sandbox, tmp_path):
    """It is set aside, and the run begins."""
    folder = ledger_path(tmp_path / "out").parent
    folder.mkdir(parents=True)
    log = side_file(killed, "-wal").read_bytes()
    (folder / "ledger.sqlite3-wal").write_bytes(log)
    assert await finished(sandbox, tmp_path / "out") is Exit.DONE
    assert rows_in(tmp_path / "out") == truth(sandbox, START, END)
    assert (folder / "ledger.sqlite3.damaged-1-wal").read_bytes() == log


def test_the_danger_is_real(killed, tmp_path):
    """Control: SQLite itself takes the old log for that of a new file, and all that was in it."""
    path = ledger_path(tmp_path)
    path.parent.mkdir()
    create(path, now=1.0)
    shutil.copyfile(side_file(killed, "-wal"), side_file(tmp_path, "-wal"))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM bundle").fetchone() == (BUNDLES,)
    connection.close()


def test_a_ledger_in_its_place_has_no_remains(killed):
    """Whatever was set aside before it."""
    assert not has_remains(killed)
    with LedgerReader(killed) as ledger:
        ledger.check()
