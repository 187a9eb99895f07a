"""Loads that are killed, stopped, or run out of something are resumed by starting them again."""

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.warehouse.tables import DATA_DIRECT
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import DayError, ExportError, SinkError, StorageError
from asyncexport.run.load_sinks import SinkThread
from asyncexport.warehouse.faults import translated
from asyncexport.warehouse.sinks.parquet import ParquetSink
from asyncexport.warehouse.worker import answer
from tests.load_rig import EVENTS, TABLE, Arrival, Place, date, events, loaded_and_changed
from tests.test_load import TABLES

OURS = f"{TABLE}{DATA_DIRECT}"

ROOT = Path(__file__).parents[1]


def drive(place: Place, *boundary: int) -> subprocess.CompletedProcess[str]:
    """Load in a process of its own; see `tests.load_driver`."""
    command = [
        sys.executable,
        "-m",
        "tests.load_driver",
        str(place.folder),
        json.dumps(place.changes),
        *map(str, boundary),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def changed(tmp_path):
    """Three days, and archives that change each."""
    return loaded_and_changed(tmp_path / "first", TABLES)


SHARES = 4
"""The boundaries are tried in so many tests, each of which tries every fourth one."""


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_load_that_is_killed_at_any_boundary_is_resumed(changed, tmp_path, share):
    """After a kill each day is complete, as before or as new. The next load completes the rest and leaves nothing."""
    days = range(4)
    before, after = [changed.day_in_parquet(day) for day in days], [changed.day_expected(day) for day in days]
    boundary = share + 1
    while True:
        place = Place(tmp_path / "copy", truth=changed.truth, changes=TABLES)
        shutil.copytree(changed.folder, place.folder)
        ended = drive(place, boundary)
        for day in days:
            assert place.day_in_parquet(day) in (before[day], after[day]), (boundary, day)
        if ended.returncode != -signal.SIGKILL:
            break
        summary = place.load()
        assert summary.exit_code is Exit.DONE, boundary
        assert place.in_parquet() == place.in_duckdb() == place.expected(), boundary
        assert place.ids_in_parquet(OURS) == place.ids_in_duckdb(OURS) == place.ids_in_parquet(), boundary
        assert place.leftovers() == [], boundary
        assert not (place.warehouse / f"{TABLE}.quarantine" / f"date={date(0)}" / "data.ndjson.gz").exists()
        shutil.rmtree(place.folder)
        boundary += SHARES
    assert ended.returncode == 0, ended.stderr
    assert boundary > int(ended.stdout) > 30


def children() -> set[int]:
    """Return the processes that this process has started."""
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        # A thread may end after it was listed.
        with suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(number) for number in path.read_text().split()}
    return found


class Pipe:
    """An archive that is a pipe, so that a worker waits in the middle of a day until the test says what comes."""

    def __init__(self, place: Place, path: str) -> None:
        self._path = place.output / path
        self._content = self._path.read_bytes()
        self._path.unlink()
        os.mkfifo(self._path)

    def wait(self) -> int:
        """Wait until a worker reads it; return the descriptor that holds the worker."""
        return os.open(self._path, os.O_WRONLY)

    def mend(self) -> None:
        """Put the archive back."""
        self._path.unlink()
        self._path.write_bytes(self._content)


@pytest.fixture
def held(tmp_path) -> tuple[Place, Pipe]:
    """Three days; a worker that makes the second one waits."""
    place = Place(tmp_path)
    place.store(*(Arrival((day * 24, day * 24 + 1), events(day * 10, 4)) for day in range(3)))
    return place, Pipe(place, f"{EVENTS.name}/date={date(1)}/20260102T000000Z_20260102T010000Z.ndjson.gz")


def when_held(pipe: Pipe) -> threading.Thread:
    """Kill the workers once one of them waits."""
    before = children()

    def kill() -> None:
        descriptor = pipe.wait()
        for number in children() - before:
            os.kill(number, signal.SIGKILL)
        os.close(descriptor)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_worker_that_is_killed_fails_its_day_and_not_the_load(held):
    """As when the system runs out of memory; the message says so, and the other days are loaded."""
    place, pipe = held
    killing = when_held(pipe)
    summary = place.load()
    killing.join()
    assert summary.load
    (failure,) = summary.load.failures
    assert summary.exit_code is Exit.PARTIAL
    assert failure.counts.date == date(1)
    assert "was killed" in str(failure.error)
    assert "[load] memory" in failure.error.hint
    assert [place.file(number).exists() for number in range(3)] == [True, False, True]
    assert place.leftovers() == []
    pipe.mend()
    assert place.load().exit_code is Exit.DONE
    assert place.in_parquet() == place.expected()


async def test_a_load_that_is_asked_to_stop_ends_its_workers(held):
    """The day in progress is given up, no process and no file is left, and the exit code is that of the signal."""
    place, pipe = held
    loop, stop = asyncio.get_running_loop(), Stop()
    before = children()

    def ask() -> None:
        descriptor = pipe.wait()
        workers = children() - before
        loop.call_soon_threadsafe(stop.ask, Exit.INTERRUPTED)
        # The worker ends, so this end of the pipe breaks.
        while workers & children():
            threading.Event().wait(0.01)
        os.close(descriptor)

    asking = threading.Thread(target=ask)
    asking.start()
    summary = await place.loaded(stop=stop)
    await asyncio.to_thread(asking.join)
    assert summary.exit_code is Exit.INTERRUPTED
    assert summary.load
    assert summary.load.unfinished >= 1
    assert place.leftovers() == []


@pytest.mark.slow
def test_workers_end_with_a_load_that_is_killed(held):
    """Nothing writes into the directory after its lock is free, and the next load removes what was left."""
    place, pipe = held
    command = [sys.executable, "-m", "tests.load_driver", str(place.folder), "{}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        descriptor = pipe.wait()
        workers = {
            int(number)
            for path in Path(f"/proc/{process.pid}/task").glob("*/children")
            for number in path.read_text().split()
        }
        assert workers
        process.kill()
        process.wait()
        for worker in workers:
            while Path(f"/proc/{worker}").exists():
                threading.Event().wait(0.01)
    os.close(descriptor)
    assert place.leftovers()
    pipe.mend()
    assert place.load().exit_code is Exit.DONE
    assert place.in_parquet() == place.expected()
    assert place.leftovers() == []


@pytest.mark.parametrize(
    "step", ["folder:before", "parquet.fsync:before", "parquet.rename:before", "empty.rename:before"]
)
def test_a_full_disk_ends_the_load(tmp_path, step):
    """Exit code 8; what was loaded stays, and the same command resumes."""
    place = Place(tmp_path)
    place.store(Arrival((0, 1), events(0, 3)), Arrival((24, 25), []))

    def fill(name: str) -> None:
        if name == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place.warehouse))

    summary = place.load(boundary=fill)
    assert summary.exit_code is Exit.DISK
    assert str(summary.error) == f"the disk of {place.warehouse} is full"
    assert place.leftovers() == []
    assert place.load().exit_code is Exit.DONE
    assert place.in_parquet() == place.expected()
    assert place.leftovers() == []


@pytest.mark.parametrize(
    ("raised", "expected", "said"),
    [
        (duckdb.IOException("Could not write: No space left on device"), StorageError, "the disk of /load is full"),
        (OSError(errno.EACCES, "Permission denied", "/load/x"), StorageError, "/load/x: Permission denied"),
        (duckdb.OutOfMemoryException("failed to allocate"), DayError, "not enough memory"),
        (MemoryError(), DayError, "not enough memory"),
        (duckdb.InternalException("odd\nstack"), DayError, "DuckDB could not make the day: odd$"),
    ],
)
def test_errors_of_a_worker_are_in_our_words(raised, expected, said):
    """A full disk ends the load; anything else of DuckDB's fails the day."""
    with pytest.raises(expected, match=said), translated(Path("/load")):
        raise raised


def test_a_bug_in_a_worker_is_reported_without_data():
    """Only the kind of the exception and its place are named, and the exit code is that of a bug."""
    request: Any = SimpleNamespace(source="CANARY")
    error = answer(request, Path("/load"))
    assert isinstance(error, ExportError)
    assert str(error).startswith("unexpected AttributeError at ")
    assert "CANARY" not in str(error)
    assert exit_of(error) is Exit.UNEXPECTED


class OddSink(ParquetSink):
    """A destination with a bug."""

    def receipts(self, table: str) -> Mapping[str, str]:
        """Raise something that is not an error of ours."""
        raise KeyError(f"CANARY of {table}")


async def test_a_bug_in_a_destination_is_an_error_of_that_destination(tmp_path):
    """After three failures in a row the destination is given up, so that a dead server does not hold up every day."""
    thread = SinkThread(OddSink(tmp_path, scratch=tmp_path))
    for _ in range(3):
        assert thread.given_up is None
        with pytest.raises(SinkError, match=r"^unexpected KeyError in parquet$"):
            await thread.call(thread.sink.receipts, "t")
    assert thread.given_up is not None
    with pytest.raises(SinkError, match="unexpected KeyError"):
        await thread.call(thread.sink.row_counts, "t")
    await thread.close()


def test_a_library_that_is_missing_is_named_with_its_installation(tmp_path):
    """Exit code 2, and nothing is written."""
    place = Place(tmp_path)
    place.store(Arrival((0, 1), events(0, 1)))
    code = "import sys; sys.modules['duckdb'] = None; from asyncexport.cli import main; sys.exit(main())"
    asked = ["load", "-d", str(place.output), "--set", f"load.directory={place.warehouse}"]
    ended = subprocess.run([sys.executable, "-c", code, *asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == Exit.USAGE
    assert "asyncexport: hint: pip install 'asyncexport[load]'" in ended.stderr
    assert not place.warehouse.exists()
