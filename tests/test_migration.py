"""A version 1 ledger can be read as it is, is migrated by the first run, and survives a crash during migration."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from asyncexport.core.bundles import ALL_TIME
from asyncexport.core.exits import Exit
from asyncexport.core.states import FewerRows
from asyncexport.errors import LedgerCorruptError, LedgerError, StorageError
from asyncexport.ledger import Ledger, LedgerReader, RunRecord
from asyncexport.ledger.files import ledger_path
from asyncexport.ledger.migration import copy_path
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import run
from tests.failpoints import at_failpoints
from tests.ledger_rig import Boundary, answers, bundle, read
from tests.ledger_version_1 import BUNDLES, verdict_of_version_1, write_ledger

ROOT = Path(__file__).parents[1]

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4, requests_per_minute=1e6, burst=10_000)

LAST_RUN = json.dumps({"command": "nightly", "began": 5.0, "ended": 6.0, "exit_code": 3, "error": "gone"})

FAILPOINTS = ("ledger.copy:before", "ledger.copy:after", "ledger.migrate:before", "ledger.migrate:after")

KILLED = """
import asyncio, os, pathlib, signal, sys
from asyncexport.ledger import Ledger
from tests.failpoints import at_failpoints

def kill(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

async def migrate():
    with at_failpoints(kill):
        await Ledger.open(pathlib.Path(sys.argv[1]))

asyncio.run(migrate())
"""


def of_bundles(found):
    """Return the answers about bundles, requests and durations: everything that version 1 recorded."""
    return found[:8]


def read_checked(directory):
    """Check the complete ledger, then return everything it answers."""
    with LedgerReader(directory) as ledger:
        ledger.check()
        return answers(ledger)


async def migrated(directory):
    """Open the ledger as a run does, and close it again."""
    await (await Ledger.open(directory)).close()


def files_of_the_ledger(directory):
    return {path.name for path in ledger_path(directory).parent.iterdir()}


async def test_a_reader_reads_both_versions_and_migrates_nothing(tmp_path):
    """`status`, `plan` and `verify` see the same before and after the migration, and leave the old ledger unchanged."""
    path = write_ledger(tmp_path, remarks={"last_run": LAST_RUN})
    before = path.read_bytes(), files_of_the_ledger(tmp_path)
    found = read_checked(tmp_path)
    assert (path.read_bytes(), files_of_the_ledger(tmp_path)) == before
    with LedgerReader(tmp_path) as ledger:
        assert ledger.last_run() == RunRecord("nightly", 5.0, "", 6.0, 3, "gone")
        assert (ledger.hours(), ledger.accepted(), ledger.bundles_of_operation("operation-1")) == ([], [], ())
    await migrated(tmp_path)
    assert of_bundles(read_checked(tmp_path)) == of_bundles(found)


async def test_a_migrated_ledger_knows_what_the_old_one_knew(tmp_path):
    """Bundle states, service ids, notes and the outcome of the last run survive the migration."""
    write_ledger(tmp_path, remarks={"last_run": LAST_RUN})
    await migrated(tmp_path)
    with LedgerReader(tmp_path) as ledger:
        for number in range(BUNDLES):
            one = bundle(number, ("events", "people")[number % 2])
            steps = 1 + number % 4 if number >= BUNDLES * 2 // 3 else 4
            name = f"operation-{number}"
            assert ledger.bundles_of_operation(name) == ((one,) if steps > 1 else ())
            assert ledger.bundles_of_export(name) == ((one,) if steps > 2 else ())
        assert ledger.runs() == [RunRecord("nightly", 5.0, "", 6.0, 3, "gone")]
        assert ledger.recall("last_run") is None
        assert ledger.recall("nightly_since") == "1700000000"
        kept = [one for one in ledger.unfinished("people", ALL_TIME) if one.kept]
        assert [(one.state, one.revision) for one in kept] == [(FewerRows(rows_before=120, rows_found=0), 1)]
        assert ledger.recorded_range("people", ALL_TIME).parked[kept[0].bundle].times == 1
        archives = [one.stored for one in ledger.stored("events", ALL_TIME)]
        assert archives
        assert all(archive and archive.asked_at is None and archive.settle_seconds == 0 for archive in archives)


async def test_the_old_program_calls_a_new_ledger_newer_and_not_damaged(tmp_path):
    """The version 1 program recognises migrated and new ledgers as newer, and can use the copy of the old one."""
    write_ledger(tmp_path / "old")
    assert verdict_of_version_1(tmp_path / "old") == "ledger"
    await migrated(tmp_path / "old")
    assert verdict_of_version_1(tmp_path / "old") == "newer"
    await migrated(tmp_path / "new")
    assert verdict_of_version_1(tmp_path / "new") == "newer"
    path = ledger_path(tmp_path / "old")
    copy_path(path).rename(path)
    assert verdict_of_version_1(tmp_path / "old") == "ledger"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE state SET written_at = 1 WHERE seq = 1",
        "DELETE FROM duration WHERE seq = 3",
        "DELETE FROM bundle WHERE start = 0",
        "UPDATE head SET digest = 0",
        "PRAGMA user_version = 2",
    ],
)
async def test_a_damaged_ledger_is_not_migrated(tmp_path, damage):
    """A damaged ledger is left unchanged, even if only its history is damaged, and the hint names the repair."""
    path = write_ledger(tmp_path, damage=damage)
    before = path.read_bytes()
    with pytest.raises(LedgerCorruptError) as raised:
        await migrated(tmp_path)
    assert "verify --rebuild" in raised.value.hint
    assert path.read_bytes() == before
    assert not copy_path(path).exists()


def test_differing_version_numbers_are_damage(tmp_path):
    """A ledger whose head and file header disagree on the version is damaged: one transaction writes both."""
    path = write_ledger(tmp_path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("ALTER TABLE state RENAME COLUMN take TO revision")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(LedgerCorruptError):
        read(tmp_path)


async def test_the_copy_of_the_old_ledger_is_deleted_after_a_successful_run(tmp_path):
    """The migration keeps a copy that only its owner can read, until a run has succeeded."""
    path = write_ledger(tmp_path)
    found = read_checked(tmp_path)
    await migrated(tmp_path)
    assert oct(copy_path(path).stat().st_mode & 0o777) == "0o600"
    old = tmp_path / "old" / ".asyncexport" / "ledger.sqlite3"
    old.parent.mkdir(parents=True)
    shutil.copy(copy_path(path), old)
    assert read_checked(tmp_path / "old") == found
    async with serving(FAST) as sandbox:
        summary = await run(sandbox, tmp_path, end="2026-01-01T00:30:00Z", key="na1.another")
        assert summary.exit_code == Exit.KEY_REFUSED
        assert copy_path(path).exists()
        summary = await run(sandbox, tmp_path, end="2026-01-01T00:30:00Z")
    assert summary.exit_code == Exit.DONE
    assert files_of_the_ledger(tmp_path) == {"ledger.sqlite3", "ledger.sqlite3-mark", "lock"}


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_kill_during_the_migration_loses_nothing(tmp_path, failpoint):
    """After a kill the ledger is completely of one version or the other, and the next run finishes the migration."""
    write_ledger(tmp_path)
    found = read_checked(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path, failpoint], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    version = "newer" if failpoint == "ledger.migrate:after" else "ledger"
    assert verdict_of_version_1(tmp_path) == version
    assert of_bundles(read_checked(tmp_path)) == of_bundles(found)
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, "nowhere"], cwd=ROOT, check=True)
    assert verdict_of_version_1(tmp_path) == "newer"
    assert of_bundles(read_checked(tmp_path)) == of_bundles(found)
    copy = copy_path(ledger_path(tmp_path))
    assert copy.exists()
    assert not [name for name in files_of_the_ledger(tmp_path) if name.startswith(f"{copy.name}.new")]


@pytest.mark.parametrize("failpoint", FAILPOINTS[:3])
async def test_a_full_disk_leaves_the_old_ledger(tmp_path, failpoint):
    """If the disk is full at any step of the migration, the old ledger stays unchanged."""
    path = write_ledger(tmp_path)
    before = path.read_bytes()
    with (
        at_failpoints(Boundary(fails={failpoint: OSError(28, "No space left on device")})),
        pytest.raises(StorageError, match="full"),
    ):
        await migrated(tmp_path)
    assert path.read_bytes() == before
    assert verdict_of_version_1(tmp_path) == "ledger"
    await migrated(tmp_path)
    assert verdict_of_version_1(tmp_path) == "newer"


async def test_a_migrated_ledger_can_be_appended_to(tmp_path):
    """New entries join the old ones after the migration, and the high-water mark keeps counting."""
    write_ledger(tmp_path)
    ledger = await Ledger.open(tmp_path)
    ledger.begin_run(RunRecord("backfill", 7.0))
    ledger.answered(await ledger.send("create", at=7200.0), status=201)
    await ledger.close()
    found = read_checked(tmp_path)
    assert (len(found[1]), found[8], found[9][0].requests) == (BUNDLES + 1, [RunRecord("backfill", 7.0)], 1)
    os.truncate(ledger_path(tmp_path), 0)
    with pytest.raises(LedgerError):
        read(tmp_path)
