"""Peak memory, in the cases where it could grow.

The cases: eight archives of 1 GiB each (uncompressed) downloaded at the same time; one such archive alone; a plan of
20,000 bundles. Each case runs in a process of its own, whose high-water mark is read from `/proc` until it ends.
"""

import sys
import tempfile
from pathlib import Path

import contender
import measuring
import rows
import service

BUNDLES, BUNDLES_QUICK = 20_000, 200
INFLATED, INFLATED_QUICK = 1 << 30, 4 << 20
EIGHT = 8


def main() -> None:
    """Run the benchmark."""
    asked = measuring.options(__doc__, rounds=3)
    inflated = INFLATED_QUICK if asked.quick else INFLATED
    bundles = BUNDLES_QUICK if asked.quick else BUNDLES
    peaks: dict[str, list[float]] = {"eight_at_once": [], "one_archive": [], "plan": []}
    with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
        work = Path(folder)
        root = measuring.fresh(work / "served")
        # In another process, so that the memory needed to make the archive is not counted.
        made = measuring.timed([sys.executable, rows.__file__, root / "one.ndjson.gz", str(inflated)])
        with (
            service.storage(root, work=work, tls=True) as storage,
            service.api([f"{storage.url}/one.ndjson.gz"], work=work) as api,
        ):
            for number in range(asked.rounds):
                peaks["eight_at_once"].append(_backfill(api, storage, EIGHT, work))
                peaks["one_archive"].append(_backfill(api, storage, 1, work))
                peaks["plan"].append(_plan(api, bundles, work))
                measuring.note(f"round {number + 1} of {asked.rounds}: {peaks}")
        packed = (root / "one.ndjson.gz").stat().st_size
    measuring.report(
        "memory",
        asked,
        packages=("aiohttp", "isal"),
        programs=("nginx",),
        storage=storage.server,
        archive={"inflated": int(made.output.split()[1]), "bytes": packed},
        bundles_planned=bundles,
        peak_mib={name: measuring.spread(these, digits=1) for name, these in peaks.items()},
    )


def _backfill(api: str, storage: service.Storage, bundles: int, work: Path) -> float:
    directory = measuring.fresh(work / "exports")
    setup = contender.Setup(api, directory, storage.ca_file, downloads=EIGHT)
    return contender.backfill(setup, bundles, work=work, watch_memory=True).peak_mib


def _plan(api: str, bundles: int, work: Path) -> float:
    setup = contender.Setup(api, measuring.fresh(work / "exports"))
    config = setup.write(work / "asyncexport.toml")
    end = contender.moment(contender.START + bundles * setup.bundle_minutes * 60)
    arguments = ("--json", "plan", "--start", contender.moment(contender.START), "--end", end)
    return measuring.timed(contender.command(config, *arguments), env=contender.ENVIRONMENT, watch_memory=True).peak_mib


if __name__ == "__main__":
    main()
