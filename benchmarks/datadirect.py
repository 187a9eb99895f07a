"""Measures how fast a day of the Data Direct table is made from the flat table's file, and with how much memory.

1. The rows are two days of the sandbox's shop, made into flat files first, which is not measured.
2. Each day is converted by a process with one thread, as by `load`; its start is measured, too. One day is converted
   alone, and two days at the same time.
3. The longest way is measured: `identify = "per_session"` and `suffixes = "strip"`.
"""

import gzip
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from subprocess import Popen

import measuring

from asyncexport.core.bundles import DAY, Range
from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.choices import Identify, Suffixes
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.data_direct.columns import DataDirectRecipe
from asyncexport.core.warehouse.days import DaySource, SourceArchive
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import row_json
from asyncexport.warehouse.data_direct import make_data_direct
from asyncexport.warehouse.day_maker import DataDirectRequest, DayRequest
from asyncexport.warehouse.make_day import make_day

MIDNIGHT = 1_767_225_600
ROWS_PER_HOUR = 12_000
QUICK_ROWS_PER_HOUR = 200
MEMORY = 512 << 20
"""DuckDB's limit in each process, in bytes."""

RECIPE = DataDirectRecipe(Identify.PER_SESSION, Suffixes.STRIP)


def write_flat_file(folder: Path, *, rows_per_hour: int, seed: int) -> tuple[Path, int]:
    """Write the flat file of a day of the shop; return its path and how many rows it has."""
    rows = [row_json(row) for row in SandboxSyntheticRows(seed, rows_per_hour).between(MIDNIGHT, MIDNIGHT + DAY)]
    data = gzip.compress(b"\n".join(rows) + b"\n", compresslevel=1)
    (folder / "archive").write_bytes(data)
    range_ = Range(MIDNIGHT, MIDNIGHT + DAY)
    archive = SourceArchive("archive", sha256(data).hexdigest(), len(rows), range_, MIDNIGHT + 2 * DAY, 1)
    source = DaySource("shop", MIDNIGHT, Format.NDJSON, (archive,))
    flat = folder / f"flat-{seed}.parquet"
    make_day(DayRequest(folder, source, Layout(Type.EVENT), "receipt", flat, folder / "quarantine", folder))
    return flat, len(rows)


def convert(flat: Path) -> None:
    """Make the Data Direct table's file, beside the flat file."""
    request = DataDirectRequest(flat.with_suffix(".datadirect"), RECIPE.receipt("receipt"), RECIPE)
    with tempfile.TemporaryDirectory(dir=flat.parent) as scratch:
        make_data_direct(flat, request, memory=MEMORY, scratch=Path(scratch))


def convert_all(flats: Sequence[Path]) -> None:
    """Convert days, each in a process of its own, all at the same time."""
    processes = [Popen([sys.executable, __file__, "convert", flat]) for flat in flats]
    codes = [process.wait() for process in processes]
    if any(codes):
        measuring.fail("a process failed")


def main() -> None:
    """Make flat files, convert them, and print the rows per second."""
    asked = measuring.options(__doc__, rounds=5)
    with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
        rate = QUICK_ROWS_PER_HOUR if asked.quick else ROWS_PER_HOUR
        made = [write_flat_file(Path(folder), rows_per_hour=rate, seed=seed) for seed in (1, 2)]
        flats = [flat for flat, _ in made]
        script = [sys.executable, __file__, "convert"]
        runs = measuring.in_turns(
            {
                "one day": lambda: measuring.timed([*script, flats[0]], watch_memory=True),
                "two days": lambda: measuring.timed([*script, *flats]),
            },
            asked.rounds,
        )
        sizes = {flat.name: [one.stat().st_size for one in (flat, flat.with_suffix(".datadirect"))] for flat in flats}
    rows = {"one day": made[0][1], "two days": sum(count for _, count in made)}
    measuring.report(
        "datadirect",
        asked,
        packages=("duckdb",),
        rows=rows,
        rows_per_second={
            name: measuring.spread([rows[name] / run.seconds for run in found], digits=0)
            for name, found in runs.items()
        },
        seconds={name: measuring.seconds_of(found) for name, found in runs.items()},
        memory_limit_mib=MEMORY >> 20,
        peak_mib=measuring.spread([run.peak_mib for run in runs["one day"]], digits=1),
        bytes_flat_and_made=sizes,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["convert"]:
        if len(sys.argv) == 3:
            convert(Path(sys.argv[2]))
        else:
            convert_all([Path(one) for one in sys.argv[2:]])
    else:
        main()
