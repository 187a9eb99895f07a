"""What a Dask worker does with a day: nothing if it is not fit for it, else files in a folder of its own."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from asyncexport.core.warehouse.data_direct.columns import DataDirectRecipe
from asyncexport.errors import ChangedArchiveError, ConfigError, DayError
from asyncexport.run.load_workers import check_scheduler
from asyncexport.warehouse.dask_task import attempt, difference, files_of, versions, within
from asyncexport.warehouse.day_maker import DataDirectRequest, DayMade
from tests.day_making import ndjson, request_of, table_of
from tests.load_rig import events


@pytest.fixture
def request_(tmp_path):
    """A day of four events."""
    return request_of(tmp_path, ndjson(*events(0, 4)))


def tried(request, wanted=None):
    """Run the task; return the folder of the attempt, and what was made or the error."""
    return pickle.loads(attempt(pickle.dumps(request), wanted or versions(), request.output))


def test_each_attempt_has_a_folder_of_its_own(request_):
    """Two attempts at the same day do not touch each other's files, nor those that the load expects."""
    (first, made), (second, again) = tried(request_), tried(request_)
    assert isinstance(made, DayMade)
    assert made == again
    assert first != second
    assert first.parent == second.parent == request_.scratch
    assert (first / request_.flat.name).read_bytes() == (second / request_.flat.name).read_bytes()
    assert len(table_of(first / request_.flat.name)) == 4
    assert [one.exists() for one in files_of(request_)] == [False, False]


def test_all_files_of_an_attempt_are_in_its_folder(request_, tmp_path):
    """That of the Data Direct table as well, and what DuckDB spills."""
    direct = DataDirectRequest(tmp_path / "direct.part", "r", DataDirectRecipe())
    moved = within(replace(request_, data_direct=direct), tmp_path / "attempt")
    assert {one.parent for one in files_of(moved)} == {moved.scratch} == {tmp_path / "attempt"}
    assert len(files_of(moved)) == 3


@pytest.mark.parametrize("name", ["asyncexport", "duckdb"])
def test_a_worker_of_another_version_makes_nothing(request_, name):
    """The request is not even read: a class in it may have changed."""
    wanted = versions() | {name: "99.0"}
    with pytest.raises(DayError, match=f"has {name} .* instead of 99.0"):
        attempt(b"no pickle", wanted, request_.output)
    assert difference(versions(), versions()) == ""


@pytest.mark.parametrize("lost", ["output", "scratch"])
def test_a_worker_without_the_same_disk_makes_nothing(request_, lost):
    """The error is raised, so that Dask tries another worker."""
    elsewhere = replace(request_, **{lost: Path("/nowhere")})
    with pytest.raises(DayError, match=r"the worker process \d+ on .*/nowhere") as raised:
        tried(elsewhere)
    assert "under the same paths" in raised.value.hint


def test_what_is_wrong_with_a_day_is_an_answer(request_):
    """It is not raised: another worker would find the same."""
    (request_.output / request_.source.archives[0].path).unlink()
    _, error = tried(request_)
    assert isinstance(error, ChangedArchiveError)


@pytest.mark.parametrize("address", ["", "localhost:8786", "tcp://localhost", "http://localhost:8786", "tcp://a b:1"])
def test_an_address_of_a_scheduler_has_a_scheme_and_a_port(address):
    """Anything else is reported before the ledger is read."""
    with pytest.raises(ConfigError, match="--scheduler: must be an address such as"):
        check_scheduler(address)
