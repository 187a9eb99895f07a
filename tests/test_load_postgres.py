"""Loads into PostgreSQL beside Parquet and DuckDB: every row is in every table, once."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from asyncexport.core.bundles import DAY
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Column, Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS
from asyncexport.run.diagnosis import diagnose
from asyncexport.run.load import LoadSpec
from asyncexport.run.load_check import check_load
from tests.day_making import MIDNIGHT
from tests.load_rig import TABLE, Arrival, Place, event, events
from tests.postgres_rig import PostgresRig
from tests.postgres_server import PostgresServer, running, why_not
from tests.sink_rig import rows_in_parquet
from tests.test_data_direct_page import statement
from tests.test_sink_postgres_faults import wait_until_locked

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

TABLES: Mapping[str, Sequence[Column]] = {TABLE: Layout(Type.EVENT).columns, f"{TABLE}__datadirect": COLUMNS}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Run a server for all tests of the module."""
    with running() as server:
        yield server


class PostgresPlace:
    """An output directory, a load directory and a schema."""

    def __init__(self, folder: Path, rig: PostgresRig) -> None:
        self.rig = rig
        postgres = {"dsn": f"{rig.server.dsn} password=secret", "schema": rig.schema}
        load = {"to": ["parquet", "duckdb", "postgres"], "postgres": postgres, "duckdb": {"tables": True}}
        self.place = Place(folder, changes={"load": load})
        self.place.store(
            Arrival((0, 1), events(0, 10)), Arrival((1, 2), events(10, 5)), Arrival((24, 25), events(20, 3))
        )

    def check(self) -> None:
        """Check that every table has the rows of the archives, and that `load --check` finds no difference."""
        assert self.place.in_parquet() == self.place.expected() == self.place.in_duckdb()
        for table in (one.name for one in self.place.warehouse.iterdir() if one.is_dir() and one.name in TABLES):
            files = {
                path.parent.name.removeprefix("date="): path
                for path in (self.place.warehouse / table).glob("date=*/data.parquet")
            }
            assert self.rig.rows(TABLES[table], table) == rows_in_parquet(files, TABLES[table])
        assert self.differences() == []

    def differences(self) -> list[Any]:
        """Return what `load --check` finds."""
        failures: list[Any] = []
        found = check_load(self.place.settings, LoadSpec(), now=MIDNIGHT + 30 * DAY, on_failure=failures.append)
        return [*found, *failures]


@pytest.fixture
def one(server: PostgresServer, tmp_path: Path) -> Iterator[PostgresPlace]:
    """Two days: of one there are two bundles."""
    with PostgresRig(server, tmp_path) as rig:
        yield PostgresPlace(tmp_path, rig)


def test_a_load_puts_every_row_into_every_table(one):
    """Also after a refresh, and after one that empties a bundle and then the day; a repeat loads nothing."""
    assert one.place.load().exit_code is Exit.DONE
    one.check()
    for arrivals in (
        [Arrival((1, 2), events(100, 7), revision=1)],
        [Arrival((1, 2), [], revision=2)],
        [Arrival((0, 1), [], revision=1)],
        [Arrival((0, 1), events(0, 4), revision=2), Arrival((48, 49), events(50, 2))],
    ):
        one.place.store(*arrivals)
        counts = one.place.load().to_dict()["load"]
        assert counts["sinks"]["postgres"] == {"loaded": len(arrivals), "failed": 0}
        one.check()
        assert one.place.count("loaded") == 0


def test_a_day_that_was_changed_in_the_database_is_found_and_loaded_again(one):
    """`load --check` tells which day has other rows; `--again` brings them back."""
    one.place.load()
    one.rig.query(f'DELETE FROM {TABLE} WHERE "UserId" = {event(3)["UserId"]}')
    (found,) = one.differences()
    assert (found.sink, found.table, found.date, found.reason) == (
        "postgres",
        TABLE,
        "2026-01-01",
        "14 rows instead of 15",
    )
    one.place.load(again=True, to=("postgres",))
    one.check()


def destinations(place: Place, *, offline: bool = False) -> list[tuple[str, str]]:
    """Return what `doctor` finds about the destinations."""

    async def found() -> list[tuple[str, str]]:
        checks = diagnose(place.settings, None, offline=offline, sent=lambda _kind: None)
        return [(one.level.value, one.message) async for one in checks if one.name == "destination"]

    return asyncio.run(found())


def test_a_server_that_is_down_does_not_stop_the_others(one):
    """Exit code 3; the next load brings what is missing. The connection string is in no message."""
    file = ("ok", "duckdb: the file can be opened, or made")
    assert destinations(one.place) == [file, ("ok", "postgres: can be reached, and accepts the login")]
    assert destinations(one.place, offline=True) == [("ok", "postgres: not asked, because of --offline"), file]
    assert not one.place.warehouse.exists()
    one.rig.server.stop()
    try:
        down = destinations(one.place)
        summary = one.place.load()
    finally:
        one.rig.server.start()
    assert down == [file, ("fail", "could not connect to PostgreSQL: there is no such socket")]
    assert summary.exit_code is Exit.PARTIAL
    assert summary.to_dict()["load"]["sinks"]["postgres"] == {"loaded": 0, "failed": 2}
    assert "secret" not in repr(summary) + str(summary.to_dict()) + repr(one.place.settings)
    assert one.place.in_parquet() == one.place.expected()
    assert one.place.load().to_dict()["load"]["sinks"] == {
        "parquet": {"loaded": 0, "failed": 0},
        "duckdb": {"loaded": 0, "failed": 0},
        "postgres": {"loaded": 2, "failed": 0},
    }
    one.check()


def test_the_past_and_the_live_sync_are_in_one_view(one):
    """The statements of the page about Data Direct work as they are; a cut between the days keeps each event once."""
    ours = f"{TABLE}__datadirect"
    one.place.load()
    one.rig.query("CREATE SCHEMA live")
    try:
        one.rig.query(f"CREATE TABLE live.events AS SELECT * FROM {ours}")
        one.rig.query(statement("CREATE VIEW").replace("2026-03-01", "2026-01-02"))
        events = "SELECT event_time, event_type, event_properties::text, source_properties::text FROM"
        assert Counter(one.rig.query(f"{events} all_events")) == Counter(one.rig.query(f"{events} {ours}"))
        compared = statement("HAVING").replace("2026-03-0", "2026-01-0")
        assert one.rig.query(compared) == []
        one.rig.query(f"DELETE FROM live.events WHERE device_id = {event(3)['UserId']}")
        assert [row[-2:] for row in one.rig.query(compared)] == [(1, 0)]
    finally:
        one.rig.query("DROP SCHEMA live CASCADE")


LOCKS = (
    "LOCK TABLE _asyncexport_loads",  # stops the query for receipts
    "LOCK TABLE _asyncexport_loads IN SHARE MODE",  # stops the replacement of a day
)


def test_a_load_that_waits_for_the_server_can_be_stopped(one):
    """The first signal waits for the server, the second one does not; the next load is exact."""
    one.place.load()
    sets = (f"load.directory={one.place.warehouse}", "load.workers=1", f"load.postgres.schema={one.rig.schema}")
    words = [word for set_ in sets for word in ("--set", set_)]
    command = [sys.executable, "-m", "asyncexport", "load", "-d", str(one.place.output), "--to", "postgres", "--again"]
    environment = {**os.environ, "ASYNCEXPORT_LOAD__POSTGRES__DSN": one.rig.server.dsn}
    for lock in LOCKS:
        with psycopg.connect(one.rig.server.dsn) as blocker:
            blocker.execute(f"SET search_path = {one.rig.schema}")
            blocker.execute(lock)
            with subprocess.Popen([*command, *words], env=environment, stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr
                wait_until_locked(one.rig)
                process.send_signal(signal.SIGINT)
                assert "press Ctrl-C again to stop immediately" in process.stderr.readline()
                process.send_signal(signal.SIGINT)
                assert process.wait() == Exit.INTERRUPTED
    one.place.load(again=True, to=("postgres",))
    one.check()


def test_replaced_characters_are_reported(one):
    """The note says how many rows of which day have something that PostgreSQL cannot hold."""
    one.place.store(Arrival((48, 49), [event(60, PageName="a\0"), event(61)]))
    summary = one.place.load()
    assert summary.load
    (note,) = (text for text in summary.load.notes if "cannot hold" in text)
    assert note.startswith(f"postgres: 1 rows of {TABLE}, 2026-01-03")
    assert one.rig.query(f'SELECT "PageName" FROM {TABLE} WHERE "PageName" IS NOT NULL') == [("a\ufffd",)]


def test_the_views_say_up_to_when_the_table_is_complete(one):
    """The first day is there up to its second hour only, so nothing is complete; then a full day is."""
    one.place.load()
    coverage = f"SELECT complete_until::text, days, rows FROM {TABLE}__coverage"
    assert one.rig.query(coverage) == [(None, 2, 18)]
    one.place.store(Arrival((2, 24), events(70, 1)))
    one.place.load()
    assert one.rig.query(coverage) == [("2026-01-02 01:00:00+00", 2, 19)]
    sessions = one.rig.query(f"SELECT count(*) FROM {TABLE}__sessions")
    assert (sessions, Counter(one.rig.query(f"SELECT events FROM {TABLE}__users"))) == ([(0,)], Counter({(1,): 19}))
