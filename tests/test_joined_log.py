"""The log of joined runs, and the order in which these runs and those of the ledger are shown."""

import os
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.health.records import RunRecord
from asyncexport.core.health.run_order import in_order
from asyncexport.core.join_progress import JoinedRun
from asyncexport.errors import StorageError
from asyncexport.ledger import begun_joined, forget_joined, hold, joined_runs, record_joined
from asyncexport.ledger.joined_log import JOINED_NAME

NOW = 1_767_268_800.0

HOLDER = JoinedRun("backfill", 4711, "here", NOW - 60)

BEGUN = begun_joined("nightly", at=NOW, joined=HOLDER)

ENDED = replace(
    BEGUN, ended=NOW + 5, exit_code=3, error='a "quoted" text\nof two lines', counts={"bundles": {"failed": 1}}
)


def line_with(**changes: Any) -> bytes:
    """Return the line of a run that waits, with some values replaced."""
    joined = {"command": "backfill", "pid": 1, "host": "", "since": 1}
    empty: dict[str, Any] = {"ended": None, "exit_code": None, "error": "", "counts": {}}
    return orjson.dumps({"command": "x", "began": 1, "host": "", **empty, "joined": joined, **changes})


@pytest.fixture
def directory(tmp_path):
    """Return an output directory that has been used."""
    with hold(tmp_path, command="backfill"):
        pass
    return tmp_path


def test_what_is_recorded_is_read(directory):
    """The record of a run is replaced when it ends, and other records stay."""
    earlier = replace(ENDED, began=NOW - 100.0, joined=replace(HOLDER, command="", pid=0))
    record_joined(directory, earlier)
    record_joined(directory, BEGUN)
    assert joined_runs(directory) == [earlier, BEGUN]
    record_joined(directory, ENDED)
    assert joined_runs(directory) == [earlier, ENDED]
    forget_joined(directory, ENDED)
    assert joined_runs(directory) == [earlier]


def test_old_records_are_deleted(directory):
    """They are kept as long as the rows of runs in the ledger."""
    record_joined(directory, replace(ENDED, began=NOW - 401 * 86_400))
    record_joined(directory, replace(ENDED, began=NOW - 399 * 86_400))
    record_joined(directory, BEGUN)
    assert [run.began for run in joined_runs(directory)] == [NOW - 399 * 86_400, NOW]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        line_with(began=1e99),
        line_with(ended=2),
        line_with(counts=[1]),
        line_with(joined=None),
    ],
)
def test_lines_that_cannot_be_read_are_left_out(directory, line):
    """The other records are still read, and the next one can be written."""
    record_joined(directory, BEGUN)
    path = directory / ".asyncexport" / JOINED_NAME
    path.write_bytes(line + b"\n" + path.read_bytes() + line)
    assert joined_runs(directory) == [BEGUN]
    record_joined(directory, ENDED)
    assert joined_runs(directory) == [ENDED]


def test_a_file_that_cannot_be_used_is_an_error_only_for_the_writer(directory):
    """There may be a folder or a pipe in its place, or no folder at all; nothing waits for the pipe."""
    assert joined_runs(directory / "none") == []
    path = directory / ".asyncexport" / JOINED_NAME
    os.mkfifo(path)
    assert joined_runs(directory) == []
    path.unlink()
    path.mkdir()
    assert joined_runs(directory) == []
    with pytest.raises(StorageError, match=rf"{JOINED_NAME} is a folder"):
        record_joined(directory, BEGUN)


def test_a_joined_run_comes_before_the_run_that_it_joined():
    """It ended first. If the other run was killed, nothing shows when; it held the lock longer."""
    well = RunRecord("backfill", 1.0, ended=5.0, exit_code=0)
    holder = RunRecord("backfill", 10.0)
    joined = RunRecord("nightly", 12.0, ended=14.0, exit_code=0, joined=HOLDER)
    after = RunRecord("retry", 20.0, ended=21.0, exit_code=0)
    for one in (holder, replace(holder, running=True), replace(holder, ended=30.0, exit_code=3)):
        assert in_order([well, one], [joined]) == (well, joined, one)
    assert in_order([well, holder, after], [joined]) == (well, joined, holder, after)
    assert in_order([well, holder, after], [replace(joined, ended=25.0)])[-1].command == "nightly"
    waiting = replace(joined, ended=None, exit_code=None, running=True)
    assert in_order([well, replace(holder, running=True)], [waiting])[-1] == waiting
    killed = replace(waiting, running=False)
    assert in_order([well, replace(holder, running=True)], [killed])[1] == killed


RUNS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20), st.booleans()), max_size=8)


@given(RUNS, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=8))
def test_no_run_is_lost_and_the_ledger_keeps_its_order(recorded, joined):
    """Whichever runs were killed, and whatever was joined when."""
    own, now = list[RunRecord](), 0.0
    for pause, seconds, killed in recorded:
        now += pause
        own.append(RunRecord("backfill", now, ended=None if killed else now + seconds))
        now += seconds
    others = [RunRecord("nightly", began, ended=began + seconds, joined=HOLDER) for began, seconds in joined]
    found = in_order(own, others)
    assert [run for run in found if run.joined is None] == own
    assert sorted(run.began for run in found if run.joined) == sorted(run.began for run in others)
    ends = [run.ended for run in found if run.joined and run.ended is not None]
    assert ends == sorted(ends)
