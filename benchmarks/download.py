"""Downloads over TLS: all of asyncexport compared to curl plus gzip -t, and its streaming alone compared to curl.

There are three loads. *large*: 64 archives of 16 MiB, and `verify` of the stored archives compared to gzip -t. *large,
streaming alone*: the same bytes through asyncexport's client and buffered writes, without inspection, fsync or ledger.
*small*: 2,000 archives of 100 KiB, including the API calls. A run of asyncexport is the command line with its start:
hash, decompression to the end, structure, rows, fsync, rename and ledger. curl only downloads, without fsync. All of
them download 8 files at the same time.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import contender
import measuring
import rows
import service
from measuring import Command, Run

AT_ONCE = 8
PEERS = ("curl", "gzip", "aria2c", "rclone", "nginx")
PACKAGES = ("aiohttp", "aiofiles", "isal")
DIFFERENT = 4
"""Number of different archives; the others are copies of these under other names."""


@dataclass(frozen=True, slots=True)
class Load:
    """The number and size of the archives to download."""

    count: int
    archive_bytes: int


LARGE, SMALL = Load(64, 16 << 20), Load(2_000, 100 << 10)
LARGE_QUICK, SMALL_QUICK = Load(4, 1 << 20), Load(40, 20 << 10)


@dataclass(frozen=True, slots=True)
class Bench:
    """The archives, servers and folders of one load."""

    load: Load
    names: tuple[str, ...]
    inflated: int
    storage: service.Storage
    api: str
    work: Path

    @property
    def folder(self) -> Path:
        """The folder that each contender writes to, empty at its start."""
        return self.work / "out"

    def url(self, name: str) -> str:
        """Return the URL of an archive."""
        return f"{self.storage.url}/{name}"


def main() -> None:
    """Run the benchmark."""
    asked = measuring.options(__doc__, rounds=5)
    large, small = (LARGE_QUICK, SMALL_QUICK) if asked.quick else (LARGE, SMALL)
    results: dict[str, object] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
        for title, load in (("large", large), ("small", small)):
            results[title] = measure(load, Path(folder) / title, asked.rounds, skipped, is_large=title == "large")
    measuring.report("download", asked, packages=PACKAGES, programs=PEERS, skipped=skipped, **results)


def measure(load: Load, work: Path, rounds: int, skipped: dict[str, str], *, is_large: bool) -> dict[str, object]:
    """Measure one load with all contenders."""
    root = measuring.fresh(work / "served")
    names, inflated = make(load, root)
    with service.storage(root, work=work, tls=True) as storage:
        locations = [f"{storage.url}/{name}" for name in names]
        with service.api(locations, work=work) as api:
            bench = Bench(load, names, inflated, storage, api, work)
            gzips: dict[str, list[Run]] = {"one by one": [], "all cores": []}
            contenders: dict[str, Callable[[], Run]] = {"asyncexport": partial(ours, bench)}
            if is_large:
                contenders["streaming"] = partial(streaming, bench)
                contenders["verify"] = partial(verify, bench, stored(bench))
            fetch = partial(curl_and_gzip, gzips=gzips) if is_large else curl
            for name, peer in {"curl": fetch, "aria2c": aria2, "rclone": rclone}.items():
                if not shutil.which(name):
                    skipped[name] = "not installed"
                elif name == "rclone" and storage.server != "nginx":
                    skipped[name] = "needs nginx for its directory listing"
                else:
                    contenders[name] = partial(peer, bench)
            runs = measuring.in_turns(contenders, rounds)
    found: dict[str, object] = {
        "archives": load.count,
        "bytes": sum((root / name).stat().st_size for name in names),
        "inflated": inflated,
        "storage": storage.server,
        "seconds": {name: measuring.seconds_of(these) for name, these in (runs | gzips).items() if these},
    }
    if "curl" not in runs:
        return found
    if is_large:
        runs["streaming, once Python is up"] = [replace(run, seconds=float(run.output)) for run in runs["streaming"]]
    found["over curl"] = {
        name: measuring.ratio(these, runs["curl"]) for name, these in runs.items() if name not in ("curl", "verify")
    }
    if is_large:
        found["over curl and gzip -t"] = {
            cores: measuring.ratio(runs["asyncexport"], runs["curl"], gzip) for cores, gzip in gzips.items()
        }
        found["verify over gzip -t on all cores"] = measuring.ratio(runs["verify"], gzips["all cores"])
    return found


def make(load: Load, root: Path) -> tuple[tuple[str, ...], int]:
    """Make the archives; return their names and their total size uncompressed."""
    inflated = 0
    sizes = []
    for number in range(min(DIFFERENT, load.count)):
        made = rows.write_archive(root / f"{number:05}.ndjson.gz", bytes_at_least=load.archive_bytes, seed=number)
        sizes.append(made[1])
    names = tuple(f"{number:05}.ndjson.gz" for number in range(load.count))
    for number, name in enumerate(names):
        inflated += sizes[number % len(sizes)]
        if number >= len(sizes):
            shutil.copyfile(root / names[number % len(sizes)], root / name)
    return names, inflated


def curl(bench: Bench) -> Run:
    """Download all archives in parallel with curl."""
    folder = begin(bench)
    config = bench.work / "curl.txt"
    config.write_text("".join(f'url = "{bench.url(name)}"\noutput = "{folder / name}"\n' for name in bench.names))
    command: Command = ["curl", "-Z", "--parallel-max", str(AT_ONCE), "-sS", "--fail", "-K", config]
    if bench.storage.ca_file:
        command += ["--cacert", bench.storage.ca_file]
    run = measuring.timed(command)
    check(bench)
    return run


def curl_and_gzip(bench: Bench, *, gzips: dict[str, list[Run]]) -> Run:
    """Download all archives with curl, then check them with gzip: in one process, and in one per core."""
    run = curl(bench)
    files: Command = [bench.folder / name for name in bench.names]
    names = bench.work / "names.txt"
    names.write_text("".join(f"{file}\n" for file in files))
    gzips["one by one"].append(measuring.timed(["gzip", "-t", *files]))
    cores = str(measuring.machine()["cores"])
    gzips["all cores"].append(measuring.timed(["xargs", "-a", names, "-P", cores, "-n", "1", "gzip", "-t"]))
    return run


def ours(bench: Bench) -> Run:
    """Export all archives with asyncexport."""
    folder = begin(bench)
    setup = contender.Setup(bench.api, folder, bench.storage.ca_file, downloads=AT_ONCE)
    return contender.backfill(setup, bench.load.count, work=bench.work)


def stored(bench: Bench) -> contender.Setup:
    """Export all archives once, to be checked by `verify`."""
    setup = contender.Setup(bench.api, measuring.fresh(bench.work / "stored"), bench.storage.ca_file, downloads=AT_ONCE)
    contender.backfill(setup, bench.load.count, work=measuring.fresh(bench.work / "verify"))
    return setup


def verify(bench: Bench, setup: contender.Setup) -> Run:
    """Check all stored archives with `asyncexport verify`."""
    config = setup.write(bench.work / "verify" / "asyncexport.toml")
    return measuring.timed(contender.command(config, "verify"), env=contender.ENVIRONMENT)


def streaming(bench: Bench) -> Run:
    """Download all archives with asyncexport's client and writes alone."""
    folder = begin(bench)
    urls = bench.work / "urls.txt"
    urls.write_text("".join(f"{bench.url(name)}\n" for name in bench.names))
    script = Path(__file__).with_name("streaming.py")
    command: Command = [sys.executable, script, "--of", urls, "--into", folder, "--at-once", str(AT_ONCE)]
    if bench.storage.ca_file:
        command += ["--trust", bench.storage.ca_file]
    return measuring.timed(command)


def aria2(bench: Bench) -> Run:
    """Download all archives with aria2: one connection per file, as many files at the same time as the others."""
    folder = begin(bench)
    names = bench.work / "aria2.txt"
    names.write_text("".join(f"{bench.url(name)}\n" for name in bench.names))
    command: Command = ["aria2c", "--quiet", "--no-conf", "--file-allocation=none", "--max-connection-per-server=1"]
    command += [f"--max-concurrent-downloads={AT_ONCE}", f"--input-file={names}", f"--dir={folder}"]
    if bench.storage.ca_file:
        command.append(f"--ca-certificate={bench.storage.ca_file}")
    run = measuring.timed(command)
    check(bench)
    return run


def rclone(bench: Bench) -> Run:
    """Download all archives with rclone, from nginx's directory listing, without a HEAD before each GET."""
    folder = begin(bench)
    command: Command = ["rclone", "copy", ":http:", folder, "--http-url", bench.storage.url, "--http-no-head"]
    command += ["--config", "/dev/null", "--transfers", str(AT_ONCE), "--no-traverse", "--log-level", "ERROR"]
    if bench.storage.ca_file:
        command += ["--ca-cert", bench.storage.ca_file]
    run = measuring.timed(command)
    check(bench)
    return run


def begin(bench: Bench) -> Path:
    """Give the next contender an empty folder and an idle disk."""
    folder = measuring.fresh(bench.folder)
    measuring.settle()
    return folder


def check(bench: Bench) -> None:
    """Check that all bytes were downloaded."""
    got = sum(path.stat().st_size for path in bench.folder.iterdir())
    want = sum(path.stat().st_size for path in (bench.work / "served").iterdir())
    if got != want:
        measuring.fail(f"only {got} of {want} bytes were downloaded")


if __name__ == "__main__":
    main()
