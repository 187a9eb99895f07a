"""Runs that are killed or lose power, and the checks of what they leave behind.

`Driver` runs the exporter in its own process. `Scene` is an output directory and a sandbox, with the runs, kills and
power cuts that have happened to them. Its `inspect` compares the files and the ledger with what the sandbox knows.
"""

import asyncio
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from asyncexport.core.bundles import ALL_TIME, Bundle, Range, cut, show
from asyncexport.core.states import BundleRecord, Creating, Ready, Stored
from asyncexport.errors import LedgerError
from asyncexport.ledger import LedgerReader, present
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from asyncexport.storage import ARCHIVE_NAME, DEFINITION_NAME
from asyncexport.storage.layout import archive_range
from tests.crash_driver import LARGEST_MESSAGE, Run
from tests.power_cut_disk import Disk, Tree, write_tree
from tests.power_cut_fs import PowerCutFs

ROOT = Path(__file__).parents[1]


WIDTH_SECONDS = 1800

SPAN = Range(1_704_110_400, 1_704_110_400 + 2 * WIDTH_SECONDS)
"""The hour after noon of a Monday."""

POISON = SandboxFault("operation", "FAILED", window=Range(SPAN.start + 2460, SPAN.start + 2520))
"""No operation over a minute of the second bundle completes."""

EXPORTS = ({"name": "events", "format": "ndjson"}, {"name": "as-json", "format": "json"})

SETTINGS: dict[str, Any] = {
    "budget": {"requests_per_minute": 600_000.0, "burst": 1000, "scope": "create"},
    "polling": {"min_interval": "10ms", "expected": "30ms"},
    "retry": {"backoff_initial": "10ms", "backoff_max": "50ms", "outage": "5s"},
    "nightly": {"since": show(SPAN.start)},
    "export": list(EXPORTS),
}
"""Settings for a short run: four bundles in two exports, with a budget that never delays it."""

BEHAVIOUR = SandboxBehaviour(
    operation_seconds=0.02, operation_sigma=0.3, requests_per_minute=600_000.0, burst=1000, rows_per_hour=60
)
"""A fast service."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its exit code, or None if it was killed, and its report."""

    exit_code: int | None
    report: tuple[dict[str, Any], ...]

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary; None if the run was killed."""
        return next((one for one in self.report if one["type"] == "summary"), None)

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The names of all failpoints that the run passed; empty if it was killed."""
        return next((tuple(one["names"]) for one in self.report if one["type"] == "boundaries"), ())

    @property
    def killed_at(self) -> str:
        """The failpoint at which the run killed itself, or ""."""
        return next((one["at"] for one in self.report if one["type"] == "killed"), "")

    @property
    def failed_at(self) -> str:
        """The failpoint at which an error was raised, or ""."""
        return next((one["at"] for one in self.report if one["type"] == "failed"), "")

    @property
    def stored(self) -> set[str]:
        """The paths of the archives that the run reported as stored."""
        return {one["path"] for one in self.report if one["type"] == "stored"}

    @property
    def splits(self) -> list[int]:
        """For each bundle that was split, into how many."""
        return [len(one["pieces"]) for one in self.report if one["type"] == "split"]

    @property
    def missing(self) -> set[tuple[str, str]]:
        """The start and the end of each bundle that the summary lists as a problem."""
        return {(one["start"], one["end"]) for one in (self.summary or {}).get("problems", ())}


class Writes:
    """Iterates over all writes of a run. Each kind is counted separately, since the order of threads varies."""

    def __init__(self, whole: Outcome) -> None:
        self.kinds = set(whole.boundaries)
        self._next = dict.fromkeys(whole.boundaries, 1)

    def next(self) -> tuple[str, int] | None:
        """Return the next write to kill a run at, or None after the last."""
        for kind, number in self._next.items():
            self._next[kind] += 1
            return kind, number
        return None

    def exhausted(self, write: tuple[str, int]) -> None:
        """Note that a run finished without reaching this write, so there are no more of its kind."""
        self._next.pop(write[0], None)


class Driver:
    """The process that runs are forked from, as a context manager. Not thread-safe."""

    def __enter__(self) -> Self:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.crash_driver", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        self._process.wait()

    def run(self, run: Run, *, disk: Disk | None = None, cut_before: int | None = None) -> tuple[Outcome, int]:
        """Carry out a run. Return how it ended and the number of changes to the disk.

        Args:
            run: The run.
            disk: The disk to mount at `run.mount`.
            cut_before: The change before which the power is cut.
        """
        fs = PowerCutFs(disk, cut_before=cut_before, on_cut=self._kill) if disk else None
        socket.send_fds(self._orders, [run.to_bytes()], [fs.device] if fs else [])
        self._handle = os.pidfd_open(json.loads(self._orders.recv(LARGEST_MESSAGE)))
        try:
            if fs:
                fs.start()
            self._orders.send(b"!")
            code = json.loads(self._orders.recv(LARGEST_MESSAGE))
            if fs:
                fs.wait()
        finally:
            os.close(self._handle)
        report = Path(run.report)
        lines = report.read_bytes().splitlines() if report.exists() else []
        report.unlink(missing_ok=True)
        return Outcome(code if code >= 0 else None, tuple(json.loads(line) for line in lines)), fs.changes if fs else 0

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)


@dataclass(slots=True)
class Findings:
    """Violations by the exporter; all attributes are empty or 0 if there are none.

    Attributes:
        unreadable: Errors of the ledger, if it cannot be read.
        damaged: Files with a final name that are incomplete or do not have the rows of their range.
        false_claims: Archives that the ledger lists as stored and that are not on disk as recorded.
        forgotten: Archives that a run reported as stored and that the ledger does not list.
        unrecorded: Bundles for which the service received a create that the ledger does not know.
        second_exports: Bundles that got another export although the recorded one was available.
        unexplained_exports: Exports beyond one a revision without a create in flight at a kill or left unanswered.
        fetched_again: Downloads of stored bundles.
        not_counted: Creates in flight that the summary does not count as possible duplicates.
        lost_rows, duplicated_rows: Rows missing from or repeated in the archives at the end.
    """

    unreadable: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    false_claims: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    second_exports: list[str] = field(default_factory=list)
    unexplained_exports: list[str] = field(default_factory=list)
    fetched_again: int = 0
    not_counted: int = 0
    lost_rows: int = 0
    duplicated_rows: int = 0


@dataclass(frozen=True, slots=True)
class DiskState:
    """The state of the disk.

    Attributes:
        rows: The rows of each archive by path; None if it cannot be read.
        digests: The SHA-256 of each archive by path.
        records: The ledger's record of each bundle.
        unreadable: The error, if the ledger cannot be read.
    """

    rows: dict[str, list[str] | None] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    records: dict[str, BundleRecord] = field(default_factory=dict)
    unreadable: str = ""


class Scene:
    """An output directory and a sandbox, with a history of runs.

    Args:
        driver: The driver that runs the exporter.
        sandbox: The service.
        folder: An empty folder for this scene.
    """

    def __init__(self, driver: Driver, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self._driver = driver
        self._folder = folder
        self._reported: set[str] = set()
        self._recorded: dict[str, tuple[int, int]] = {}
        self._disk_state = DiskState()
        self._in_flight: Counter[str] = Counter()
        self._unanswered = 0
        self.findings = Findings()
        self.kills = 0

    @property
    def directory(self) -> Path:
        """The output directory."""
        return self._folder / "exports"

    @property
    def in_flight(self) -> int:
        """The number of creates in flight at the kills."""
        return self._in_flight.total()

    @property
    def extra_exports(self) -> int:
        """The number of exports that the service made beyond one a revision."""
        return sum(self._exports_made().values()) - sum(one.revision + 1 for one in self._disk_state.records.values())

    async def run(self, **how: Any) -> Outcome:
        """Run the exporter and inspect what it leaves behind; `how` are fields of `Run`."""
        return (await self.run_on(None, **how))[0]

    async def run_on(self, disk: Disk | None, *, cut_before: int | None = None, **how: Any) -> tuple[Outcome, int]:
        """Run the exporter on a disk whose power may be cut. Return how it ended and the number of changes to the disk.

        This does not inspect what the disk keeps: see `restore`.
        """
        mount = self._folder / "mount"
        if disk:
            mount.mkdir(exist_ok=True)
        directory = mount / "exports" if disk else self.directory
        run = Run(
            settings={**SETTINGS, "api": {"base_url": self.sandbox.url}, "output": {"directory": str(directory)}},
            key=self.sandbox.key,
            start=SPAN.start,
            end=SPAN.end,
            report=str(self._folder / "report"),
            mount=str(mount) if disk else "",
            ahead=self.sandbox.now - time.time(),
            **how,
        )
        states = [one.state for one in self._disk_state.records.values()]
        unstored = self._unstored()
        in_flight = sum(isinstance(state, Creating) for state in states)
        downloads = self.sandbox.counts["download"]
        outcome, changes = await asyncio.to_thread(self._driver.run, run, disk=disk, cut_before=cut_before)
        unstored += sum(outcome.splits) - len(outcome.splits)
        self._reported |= outcome.stored
        self.kills += outcome.exit_code is None
        if outcome.summary:
            counted = outcome.summary["possible_duplicates"]
            self.findings.not_counted += max(0, in_flight - counted)
            self._unanswered += max(0, counted - in_flight)
        if not disk:
            await self.inspect()
        if not run.repair and not self.sandbox.behaviour.faults:
            self.findings.fetched_again += max(0, self.sandbox.counts["download"] - downloads - unstored)
        return outcome, changes

    @property
    def rows(self) -> int:
        """The number of rows in all archives."""
        return sum(len(rows or ()) for rows in self._disk_state.rows.values())

    async def restore(self, tree: Tree) -> None:
        """Replace the output directory by what a power cut left, and inspect it."""
        if self.directory.exists():
            shutil.rmtree(self.directory)
        write_tree(tree, self._folder)
        await self.inspect()

    async def inspect(self) -> None:
        """Compare the disk with what the service knows, and add violations to the findings."""
        self._disk_state = await asyncio.to_thread(_read_disk, self.directory)
        await self._wait_for_earlier_requests()
        self._check_files()
        self._check_exports()

    async def finish(self) -> None:
        """Run to the end and compare all rows with those of the service."""
        outcome = await self.run()
        assert outcome.exit_code == 0, outcome
        found = Counter(
            (path.partition("/")[0], row) for path, rows in self._disk_state.rows.items() for row in rows or ()
        )
        expected = Counter((one["name"], row) for one in EXPORTS for row in _expected_rows(self.sandbox, SPAN))
        self.findings.lost_rows += (expected - found).total()
        self.findings.duplicated_rows += (found - expected).total()

    async def _wait_for_earlier_requests(self) -> None:
        """Wait until the sandbox has handled the last requests of a killed process, by sending another one."""
        url = urlsplit(self.sandbox.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"GET /sandbox/counts HTTP/1.0\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    def _check_files(self) -> None:
        disk_state, findings = self._disk_state, self.findings
        if disk_state.unreadable:
            findings.unreadable.append(disk_state.unreadable)
        for path, rows in disk_state.rows.items():
            span = archive_range(path)
            if rows is None or span is None or sorted(rows) != _expected_rows(self.sandbox, span):
                findings.damaged.append(path)
        counted = {one.stored.path: one for one in disk_state.records.values() if one.stored}
        for path, record in counted.items():
            if not _is_kept(disk_state, path, record):
                findings.false_claims.append(path)
        findings.forgotten += sorted(self._reported - set(counted))

    def _check_exports(self) -> None:
        findings = self.findings
        made = self._exports_made()
        extra: list[str] = []
        for key, record in self._disk_state.records.items():
            if isinstance(record.state, Creating):
                self._in_flight[key] += 1
            else:
                # If the operation on record has failed, another one is due.
                known = (record.revision, max(made[key], record.revision + 1))
                revision, before = self._recorded.setdefault(key, known)
                if revision == record.revision and made[key] > before:
                    findings.second_exports.append(key)
                self._recorded[key] = known
            excess = made[key] - record.revision - 1 - self._in_flight[key]
            extra += [key] * excess
        # For duplicates that a run itself counted, only their number is known.
        findings.unexplained_exports += extra[self._unanswered :]
        findings.unrecorded += sorted(set(made) - set(self._disk_state.records))

    def _exports_made(self) -> Counter[str]:
        """Return the number of exports that the service has made of each bundle, without operations that failed."""
        names = {one["format"]: one["name"] for one in EXPORTS}
        return Counter(
            str(Bundle(names[one.format], Range(int(one.start), int(one.end))))
            for one in self.sandbox.operations
            if one.state != "FAILED"
        )

    def _unstored(self) -> int:
        """Return the number of bundles that are not stored yet: those on record, and those that no run has started."""
        records = self._disk_state.records.values()
        recorded = [one.bundle for one in records]
        started = {(one.export, start) for one in recorded for start in range(one.range.start, one.range.end, 300)}
        missing = [
            Bundle(export["name"], span)
            for export in EXPORTS
            for span in cut(SPAN, WIDTH_SECONDS)
            if (export["name"], span.start) not in started
        ]
        return len(missing) + sum(not isinstance(one.state, Stored) for one in records)


@asynccontextmanager
async def scene(driver: Driver, *faults: SandboxFault) -> AsyncIterator[Scene]:
    """Provide a new scene with a service that has these faults."""
    # A kill leaves the same behind on any file system; one in memory is faster.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="asyncexport-") as folder:
        async with serving(replace(BEHAVIOUR, faults=faults)) as sandbox:
            yield Scene(driver, sandbox, Path(folder))


def _read_disk(directory: Path) -> DiskState:
    """Read the archives and the ledger of the directory."""
    archives = [path for path in directory.glob("*/*/*") if ARCHIVE_NAME.fullmatch(path.name)]
    odd = [path for path in directory.rglob("*") if path.is_file() and not _is_known(path.relative_to(directory))]
    assert not odd, f"unexpected files: {odd}"
    bad = set()
    if archives and not _is_gzip(*archives):
        bad = {path for path in archives if not _is_gzip(path)}
    rows = {str(path.relative_to(directory)): None if path in bad else _rows_in(path) for path in archives}
    digests = {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in archives}
    try:
        return DiskState(rows, digests, {str(one.bundle): one for one in _records_in(directory)})
    except LedgerError as error:
        return DiskState(rows, digests, unreadable=str(error))


def _is_gzip(*paths: Path) -> bool:
    return subprocess.run(["gzip", "-qt", *paths], check=False, capture_output=True).returncode == 0


def _is_kept(disk_state: DiskState, path: str, record: BundleRecord) -> bool:
    """Whether an archive listed as stored is on disk as recorded."""
    rows = disk_state.rows.get(path)
    if rows is None or record.stored is None:
        return False
    # The file of a new revision may already have replaced it, while its row is not in the ledger yet.
    is_new = isinstance(record.state, Ready)
    return is_new or (len(rows), disk_state.digests[path]) == (record.stored.rows, record.stored.sha256)


def _is_known(path: Path) -> bool:
    name = path.name
    if part := re.fullmatch(r"\.(.+)\.[A-Za-z0-9-]+-[0-9]+\.part", name):
        name = part[1].removesuffix(".remade")
    return (
        path.parts[0] == ".asyncexport"
        or name == DEFINITION_NAME
        or bool(ARCHIVE_NAME.fullmatch(name.partition(".damaged-")[0]))
    )


def _rows_in(path: Path) -> list[str] | None:
    """Return the rows of an archive in a canonical spelling, or None if it cannot be read."""
    try:
        text = gzip.decompress(path.read_bytes())
        rows = orjson.loads(text) if ".json." in path.name else [orjson.loads(line) for line in text.splitlines()]
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError):
        return None
    return [_canonical(row) for row in rows]


def _records_in(directory: Path) -> list[BundleRecord]:
    """Check the complete ledger and return its record of each bundle."""
    if not present(directory):
        return []
    with LedgerReader(directory) as ledger:
        ledger.check()
        by_bundle = {}
        for name in ledger.exports():
            for one in (*ledger.stored(name, ALL_TIME), *ledger.unfinished(name, ALL_TIME)):
                by_bundle[one.bundle] = one
        return list(by_bundle.values())


_expected_rows_cache: dict[tuple[Any, ...], list[str]] = {}


def _expected_rows(sandbox: Sandbox, span: Range) -> list[str]:
    """Return the service's rows of a range, sorted."""
    key = (sandbox.behaviour.seed, sandbox.behaviour.rows_per_hour, span)
    if key not in _expected_rows_cache:
        _expected_rows_cache[key] = sorted(map(_canonical, sandbox.events(span.start, span.end)))
    return _expected_rows_cache[key]


def _canonical(row: Any) -> str:
    return json.dumps(row, sort_keys=True)
