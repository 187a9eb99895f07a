"""Resuming: the time from the start of the process to its first request, with a ledger of 100,000 stored bundles.

The archives exist as well, as sparse files: before its first request, a run only checks their names. The benchmark has
a server that waits for the first connection; then the process is killed.
"""

import asyncio
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import contender
import measuring

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Definition, Export
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.ledger import Ledger
from asyncexport.storage import Archives, archive_path

BUNDLES, BUNDLES_QUICK = 100_000, 1_000
ARCHIVE_BYTES = 1000
LEFT = 48
WIDTH_SECONDS = 300
TIMEOUT_SECONDS = 60.0


def main() -> None:
    """Run the benchmark."""
    asked = measuring.options(__doc__, rounds=9)
    bundles = BUNDLES_QUICK if asked.quick else BUNDLES
    found: dict[str, list[tuple[float, float]]] = {"empty": [], "full": []}
    with (
        tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        work = Path(folder)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        asyncio.run(fill(measuring.fresh(work / "full"), bundles))
        for number in range(asked.rounds):
            for name, these in found.items():
                if name == "empty":
                    measuring.fresh(work / name)
                these.append(until_first_request(contender.Setup(url, work / name), bundles, server, work))
            measuring.note(f"round {number + 1} of {asked.rounds}: {found}")
    measuring.report(
        "resume",
        asked,
        packages=("aiohttp",),
        bundles=bundles,
        seconds_to_first_request={name: measuring.spread([run[0] for run in runs]) for name, runs in found.items()},
        peak_mib={name: measuring.spread([run[1] for run in runs], digits=1) for name, runs in found.items()},
    )


async def fill(directory: Path, bundles: int) -> None:
    """Make a ledger with this many stored bundles, and a file of the right size for each."""
    export = Export("everyone-events", Definition(scope=contender.SCOPE), WIDTH_SECONDS)
    archives = Archives(directory)
    await archives.prepare([export])
    records = []
    for number in range(bundles):
        start = contender.START + (number - bundles) * WIDTH_SECONDS
        bundle = Bundle(export.name, Range(start, start + WIDTH_SECONDS))
        path = archive_path(bundle, export.definition.format)
        (directory / path).parent.mkdir(exist_ok=True)
        with (directory / path).open("wb") as file:
            file.truncate(ARCHIVE_BYTES)
        stored = Stored(path, bytes=ARCHIVE_BYTES, rows=10, sha256=f"{number:064x}", exported_at=float(start + 90_000))
        records.append(BundleRecord(bundle, state=stored, stored=stored))
    ledger = await Ledger.open(directory)
    await ledger.register([export])
    await ledger.restore(records, at=time.time())
    await ledger.close()


def until_first_request(setup: contender.Setup, bundles: int, server: socket.socket, work: Path) -> tuple[float, float]:
    """Return how long it took, in seconds, and the peak memory until then, in MiB."""
    config = setup.write(work / "asyncexport.toml")
    start = contender.moment(contender.START - bundles * WIDTH_SECONDS)
    end = contender.moment(contender.START + LEFT * WIDTH_SECONDS)
    server.settimeout(TIMEOUT_SECONDS)
    began = time.perf_counter()
    process = subprocess.Popen(
        contender.command(config, "--json", "backfill", "--start", start, "--end", end),
        env={**measuring.environment(), **contender.ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    memory = measuring.PeakMemory(process.pid)
    try:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.recv(1)
            seconds = time.perf_counter() - began
            time.sleep(2 * measuring.SAMPLE_SECONDS)
            peak = memory.end()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return seconds, peak


if __name__ == "__main__":
    main()
