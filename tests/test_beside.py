"""The records of the last load and the last mirror: what `status` says of them, and what becomes of odd ones."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import orjson
import pytest

from asyncexport.cli import main
from asyncexport.core.health.beside import (
    Beside,
    BesideBegin,
    BesideEnd,
    BesideKind,
    beside_line,
    fault_of_beside,
    newest,
)
from asyncexport.core.health.report import DirectoryFacts, status_report
from asyncexport.ledger import begun_here, beside_path, hold, own_load_path, read_beside, record_begun, record_ended
from asyncexport.ledger.small_files import read_small, replace_small
from tests.json_lines import check
from tests.load_rig import Arrival, Place, events

NOW = 1_767_268_800.0

AT = "2026-01-01T12:00:00Z"

LOAD, MIRROR = BesideKind.LOAD, BesideKind.MIRROR

DAYS = {"days": 30, "already": 28, "loaded": 2, "failed": 0, "quarantined": 0}

FILES = {"uploaded": 48, "already": 1000, "failed": 0, "foreign": 0, "missing": 0}

WELL = BesideEnd("nightly", NOW - 60, NOW, 0, counts=DAYS)

FAILED = replace(WELL, exit_code=3, error="no answer", counts=DAYS | {"failed": 2, "loaded": 0}, is_complete=False)

BEGUN = BesideBegin("nightly", NOW + 60, "here", 4711)


@pytest.mark.parametrize(
    ("record", "line", "is_well"),
    [
        (Beside(LOAD, WELL, complete_at=NOW), f"last load: nightly ended at {AT}: 30 days, all loaded", True),
        (
            Beside(LOAD, replace(WELL, exit_code=3, counts=DAYS | {"quarantined": 1}), complete_at=NOW),
            f"last load: nightly ended at {AT}: 30 days, all loaded, 1 line is no row",
            False,
        ),
        (
            Beside(LOAD, FAILED, complete_at=NOW - 86_400),
            (
                f"last load: nightly ended at {AT}: 30 days, 2 failed: no answer; "
                "the last complete one ended at 2025-12-31T12:00:00Z"
            ),
            False,
        ),
        (
            Beside(LOAD, replace(FAILED, exit_code=9, error="", counts=DAYS | {"loaded": 1})),
            f"last load: nightly ended at {AT}: 30 days, 1 left; no load has been complete yet",
            True,
        ),
        (
            Beside(LOAD, replace(FAILED, exit_code=143, counts={"days": 1})),
            (
                f"last load: nightly was stopped by SIGTERM or SIGHUP at {AT}: 1 day, 1 left: no answer; "
                "no load has been complete yet"
            ),
            False,
        ),
        (
            Beside(LOAD, replace(FAILED, counts=DAYS)),
            (
                f"last load: nightly ended at {AT}: 30 days, not all destinations are up to date: no answer; "
                "no load has been complete yet"
            ),
            False,
        ),
        (
            Beside(LOAD, WELL, replace(BEGUN, running=True), NOW),
            f"last load: nightly ended at {AT}: 30 days, all loaded; nightly has begun a load at 2026-01-01T12:01:00Z",
            True,
        ),
        (
            Beside(LOAD, begun=BEGUN),
            "last load: nightly began at 2026-01-01T12:01:00Z and did not finish: it was killed or it crashed",
            False,
        ),
        (
            Beside(MIRROR, replace(WELL, counts=FILES), complete_at=NOW),
            f"last mirror: nightly ended at {AT}: 1,048 files there, none missing",
            True,
        ),
        (
            Beside(MIRROR, replace(FAILED, counts=FILES | {"missing": 3, "foreign": 1})),
            (
                f"last mirror: nightly ended at {AT}: 1,048 files there, 3 missing, of which the name of 1 is taken: "
                "no answer; no mirror has been complete yet"
            ),
            False,
        ),
        (
            Beside(MIRROR, replace(FAILED, counts={"missing": None})),
            (
                f"last mirror: nightly ended at {AT}: 0 files there, not all were compared: no answer; "
                "no mirror has been complete yet"
            ),
            False,
        ),
    ],
)
def test_a_line_says_how_the_last_one_went(record, line, is_well):
    """What did not go well is a problem in the verdict; one in progress does not count yet."""
    assert beside_line(record) == line
    assert (fault_of_beside(record) == "") is is_well
    report = status_report(DirectoryFacts((), in_progress=True, beside=(record,)), now=NOW, again=str)
    assert report.verdict.healthy is is_well
    assert is_well or report.verdict.reason.startswith(f"the last {record.kind} (nightly) ")


def test_what_is_recorded_is_read(tmp_path):
    """A begin leaves the last end as it was. Of two places, the newer record counts."""
    with hold(tmp_path, command="x"):
        pass
    beside, own = beside_path(tmp_path, LOAD), own_load_path(tmp_path)
    assert read_beside(LOAD, beside, own) is None
    record_ended(LOAD, beside, WELL)
    record_ended(LOAD, beside, replace(FAILED, ended=NOW + 1))
    assert read_beside(LOAD, beside, own) == Beside(LOAD, replace(FAILED, ended=NOW + 1), complete_at=NOW)
    begun = begun_here("nightly", at=NOW + 2, pid=os.getpid())
    record_begun(LOAD, beside, begun)
    found = read_beside(LOAD, beside, own)
    assert found == Beside(LOAD, replace(FAILED, ended=NOW + 1), replace(begun, running=True), NOW)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    record_begun(LOAD, beside, replace(begun, pid=ended.pid))
    found = read_beside(LOAD, beside, own)
    assert found
    assert "it was killed or it crashed" in fault_of_beside(found)
    record_ended(LOAD, own, replace(WELL, command="load", began=NOW + 9, ended=NOW + 10))
    found = read_beside(LOAD, beside, own)
    assert found == Beside(LOAD, replace(WELL, command="load", began=NOW + 9, ended=NOW + 10), complete_at=NOW + 10)
    assert newest(LOAD, []) is None


ODD: dict[str, Any] = {"last": None, "begun": None, "complete_at": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"null",
        orjson.dumps(ODD | {"complete_at": 1e99}),
        orjson.dumps(ODD | {"last": {}}),
        orjson.dumps(ODD | {"begun": [1]}),
    ],
)
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path, content):
    """The next one replaces it."""
    path = own_load_path(tmp_path)
    path.write_bytes(content)
    assert read_beside(LOAD, path) is None
    record_ended(LOAD, path, WELL)
    assert read_beside(LOAD, path) == Beside(LOAD, WELL, complete_at=NOW)


def test_status_shows_the_last_load(tmp_path, capsys):
    """As a line, as JSON, on the page and in the verdict; `status` reads only files, and loads no database library."""
    place = Place(tmp_path)
    place.store(Arrival((0, 24), events(0, 3)), Arrival((24, 25), events(30, 3)))
    options = ["-d", str(place.output), "--set", f"load.directory={place.warehouse}"]
    assert main(["-q", "load", *options, "--set", "load.workers=1"]) == 0
    (place.output / "everyone-events" / "date=2026-01-02").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(["load", "-q", *options, "--set", "load.workers=1", "--again"]) == 7
    capsys.readouterr()
    assert main(["--json", "status", *options, "--html", str(tmp_path / "page.html")]) == 3
    records = [check(orjson.loads(line)) for line in capsys.readouterr().out.splitlines()]
    (last,) = [one for one in records if one["type"] == "last_load"]
    assert (last["command"], last["exit_code"], last["counts"]["failed"]) == ("load", 7, 1)
    assert last["complete_at"] < last["ended"]
    assert last["begun"] is None
    assert '<p id="beside" class="quiet">Last load: load ended at ' in (tmp_path / "page.html").read_text()
    assert main(["status", *options]) == 3
    assert "`asyncexport load -d " in capsys.readouterr().err
    assert main(["status", "--check", *options]) == 3
    assert "the last load (load) ended at " in capsys.readouterr().out
    code = "import sys; from asyncexport.cli import main; main(); sys.exit('duckdb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, "status", *options], check=True, capture_output=True)


def test_processes_that_replace_a_small_file_at_the_same_time_do_not_disturb_each_other(tmp_path):
    """The file is always one of the contents, none of them fails, and nothing else is left."""
    path = tmp_path / "file"
    contents = [str(number).encode() * 5000 for number in range(4)]

    def write(content: bytes) -> None:
        for _ in range(25):
            replace_small(path, content)
            assert read_small(path, longest=10_000) in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        assert list(pool.map(write, contents)) == [None] * len(contents)
    assert list(tmp_path.iterdir()) == [path]
