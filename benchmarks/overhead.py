"""Overhead: 10,000 tiny bundles with asyncexport, compared to a bare aiohttp loop that makes the same calls.

The bare loop creates, lists, locates, downloads and writes a file, with the same concurrency and, like asyncexport,
with a new connection for each API request. It checks nothing, flushes nothing and keeps no record. The difference is
what asyncexport spends on its ledger (six durable rows per bundle), its budget, fsync and its checks. The budget is set
so high that nothing waits for it. The line also reports how long the disk takes to write one small file with fsync,
since that is part of the difference.
"""

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import contender
import measuring
import rows
import service
from measuring import Run

BUNDLES, BUNDLES_QUICK = 10_000, 100
AT_ONCE = 100
"""The default of `[concurrency] operations`."""
DOWNLOADS = 8


def main() -> None:
    """Run the benchmark."""
    asked = measuring.options(__doc__, rounds=5)
    bundles = BUNDLES_QUICK if asked.quick else BUNDLES
    with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
        work = Path(folder)
        root = measuring.fresh(work / "served")
        rows.write_archive(root / "tiny.ndjson.gz", bytes_at_least=1, seed=1)
        with (
            service.storage(root, work=work, tls=False) as storage,
            service.api([f"{storage.url}/tiny.ndjson.gz"], work=work) as api,
        ):
            contenders = {"bare": partial(bare, api, bundles, work), "asyncexport": partial(ours, api, bundles, work)}
            runs = measuring.in_turns(contenders, asked.rounds)
        flush_ms = flush_milliseconds(work)
    measuring.report(
        "overhead",
        asked,
        packages=("aiohttp",),
        programs=("nginx",),
        bundles=bundles,
        storage=storage.server,
        seconds={name: measuring.seconds_of(these) for name, these in runs.items()},
        milliseconds_a_bundle={
            name: measuring.spread([run.seconds / bundles * 1000 for run in these]) for name, these in runs.items()
        },
        flush_of_a_small_file_ms=flush_ms,
        peak_mib=measuring.spread([run.peak_mib for run in runs["asyncexport"]], digits=1),
        ratio=measuring.ratio(runs["asyncexport"], runs["bare"]),
    )


def ours(api: str, bundles: int, work: Path) -> Run:
    """Run asyncexport."""
    setup = contender.Setup(api, measuring.fresh(work / "ours"), downloads=DOWNLOADS, operations=AT_ONCE)
    measuring.settle()
    return contender.backfill(setup, bundles, work=work, watch_memory=True)


def bare(api: str, bundles: int, work: Path) -> Run:
    """Run the bare loop."""
    folder = measuring.fresh(work / "bare")
    measuring.settle()
    script = Path(__file__).with_name("bareloop.py")
    return measuring.timed([sys.executable, script, api, folder, str(bundles), str(AT_ONCE), str(DOWNLOADS)])


def flush_milliseconds(work: Path) -> float:
    """Measure how long it takes to write a small file, fsync it, rename it and fsync the folder."""
    folder = measuring.fresh(work / "flushed")
    took = []
    for number in range(50):
        began = time.perf_counter()
        path = folder / f".{number}"
        with path.open("wb") as file:
            file.write(b"x" * 300)
            file.flush()
            os.fsync(file.fileno())
        path.rename(folder / f"{number}")
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        took.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(took), 2)


if __name__ == "__main__":
    main()
