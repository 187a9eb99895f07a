"""Days that the workers of a Dask scheduler make: the same bytes as those of the load's own workers."""

import asyncio
import base64
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncexport.core.exits import Exit
from asyncexport.errors import DayError
from asyncexport.warehouse.dask_pool import DaskWaits, dask_pool
from asyncexport.warehouse.dask_task import versions
from tests.dask_rig import ROOT, Cluster, cluster, why_not
from tests.day_making import ndjson, request_of, table_of
from tests.load_rig import BROKEN, EVENTS, Arrival, Place, date, events
from tests.test_cli_load import options
from tests.test_load_crash import Pipe

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.slow,
]

DAYS = range(3)

SECOND = f"{EVENTS.name}/date={date(1)}/20260102T000000Z_20260102T010000Z.ndjson.gz"


def stored(folder: Path, days: Sequence[int] = DAYS) -> Place:
    """Return a place with days."""
    place = Place(folder)
    place.store(*(Arrival((day * 24, day * 24 + 1), events(day * 10, 4)) for day in days))
    return place


def loading(place: Place, dask: Cluster, *more: str) -> "subprocess.Popen[str]":
    """Start a load whose days the workers of a scheduler make."""
    command = [sys.executable, "-m", "asyncexport", *options(place, "--scheduler", dask.address, *more)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    dask.ends_with(process)
    return process


def loaded(place: Place, dask: Cluster, *more: str) -> tuple[int, str, str]:
    """Load; return the exit code, and what was printed."""
    process = loading(place, dask, *more)
    out, err = process.communicate()
    return process.returncode, out, err


def files(place: Place) -> dict[str, bytes]:
    """Return the content of the file of each day and table."""
    found = place.warehouse.glob("*/date=*/data.parquet")
    return {str(one.relative_to(place.warehouse)): one.read_bytes() for one in found}


def reader(workers: Sequence["subprocess.Popen[str]"], path: Path) -> "subprocess.Popen[str]":
    """Return the worker that reads a file."""
    while True:
        for worker in workers:
            links = Path(f"/proc/{worker.pid}/fd").iterdir()
            if any(os.path.lexists(link) and link.resolve() == path for link in links):
                return worker


def test_a_worker_that_is_killed_changes_nothing(tmp_path):
    """Its day is made by the other one. The bytes are those of a load without Dask, and no part file is left."""
    place, local = stored(tmp_path / "dask"), stored(tmp_path / "local")
    assert local.load().exit_code is Exit.DONE
    pipe = Pipe(place, SECOND)
    with cluster(tmp_path / "workers", workers=2) as dask:
        load = loading(place, dask)
        held = pipe.wait()
        killed = reader(dask.workers, place.output / SECOND)
        pipe.mend()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        os.close(held)
        out, err = load.communicate()
        assert load.returncode == Exit.DONE, out + err
        assert files(place) == files(local)
        assert len(files(place)) == 2 * len(DAYS)  # the flat table, and that of Data Direct
        assert place.file().stat().st_mode == local.file().stat().st_mode
        assert place.leftovers() == []
        before = place.states()
        assert loaded(place, dask)[0] == Exit.DONE
        assert place.states() == before
    assert place.in_duckdb() == place.expected()


ODD_WORKERS = {
    "asyncexport": "import asyncexport; asyncexport.__version__ = '0.0.1'",
    "duckdb": "import duckdb; duckdb.__version__ = '1.4.0'",
    "none": "import sys; sys.modules['asyncexport'] = None",
}
"""What workers run before anything else, to be ones of other versions."""


def test_workers_of_other_versions_are_refused(tmp_path):
    """The message names each of them and its versions; nothing is loaded."""
    place = stored(tmp_path)
    with cluster(tmp_path / "workers", workers=1) as dask:
        for name, source in ODD_WORKERS.items():
            folder = tmp_path / name
            folder.mkdir()
            (folder / "sitecustomize.py").write_text(source)
            dask.add_worker(PYTHONPATH=str(folder))
        code, _, err = loaded(place, dask)
    assert code == Exit.USAGE
    ours = versions()
    assert f"has asyncexport 0.0.1 instead of {ours['asyncexport']}" in err
    assert f"has duckdb 1.4.0 instead of {ours['duckdb']}" in err
    assert "has no asyncexport that fits" in err
    assert err.count("--scheduler: the worker tcp://") == len(ODD_WORKERS)
    assert not place.file().exists()


def test_a_day_that_workers_die_of_fails(tmp_path):
    """The scheduler gives it up, here at the first death."""
    place = stored(tmp_path, days=[1])
    pipe = Pipe(place, SECOND)
    with cluster(tmp_path / "workers", workers=1, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as dask:
        load = loading(place, dask)
        held = pipe.wait()
        dask.workers[0].kill()
        dask.workers[0].wait()
        os.close(held)
        out, err = load.communicate()
    assert load.returncode == Exit.PARTIAL
    assert f"failed: {EVENTS.name} {date(1)}: several workers died while they made the day" in out + err
    assert place.leftovers() == []


def test_a_scheduler_that_goes_away_fails_the_days(tmp_path):
    """The load ends, and the next one, without Dask, loads them."""
    place = stored(tmp_path)
    pipe = Pipe(place, SECOND)
    with cluster(tmp_path / "workers", workers=1) as dask:
        load = loading(place, dask)
        held = pipe.wait()
        dask.scheduler.kill()
        dask.scheduler.wait()
        out, err = load.communicate()
        os.close(held)
    assert load.returncode == Exit.PARTIAL
    assert f"the connection to the Dask scheduler at {dask.address} was lost" in out + err
    assert {line.partition(": ")[0] for line in err.splitlines()} == {"asyncexport"}
    assert "error" not in err
    pipe.mend()
    assert place.load().exit_code is Exit.DONE
    assert place.in_parquet() == place.expected()
    assert place.leftovers() == []


def test_a_load_that_is_stopped_leaves_nothing_behind(tmp_path):
    """What its worker goes on writing is lost, and the worker makes the days of the next load."""
    place = stored(tmp_path)
    pipe = Pipe(place, SECOND)
    with cluster(tmp_path / "workers", workers=1) as dask:
        load = loading(place, dask)
        held = pipe.wait()
        load.send_signal(signal.SIGINT)
        out, err = load.communicate()
        assert load.returncode == Exit.INTERRUPTED, out + err
        assert place.leftovers() == []
        pipe.mend()
        os.close(held)
        assert loaded(place, dask)[0] == Exit.DONE
    assert place.in_parquet() == place.expected()
    assert place.leftovers() == []


def test_a_scheduler_without_workers_is_refused(tmp_path):
    """The message says how to start them."""
    place = stored(tmp_path)
    with cluster(tmp_path / "workers", workers=0) as dask:
        code, _, err = loaded(place, dask)
    assert code == Exit.PARTIAL
    assert f"error: the Dask scheduler at {dask.address} has no workers" in err
    assert f"start workers: `dask worker {dask.address} --nthreads 1`" in err


@pytest.mark.may_idle(60)
async def test_the_files_of_a_day_are_where_the_load_expects_them(tmp_path):
    """All of them, also the lines that are no rows, with the access of new files. Nothing else is left."""
    request = request_of(tmp_path, ndjson(*events(0, 4)) + BROKEN)
    with cluster(tmp_path / "workers", workers=1) as dask:
        async with dask_pool(dask.address, directory=tmp_path, file_mode=0o600) as pool:
            assert pool.size == 1
            made = await pool.make(request)
    assert (sum(made.rows.values()), sum(made.quarantined.values())) == (4, 1)
    assert len(table_of(request.flat)) == 4
    assert BROKEN.rstrip() in base64.b64decode(json.loads(gzip.decompress(request.quarantine.read_bytes()))["bytes"])
    assert {one.stat().st_mode & 0o777 for one in (request.flat, request.quarantine)} == {0o600}
    assert list(request.scratch.iterdir()) == []


@pytest.mark.may_idle(60)
async def test_a_day_fails_if_there_is_no_worker_any_more(tmp_path):
    """It is not waited for longer than was asked for."""
    request = request_of(tmp_path, ndjson(*events(0, 4)))
    pipe = tmp_path / request.source.archives[0].path
    pipe.unlink()
    os.mkfifo(pipe)
    waits = DaskWaits(check=0.05, patience=0.1)
    with cluster(tmp_path / "workers", workers=1) as dask:
        async with dask_pool(dask.address, directory=tmp_path, file_mode=0o600, waits=waits) as pool:
            making = asyncio.ensure_future(pool.make(request))
            held = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)
            dask.workers[0].kill()
            dask.workers[0].wait()
            os.close(held)
            with pytest.raises(DayError, match="has had no workers"):
                await making


def test_the_library_is_asked_for_by_its_extra(tmp_path):
    """It is only needed with --scheduler."""
    place = stored(tmp_path)
    code = (
        "import sys; sys.modules['distributed'] = None; from asyncexport.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for more, expected in (("--scheduler", "tcp://127.0.0.1:8786"), Exit.USAGE), ((), Exit.DONE):
        ended = subprocess.run(
            [sys.executable, "-c", code, *options(place, *more)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.returncode == expected
        assert ("pip install 'asyncexport[load,dask]'" in ended.stderr) is (expected is Exit.USAGE)
