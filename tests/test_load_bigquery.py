"""Loads into BigQuery beside Parquet, with Google's default credentials: every row is in every table, once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from asyncexport.cli import main
from asyncexport.core.bundles import DAY
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Column, Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS
from asyncexport.run.load import LoadSpec
from asyncexport.run.load_check import check_load
from tests.bigquery_rig import BigQueryRig, client_of
from tests.bigquery_server import server_or_skip, why_not
from tests.day_making import MIDNIGHT
from tests.google_accounts import key_file
from tests.load_rig import TABLE, Arrival, Place, event, events
from tests.sink_rig import rows_in_parquet

TABLES: Mapping[str, Sequence[Column]] = {TABLE: Layout(Type.EVENT).columns, f"{TABLE}__datadirect": COLUMNS}


@pytest.fixture
def rig(tmp_path, monkeypatch) -> Iterator[BigQueryRig]:
    """Run a server, to which the environment leads; no project is set, so that it is that of the credentials."""
    with server_or_skip(tmp_path) as address, key_file(tmp_path / "key.json") as key:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", address)
        with BigQueryRig(lambda: client_of(address), "loaded", tmp_path) as rig:
            yield rig


@pytest.fixture
def place(tmp_path) -> Place:
    """Two days: of one there are two bundles."""
    place = Place(tmp_path, changes={"load": {"to": ["parquet", "bigquery"], "bigquery": {"dataset": "loaded"}}})
    place.store(Arrival((0, 1), events(0, 10)), Arrival((1, 2), events(10, 5)), Arrival((24, 25), events(20, 3)))
    return place


def differences(place: Place) -> list[Any]:
    """Return what `load --check` finds."""
    failures: list[Any] = []
    found = check_load(place.settings, LoadSpec(), now=MIDNIGHT + 30 * DAY, on_failure=failures.append)
    return [*found, *failures]


def check(place: Place, rig: BigQueryRig) -> None:
    """Check that every table has the rows of the archives, and that `load --check` finds no difference."""
    assert place.in_parquet() == place.expected()
    for table, columns in TABLES.items():
        files = {
            path.parent.name.removeprefix("date="): path
            for path in (place.warehouse / table).glob("date=*/data.parquet")
        }
        assert rig.rows(columns, table) == rows_in_parquet(files, columns)
    assert differences(place) == []


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_a_load_puts_every_row_into_every_table(place, rig):
    """Also after a refresh, and after one that empties a day; a repeat loads nothing, and a change there is found."""
    assert place.load().exit_code is Exit.DONE
    check(place, rig)
    changes = (
        [Arrival((1, 2), events(100, 7), revision=1)],
        [Arrival((0, 1), [], revision=1), Arrival((1, 2), [], revision=2)],
        [Arrival((0, 1), events(0, 4), revision=2), Arrival((48, 49), events(50, 2))],
    )
    for arrivals in changes:
        place.store(*arrivals)
        assert place.load().to_dict()["load"]["sinks"]["bigquery"]["failed"] == 0
        check(place, rig)
        assert place.count("loaded") == 0
    rig.query(f"DELETE FROM {TABLE} WHERE UserId = {event(3)['UserId']}")
    (found,) = differences(place)
    assert (found.sink, found.table, found.date, found.reason) == (
        "bigquery",
        TABLE,
        "2026-01-01",
        "3 rows instead of 4",
    )
    place.load(again=True, to=("bigquery",))
    check(place, rig)


def test_without_credentials_the_others_are_loaded(place, monkeypatch, capsys):
    """Exit code 3. Nothing of the key file is in any message, at the highest log level."""
    key = place.folder / "key.json"
    key.write_text('{"type": "service_account", "private_key": "CANARY", "client_email": "CANARY"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    sets = (
        f"load.directory={place.warehouse}",
        "load.workers=1",
        "load.memory=128MiB",
        "load.datadirect.enabled=false",
    )
    words = (word for one in sets for word in ("--set", one))
    code = main(["-vv", "load", "-d", str(place.output), *words, "--to", "parquet", "--to", "bigquery"])
    found = capsys.readouterr()
    assert code == Exit.PARTIAL
    assert "in BigQuery: there are no credentials" in found.out + found.err
    assert "GOOGLE_APPLICATION_CREDENTIALS" in found.out + found.err
    assert "CANARY" not in found.out + found.err
    assert place.in_parquet() == place.expected()
