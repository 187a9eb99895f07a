"""Runs every row of the fault table."""

import asyncio
import datetime as dt
import errno
import gzip
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from asyncexport.client.api import ApiClient
from asyncexport.client.storage_host import StorageHost
from asyncexport.config import ApiKey
from asyncexport.core.auditing import AuditSample
from asyncexport.core.bundles import ALL_TIME, DAY, Range, show
from asyncexport.core.exports import Definition, Export
from asyncexport.core.summary import Exit, Summary
from asyncexport.errors import IncompleteError
from asyncexport.ledger import LedgerReader, hold
from asyncexport.run.adopt import adopt
from asyncexport.run.findings import Broken, Intact, Missing, RulesOff
from asyncexport.run.joining import JoinTimes, export_or_join
from asyncexport.run.monitored import monitored
from asyncexport.run.rebuild import rebuild
from asyncexport.run.spec import Audit, Backfill, Nightly, Repair
from asyncexport.run.verify import verify
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from asyncexport.simulate.run import Scenario, simulate
from tests import raw_server
from tests.exporting import (
    BY_SERVICE,
    QUICK,
    Notebook,
    OffClock,
    archives,
    clock_of,
    moment,
    rows_in,
    run,
    settings_for,
    truth,
)
from tests.fault_table import BUNDLES, ROWS, Row
from tests.ledger_rig import releases_locks
from tests.refusals_rig import RefusingService, run_scenario

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

START, HALF_WAY, END = "2026-01-01T20:00:00Z", "2026-01-01T21:00:00Z", "2026-01-01T22:00:00Z"

CALM = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=60, requests_per_minute=1e6, burst=10_000)
"""A service without faults; each of the four bundles has rows."""

DEADLINE_SECONDS = 90
"""A row that takes longer has failed. Most take well under a second."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A row, and the folder for its test."""

    row: Row
    folder: Path

    @property
    def directory(self) -> Path:
        """The output directory, in a folder that contains nothing else."""
        return self.folder / "within" / "exports"

    async def run(self, sandbox: Sandbox, *, changes: dict[str, Any] | None = None, **more: Any) -> Summary:
        """Run the command under test."""
        changes = {**self.row.changes, **(changes or {})}
        if self.row.container != "ndjson":
            changes["export"] = [{"format": self.row.container}]
        return await run(sandbox, self.directory, start=START, end=END, changes=changes, **more)

    async def finish(self, sandbox: Sandbox) -> None:
        """Run the same command without faults and check that every row is on disk exactly once."""
        before = sandbox.behaviour
        sandbox.behave(
            replace(CALM, rows_per_hour=before.rows_per_hour, clock_ahead_seconds=before.clock_ahead_seconds)
        )
        summary = await self.run(sandbox)
        assert summary.exit_code is Exit.DONE, summary.to_dict()
        assert len(archives(self.directory)) == BUNDLES + self.row.pieces
        found = rows_in(self.directory)
        expected = truth(sandbox, START, END)
        if self.row.container == "csv":
            assert found.total() == expected.total()
        else:
            assert found == expected


@pytest.fixture(scope="module", autouse=True)
def _count(summary_line: Callable[[str], None]) -> Iterator[None]:
    """Report the number of rows at the end of the test run."""
    yield
    summary_line(f"fault table: {len(ROWS)} rows")


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS if not row.scene])
async def test_fault(row, tmp_path):
    """The run ends as the row says, and then the same command finishes without the fault."""
    stage = Stage(row, tmp_path)
    behaviour = replace(CALM, **row.behaviour, faults=tuple(map(SandboxFault.parse, row.faults)))
    async with asyncio.timeout(DEADLINE_SECONDS), serving(behaviour) as sandbox:
        summary = await stage.run(sandbox)
        _check_row(stage, sandbox, summary)
        exports = len(sandbox.operations)
        await stage.finish(sandbox)
        # Stored bundles are not exported again.
        assert len(sandbox.operations) == exports + BUNDLES + row.pieces - row.stored - row.kept
        assert sandbox.redirected_with_key == sandbox.leaked_credentials == 0


def _check_row(stage: Stage, sandbox: Sandbox, summary: Summary) -> None:
    row, report = stage.row, summary.to_dict()
    assert summary.exit_code is row.code, report
    assert summary.tally.stored == row.stored, report
    assert len(sandbox.operations) == row.exports, report
    assert summary.tally.possible_duplicates == row.duplicates, report
    reasons = [problem["reason"] for problem in report["problems"]] + [report.get("error", "")]
    assert any(row.reason in reason for reason in reasons), reasons
    files = archives(stage.directory)
    assert len(files) == row.stored
    for path in files:
        gzip.decompress(path.read_bytes())
    expected = truth(sandbox, START, END)
    if row.stored == BUNDLES and row.container != "csv":
        assert rows_in(stage.directory) == expected
    assert sorted(path.name for path in stage.folder.iterdir()) == ["within"]
    assert [path.name for path in (stage.folder / "within").iterdir()] == ["exports"]
    assert not list(stage.directory.rglob("*.part"))


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS if row.scene])
async def test_scene(row, tmp_path):
    """The run ends as the row says, and then the same command finishes without the fault."""
    name, _, detail = row.scene.partition(":")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await SCENES[name](Stage(row, tmp_path), detail)


async def _huge(stage: Stage, _: str) -> None:
    faults = (SandboxFault.parse("create:429,nth=2,retry_after=huge"),)
    async with serving(replace(CALM, faults=faults)) as sandbox:
        summary = await stage.run(sandbox, max_duration_seconds=0.3)
        assert summary.exit_code is Exit.TIME_UP
        assert summary.refused == sandbox.refused == 1
        assert summary.tally.failed == 0


async def _outage(_: Stage, __: str) -> None:
    """A simulation of 200 bundles with an outage of an hour, in another thread, since it has its own event loop."""
    calm = await asyncio.to_thread(simulate, Scenario(bundles=200))
    hit = await asyncio.to_thread(simulate, Scenario(bundles=200, outage=(1800.0, 5400.0)))
    assert hit.stored == calm.stored == 200
    assert hit.operations == 200
    assert calm.makespan < hit.makespan < calm.makespan + 3600 + 600


async def _night(_: Stage, __: str) -> None:
    """A simulation, in another thread, since it has its own event loop."""
    service = RefusingService(fails=lambda _: True)
    result = await asyncio.to_thread(run_scenario, Scenario(60), service)
    assert (result.error, result.stored, result.attempts) == (None, {}, 1)
    assert service.made <= 75


async def _first_contact(stage: Stage, _: str) -> None:
    """A directory with an earlier answer would wait for `[retry] outage`; this one has none."""
    async with serving(CALM) as sandbox:
        changes = {"retry": {"outage": "1h", "first_contact": "100ms"}}
        async with sandbox.unreachable():
            summary = await stage.run(sandbox, changes=changes)
        assert summary.exit_code is Exit.UNREACHABLE
        assert summary.error is not None
        assert "proxy" in summary.error.hint
        await stage.finish(sandbox)


async def _refused(stage: Stage, _: str) -> None:
    async with serving(CALM) as sandbox:

        async def refuse_connections() -> None:
            async with sandbox.unreachable():
                await asyncio.sleep(0.2)

        refusing = asyncio.create_task(refuse_connections())
        summary = await stage.run(sandbox, changes={"retry": {"attempts": 1, "outage": "10s"}})
        await refusing
        assert summary.exit_code is Exit.DONE
        await stage.finish(sandbox)
        assert len(sandbox.operations) == BUNDLES


async def _unresolvable(stage: Stage, _: str) -> None:
    async with serving(CALM) as sandbox:
        unresolvable = {
            "api": {"base_url": "https://nowhere.invalid", "connect_timeout": "1s"},
            "retry": {"outage": "50ms"},
        }
        summary = await stage.run(sandbox, changes=unresolvable)
        assert summary.exit_code is Exit.UNREACHABLE
        assert archives(stage.directory) == []
        await stage.finish(sandbox)


async def _shared(stage: Stage, fault: str) -> None:
    """Two exports with the same definition, so that their creates have equal bodies.

    The first operation has this fault, or none if it is "".
    """
    faults = (SandboxFault.parse(f"operation:{fault},nth=1"),) if fault else ()
    twins = [{"name": "one"}, {"name": "two"}]
    changes = {"export": twins, "polling": {**QUICK["polling"], "operation_deadline": "1s"}}
    names = [twin["name"] for twin in twins]
    # An operation must still run when the second create comes.
    async with serving(replace(CALM, operation_seconds=0.3, merge_equal=True, faults=faults)) as sandbox:
        summary = await stage.run(sandbox, changes=changes)
        parked = fault == "pending"
        assert summary.exit_code is (Exit.PARTIAL if parked else Exit.DONE), summary.to_dict()
        assert summary.tally.stored == 2 * BUNDLES - 2 * parked
        assert summary.tally.failed == 2 * parked
        assert len(sandbox.operations) == BUNDLES + (fault == "FAILED")
        if parked:
            assert {"deadline" in problem["reason"] for problem in summary.to_dict()["problems"]} == {True}
            # The service no longer merges equal creates: each gets its own export.
            sandbox.behave(CALM)
            summary = await stage.run(sandbox, changes=changes)
            assert summary.exit_code is Exit.DONE, summary.to_dict()
        for name in names:
            assert len(archives(stage.directory, name)) == BUNDLES
            assert rows_in(stage.directory, name) == truth(sandbox, START, END)


async def _same_id(stage: Stage, _: str) -> None:
    """The first create of a run is answered with an operation of the previous run."""
    async with serving(CALM) as sandbox:
        assert (await run(sandbox, stage.directory, start=START, end=HALF_WAY)).exit_code is Exit.DONE
        sandbox.behave(replace(CALM, faults=(SandboxFault.parse("create:same-id,nth=1"),)))
        notebook = Notebook()
        assert (await stage.run(sandbox, viewer=notebook)).exit_code is Exit.DONE
        assert any("returned an operation that belongs to" in event["reason"] for event in notebook.of("retried"))
        assert rows_in(stage.directory) == truth(sandbox, START, END)
        assert len(sandbox.operations) == BUNDLES
        await stage.finish(sandbox)


async def _other_export(stage: Stage, _: str) -> None:
    """The second operation has the export id of the first; in either order, neither bundle gets the other's file."""
    faults = (SandboxFault.parse("operation:other-export,nth=2"),)
    async with serving(replace(CALM, faults=faults)) as sandbox:
        notebook = Notebook()
        assert (await stage.run(sandbox, viewer=notebook)).exit_code is Exit.DONE
        assert any("returned an export that belongs to" in event["reason"] for event in notebook.of("retried"))
        assert rows_in(stage.directory) == truth(sandbox, START, END)
        # Two more exports are made if the wrong bundle was first: its rows show that the file is not its own.
        assert BUNDLES < len(sandbox.operations) <= BUNDLES + 2
        sandbox.behave(CALM)
        made = len(sandbox.operations)
        await stage.finish(sandbox)
        assert len(sandbox.operations) == made


async def _drip(stage: Stage, _: str) -> None:
    """Uses only the clients, since a run measures the rate over a minute."""
    faults = (SandboxFault.parse("download:drip,seconds=0.01"),)
    async with (
        serving(replace(CALM, faults=faults)) as sandbox,
        ApiClient(base_url=sandbox.url, key=sandbox.key, gate=_OpenGate()) as client,
        StorageHost(min_rate=1024, rate_window_seconds=0.2) as storage_host,
    ):
        await client.create(Definition(), Range(moment(START), moment(START) + 1800), permit=_OpenGate())
        sandbox.skip(3600)
        location = await client.locate(sandbox.operations[0].export_id)
        async with storage_host.open(location) as body:
            with pytest.raises(IncompleteError, match="too slow"):
                [chunk async for chunk in body.chunks()]


async def _certificate(stage: Stage, kind: str) -> None:
    authority = trustme.CA()
    stage.folder.joinpath("within").mkdir()
    ca_file = stage.folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    long_ago: dict[str, Any] = {
        "not_before": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "not_after": dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
    }
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    name = "elsewhere.example" if kind == "wrong-host" else "localhost"
    authority.issue_cert(name, **(long_ago if kind == "expired" else {})).configure_cert(context)
    async with serving(CALM, tls=context) as sandbox:
        url = sandbox.url.replace("127.0.0.1", "localhost")
        trusted = {} if kind == "untrusted" else {"ca_file": str(ca_file)}
        summary = await stage.run(sandbox, changes={"api": {"base_url": url, **trusted}})
        if kind == "named":
            assert summary.exit_code is Exit.DONE
            assert rows_in(stage.directory) == truth(sandbox, START, END)
            return
        assert summary.exit_code is Exit.UNREACHABLE
        assert "certificate" in str(summary.error)
        assert summary.error is not None
        assert summary.error.hint
        assert sum(sandbox.counts.values()) == 0


async def _write(stage: Stage, detail: str) -> None:
    """Every write at this step fails with this error, in the thread that writes."""
    name, _, error = detail.partition(":")
    code = getattr(errno, error)
    reached = False

    def boundary(at: str) -> None:
        nonlocal reached
        if at == f"{name}:before":
            reached = True
            raise OSError(code, os.strerror(code))

    async with serving(CALM) as sandbox:
        summary = await stage.run(sandbox, boundary=boundary)
        assert reached
        assert summary.exit_code is Exit.DISK, summary.to_dict()
        assert summary.error is not None
        assert summary.error.hint
        for path in archives(stage.directory):
            gzip.decompress(path.read_bytes())
        await stage.finish(sandbox)


async def _small_disk(stage: Stage, _: str) -> None:
    """A tmpfs on which another file leaves about 420 KiB for the archives."""
    with _mounted(stage.folder / "within", size="2m") as disk:
        big = replace(CALM, filler_bytes=20 << 20, rows_per_hour=1e-6)
        async with serving(big) as sandbox:
            ballast = disk / "ballast"
            free = os.statvfs(disk)
            ballast.write_bytes(os.urandom(max(0, free.f_bavail * free.f_frsize - (420 << 10))))
            summary = await stage.run(sandbox)
            assert summary.exit_code is Exit.DISK, summary.to_dict()
            assert "full" in str(summary.error)
            for path in archives(stage.directory):
                gzip.decompress(path.read_bytes())
            ballast.unlink()
            await stage.finish(sandbox)


async def _inodes(stage: Stage, _: str) -> None:
    """A tmpfs with space for bytes, but with hardly more inodes than the run needs before its first archive."""
    with _mounted(stage.folder / "within", size="8m", options="nr_inodes=11") as disk:
        async with serving(CALM) as sandbox:
            summary = await stage.run(sandbox)
            assert summary.exit_code is Exit.DISK, summary.to_dict()
            assert "no inodes left" in str(summary.error)
            for path in archives(stage.directory):
                gzip.decompress(path.read_bytes())
            command = ["mount", "-o", "remount,nr_inodes=1000", str(disk)]
            await asyncio.to_thread(subprocess.run, command, check=True)
            await stage.finish(sandbox)


async def _read_only(stage: Stage, _: str) -> None:
    with _mounted(stage.folder / "within", size="1m", options="ro"):
        async with serving(CALM) as sandbox:
            summary = await stage.run(sandbox)
            assert summary.exit_code is Exit.DISK
            assert sum(sandbox.counts.values()) == 0


async def _restore_older_ledger(stage: Stage, sandbox: Sandbox) -> None:
    """Leave two archives and an older ledger that knows only one of them."""
    ledger, backup = stage.directory / ".asyncexport", stage.folder / "within" / "backup"
    shutil.rmtree(stage.directory)
    await run(sandbox, stage.directory, start=START, end="2026-01-01T20:30:00Z")
    shutil.copytree(ledger, backup)
    await run(sandbox, stage.directory, start=START, end="2026-01-01T21:00:00Z")
    shutil.rmtree(ledger)
    backup.rename(ledger)
    sandbox.reset_counts()


async def _odd(stage: Stage, detail: str) -> None:
    """Every such call fails with this error."""
    name, _, error = detail.rpartition(":")
    number = getattr(errno, error)

    def boundary(at: str) -> None:
        if at.endswith(name):
            raise OSError(number, os.strerror(number))

    viewer = Notebook()
    async with serving(CALM) as sandbox:
        summary = await stage.run(sandbox, boundary=boundary, viewer=viewer)
        if error == "EINVAL":
            assert summary.exit_code is Exit.DONE
            assert [note["message"] for note in viewer.of("note") if "cannot flush folders" in note["message"]]
        else:
            assert summary.exit_code is Exit.DISK
            assert summary.error is not None
            assert "locks" in str(summary.error)
            assert summary.error.hint
            assert sum(sandbox.counts.values()) == 0
        await stage.finish(sandbox)


async def _goes_away(stage: Stage, what: str) -> None:
    commits = 0

    def boundary(at: str) -> None:
        nonlocal commits
        commits += at == "ledger.commit:after"
        if at == "ledger.commit:after" and commits == 4:
            (stage.directory if what == "directory" else stage.directory / ".asyncexport").rename(
                stage.folder / "elsewhere"
            )

    async with serving(CALM) as sandbox:
        summary = await stage.run(sandbox, boundary=boundary)
        assert summary.exit_code is (Exit.DISK if what == "directory" else Exit.LEDGER)
        assert ("disappeared" if what == "directory" else "was removed") in str(summary.error)
        assert summary.error is not None
        assert summary.error.hint
        assert stage.directory.exists() is (what != "directory")
        if what == "directory":
            (stage.folder / "elsewhere").rename(stage.directory)
        else:
            (stage.folder / "elsewhere").rename(stage.directory / ".asyncexport")
        await stage.finish(sandbox)


async def _in_place(stage: Stage, what: str) -> None:
    async with serving(CALM) as sandbox:
        await stage.run(sandbox)
        place = archives(stage.directory)[1]
        place.rename(stage.folder / "elsewhere")
        if what == "folder":
            place.mkdir()
        else:
            place.symlink_to(stage.folder / "elsewhere")
        found = [finding async for finding in verify(stage.directory)]
        (broken,) = [finding for finding in found if isinstance(finding, Broken)]
        assert sum(isinstance(finding, Intact) for finding in found) == BUNDLES - 1
        summary = await stage.run(sandbox, kind=Repair, bundles=(broken.record,))
        assert summary.exit_code is Exit.DONE, summary.to_dict()
        await stage.finish(sandbox)


async def _linked(stage: Stage, name: str) -> None:
    victim = stage.folder / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    place = stage.directory / ".asyncexport" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(victim)
    async with serving(CALM) as sandbox:
        summary = await stage.run(sandbox)
        assert summary.exit_code is Exit.DISK
        assert sum(sandbox.counts.values()) == 0
        assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("precious", 0o644)
        place.unlink()
        await stage.finish(sandbox)


async def _no_lock(stage: Stage, _: str) -> None:
    """Both runs are in this process, so the second does not recognise the first by what it wrote."""
    viewer, boundary = Notebook(), releases_locks(stage.directory)
    async with serving(replace(CALM, operation_seconds=0.3)) as sandbox:
        await run(sandbox, stage.directory, start=START, end="2026-01-01T20:30:00Z")
        runs = [stage.run(sandbox, viewer=viewer, boundary=boundary) for _ in range(2)]
        codes = [summary.exit_code for summary in await asyncio.gather(*runs)]
        assert sorted(codes) == [Exit.DONE, Exit.LOCKED]
        assert [note for note in viewer.of("note") if "no working locks" in note["message"]]
        for path in archives(stage.directory):
            gzip.decompress(path.read_bytes())
        await stage.finish(sandbox)


async def _deleted(stage: Stage, _: str) -> None:
    async with serving(CALM) as sandbox:
        await stage.run(sandbox)
        for path in archives(stage.directory)[:2]:
            path.unlink()
        sandbox.reset_counts()
        assert (await stage.run(sandbox)).exit_code is Exit.DONE
        assert sum(sandbox.counts.values()) == 0
        found = [finding async for finding in verify(stage.directory)]
        missing = tuple(finding.record for finding in found if isinstance(finding, Missing))
        assert len(missing) == 2
        assert (await stage.run(sandbox, kind=Repair, bundles=missing)).exit_code is Exit.DONE
        await stage.finish(sandbox)


async def _ledger(stage: Stage, kind: str) -> None:
    async with serving(CALM) as sandbox:
        await run(sandbox, stage.directory, start=START, end="2026-01-01T21:00:00Z")
        sandbox.reset_counts()
        path = stage.directory / ".asyncexport" / "ledger.sqlite3"
        if kind == "older":
            await _restore_older_ledger(stage, sandbox)
        other = _damage(path, kind)
        summary = await stage.run(sandbox)
        if other:
            other.close()
        assert summary.exit_code is Exit.LEDGER, summary.to_dict()
        assert sum(sandbox.counts.values()) == 0
        assert summary.error is not None
        assert summary.error.hint
        assert len(archives(stage.directory)) == 2
        if kind in ("busy", "newer"):
            shutil.copy(path.with_name("kept"), path)
        elif kind == "older":
            assert "--adopt" in summary.error.hint
            assert archives(stage.directory)[1].name in str(summary.error)
            assert len([finding async for finding in adopt(stage.directory)]) == 1
        else:
            assert "--rebuild" in summary.error.hint
            assert [finding async for finding in rebuild(stage.directory)]
            made = sandbox.counts["create"]
            assert made == 0
        await stage.finish(sandbox)
        # The archives on disk are not exported again.
        assert sandbox.counts["create"] == BUNDLES - 2


def _damage(path: Path, kind: str) -> sqlite3.Connection | None:
    shutil.copy(path, path.with_name("kept"))
    data = bytearray(path.read_bytes())
    match kind:
        case "busy":
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            return other
        case "bits":
            for at in range(0, len(data), 97):
                data[at] ^= 0x10
            path.write_bytes(data)
        case "value":
            at = data.rindex(b'"segment":"') + 12
            data[at] ^= 1
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[: len(data) // 2 // 4096 * 4096])
        case "newer":
            _make_newer(path)
        case "gone":
            shutil.rmtree(path.parent)
    return None


def _make_newer(path: Path) -> None:
    """Set a later version in the file's header and in the ledger's own head."""
    connection = sqlite3.connect(path)
    text = connection.execute("SELECT text FROM head").fetchone()[0]
    text = re.sub(r'"version":[0-9]+', '"version":99', text)
    digest = zlib.crc32(repr((1, text.encode())).encode())
    connection.execute("UPDATE head SET text = ?, digest = ?", (text, digest))
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()


async def _organisation(stage: Stage, what: str) -> None:
    """A run at a host of another one creates nothing, with another key or the same."""
    async with serving(CALM) as sandbox, serving(replace(CALM, organisation="OTHER")) as other:
        await run(sandbox, stage.directory, start=START, end=HALF_WAY)
        if what == "key":
            other.key = "na1.another"
        summary = await stage.run(other)
        assert summary.exit_code is Exit.LEDGER
        assert summary.error is not None
        assert "OTHER" in str(summary.error)
        assert summary.error.hint
        assert (other.counts["create"], other.counts["me"]) == (0, 1)
        await stage.finish(sandbox)
        assert sandbox.counts["create"] == BUNDLES


async def _clock(stage: Stage, ahead: str) -> None:
    """Without an end, the range ends at the last bundle that is settled by the service's clock."""
    async with serving(replace(CALM, clock_ahead_seconds=float(ahead), rows_per_hour=4)) as sandbox:
        start = show(int(sandbox.now) // DAY * DAY - 2 * DAY)
        summary = await run(sandbox, stage.directory, start=start, end=None)
        assert summary.exit_code is Exit.DONE
        last = max(made.end for made in sandbox.operations)
        assert 0 <= sandbox.now - Export("any").settle_seconds - last < 1800


async def _far(stage: Stage, ahead: str) -> None:
    """The host's clock differs by more than a day from the dates of three answers."""
    async with serving(CALM) as sandbox:
        summary = await stage.run(sandbox, host_clock=OffClock(float(ahead)))
        assert summary.exit_code is Exit.USAGE
        assert show(sandbox.now)[:10] in str(summary.error)
        assert show(sandbox.now + float(ahead))[:10] in str(summary.error)
        assert sandbox.counts["create"] == 0
        await stage.finish(sandbox)


async def _early(stage: Stage, _: str) -> None:
    """No answer has a date before the first creates, which ask for future data; later nights repair this."""
    order: dict[str, Any] = {"kind": Nightly, "start": "", "end": None, "changes": {"export": [{"bundle": "6h"}]}}
    silent = tuple(SandboxFault(where, "no-date") for where in ("list", "me", "segments"))
    calm = replace(CALM, rows_per_hour=4)
    async with serving(replace(calm, faults=silent)) as sandbox:
        await run(sandbox, stage.directory, **order, host_clock=OffClock(2.0 * DAY))
        with LedgerReader(stage.directory) as ledger:
            early = {one.bundle.range for one in ledger.overviews()[0].unsettled}
        assert early
        sandbox.behave(calm)
        for _day in range(4):
            sandbox.skip(DAY)
            summary = await run(sandbox, stage.directory, **order, host_clock=clock_of(sandbox))
            assert summary.exit_code is Exit.DONE
        made = [Range(int(one.start), int(one.end)) for one in sandbox.operations]
        assert {span for span in made if made.count(span) == 2} == early
        with LedgerReader(stage.directory) as ledger:
            assert not ledger.overviews()[0].unsettled


async def _still(stage: Stage, _: str) -> None:
    """By this clock, the second night begins at the same time as the first."""
    order: dict[str, Any] = {"kind": Nightly, "start": "", "end": None, "changes": {"export": [{"bundle": "6h"}]}}
    async with serving(replace(CALM, rows_per_hour=4)) as sandbox:
        still = sandbox.now
        for _night in range(2):
            summary = await run(sandbox, stage.directory, **order, host_clock=OffClock(stands_at=still))
            assert summary.exit_code is Exit.DONE
            assert summary.tally.stored > 0
            sandbox.skip(23 * 3600)


async def _jump(stage: Stage, _: str) -> None:
    """A run with a clock that is a year fast records requests in the future."""
    tight = {"budget": {"requests_per_minute": 6000, "burst": 20}}
    async with serving(replace(CALM, clock_ahead_seconds=365.0 * DAY)) as sandbox:
        changes = {**tight, **BY_SERVICE}
        await run(sandbox, stage.directory, start=START, end="2026-01-01T21:00:00Z", changes=changes)
        sandbox.behave(CALM)
        summary = await stage.run(sandbox, changes=tight)
        assert summary.exit_code is Exit.DONE
        await stage.finish(sandbox)
        assert len(sandbox.operations) == BUNDLES


async def _refresh(stage: Stage, kind: str) -> None:
    """The first bundle is exported again, with fewer rows."""
    async with serving(CALM) as sandbox:
        assert (await stage.run(sandbox)).exit_code is Exit.DONE
        with LedgerReader(stage.directory) as ledger:
            first = next(ledger.stored("everyone-events", ALL_TIME))
        assert first.stored
        found = 0 if kind == "empty" else first.stored.rows // 2
        before = [(path.read_bytes(), path.stat().st_ino) for path in archives(stage.directory)]
        sandbox.behave(replace(CALM, faults=(SandboxFault("operation", "fewer-rows", rows=found),)))
        summary = await stage.run(sandbox, kind=Repair, bundles=(first,))
        assert summary.exit_code is Exit.PARTIAL
        (problem,) = summary.to_dict()["problems"]
        assert (problem["rows_before"], problem["rows_found"]) == (first.stored.rows, found)
        assert [(path.read_bytes(), path.stat().st_ino) for path in archives(stage.directory)] == before
        await stage.finish(sandbox)
        assert len(sandbox.operations) == BUNDLES + 1


async def _same_rows(stage: Stage, _: str) -> None:
    """The first bundle is exported again, and its file has another form."""
    async with serving(CALM) as sandbox:
        assert (await stage.run(sandbox)).exit_code is Exit.DONE
        with LedgerReader(stage.directory) as ledger:
            first = next(ledger.stored("everyone-events", ALL_TIME))
        before = [(path.read_bytes(), path.stat()) for path in archives(stage.directory)]
        sandbox.behave(replace(CALM, delivery="plain"))
        assert (await stage.run(sandbox, kind=Repair, bundles=(first,))).exit_code is Exit.DONE
        after = [(path.read_bytes(), path.stat()) for path in archives(stage.directory)]
        assert [(data, at.st_ino, at.st_mtime_ns) for data, at in after] == [
            (data, at.st_ino, at.st_mtime_ns) for data, at in before
        ]
        with LedgerReader(stage.directory) as ledger:
            again = next(ledger.stored("everyone-events", ALL_TIME))
        assert again.stored
        assert (again.revision, again.stored.written_by) == (1, 0)


async def _late_rows(stage: Stage, _: str) -> None:
    """Each bundle is exported when only three of its rows have come, and then audited."""
    early = replace(CALM, faults=(SandboxFault("operation", "fewer-rows", rows=3),))
    async with serving(early) as sandbox:
        assert (await stage.run(sandbox)).exit_code is Exit.DONE
        sandbox.behave(CALM)
        summary = await stage.run(sandbox, kind=Audit, sample=AuditSample(BUNDLES, seed=1))
        assert summary.exit_code is Exit.DONE
        assert len(summary.tally.audit.differing) == BUNDLES
        await stage.finish(sandbox)
        assert len(sandbox.operations) == 2 * BUNDLES


async def _other_rows(stage: Stage, _: str) -> None:
    """Two bundles are exported, then two more, and then the service delivers the right rows."""

    async def checked() -> list[Any]:
        return [type(one) async for one in verify(stage.directory)]

    async with serving(replace(CALM, faults=(SandboxFault("operation", "other-rows"),))) as sandbox:
        first = await run(sandbox, stage.directory, start=START, end=HALF_WAY)
        assert first.exit_code is Exit.DONE
        assert len(sandbox.operations) == 2 + 2
        assert await checked() == [Intact, Intact, RulesOff]
        viewer = Notebook()
        assert (await stage.run(sandbox, viewer=viewer)).exit_code is Exit.DONE
        assert len(sandbox.operations) == 2 + 2 + 2
        assert sum("EventStart" in one["message"] for one in viewer.of("note")) == 1
        assert await checked() == [Intact] * BUNDLES + [RulesOff]
        sandbox.behave(CALM)
        with LedgerReader(stage.directory) as ledger:
            newest = list(ledger.stored("everyone-events", ALL_TIME))[2:]
        # One of the right files has far fewer rows than the wrong archive, and must replace it all the same.
        await stage.run(sandbox, kind=Repair, bundles=tuple(newest))
        found = [one async for one in verify(stage.directory)]
        broken = tuple(one.record for one in found if isinstance(one, Broken))
        assert len(broken) == 2
        await stage.run(sandbox, kind=Repair, bundles=broken)
        assert await checked() == [Intact] * BUNDLES
        await stage.finish(sandbox)


async def _two(stage: Stage, _: str) -> None:
    async with serving(CALM) as sandbox:
        with hold(stage.directory, command="nightly"):
            summary = await stage.run(sandbox)
        assert summary.exit_code is Exit.LOCKED
        assert f"nightly, process {os.getpid()}" in str(summary.error)
        assert sum(sandbox.counts.values()) == 0
        await stage.finish(sandbox)


async def _joined(stage: Stage, _: str) -> None:
    async with serving(replace(CALM, operation_seconds=1.0)) as sandbox, _process(stage, sandbox) as process:
        while sandbox.counts["create"] < BUNDLES and process.returncode is None:  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)
        viewer = Notebook()
        settings = settings_for(sandbox, stage.directory, {"nightly": {"since": START}})
        waiting = asyncio.create_task(
            export_or_join(
                settings,
                Nightly(settings.exports, moment(END)),
                key=ApiKey(sandbox.key),
                listeners=[viewer.on_event],
                times=JoinTimes(tick=0.1, holder=0.05),
            )
        )
        while not viewer.of("joining"):  # noqa: ASYNC110 - it joins once it has found the lock held
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        summary = await waiting
        assert summary.exit_code is Exit.DONE
        assert summary.joined is not None
        assert BUNDLES <= len(sandbox.operations) <= BUNDLES + summary.tally.possible_duplicates
        await stage.finish(sandbox)


async def _signal(stage: Stage, names: str) -> None:
    signals = [signal.Signals[name] for name in names.split(":")]
    async with serving(replace(CALM, operation_seconds=60, operation_sigma=0.01)) as sandbox:
        async with _process(stage, sandbox) as process:
            while sandbox.counts["create"] < BUNDLES and process.returncode is None:  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.01)
            for one in signals:
                process.send_signal(one)
            errors = (await process.communicate())[1]
        assert process.returncode == (130 if signals[0] is signal.SIGINT else 143), errors
        assert b"Traceback" not in errors
        with LedgerReader(stage.directory) as ledger:
            (overview,) = ledger.overviews()
        assert len(overview.unfinished) == len(sandbox.operations) == BUNDLES
        sandbox.skip(3600)
        await stage.finish(sandbox)
        assert len(sandbox.operations) == BUNDLES


async def _closed_stdout(stage: Stage, _: str) -> None:
    async with serving(CALM) as sandbox:
        reader, writer = os.pipe()
        os.close(reader)
        async with _process(stage, sandbox, "--json", stdout=writer) as process:
            os.close(writer)
            errors = (await process.communicate())[1]
        assert b"Traceback" not in errors
        assert b"BrokenPipe" not in errors
        await stage.finish(sandbox)
        assert len(sandbox.operations) == BUNDLES


@asynccontextmanager
async def _process(
    stage: Stage, sandbox: Sandbox, *options: str, stdout: int = subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command in its own process."""
    stage.folder.joinpath("within").mkdir()
    config = stage.folder / "config.toml"
    config.write_text(
        f'api.base_url = "{sandbox.url}"\noutput.directory = "{stage.directory}"\noutput.grace = "1s"\n'
        f"budget.requests_per_minute = {QUICK['budget']['requests_per_minute']:.0f}\nbudget.burst = 10000\n"
        f'polling.min_interval = "20ms"\npolling.expected = "50ms"\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "asyncexport", "-c", str(config), *options, "backfill", "--start", START, "--end", END),
        env={**os.environ, "FULLSTORY_API_KEY": sandbox.key, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextmanager
def _mounted(folder: Path, *, size: str, options: str = "rw") -> Iterator[Path]:
    """Mount a small disk; only root may do so."""
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs root to mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},{options}", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class _OpenGate:
    """A budget gate without a limit, and its permits."""

    @asynccontextmanager
    async def permit(self, *_: Any) -> AsyncIterator["_OpenGate"]:
        yield self

    async def recorded(self) -> None:
        """Record nothing."""

    def answered(self, *_: Any, **__: Any) -> None:
        """Count nothing."""


async def _echo(stage: Stage, _: str) -> None:
    """Every third answer repeats the key; two in a row would look like an outage."""
    faults = (SandboxFault.parse("api:echo-key,every=3"),)
    async with serving(replace(CALM, faults=faults)) as sandbox:
        viewer = Notebook()
        summary = await stage.run(sandbox, viewer=viewer)
        assert summary.exit_code is Exit.DONE
        shown = repr((viewer.events, viewer.snapshots, summary))
        assert "so was ***" in shown
        files = [path.read_bytes() for path in stage.folder.rglob("*") if path.is_file()]
        for secret in (sandbox.key, sandbox.key.partition(".")[2]):
            assert secret not in shown
            assert not any(secret.encode() in text for text in files)
        await stage.finish(sandbox)


async def _monitoring(stage: Stage, detail: str) -> None:
    """The run is reported as `[metrics]` and `[ping]` say, which fails; every message is collected."""
    changes: dict[str, dict[str, Any]] = {}
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(serving(CALM))
        answers = {
            "ping-silent": raw_server.stays_silent_after(),
            "ping-503": raw_server.sends(b"HTTP/1.1 503 Busy\r\n\r\n"),
        }
        match detail:
            case "port":
                taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                changes["metrics"] = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
            case "textfile":
                changes["metrics"] = {"textfile": str(stage.folder / "missing" / "asyncexport.prom")}
            case "ping-refused":
                changes["ping"] = {"url": "http://127.0.0.1:1/secret"}
            case _:
                server = await stack.enter_async_context(raw_server.serving(answers[detail]))
                changes["ping"] = {"url": f"{server.url}/secret", "timeout": "500ms"}
        settings = settings_for(sandbox, stage.directory, changes)
        spec = Backfill(settings.exports, moment(START), moment(END))
        with messages("asyncexport.run") as lines:
            began = asyncio.get_running_loop().time()
            summary = await monitored(settings, spec, lambda: stage.run(sandbox), key=ApiKey(sandbox.key))
            seconds = asyncio.get_running_loop().time() - began - summary.seconds
        assert summary.exit_code is Exit.DONE
        assert summary.tally.stored == BUNDLES
        assert len(lines) == 1, lines
        assert "secret" not in lines[0]
        assert seconds < 5
        await stage.finish(sandbox)


@contextmanager
def messages(logger: str) -> Iterator[list[str]]:
    """Collect the warnings of a logger."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logging.getLogger(logger).addHandler(collector)
    try:
        yield found
    finally:
        logging.getLogger(logger).removeHandler(collector)


SCENES: dict[str, Any] = {
    "monitoring": _monitoring,
    "echo": _echo,
    "huge": _huge,
    "outage": _outage,
    "night": _night,
    "first-contact": _first_contact,
    "refused": _refused,
    "unresolvable": _unresolvable,
    "shared": _shared,
    "same-id": _same_id,
    "other-export": _other_export,
    "drip": _drip,
    "certificate": _certificate,
    "write": _write,
    "small-disk": _small_disk,
    "inodes": _inodes,
    "read-only": _read_only,
    "odd": _odd,
    "goes-away": _goes_away,
    "in-place": _in_place,
    "linked": _linked,
    "no-lock": _no_lock,
    "deleted": _deleted,
    "ledger": _ledger,
    "organisation": _organisation,
    "clock": _clock,
    "far": _far,
    "early": _early,
    "still": _still,
    "jump": _jump,
    "refresh": _refresh,
    "same-rows": _same_rows,
    "late-rows": _late_rows,
    "other-rows": _other_rows,
    "two": _two,
    "joined": _joined,
    "signal": _signal,
    "closed-stdout": _closed_stdout,
}
