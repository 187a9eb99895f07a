"""Runs of the exporter that end badly, and what is to be held against them.

`Driver` runs one in a process of its own. `Scene` is one output directory and one sandbox: it has runs, kills and cuts
behind it, and `look` compares what lies on the disk with what the service knows, from outside.
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
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from asyncexport.core.bundles import ALL_TIME, Bundle, Range, count_cut
from asyncexport.core.states import BundleRecord, Creating, Ready, Stored
from asyncexport.errors import LedgerError
from asyncexport.ledger import LedgerReader, present
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from asyncexport.storage import ARCHIVE_NAME, DEFINITION_NAME
from asyncexport.storage.layout import archive_range
from tests.crash_driver import LARGEST_MESSAGE, Run
from tests.power_cut_disk import Disk, Tree, lay_out
from tests.power_cut_fs import PowerCutFs

ROOT = Path(__file__).parents[1]


WIDTH_SECONDS = 1800

SPAN = Range(1_704_110_400, 1_704_110_400 + 2 * WIDTH_SECONDS)
"""Noon of a Monday, and the hour after it."""

EXPORTS = ({"name": "events", "format": "ndjson"}, {"name": "as-json", "format": "json"})

SETTINGS: dict[str, Any] = {
    "budget": {"requests_per_minute": 600_000.0, "burst": 1000, "scope": "create"},
    "polling": {"min_interval": "10ms", "expected": "30ms"},
    "retry": {"backoff_initial": "10ms", "backoff_max": "50ms", "outage": "5s"},
    "export": list(EXPORTS),
}
"""A small run in no time: four bundles, in two exports."""

BEHAVIOUR = SandboxBehaviour(
    operation_seconds=0.02, operation_sigma=0.3, requests_per_minute=600_000.0, burst=1000, rows_per_hour=60
)
"""A service that has no time either."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its exit code, None if it was killed, and what it told before."""

    exit_code: int | None
    told: tuple[dict[str, Any], ...]

    @property
    def summary(self) -> dict[str, Any] | None:
        """Of a run that came to its own end."""
        return next((one for one in self.told if one["type"] == "summary"), None)

    @property
    def boundaries(self) -> tuple[str, ...]:
        """All it came by; only of a run that came to its own end."""
        return next((tuple(one["names"]) for one in self.told if one["type"] == "boundaries"), ())

    @property
    def killed_at(self) -> str:
        """The boundary at which it killed itself; "" where it did not."""
        return next((one["at"] for one in self.told if one["type"] == "killed"), "")

    @property
    def failed_at(self) -> str:
        """The boundary at which an error was raised; "" where there was none."""
        return next((one["at"] for one in self.told if one["type"] == "failed"), "")

    @property
    def stored(self) -> set[str]:
        """The archives that it said are stored."""
        return {one["path"] for one in self.told if one["type"] == "stored"}


class Writes:
    """Every write of a run, each kind counted by itself: the order across threads differs from run to run."""

    def __init__(self, whole: Outcome) -> None:
        self.kinds = set(whole.boundaries)
        self._next = dict.fromkeys(whole.boundaries, 1)

    def next(self) -> tuple[str, int] | None:
        """The next one to be killed at; None: there is none."""
        for kind, number in self._next.items():
            self._next[kind] += 1
            return kind, number
        return None

    def no_more(self, write: tuple[str, int]) -> None:
        """A run went through without this one: the kind has no more."""
        self._next.pop(write[0], None)


class Driver:
    """The process that runs are forked from; a context manager. For one thread at a time."""

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
        """Carry out a run; how it ended, and after how many changes to the disk.

        Args:
            run: What to do.
            disk: What is mounted at `run.mount`.
            cut_before: The change before which the disk's power goes.
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
        told = Path(run.told)
        lines = told.read_bytes().splitlines() if told.exists() else []
        told.unlink(missing_ok=True)
        return Outcome(code if code >= 0 else None, tuple(json.loads(line) for line in lines)), fs.changes if fs else 0

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)


@dataclass(slots=True)
class Findings:
    """What is to be held against the exporter; nothing is, if all of it is empty.

    Attributes:
        unreadable: What is wrong with the ledger, where it cannot be read.
        damaged: Files under a final name that are not whole, or do not hold the rows of their range.
        false_claims: Archives that the ledger counts as stored and that do not lie there as it says.
        forgotten: Archives that a run said are stored, and that the ledger does not count.
        unrecorded: Creates that the service was sent, and of which the ledger does not know.
        second_exports: Bundles that got another export though the one on record could be had.
        unexplained_exports: Exports beyond one a take, for which no create was in flight at a kill, or went unanswered.
        fetched_again: Downloads of what was stored.
        not_counted: Creates in flight that the summary does not count as possible duplicates.
        lost_rows, duplicated_rows: In the end, by comparison with the truth.
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
class Sight:
    """What lies on the disk: the rows of each archive by its path, None where it is none; and what the ledger says."""

    rows: dict[str, list[str] | None] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    records: dict[str, BundleRecord] = field(default_factory=dict)
    unreadable: str = ""


class Scene:
    """One output directory and one sandbox, and all that has happened to them.

    Args:
        driver: Who runs the exporter.
        sandbox: The service.
        folder: A place of its own for it.
    """

    def __init__(self, driver: Driver, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self._driver = driver
        self._folder = folder
        self._bundles = len(EXPORTS) * count_cut(SPAN, WIDTH_SECONDS)
        self._told: set[str] = set()
        self._recorded: dict[str, tuple[int, int]] = {}
        self._sight = Sight()
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
        """How many creates were in flight at all the kills."""
        return self._in_flight.total()

    @property
    def extra_exports(self) -> int:
        """How many exports the service made beyond what was asked for."""
        return sum(self._exports_made().values()) - sum(one.revision + 1 for one in self._sight.records.values())

    async def run(self, **how: Any) -> Outcome:
        """Run the exporter; `how` are fields of `Run`. What it leaves behind is looked at."""
        return (await self.run_on(None, **how))[0]

    async def run_on(self, disk: Disk | None, *, cut_before: int | None = None, **how: Any) -> tuple[Outcome, int]:
        """Run it on a disk whose power may go; how it ended, and after how many changes to that disk.

        What the disk keeps is not looked at: see `survive`.
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
            told=str(self._folder / "told"),
            mount=str(mount) if disk else "",
            **how,
        )
        states = [one.state for one in self._sight.records.values()]
        unstored = self._bundles - sum(isinstance(state, Stored) for state in states)
        in_flight = sum(isinstance(state, Creating) for state in states)
        downloads = self.sandbox.counts["download"]
        outcome, changes = await asyncio.to_thread(self._driver.run, run, disk=disk, cut_before=cut_before)
        self._told |= outcome.stored
        self.kills += outcome.exit_code is None
        if outcome.summary:
            counted = outcome.summary["possible_duplicates"]
            self.findings.not_counted += max(0, in_flight - counted)
            self._unanswered += max(0, counted - in_flight)
        if not disk:
            await self.look()
        if not run.repair and not self.sandbox.behaviour.faults:
            self.findings.fetched_again += max(0, self.sandbox.counts["download"] - downloads - unstored)
        return outcome, changes

    async def survive(self, tree: Tree) -> None:
        """Have nothing on the disk but what a power cut left, and look at that."""
        if self.directory.exists():
            shutil.rmtree(self.directory)
        lay_out(tree, self._folder)
        await self.look()

    async def look(self) -> None:
        """Compare what lies on the disk with what the service knows, and keep what is wrong."""
        self._sight = await asyncio.to_thread(_seen, self.directory)
        await self._until_all_is_heard()
        self._judge_files()
        self._judge_exports()

    async def finish(self) -> None:
        """Run to the end, and compare all rows with the truth."""
        outcome = await self.run()
        assert outcome.exit_code == 0, outcome
        found = Counter((path.partition("/")[0], row) for path, rows in self._sight.rows.items() for row in rows or ())
        truth = Counter((one["name"], row) for one in EXPORTS for row in _truth(self.sandbox, SPAN))
        self.findings.lost_rows += (truth - found).total()
        self.findings.duplicated_rows += (found - truth).total()

    async def _until_all_is_heard(self) -> None:
        """What a killed process sent last comes before what is sent now."""
        url = urlsplit(self.sandbox.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"GET /sandbox/counts HTTP/1.0\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    def _judge_files(self) -> None:
        sight, findings = self._sight, self.findings
        if sight.unreadable:
            findings.unreadable.append(sight.unreadable)
        for path, rows in sight.rows.items():
            span = archive_range(path)
            if rows is None or span is None or sorted(rows) != _truth(self.sandbox, span):
                findings.damaged.append(path)
        counted = {one.stored.path: one for one in sight.records.values() if one.stored}
        for path, record in counted.items():
            if not _is_kept(sight, path, record):
                findings.false_claims.append(path)
        findings.forgotten += sorted(self._told - set(counted))

    def _judge_exports(self) -> None:
        findings = self.findings
        made = self._exports_made()
        extra: list[str] = []
        for key, record in self._sight.records.items():
            if isinstance(record.state, Creating):
                self._in_flight[key] += 1
            else:
                revision, before = self._recorded.setdefault(key, (record.revision, made[key]))
                if revision == record.revision and made[key] > before:
                    findings.second_exports.append(key)
                self._recorded[key] = (record.revision, made[key])
            excess = made[key] - record.revision - 1 - self._in_flight[key]
            extra += [key] * excess
        # Of what a run itself counted only the number is known.
        findings.unexplained_exports += extra[self._unanswered :]
        findings.unrecorded += sorted(set(made) - set(self._sight.records))

    def _exports_made(self) -> Counter[str]:
        """How many exports of each bundle the service has made."""
        names = {one["format"]: one["name"] for one in EXPORTS}
        return Counter(
            str(Bundle(names[one.format], Range(int(one.start), int(one.end)))) for one in self.sandbox.operations
        )


@asynccontextmanager
async def scene(driver: Driver, *faults: SandboxFault) -> AsyncIterator[Scene]:
    """A scene where nothing has happened yet, with a service that may be in trouble."""
    # What a kill leaves behind is the same on any file system; one in memory is faster.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="asyncexport-") as folder:
        async with serving(replace(BEHAVIOUR, faults=faults)) as sandbox:
            yield Scene(driver, sandbox, Path(folder))


def _seen(directory: Path) -> Sight:
    """Look at the directory as anybody might."""
    archives = [path for path in directory.glob("*/*/*") if ARCHIVE_NAME.fullmatch(path.name)]
    odd = [path for path in directory.rglob("*") if path.is_file() and not _is_known(path.relative_to(directory))]
    assert not odd, f"nobody knows what these are: {odd}"
    bad = set()
    if archives and not _is_gzip(*archives):
        bad = {path for path in archives if not _is_gzip(path)}
    rows = {str(path.relative_to(directory)): None if path in bad else _rows_in(path) for path in archives}
    digests = {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in archives}
    try:
        return Sight(rows, digests, {str(one.bundle): one for one in _standings(directory)})
    except LedgerError as error:
        return Sight(rows, digests, unreadable=str(error))


def _is_gzip(*paths: Path) -> bool:
    return subprocess.run(["gzip", "-qt", *paths], check=False, capture_output=True).returncode == 0


def _is_kept(sight: Sight, path: str, record: BundleRecord) -> bool:
    """Whether an archive that is counted as stored is there, as it was stored."""
    rows = sight.rows.get(path)
    if rows is None or record.stored is None:
        return False
    # A new take's file may have come in its place, and the row that says so not yet.
    is_new = isinstance(record.state, Ready)
    return is_new or (len(rows), sight.digests[path]) == (record.stored.rows, record.stored.sha256)


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
    """The rows of an archive, each in one way of writing; None where it cannot be read."""
    try:
        text = gzip.decompress(path.read_bytes())
        rows = orjson.loads(text) if ".json." in path.name else [orjson.loads(line) for line in text.splitlines()]
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError):
        return None
    return [_canonical(row) for row in rows]


def _standings(directory: Path) -> list[BundleRecord]:
    """Where each bundle stands by the ledger, which is read to its last row."""
    if not present(directory):
        return []
    with LedgerReader(directory) as ledger:
        ledger.check()
        by_bundle = {}
        for name in ledger.exports():
            for one in (*ledger.stored(name, ALL_TIME), *ledger.unfinished(name, ALL_TIME)):
                by_bundle[one.bundle] = one
        return list(by_bundle.values())


_truths: dict[tuple[Any, ...], list[str]] = {}


def _truth(sandbox: Sandbox, span: Range) -> list[str]:
    """The rows that exist in a range, sorted."""
    key = (sandbox.behaviour.seed, sandbox.behaviour.rows_per_hour, span)
    if key not in _truths:
        _truths[key] = sorted(map(_canonical, sandbox.events(span.start, span.end)))
    return _truths[key]


def _canonical(row: Any) -> str:
    return json.dumps(row, sort_keys=True)
