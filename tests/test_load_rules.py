"""The rules of a load: names of tables, days to load, counts, and how errors pass from a worker."""

import inspect
import pickle
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport import errors
from asyncexport.core.bundles import DAY, Range, day
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.exports import Format
from asyncexport.core.warehouse.days import DaySource, SourceArchive
from asyncexport.core.warehouse.differences import ExpectedDay, differences
from asyncexport.core.warehouse.load_events import DayCounts, DayFailed, DayLoaded
from asyncexport.core.warehouse.load_tally import LoadTally
from asyncexport.core.warehouse.places import place_problems
from asyncexport.core.warehouse.tables import clashes, table_name
from asyncexport.core.warehouse.to_load import complete_until, day_task, emptied, whole_days, with_writers
from asyncexport.core.warehouse.worker_count import worker_count

START = 1_767_225_600
"""2026-01-01."""

GIB = 1 << 30


def archive(start: int, end: int, *, rows: int = 1) -> SourceArchive:
    """Return an archive of a range, in hours of 2026."""
    span = Range(START + start * 3600, START + end * 3600)
    return SourceArchive(f"events/{start}-{end}", "00" * 32, rows, span, exported_at=0.0, revision=0)


def source(*archives: SourceArchive, start: int = 0) -> DaySource:
    """Return the day `start` of 2026 with these archives."""
    return DaySource("events", START + start * DAY, Format.NDJSON, archives)


@pytest.mark.parametrize(
    ("export", "table"),
    [
        ("everyone-events", "everyone_events"),
        ("Everyone.Events", "everyone_events"),
        ("2026_x", "2026_x"),
    ],
)
def test_a_table_is_named_after_its_export(export, table):
    """In lower case, with `_` for what is neither a letter nor a digit."""
    assert table_name(export) == table


@pytest.mark.parametrize(
    ("exports", "name"),
    [
        (["a-b", "A_B"], "a_b"),
        (["x", "x--datadirect"], "x__datadirect"),
        (["x__pages", "x"], "x__pages"),
        (["x", "x__datadirect__coverage"], "x__datadirect__coverage"),
    ],
)
def test_exports_with_tables_of_one_name_are_refused(exports, name):
    """Views and the table in the shape of Data Direct count as well, in either order."""
    (problem,) = clashes(exports)
    assert str(problem) == f"the exports {exports[0]} and {exports[1]} would both have a table or view {name}"
    assert not list(clashes(["x", "y", "x_y", "z__2026_01", "x__2026"]))


@pytest.mark.parametrize("month", ["x__2026_01", "x--2026-12", "x__datadirect__2026_01"])
def test_an_export_must_not_have_the_name_of_a_partition(month):
    """PostgreSQL has a table for each month of a table."""
    (problem,) = clashes([month, "x"])
    assert str(problem) == f"the exports x and {month} would both have a table {table_name(month)}, one as a month"


PLACES = [
    ("/e", "/w", "/w/f", ""),
    ("/e", "/e/warehouse", "/e/warehouse/f", ""),
    ("/e", "/", "/f", ""),
    ("/e", "/w", "/d/f", ""),
    ("/e", "/e", "/e/f", "load.directory: must not be the directory of the archives"),
    ("/e", "/e/.asyncexport/w", "/f", "load.directory: must not be in a folder of the archives or of the ledger"),
    ("/e", "/e/A-b", "/f", "load.directory: must not be in a folder of the archives or of the ledger"),
    ("/w/a_b", "/w", "/f", "load.directory: must not have the directory of the archives in a folder of a table"),
    ("/w/.spill/e", "/w", "/f", "load.directory: must not have the directory of the archives in a folder of a table"),
    ("/e", "/w", "/e/a-b/f", "load.duckdb.path: must not be in a folder of the archives or of the ledger"),
    ("/e", "/w", "/w/.spill/f", "load.duckdb.path: must not be where files of the load are"),
    ("/e", "/w", "/w/a_b__datadirect", "load.duckdb.path: must not be where files of the load are"),
    ("/e", "/w", "/w", "load.duckdb.path: must not be where files of the load are"),
]
"""Output directory, load directory, DuckDB file, and what is wrong."""


@pytest.mark.parametrize(("output", "directory", "file", "problem"), PLACES)
def test_tables_are_not_put_where_other_files_are(output, directory, file, problem):
    """Neither among archives, nor where a load deletes what it finds."""
    paths = [PurePosixPath(one).parts for one in (output, directory, file)]
    found = place_problems(paths[0], paths[1], paths[2], ["a-b"])
    assert [str(one) for one in found] == ([problem] if problem else [])


def have(**receipts: str) -> dict[str, dict[str, dict[str, str]]]:
    """Return the receipts of one table and day, by destination."""
    return {sink: {"t": {"2026-01-01": receipt}} for sink, receipt in receipts.items()}


@pytest.mark.parametrize(
    ("has", "chosen", "again", "lacking"),
    [
        (have(), ["parquet", "duckdb"], False, ["parquet", "duckdb"]),
        (have(parquet="r", duckdb="r"), ["parquet", "duckdb"], False, []),
        (have(parquet="r", duckdb="old"), ["parquet", "duckdb"], False, ["duckdb"]),
        (have(parquet="old", duckdb="r"), ["duckdb"], False, []),
        (have(parquet="old", duckdb="old"), ["duckdb"], False, ["parquet", "duckdb"]),
        (have(parquet="r", duckdb="r"), ["parquet", "duckdb"], True, ["parquet", "duckdb"]),
        (have(parquet="r", duckdb="r"), ["duckdb"], True, ["duckdb"]),
    ],
)
def test_a_day_is_loaded_where_the_receipt_differs(has, chosen, again, lacking):
    """The Parquet file is made first if it is not up to date, and only if something needs it."""
    task = day_task(source(archive(0, 1)), {"t": "r"}, has, chosen=chosen, again=again)
    assert list(task.lacking if task else ()) == lacking
    assert task is None or task.must_be_made == ("parquet" in lacking)


RECEIPTS = st.dictionaries(st.sampled_from(["t", "t__datadirect"]), st.sampled_from(["r", "old"]))
SINKS = st.sampled_from(["parquet", "duckdb", "postgres"])


@given(st.dictionaries(SINKS, RECEIPTS), st.lists(SINKS, min_size=1, unique=True))
def test_a_day_that_was_loaded_is_not_loaded_again(had, chosen):
    """Whatever the destinations had: afterwards the chosen ones have the day, and nothing else was touched."""
    wanted = {"t": "r", "t__datadirect": "r"}
    state = {sink: {table: {"2026-01-01": one} for table, one in tables.items()} for sink, tables in had.items()}
    task = day_task(source(archive(0, 1)), wanted, state, chosen=chosen, again=False)
    for sink, tables in (task.lacking if task else {}).items():
        assert sink in {*chosen, "parquet"}
        for table in tables:
            assert state.get(sink, {}).get(table, {}).get("2026-01-01") != wanted[table]
            state.setdefault(sink, {})[table] = {"2026-01-01": wanted[table]}
    for sink in chosen:
        assert {table: days["2026-01-01"] for table, days in state[sink].items()} == wanted
    assert day_task(source(archive(0, 1)), wanted, state, chosen=chosen, again=False) is None


def test_a_day_without_archives_is_emptied_once():
    """A destination that has the day loses its rows; its receipt is then that of a day without archives."""
    span = Range(START, START + 2 * DAY)
    found = list(emptied("events", Format.NDJSON, wanted=[], have=have(duckdb="old"), tables=["t"], span=span))
    assert found == [source()]
    assert day_task(source(), {"t": "r0"}, have(duckdb="r0", parquet="r0"), chosen=["duckdb"], again=False) is None
    later = Range(START + DAY, START + 2 * DAY)
    assert not list(emptied("events", Format.NDJSON, wanted=[], have=have(duckdb="old"), tables=["t"], span=later))
    assert not list(
        emptied("events", Format.NDJSON, wanted=["2026-01-01"], have=have(duckdb="x"), tables=["t"], span=span)
    )


@given(st.integers(0, 10 * DAY), st.integers(1, 10 * DAY))
def test_a_range_is_widened_to_whole_days(start, seconds):
    """The range contains what was asked for, begins and ends at midnight, and has no day more than needed."""
    asked = Range(START + start, START + start + seconds)
    wide = whole_days(asked)
    assert wide.contains(asked)
    assert wide.start % DAY == wide.end % DAY == 0
    assert asked.start - wide.start < DAY
    assert wide.end - asked.end < DAY


def test_the_time_of_an_archive_is_that_of_the_revision_that_wrote_it():
    """A refresh that brought the same rows does not change where a row comes from."""
    one = archive(0, 1)
    assert with_writers(source(one), {(one.range, 0): 5.0}).archives[0].exported_at == 5.0
    assert with_writers(source(one), {(one.range, 1): 5.0}) == source(one)


@pytest.mark.parametrize(
    ("days", "lacking", "until"),
    [
        ([], [], None),
        ([source(archive(0, 24)), source(archive(24, 48), start=1)], [], 2 * DAY),
        ([source(archive(0, 24)), source(archive(24, 30), start=1)], [], DAY + 6 * 3600),
        ([source(archive(0, 24)), source(archive(30, 48), start=1)], [], DAY),
        ([source(archive(0, 24)), source(archive(24, 48), start=1)], [START + DAY], DAY),
        ([source(archive(0, 24))], [START], None),
        ([source(archive(0, 6))], [], None),
    ],
)
def test_a_table_is_complete_up_to_its_first_gap(days, lacking, until):
    """Missing time and days that a destination lacks are gaps."""
    expected = None if until is None else START + until
    assert complete_until(days, lacking=lacking) == expected


def test_a_tally_counts_days_rows_and_destinations():
    """The summary has exactly these keys, and the exit code follows from the failures."""
    tally = LoadTally.of(["parquet", "postgres"])
    tally.days, tally.already = 5, 1
    tally.record(DayLoaded(DayCounts(export="e", date="2026-01-01", rows=10, bytes=7, sinks=("parquet", "postgres"))))
    assert tally.exit_code() is Exit.PARTIAL
    error = errors.SinkError("down", sink="postgres")
    counts = DayCounts(export="e", date="2026-01-02", rows=5, rescued=1, sinks=("parquet",), left_out={"x": 2})
    tally.record(DayFailed(counts, error, {"postgres": "down"}))
    assert tally.unfinished == 2
    assert tally.to_dict() == {
        "days": 5,
        "already": 1,
        "loaded": 1,
        "failed": 1,
        "rows": 15,
        "rescued": 1,
        "quarantined": 0,
        "bytes": 7,
        "left_out": {"x": 2},
        "sinks": {"parquet": {"loaded": 2, "failed": 0}, "postgres": {"loaded": 1, "failed": 1}},
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SinkError("x", sink="parquet"), Exit.PARTIAL),
        (errors.DayError("x"), Exit.PARTIAL),
        (errors.ChangedArchiveError("x", path="p"), Exit.LEDGER),
        (errors.DayCountError("x"), Exit.LEDGER),
        (errors.OverlapError("x"), Exit.LEDGER),
        (errors.ExportError("a bug"), Exit.UNEXPECTED),
    ],
)
def test_the_exit_code_follows_from_the_failures(error, code):
    """An archive that is not what the ledger says is 7, whatever else failed; other failures are 3."""
    tally = LoadTally.of(["parquet"])
    tally.days = 2
    for one in (errors.DayError("y"), error):
        tally.record(DayFailed(DayCounts(export="e", date="2026-01-01"), one))
    assert tally.exit_code() is code
    assert exit_of(error) is code


def test_quarantined_lines_are_no_success():
    """A load that quarantined lines ends with 3, even though every day is loaded."""
    tally = LoadTally.of(["parquet"])
    tally.days = 1
    tally.record(DayLoaded(DayCounts(export="e", date="2026-01-01", quarantined=1)))
    assert tally.exit_code() is Exit.PARTIAL
    assert LoadTally.of([]).exit_code() is Exit.DONE


@pytest.mark.parametrize(
    ("asked", "cores", "available", "count"),
    [(0, 4, 10 * GIB, 4), (0, 4, 3 * GIB, 2), (0, 4, GIB, 1), (0, 2, None, 2), (7, 2, GIB, 7)],
)
def test_workers_fit_into_cores_and_memory(asked, cores, available, count):
    """A worker needs DuckDB's limit and 200 MiB; a number in the settings is used as it is."""
    assert worker_count(asked, cores=cores, available=available, memory=GIB) == count


def test_a_check_names_each_way_to_differ():
    """A day may be missing, made from other archives, or have another number of rows; others must not have rows."""
    dates = [day(START + number * DAY) for number in range(6)]
    expected = {date: ExpectedDay("r", 5) for date in dates[:4]}
    receipts = {dates[1]: "old", dates[2]: "r", dates[3]: "r", dates[4]: "r", dates[5]: "r"}
    counts = {dates[1]: 5, dates[2]: 4, dates[3]: 5, dates[4]: 1, dates[5]: 0}
    found = list(differences("duckdb", "t", expected, {"duckdb": {"t": receipts}}, counts))
    assert [one.date for one in found if one.is_recorded] == [dates[2]]
    assert {one.date: one.reason for one in found} == {
        dates[0]: "not loaded",
        dates[1]: "loaded from other archives, with other settings, or by an earlier version",
        dates[2]: "4 rows instead of 5",
        dates[4]: "1 row of a day without archives",
    }


VALUES: dict[str, Any] = {"problems": [errors.Problem("a", "b")], "members": ["m"]}
"""Arguments of constructors that are neither a text nor a number."""


def every_error() -> list[Any]:
    """Return an error of each class, with all that its constructor asks for."""
    kinds: list[Any] = [one for one in vars(errors).values() if inspect.isclass(one)]
    return [made(kind) for kind in kinds if issubclass(kind, errors.ExportError)]


def made(kind: Any) -> Any:
    """Return an error of a class."""
    asked = inspect.signature(kind).parameters.values()
    needed = [one for one in asked if one.default is one.empty]
    values = {one.name: VALUES.get(one.name, 3 if one.annotation is int else "text") for one in needed}
    by_name = {one.name: values[one.name] for one in needed if one.kind is one.KEYWORD_ONLY}
    return kind(*(values[name] for name in values if name not in by_name), **by_name)


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_an_error_passes_to_another_process(error):
    """Message, hint and attributes of every error survive pickling."""
    error.hint = "do this"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
