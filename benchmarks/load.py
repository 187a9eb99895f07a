"""Loading: a gigabyte of archives into Parquet, compared to hand-written DuckDB statements; and the exact path.

asyncexport makes a day after the other in two workers of one thread each. The hand-written statement has the same
columns and order, but casts without a check, and rewrites numbers; it runs on two threads with the memory limit of both
workers. The leanest statement makes no `vars`, ids or origins, and drops every field that it is not told. The line also
reports the rows that the exact path reads per second, and how much longer a day of 48 archives takes if one of them has
to be read that way.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import load_days
import measuring
from measuring import Run

from asyncexport.core.exports import Format
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import render

BUNDLES, BUNDLE_SECONDS = 144, 3600
"""Six days, so that two workers have the same number of days."""
DAY_BUNDLES, DAY_BUNDLE_SECONDS = 48, 1800
ROWS_PER_HOUR, ROWS_PER_HOUR_QUICK = 6_200, 60
DAY_ROWS_PER_HOUR, DAY_ROWS_PER_HOUR_QUICK = 12_000, 60
ODD_ROW = b'{"UserId":1,"evt_price_real":1.50}\n'


def main() -> None:
    """Run the benchmark."""
    asked = measuring.options(__doc__, rounds=5)
    with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
        work = Path(folder)
        per_hour = ROWS_PER_HOUR_QUICK if asked.quick else ROWS_PER_HOUR
        size = load_days.write_archives(work / "all", bundles=BUNDLES, seconds=BUNDLE_SECONDS, rows_per_hour=per_hour)
        per_hour = DAY_ROWS_PER_HOUR_QUICK if asked.quick else DAY_ROWS_PER_HOUR
        for name in ("clean", "odd"):
            load_days.write_archives(
                work / name, bundles=DAY_BUNDLES, seconds=DAY_BUNDLE_SECONDS, rows_per_hour=per_hour
            )
        add_row(work / "odd", ODD_ROW)
        write_formats(work, per_hour)
        runs = measuring.in_turns(
            {way: partial(run, way, work / "all", work) for way in ("ours", "handwritten", "leanest")}, asked.rounds
        )
        days = measuring.in_turns(
            {name: partial(run, "day", work / name, work) for name in ("clean", "odd")}, asked.rounds
        )
        exact = measuring.in_turns(
            {one.value: partial(run, "exact", work / one.value, work) for one in Format}, asked.rounds
        )
    rows, inflated = size
    measuring.report(
        "load",
        asked,
        packages=("duckdb",),
        rows=rows,
        inflated_mib=round(inflated / 2**20),
        seconds={name: measuring.seconds_of(these) for name, these in runs.items()},
        rows_per_second=measuring.spread([rows / one.seconds for one in runs["ours"]], digits=0),
        ratio=measuring.ratio(runs["ours"], runs["handwritten"]),
        ratio_to_the_leanest=measuring.ratio(runs["ours"], runs["leanest"]),
        peak_mib_per_process={
            name: measuring.spread([answer(one, "peak_mib") for one in these], digits=0) for name, these in runs.items()
        },
        day_seconds={name: measuring.seconds_of(these) for name, these in days.items()},
        day_read_exactly={name: answer(these[0], "exact") for name, these in days.items()},
        ratio_of_a_day_with_one_odd_archive=measuring.ratio(days["odd"], days["clean"]),
        exact_rows_per_second={
            name: measuring.spread([answer(one, "rows") / answer(one, "seconds") for one in these], digits=0)
            for name, these in exact.items()
        },
    )


def run(way: str, archives: Path, work: Path) -> Run:
    """Run one way of loading in a process of its own."""
    target = measuring.fresh(work / "target")
    measuring.settle()
    return measuring.timed([sys.executable, Path(load_days.__file__), way, archives, target])


def answer(done: Run, name: str) -> float:
    """Return a figure that a way printed."""
    return float(json.loads(done.output)[name])


def add_row(folder: Path, row: bytes) -> None:
    """Add a row to the last archive of a folder."""
    described = json.loads((folder / "archives.json").read_text())
    path, _, _, start, end = described[-1]
    content = load_days.read_archive(folder / path) + row
    described[-1] = load_days.write_archive(folder / path, content, start=start, seconds=end - start)
    (folder / "archives.json").write_text(json.dumps(described))


def write_formats(work: Path, rows_per_hour: float) -> None:
    """Write an hour of events in each format, each into a folder of its own."""
    start = load_days.FIRST + 12 * 3600
    rows = list(SandboxSyntheticRows(1, rows_per_hour, quiet=0).between(start, start + 3600))
    for form in Format:
        folder = measuring.fresh(work / form.value)
        content = b"".join(render(rows, form.value))
        described = load_days.write_archive(folder / f"hour.{form.value}.gz", content, start=start, seconds=3600)
        described[2] = len(rows)
        (folder / "archives.json").write_text(json.dumps([described]))


if __name__ == "__main__":
    main()
