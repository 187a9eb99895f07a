"""How long a mirror of a month takes, the first time and when nothing is left to do, and the memory for large archives.

The object store is SeaweedFS on the same machine, so the network takes no time: what is measured is the program.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from pathlib import Path

import measuring
import obstore
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Export, Format
from asyncexport.core.states import Archive, BundleRecord, Stored
from asyncexport.ledger import Ledger
from asyncexport.storage import archive_path
from tests.s3_server import S3Server, running, why_not

MIDNIGHT = 1_767_225_600
"""2026-01-01, in seconds since 1970."""

EVENTS = Export("everyone-events")

MIB = 1 << 20

NUMBERS = count()


async def store(output: Path, *, archives: int, size: int) -> None:
    """Store archives of random bytes, as a run would have."""
    ledger = await Ledger.open(output)
    try:
        await ledger.register([EVENTS])
        definition = {"name": EVENTS.name, **EVENTS.definition.to_dict()}
        (output / EVENTS.name).mkdir()
        (output / EVENTS.name / ".export.json").write_bytes(orjson.dumps(definition))
        for number in range(archives):
            start = MIDNIGHT + 1800 * number
            bundle = Bundle(EVENTS.name, Range(start, start + 1800))
            path, digest = archive_path(bundle, Format.NDJSON), sha256()
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            with (output / path).open("wb") as file:
                for at in range(0, size, MIB):
                    piece = os.urandom(min(MIB, size - at))
                    digest.update(piece)
                    file.write(piece)
            state = Stored.of(Archive(path, size, 1, digest.hexdigest()), exported_at=start + 200_000.0)
            await ledger.append(BundleRecord(bundle, 0, state, state), at=state.exported_at)
    finally:
        await ledger.close()


def mirrored(output: Path, server: S3Server, place: str) -> measuring.Run:
    """Run the command."""
    words = ["-m", "asyncexport", "mirror", "-q", "-d", str(output), "--set", f"output.mirror=s3://bucket/{place}"]
    return measuring.timed([sys.executable, *words], env=server.environ, watch_memory=True)


def twice(output: Path, server: S3Server) -> tuple[Callable[[], measuring.Run], Callable[[], measuring.Run]]:
    """Return a first mirror into a new place, and a second one into the same."""
    places: list[str] = []

    def first() -> measuring.Run:
        places.append(f"{output.name}-{next(NUMBERS)}")
        return mirrored(output, server, places[-1])

    return first, lambda: mirrored(output, server, places[0])


def main() -> None:
    """Mirror in turns and report."""
    asked = measuring.options(__doc__, rounds=3)
    if why_not():
        measuring.note(f"skipped: {why_not()}")
        return
    sizes = {
        "month": (1440, MIB // 8),
        "single": (8, 31 * MIB),
        "parts": (2, 300 * MIB),
    }
    if asked.quick:
        sizes = {"month": (20, 1000), "single": (2, MIB), "parts": (1, 33 * MIB)}
    with tempfile.TemporaryDirectory() as folder, running() as server:
        obstore.put(server.bucket("bucket"), "first", b"-")
        runs: dict[str, list[measuring.Run]] = {}
        for name, (archives, size) in sizes.items():
            output = Path(folder) / name
            asyncio.run(store(output, archives=archives, size=size))
            first, again = twice(output, server)
            runs |= measuring.in_turns({name: first, f"{name} again": again}, asked.rounds)
    measuring.report(
        "mirror",
        asked,
        packages=("obstore",),
        archives={name: {"number": number, "bytes": size} for name, (number, size) in sizes.items()},
        seconds={name: measuring.seconds_of(done) for name, done in runs.items()},
        peak_mib={name: measuring.spread([run.peak_mib for run in done], digits=1) for name, done in runs.items()},
    )


if __name__ == "__main__":
    main()
