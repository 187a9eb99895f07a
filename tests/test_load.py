"""Loads: every row of the archives is in every table, once, and what has not changed is not touched."""

import base64
import gzip
import hashlib
import json
import threading
from collections import Counter
from dataclasses import replace

import duckdb
import pytest

from asyncexport.core.access import Access
from asyncexport.core.bundles import DAY, Bundle
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Definition, Export, Format, Type
from asyncexport.core.warehouse.tables import DATA_DIRECT, table_name
from asyncexport.core.warehouse.to_load import DayTask
from asyncexport.errors import ChangedArchiveError, ConfigError, DayError, SinkError
from asyncexport.ledger import LedgerReader, hold_load
from asyncexport.run.load import LoadSpec
from asyncexport.run.load_check import check_load
from asyncexport.run.load_exports import DayLookup, exports_to_load
from asyncexport.run.load_making import TRIES, DayMaking
from asyncexport.run.load_place import LoadPlace
from asyncexport.warehouse.day_maker import DayMade, DayRequest, Workers
from tests.day_making import MIDNIGHT, metadata_of, ndjson, table_of
from tests.load_rig import BROKEN, EVENTS, TABLE, Arrival, Place, date, event, events

TABLES = {"load": {"duckdb": {"tables": True}}}
"""DuckDB has copies of the rows, so that it has records of its own."""


@pytest.fixture(params=[{}, TABLES], ids=["views", "tables"])
def place(tmp_path, request):
    """Two days: of one there are two bundles."""
    made = Place(tmp_path, changes=request.param)
    made.store(Arrival((0, 1), events(0, 10)), Arrival((1, 2), events(10, 5)), Arrival((24, 25), events(20, 3)))
    return made


def check(place: Place) -> None:
    """Check that the tables have the rows of the archives, and that nothing is left behind."""
    assert place.in_parquet() == place.expected()
    assert place.in_duckdb() == place.expected()
    assert place.leftovers() == []


def test_a_load_puts_every_row_into_every_table(place):
    """The multiset of rows is that of the archives, and the summary counts days, rows and bytes."""
    assert place.count("loaded", to=("parquet",), end=MIDNIGHT) == 0
    assert place.last() is None, "a load of a part says nothing about the rest"
    summary = place.load()
    check(place)
    assert summary.exit_code is Exit.DONE
    record = place.last()
    assert record
    assert record.last
    assert (record.last.command, record.complete_at) == ("load", record.last.ended)
    assert summary.load is not None
    assert summary.to_dict()["load"] == {
        "days": 2,
        "already": 0,
        "loaded": 2,
        "failed": 0,
        "rows": 18,
        "rescued": 0,
        "quarantined": 0,
        "bytes": sum(
            place.file(number, table).stat().st_size
            for number in range(2)
            for table in (TABLE, f"{TABLE}{DATA_DIRECT}")
        ),
        "left_out": {},
        "sinks": {"parquet": {"loaded": 2, "failed": 0}, "duckdb": {"loaded": 2, "failed": 0}},
    }


def test_a_second_load_touches_nothing(place):
    """No file has another inode or time, and the summary says that everything was there already."""
    place.load()
    before = place.states()
    summary = place.load()
    assert place.states() == before
    assert summary.load
    assert (summary.exit_code, summary.load.already, summary.load.loaded) == (Exit.DONE, 2, 0)


def test_a_second_load_of_thirty_days_touches_no_file(tmp_path):
    """The days are compared by their receipts, so the archives are not even needed."""
    place = Place(tmp_path)
    place.store(*(Arrival((at, at + 12), [event(at)]) for at in range(0, 30 * 24, 12)))
    assert place.load().exit_code is Exit.DONE
    before = place.states()
    assert len(before) == 61
    for archive in place.output.glob("*/date=*/*.gz"):
        archive.unlink()
    summary = place.load()
    assert summary.exit_code is Exit.DONE
    assert summary.to_dict()["load"]["already"] == 30
    assert place.states() == before


def test_a_refresh_changes_only_its_day(place):
    """The files of other days are the same ones."""
    place.load()
    before, content = place.states(), place.file(1).read_bytes()
    place.store(Arrival((1, 2), events(100, 7), revision=1))
    summary = place.load()
    check(place)
    assert summary.load
    assert (summary.load.loaded, summary.load.already, summary.load.rows) == (1, 1, 17)
    assert place.states()[f"{TABLE}/date={date(1)}/data.parquet"] == before[f"{TABLE}/date={date(1)}/data.parquet"]
    assert place.file(1).read_bytes() == content


def test_a_refresh_with_the_same_rows_changes_nothing(place):
    """The receipt is the same. Made again, the day has the same bytes, so it names the revision that wrote them."""
    place.load()
    before, content = place.states(), place.file().read_bytes()
    place.store(Arrival((1, 2), events(10, 5), revision=1, written_by=0, exported_after=9 * DAY))
    assert place.count("loaded") == 0
    assert place.states() == before
    summary = place.load(again=True)
    assert summary.load
    assert (summary.load.loaded, summary.load.already) == (2, 0)
    assert place.file().read_bytes() == content
    assert place.states() != before


def test_a_refresh_that_empties_a_bundle_and_then_the_day(place):
    """The rows go, and the day without rows has no Parquet file any more."""
    place.load()
    place.store(Arrival((1, 2), [], revision=1))
    place.load()
    check(place)
    assert len(table_of(place.file())) == 10
    place.store(Arrival((0, 1), [], revision=1))
    summary = place.load()
    check(place)
    assert sorted(one.name for one in place.file().parent.iterdir()) == ["empty.json"]
    assert (summary.exit_code, summary.load and summary.load.loaded) == (Exit.DONE, 1)
    assert place.count("already") == 2
    place.store(Arrival((0, 1), events(0, 4), revision=2))
    place.load()
    check(place)
    assert sorted(one.name for one in place.file().parent.iterdir()) == ["data.parquet"]


def test_a_day_with_gaps_is_loaded_again_when_more_of_it_is_stored(place):
    """A day is loaded as far as it is there."""
    place.load()
    place.store(Arrival((25, 26), events(50, 4)))
    assert place.count("loaded") == 1
    check(place)


def test_an_archive_that_was_not_settled_is_not_loaded(place):
    """It will be replaced. Once it is, the day is loaded."""
    early = Arrival((48, 49), events(70, 2), settle_seconds=6.0 * DAY)
    place.store(early)
    settled_rows = place.expected() - Counter(dict.fromkeys(place.expected(), 0))
    assert place.count("days") == 2
    del place.truth[Bundle(EVENTS.name, early.range)]
    check(place)
    assert settled_rows > place.expected()
    place.store(replace(early, revision=1, exported_after=7.0 * DAY))
    assert place.count("days") == 3
    check(place)


def test_a_day_whose_archives_are_gone_is_emptied(place):
    """If a ledger no longer names any archive of a day, the tables lose its rows, once."""
    place.load()
    other = Place(place.folder / "other", changes=place.changes)
    other.store(Arrival((0, 1), events(0, 10)))
    place.output.rename(place.folder / "old")
    other.output.rename(place.output)
    place.truth = other.truth
    assert place.count("loaded") == 2
    check(place)
    before = place.states()
    assert place.count("loaded") == 0
    assert place.states() == before


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("kind", Type)
def test_exports_of_any_kind_are_loaded(tmp_path, form, kind):
    """Events and individuals, as NDJSON, CSV and JSON."""
    rows = events(0, 3)
    if kind is Type.INDIVIDUAL:
        rows = [{"IndvId": 6_000_000_000_000_000_000 + n, "Uid": f"u{n}", "user_plan_str": "pro"} for n in range(3)]
    export = Export("people", Definition(type=kind, format=form), bundle_seconds=DAY)
    place = Place(tmp_path, exports=(export,))
    place.store(Arrival((0, 24), rows, export="people"), Arrival((24, 48), [], export="people"))
    summary = place.load()
    assert summary.exit_code is Exit.DONE, summary.load and summary.load.failures
    assert place.in_parquet("people") == place.in_duckdb("people") == place.expected("people")


def test_an_export_that_is_no_longer_in_the_settings_stays_as_it_is(place):
    """After a renaming, the old tables stay; the old export is loaded only if it is named."""
    place.load()
    before = place.file().read_bytes()
    place.exports = (Export("Every.Event"),)
    place.store(Arrival((1, 2), events(10, 5), export="Every.Event"))
    place.load()
    assert place.in_parquet("every_event") == place.expected("Every.Event")
    assert place.file().read_bytes() == before
    place.exports = (EVENTS,)
    place.store(Arrival((0, 1), events(30, 2), revision=1))
    place.exports = (Export("Every.Event"),)
    assert place.count("loaded") == 0
    assert place.count("loaded", exports=(EVENTS.name,)) == 1
    check(place)


def test_exports_with_one_table_name_are_refused_before_anything_is_written(tmp_path):
    """Exit code 2, and there is no load directory."""
    exports = (Export("a-b"), Export("A.B"))
    place = Place(tmp_path, exports=exports)
    place.store(Arrival((0, 1), events(0, 1), export="a-b"))
    with pytest.raises(ConfigError, match=r"a-b and A\.B would both have a table or view a_b"):
        place.load()
    with pytest.raises(ConfigError, match="would both"):
        place.load(exports=("a-b",))
    assert not place.warehouse.exists()
    assert table_name("a-b") == "a_b"


@pytest.mark.parametrize(
    ("asked", "reported"),
    [
        ({"to": ("parket",)}, "--to: there is no destination 'parket'"),
        ({"exports": ("nobody",)}, "--export: there is no export 'nobody'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_written(place, asked, reported):
    """They are reported with the option that has them."""
    with pytest.raises(ConfigError, match=reported):
        place.load(**asked)
    assert not place.warehouse.exists()


def test_the_load_directory_must_not_be_the_output_directory(place):
    """Archives and ledger have a directory of their own."""
    place.changes = {"load": {"directory": str(place.output)}}
    with pytest.raises(ConfigError, match=r"load\.directory: must not be the directory of the archives"):
        place.load()


def test_overlapping_archives_are_not_loaded_and_both_named(place):
    """They would put the same rows into the table twice. Other days are loaded."""
    place.store(Arrival((0, 2), events(0, 15)))
    summary = place.load()
    assert summary.load
    (failure,) = summary.load.failures
    assert summary.exit_code is Exit.LEDGER
    assert "20260101T000000Z_20260101T010000Z" in str(failure.error)
    assert "20260101T000000Z_20260101T020000Z" in str(failure.error)
    assert not place.file(0).exists()
    assert place.file(1).exists()


def test_an_archive_that_was_altered_is_not_loaded(place):
    """Exit code 7, and the day stays as it was. Other days are loaded."""
    place.load()
    content = place.file().read_bytes()
    place.store(Arrival((0, 1), events(200, 10), revision=1), Arrival((24, 25), events(300, 1), revision=1))
    altered = next((place.output / EVENTS.name / f"date={date(0)}").glob("*T010000Z.ndjson.gz"))
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    summary = place.load()
    assert summary.load
    assert summary.exit_code is Exit.LEDGER
    assert [one.counts.date for one in summary.load.failures] == [date(0)]
    assert "verify --repair" in summary.load.failures[0].error.hint
    assert place.file().read_bytes() == content
    assert len(table_of(place.file(1))) == 1
    assert place.leftovers() == []


def test_an_archive_that_a_run_replaces_meanwhile_is_looked_up_again(place):
    """The day is loaded from the archives that the ledger names by then."""

    def refresh(_days: int) -> None:
        run = threading.Thread(target=place.store, args=(Arrival((0, 1), events(400, 9), revision=1),))
        run.start()
        run.join()

    summary = place.load(on_total=refresh)
    assert summary.exit_code is Exit.DONE
    check(place)
    assert place.count("loaded") == 0


@pytest.mark.parametrize("times", [4, 5])
async def test_a_day_is_made_again_as_long_as_its_archives_are_replaced(place, tmp_path, times):
    """A refresh replaces them one after the other. If that does not end, the day fails: the archives are intact."""
    replaced = 0

    async def make(request: DayRequest) -> DayMade:
        nonlocal replaced
        if replaced < times:
            replaced += 1
            await place.stored(Arrival((0, 1), events(400, replaced), revision=replaced))
            raise ChangedArchiveError("its hash differs", path="a")
        return DayMade({one.path: one.rows for one in request.source.archives})

    with LedgerReader(place.output) as ledger:
        (tables,) = exports_to_load(place.settings, ledger, ())
        lookup = DayLookup(ledger)
        source, _ = await lookup.day(tables, MIDNIGHT)
        here = LoadPlace(place.warehouse, tmp_path, Access.PRIVATE)
        making = DayMaking(place.settings, here, Workers(1, make), lookup)
        work = making.make(tables, DayTask(source, tables.receipts(source), {}), tmp_path)
        if times == TRIES:
            with pytest.raises(DayError, match="its archives were replaced 5 times"):
                await work
        else:
            task, _, _ = await work
            assert task.source.archives[0].revision == times


@pytest.mark.may_idle(2.0)
def test_a_run_that_is_about_to_record_an_archive_is_waited_for(place):
    """A run replaces the file first, and records it afterwards."""
    place.store(Arrival((0, 1), events(500, 9), revision=1, is_recorded=False))
    run = threading.Timer(0.3, place.store, args=(Arrival((0, 1), events(500, 9), revision=1, keeps_file=True),))
    run.start()
    summary = place.load()
    run.join()
    assert summary.exit_code is Exit.DONE
    check(place)


def test_a_second_load_at_the_same_time_is_refused(place):
    """Exit code 4; the first one is named."""
    place.load()
    before = place.states()
    with hold_load(place.warehouse):
        summary = place.load()
        assert summary.exit_code is Exit.LOCKED
        assert str(summary.error).startswith(f"another load holds {place.warehouse}: load, process ")
    assert place.states() == before


def test_without_a_ledger_nothing_is_loaded(place):
    """Archives without a ledger are not treated as no archives."""
    (place.output / ".asyncexport").rename(place.folder / "ledger")
    summary = place.load()
    assert summary.exit_code is Exit.LEDGER
    assert "verify --rebuild" in (summary.error.hint if summary.error else "")
    assert not place.warehouse.exists()


def test_only_days_in_the_range_are_loaded(place):
    """A day that is only partly in the range is loaded as a whole."""
    noon = MIDNIGHT + DAY // 2
    assert place.count("days", start=noon, end=noon + 60) == 1
    assert len(table_of(place.file(0))) == 15
    assert not place.file(1).exists()


def test_one_destination_is_loaded_from_the_parquet_files(tmp_path):
    """`--to` loads only that one, and makes the Parquet files that it needs."""
    place = Place(tmp_path, changes=TABLES)
    place.store(Arrival((0, 1), events(0, 3)))
    place.load(to=("parquet",))
    assert not (place.warehouse / "warehouse.duckdb").exists()
    before = place.states()
    summary = place.load(to=("duckdb",))
    assert summary.to_dict()["load"]["sinks"] == {"duckdb": {"loaded": 1, "failed": 0}}
    assert before.items() < place.states().items()
    check(place)
    place.store(Arrival((0, 1), events(5, 3), revision=1))
    place.load(to=("duckdb",))
    check(place)


def test_a_destination_that_fails_does_not_stop_the_others(tmp_path):
    """Exit code 3; the day is in the Parquet files, and a later load completes it."""
    place = Place(tmp_path, changes=TABLES)
    place.store(*(Arrival((at, at + 1), [event(at)]) for at in range(0, 5 * 24, 24)))
    (place.warehouse / "warehouse.duckdb").mkdir(parents=True)
    summary = place.load()
    assert summary.exit_code is Exit.PARTIAL
    counts = summary.to_dict()["load"]
    assert (counts["failed"], counts["rows"]) == (5, 5)
    assert counts["sinks"] == {"parquet": {"loaded": 5, "failed": 0}, "duckdb": {"loaded": 0, "failed": 5}}
    assert place.in_parquet() == place.expected()
    (place.warehouse / "warehouse.duckdb").rmdir()
    assert place.load().to_dict()["load"]["sinks"]["parquet"]["loaded"] == 0
    check(place)


def test_files_get_the_access_of_the_archives(tmp_path):
    """Private by default; as the umask allows if the output directory is so."""
    for access, files, folders in (("private", 0o600, 0o700), ("umask", 0o644, 0o755)):
        place = Place(tmp_path / access)
        place.changes = {"output": {"directory": str(place.output), "access": access}}
        place.store(Arrival((0, 1), events(0, 1), content=ndjson(event(0)) + BROKEN), Arrival((24, 25), []))
        assert place.count("quarantined") == 1
        modes = {one.name: one.stat().st_mode & 0o777 for one in [place.warehouse, *place.warehouse.rglob("*")]}
        assert (modes.pop(".lock"), modes.pop(".last-load.json")) == (0o600, 0o600)
        expected = {name: files if name.count(".") and "quarantine" not in name else folders for name in modes}
        assert modes == expected


def test_the_metadata_of_a_file_says_what_it_was_made_from(place):
    """Each file names its archives, and the receipt that a load compares."""
    place.load()
    found = metadata_of(place.file())
    assert len(json.loads(found["archives"])) == 2
    assert len(found["receipt"]) == 64


def test_the_same_archives_make_the_same_bytes(place):
    """A load into another directory makes the same files."""
    place.load()
    first = hashlib.sha256(place.file().read_bytes()).hexdigest()
    place.changes = {"load": {"directory": str(place.folder / "again"), "to": ["parquet"], "memory": "128MiB"}}
    place.load()
    again = place.folder / "again" / TABLE / f"date={date(0)}" / "data.parquet"
    assert hashlib.sha256(again.read_bytes()).hexdigest() == first


def test_a_line_that_is_no_row_is_kept_beside_the_table(place):
    """Exit code 3 for the load that loads the day; later ones say that it is there already."""
    content = ndjson(*events(60, 3)) + BROKEN
    place.store(Arrival((25, 26), events(60, 3), content=content))
    summary = place.load()
    counts = summary.to_dict()["load"]
    assert (summary.exit_code, counts["quarantined"], counts["failed"], counts["rows"]) == (Exit.PARTIAL, 1, 0, 21)
    check(place)
    kept = place.warehouse / f"{TABLE}.quarantine" / f"date={date(1)}" / "data.ndjson.gz"
    (line,) = gzip.decompress(kept.read_bytes()).splitlines()
    assert base64.b64decode(json.loads(line)["bytes"]) == BROKEN.rstrip()
    summary = place.load()
    assert (summary.exit_code, summary.to_dict()["load"]["already"]) == (Exit.DONE, 2)
    place.store(Arrival((25, 26), events(60, 4), revision=1))
    assert place.load().exit_code is Exit.DONE
    assert not kept.exists()
    check(place)


def test_a_day_with_lines_that_are_no_rows_is_not_loaded_if_that_is_wanted(place):
    """With `quarantine = "fail"` the day stays as it was, and the exit code is 3."""
    place.load()
    before = place.file(1).read_bytes()
    place.changes = {"load": {**place.changes.get("load", {}), "quarantine": "fail"}}
    place.store(Arrival((25, 26), events(60, 3), content=BROKEN * 2))
    summary = place.load()
    assert summary.load
    (failure,) = summary.load.failures
    assert summary.exit_code is Exit.PARTIAL
    assert str(failure.error).startswith("2 lines are no rows, the first in everyone-events/date=2026-01-02/")
    assert place.file(1).read_bytes() == before
    assert not (place.warehouse / f"{TABLE}.quarantine").exists()


def found_differences(place: Place) -> list[tuple[str, str, str, str]]:
    """Return what a check finds, and check that it changes nothing."""
    before = place.states()
    failures: list[SinkError] = []
    found = list(check_load(place.settings, LoadSpec(), now=MIDNIGHT + 30 * DAY, on_failure=failures.append))
    assert place.states() == before
    assert not failures
    return [(one.sink, one.table, one.date, one.reason) for one in found]


def test_a_check_finds_every_day_that_differs(tmp_path):
    """Receipts and rows of every destination are compared with the archives; nothing is changed."""
    place = Place(tmp_path, changes=TABLES)
    place.store(Arrival((0, 1), events(0, 10)), Arrival((24, 25), events(20, 3)), Arrival((48, 49), []))
    both = [(sink, table) for sink in ("parquet", "duckdb") for table in (TABLE, f"{TABLE}__datadirect")]
    missing = [(*one, date(day), "not loaded") for one in both for day in range(3)]
    assert found_differences(place) == missing
    assert not place.warehouse.exists()
    place.load()
    assert found_differences(place) == []
    place.store(Arrival((0, 1), events(0, 9), revision=1))
    other = "loaded from other archives, with other settings, or by an earlier version"
    assert found_differences(place) == [(*one, date(0), other) for one in both]
    place.load()
    place.file(1).unlink()
    with duckdb.connect(place.warehouse / "warehouse.duckdb") as duck:
        duck.execute(f"DELETE FROM {TABLE} WHERE UserId = 7000000000000000020")
    assert found_differences(place) == [
        ("parquet", TABLE, date(1), "not loaded"),
        ("duckdb", TABLE, date(1), "2 rows instead of 3"),
    ]
