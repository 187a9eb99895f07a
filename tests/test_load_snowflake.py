"""Loads into Snowflake beside Parquet: every row is in every table, once; against an emulator."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncexport.core.bundles import DAY
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Column, Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS
from asyncexport.run.load import LoadSpec
from asyncexport.run.load_check import check_load
from tests.day_making import MIDNIGHT
from tests.load_rig import TABLE, Arrival, Place, events
from tests.sink_rig import rows_in_parquet
from tests.snowflake_rig import DATABASE, Emulator, SnowflakeRig, emulator_or_skip, why_no_client

pytestmark = [
    pytest.mark.skipif(bool(why_no_client()), reason=why_no_client() or "-"),
    pytest.mark.timeout(900),  # the first test makes the emulator's environment
]

TABLES: Mapping[str, Sequence[Column]] = {TABLE: Layout(Type.EVENT).columns, f"{TABLE}__datadirect": COLUMNS}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """Run an emulator for all tests of the module."""
    yield from emulator_or_skip()


class SnowflakePlace:
    """An output directory, a load directory and a schema."""

    def __init__(self, folder: Path, rig: SnowflakeRig, emulator: Emulator) -> None:
        self.rig = rig
        login = {"account": emulator.url, "user": "LOADER", "key_file": str(emulator.key_file)}
        snowflake = {**login, "database": DATABASE.lower(), "schema": rig.schema.name.lower()}
        self.place = Place(folder, changes={"load": {"to": ["parquet", "snowflake"], "snowflake": snowflake}})
        self.place.store(
            Arrival((0, 1), events(0, 10)), Arrival((1, 2), events(10, 5)), Arrival((24, 25), events(20, 3))
        )

    def check(self) -> None:
        """Check that every table has the rows of the archives, and that `load --check` finds no difference."""
        assert self.place.in_parquet() == self.place.expected()
        for table, columns in TABLES.items():
            files = {
                path.parent.name.removeprefix("date="): path
                for path in (self.place.warehouse / table).glob("date=*/data.parquet")
            }
            assert self.rig.rows(columns, table) == rows_in_parquet(files, columns)
        assert self.differences() == []

    def differences(self) -> list[Any]:
        """Return what `load --check` finds."""
        failures: list[Any] = []
        found = check_load(self.place.settings, LoadSpec(), now=MIDNIGHT + 30 * DAY, on_failure=failures.append)
        return [*found, *failures]


@pytest.fixture
def one(emulator: Emulator, tmp_path: Path) -> Iterator[SnowflakePlace]:
    """Two days: of one there are two bundles."""
    with SnowflakeRig(emulator.login, tmp_path) as rig:
        yield SnowflakePlace(tmp_path, rig, emulator)


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
        assert counts["sinks"]["snowflake"] == {"loaded": len(arrivals), "failed": 0}
        one.check()
        assert one.place.count("loaded") == 0


def test_a_day_that_was_changed_in_the_database_is_found_and_loaded_again(one):
    """`load --check` tells which day has other rows; `--again` brings them back."""
    one.place.load()
    one.rig.query(f"DELETE FROM {TABLE} WHERE UserId = {events(3, 1)[0]['UserId']}")
    (found,) = one.differences()
    assert (found.sink, found.table, found.reason) == ("snowflake", TABLE, "14 rows instead of 15")
    one.place.load(again=True, to=("snowflake",))
    one.check()
