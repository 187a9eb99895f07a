"""Spark reads the Parquet files and the archives, and finds in them what DuckDB finds.

The tests make an environment of their own for it, about 520 MB, which stays in the folder for temporary files.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest

from asyncexport.core.exits import Exit
from tests.load_rig import EVENTS, TABLE, Arrival, Place, event
from tests.made_environment import NotMadeError, environment

SPARK = "pyspark==4.3.0"

LEAST_JAVA = 17
"""The oldest Java that this Spark runs on."""

IDS = ("UserId", "SessionId", "PageId", "IndvId")

ROWS = 3000


def why_not() -> str:
    """Return why Spark cannot run here; empty if it can."""
    if os.name != "posix" or shutil.which("java") is None:
        return "there is no Java (Debian: apt install openjdk-17-jre-headless)"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = said.partition('version "')[2].partition(".")[0].partition('"')[0]
    if not version.isdigit() or int(version) < LEAST_JAVA:
        return f"Spark needs Java {LEAST_JAVA} or newer: {said.strip().splitlines()[:1]}"
    return ""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first run installs Spark
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.fixture(scope="module")
def python() -> Path:
    """Return the Python of an environment with Spark."""
    try:
        return environment([SPARK]) / "bin" / "python"
    except NotMadeError as error:
        pytest.skip(f"there is no environment with Spark: {error}")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """Three days with ids at both ends of 64 bits, microseconds, rows without ids, and an archive without rows."""
    made = Place(tmp_path_factory.mktemp("spark"))
    rows = [
        event(
            number,
            UserId=2**63 - 1 - number,
            SessionId=-(2**63) + number,
            **({"PageId": 3 * number} if number % 3 else {}),
            EventStart=f"2026-01-0{1 + number // 1000}T{number % 24:02}:59:59.{number:06}Z",
        )
        for number in range(ROWS)
    ]
    made.store(
        Arrival((0, 24), rows[:1000]),
        Arrival((24, 25), []),
        Arrival((25, 48), rows[1000:2000]),
        Arrival((48, 72), rows[2000:]),
    )
    assert made.load().exit_code is Exit.DONE
    return made


def facts_of_duckdb(place: Place) -> dict[str, Any]:
    """Return what DuckDB finds in the Parquet files."""
    sums = ", ".join(f'sum("{name}")::VARCHAR AS "{name}"' for name in IDS)
    query = (
        f"SELECT count(*)::VARCHAR AS rows, {sums}, epoch_us(min(EventStart))::VARCHAR AS first, "
        "epoch_us(max(EventStart))::VARCHAR AS last FROM read_parquet(?)"
    )
    with duckdb.connect() as duck:
        found = duck.execute(query, [str(place.warehouse / TABLE / "*" / "data.parquet")])
        (row,) = found.fetchall()
        return dict(zip([one[0] for one in found.description or ()], row, strict=True))


def test_spark_finds_what_duckdb_finds(python, place, tmp_path):
    """Rows, the exact sum of each id, the first and the last event: in the Parquet files and in the archives."""
    tables = {
        "parquet": {"format": "parquet", "path": str(place.warehouse / TABLE)},
        "archives": {"format": "json", "path": str(place.output / EVENTS.name)},
    }
    ended = subprocess.run(
        [python, Path(__file__).with_name("spark_reader.py")],
        input=json.dumps({"ids": IDS, "tables": tables}),
        cwd=tmp_path,
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    expected = facts_of_duckdb(place)
    assert expected["rows"] == str(ROWS)
    assert expected["UserId"] == str(sum(2**63 - 1 - number for number in range(ROWS)))
    assert expected["IndvId"] is None
    assert found["parquet"].pop("types") == ["date", "timestamp", "bigint"]
    assert found["parquet"] == expected
    assert found["archives"] == expected
