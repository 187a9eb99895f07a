"""Power cuts during a load: each day is as before or as new, and the next load completes the rest.

A load is carried out once, on a disk in memory (`power_cut_disk`). Right before each of its changes it is noted what a
power cut at that moment would leave.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from tests.load_rig import TABLE, Place, loaded_and_changed, rows_of
from tests.power_cut_disk import Disk, Tree, read_tree, write_tree
from tests.power_cut_fs import PowerCutFs, unavailable_reason

UNAVAILABLE = unavailable_reason()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(UNAVAILABLE), reason=f"power cuts cannot be simulated: {UNAVAILABLE}"),
]

ROOT = Path(__file__).parents[1]

SEED = 20240101

RESUMED = 4
"""How many of the power cuts are followed by another load."""

DAYS = range(4)


@pytest.fixture
def place(request, tmp_path) -> Place:
    """Three days, and archives that change each."""
    return loaded_and_changed(tmp_path / "place", {"load": {"duckdb": {"tables": request.param}}})


def with_power_cuts(place: Place, leave_out: str = "") -> Iterator[Tree]:
    """Load; yield what a power cut before each change would leave: without anything unflushed, and with parts of it."""
    disk, found = Disk(read_tree(place.warehouse)), list[Tree]()
    contents: dict[bytes, bytes] = {}

    def shared(content: bytes | None) -> bytes | None:
        return None if content is None else contents.setdefault(sha256(content).digest(), content)

    def note() -> None:
        for chance in (None, random.Random(SEED + len(found))):
            found.append({path: shared(content) for path, content in disk.after_power_cut(chance).items()})

    fs = PowerCutFs(disk, before_change=note)
    arguments = [str(fs.device), str(place.folder), json.dumps(place.changes), *filter(None, [leave_out])]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.load_on_disk", *arguments],
        cwd=ROOT,
        pass_fds=[fs.device],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "mounted\n"
        fs.start()
        out, _ = process.communicate("\n")
        fs.wait()
    assert out == "0\n"
    note()
    return iter(found)


def parquet_of(tree: Tree, day: int) -> bytes | None:
    """Return the content of a day's file; None if there is none."""
    return tree.get(f"{TABLE}/date=2026-01-{day + 1:02}/data.parquet")


def rows_in(content: bytes | None, folder: Path) -> Any:
    """Return the multiset of rows in a Parquet file; None if it cannot be read."""
    if content is None:
        return rows_of("(SELECT 1) WHERE false", {})
    file = folder / "one.parquet"
    file.write_bytes(content)
    try:
        return rows_of("read_parquet($file, hive_partitioning = false)", {"file": str(file)})
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None


def resumed(place: Place, tree: Tree) -> Summary:
    """Load again after a power cut. A DuckDB file that is damaged is moved away first, as the message says."""
    shutil.rmtree(place.warehouse)
    place.warehouse.mkdir()
    write_tree(tree, place.warehouse)
    summary = place.load()
    assert summary.load
    errors = {*(one.error for one in summary.load.failures), *summary.load.unfinished_sinks.values()}
    if errors and all("Corrupt database file" in str(one) and "move the file away" in one.hint for one in errors):
        (place.warehouse / "warehouse.duckdb").unlink()
        summary = place.load()
    return summary


@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", [False, True], indirect=True)
def test_a_load_may_lose_power_at_any_time(place, tmp_path):
    """Whatever happens to unflushed data, no day is a part of a day, and the next load completes all destinations."""
    allowed = {day: (place.day_in_parquet(day), place.day_expected(day)) for day in DAYS}
    trees = list(with_power_cuts(place))
    for day in DAYS:
        for content in {parquet_of(tree, day) for tree in trees}:
            assert rows_in(content, tmp_path) in allowed[day], day
    for tree in trees[:: len(trees) // RESUMED]:
        assert resumed(place, tree).exit_code is Exit.DONE
        assert place.in_parquet() == place.in_duckdb() == place.expected()
        assert place.leftovers() == []


@pytest.mark.parametrize("place", [False], indirect=True)
def test_the_check_finds_a_missing_flush(place, tmp_path):
    """If a load did not flush its files, a power cut would leave a day that cannot be read."""
    trees = with_power_cuts(place, "files")
    assert None in [rows_in(content, tmp_path) for content in {parquet_of(tree, 3) for tree in trees}]
