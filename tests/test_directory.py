"""An output directory as a whole: archives without a ledger, permissions, and limits of its file system."""

import asyncio
import errno
import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from asyncexport.core.bundles import ALL_TIME
from asyncexport.core.summary import Exit
from asyncexport.errors import LedgerError, LedgerLockedError, StorageError
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.verify import verify
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import Notebook, archives, run
from tests.handles import handles_left
from tests.ledger_rig import EXPORTS, creating

ARCHIVE = "everyone-events/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson.gz"
DEFINITION = "everyone-events/.export.json"
LEDGER = ".asyncexport/ledger.sqlite3"

FAST = SandboxBehaviour(operation_seconds=0.01, rows_per_hour=6, requests_per_minute=1e6, burst=10_000)
START, HALF, END = "2026-01-06T00:00:00Z", "2026-01-06T00:30:00Z", "2026-01-06T01:00:00Z"


def directory_of(place: Path, *paths: str) -> Path:
    """Create an output directory that contains these files."""
    for path in paths:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).touch()
    return place


@pytest.mark.parametrize(
    "paths",
    [
        (),
        ("everyone-events/date=2026-01-01/other.gz",),
        (DEFINITION,),
        (f"{LEDGER}-wal",),
        (f"{LEDGER}.damaged-1",),
        (".asyncexport/lock", DEFINITION),
        (LEDGER, ARCHIVE, DEFINITION, f"{LEDGER}.damaged-1"),
    ],
)
def test_a_new_directory_and_a_complete_one_are_no_fault(tmp_path, paths):
    """An empty directory, a definition or remains alone, and a directory with its ledger all pass."""
    check_ledger_not_lost(directory_of(tmp_path / "out", *paths))


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ((ARCHIVE,), "archives"),
        ((ARCHIVE, DEFINITION, f"{LEDGER}-wal"), "archives"),
        ((DEFINITION, f"{LEDGER}-wal"), "remains of a ledger"),
        ((DEFINITION, f"{LEDGER}.damaged-2", f"{LEDGER}.damaged-2-mark"), "remains of a ledger"),
    ],
)
async def test_a_lost_ledger_is_reported(tmp_path, paths, found):
    """The error names what was found and the command that helps, in a run and in `verify` alike."""
    directory = directory_of(tmp_path / "out", *paths)
    with pytest.raises(LedgerError, match=f"out contains {found} but no ledger") as caught:
        check_ledger_not_lost(directory)
    assert "verify --rebuild" in caught.value.hint
    with pytest.raises(LedgerError, match=f"out contains {found} but no ledger"):
        [finding async for finding in verify(directory)]


# Permissions


def open_to_others(directory: Path) -> set[bool]:
    """Return, for the directory and all in it, whether other users than the owner have any permission."""
    return {bool(stat.S_IMODE(path.stat().st_mode) & 0o077) for path in (directory, *directory.rglob("*"))}


async def test_a_new_directory_is_private(tmp_path):
    """The directory and every file in it are private regardless of the umask, and no note is logged."""
    before, viewer = os.umask(0o000), Notebook()
    try:
        async with serving(FAST) as sandbox:
            await run(sandbox, tmp_path / "out", start=START, end=END, viewer=viewer)
    finally:
        os.umask(before)
    assert len(archives(tmp_path / "out")) == 2
    assert open_to_others(tmp_path / "out") == {False}
    assert viewer.of("note") == []


async def test_an_open_directory_stays_open_and_is_reported_once(tmp_path):
    """One note says that others may read it; after `access = "private"` new archives are private."""
    noted = []
    async with serving(FAST) as sandbox:
        for changes, end in (({"output": {"access": "umask"}}, HALF), ({}, END), ({}, "2026-01-06T01:30:00Z")):
            viewer = Notebook()
            await run(sandbox, tmp_path / "out", start=START, end=end, changes=changes, viewer=viewer)
            noted.append([note["message"] for note in viewer.of("note")])
        assert [len(notes) for notes in noted] == [0, 1, 0]
        assert "other users may read" in noted[1][0]
        private = {"output": {"access": "private"}}
        await run(sandbox, tmp_path / "out", start=START, end="2026-01-06T02:00:00Z", changes=private)
    opened = [bool(path.stat().st_mode & 0o077) for path in archives(tmp_path / "out")]
    assert opened == [True, True, True, False]


# Files that disappear during a run


@pytest.mark.parametrize(
    ("gone", "code", "message"),
    [
        ("folder", Exit.LEDGER, "ledger .* was removed"),
        ("ledger", Exit.LEDGER, "ledger .* was removed"),
        ("replaced", Exit.LEDGER, "was replaced by another"),
        ("directory", Exit.DISK, "out disappeared"),
        ("moved", Exit.DISK, "out disappeared"),
    ],
)
async def test_a_ledger_or_directory_that_disappears_ends_the_run(tmp_path, gone, code, message):
    """The run stops instead of spending quota, creates nothing again, and the error says what disappeared."""
    directory, commits = tmp_path / "out", 0
    ledger = directory / LEDGER

    def boundary(name: str) -> None:
        nonlocal commits
        commits += name == "ledger.commit:after"
        if name != "ledger.commit:after" or commits != 6:
            return
        match gone:
            case "folder":
                shutil.rmtree(ledger.parent)
            case "ledger":
                ledger.unlink()
            case "replaced":
                shutil.copy(ledger, tmp_path / "copy")
                (tmp_path / "copy").replace(ledger)
            case "directory":
                shutil.rmtree(directory, ignore_errors=True)
            case _:
                directory.rename(tmp_path / "elsewhere")

    async with serving(FAST) as sandbox:
        summary = await run(sandbox, directory, start=START, end="2026-01-06T12:00:00Z", boundary=boundary)
        assert summary.exit_code is code
        assert re.search(message, str(summary.error))
        assert summary.error is not None
        assert summary.error.hint
        assert sandbox.counts["create"] < 24
    assert directory.exists() is (gone not in ("directory", "moved"))


async def test_two_runs_with_the_same_ledger_do_not_overwrite_each_other(tmp_path):
    """Where file locks have no effect, the run that finds rows of the other ends, and the ledger stays consistent."""
    ledgers = [await Ledger.open(tmp_path) for _ in range(2)]
    one, other = ledgers
    await one.register(EXPORTS)
    with pytest.raises(LedgerLockedError, match="another run writes"):
        await other.register(EXPORTS)
    await one.append(creating(0), at=1.0)
    for ledger in ledgers:
        await ledger.close()
    with LedgerReader(tmp_path) as reader:
        reader.check()
        assert list(reader.unfinished("events", ALL_TIME)) == [creating(0)]


async def test_a_part_file_replaced_by_another_run_ends_the_run(tmp_path):
    """No unchecked file gets a final name, the error says what happened, and the same command resumes afterwards."""
    met = False

    def boundary(name: str) -> None:
        nonlocal met
        if name == "part.fsync:after" and not met:
            met = True
            for part in tmp_path.glob("*/date=*/.*.part"):
                part.unlink()
                part.write_bytes(b"of another")

    async with serving(FAST) as sandbox:
        summary = await run(sandbox, tmp_path, start=START, end=HALF, boundary=boundary)
        assert summary.exit_code is Exit.LOCKED
        assert "two runs write" in str(summary.error)
        assert all(path.read_bytes() != b"of another" for path in archives(tmp_path))
        assert (await run(sandbox, tmp_path, start=START, end=HALF)).exit_code is Exit.DONE
    assert len(archives(tmp_path)) == 1


def test_running_out_of_file_handles_is_not_reported_as_a_full_disk(tmp_path):
    """However few handles are left, the error names their limit; SQLite only says that it cannot open the file."""
    asyncio.run(_an_empty_ledger(tmp_path))
    messages = []
    for count in range(8):
        try:
            with handles_left(count), LedgerReader(tmp_path) as reader:
                reader.check()
        except StorageError as error:
            messages.append(str(error))
    assert messages
    assert all("reached its limit of open files" in one for one in messages), messages
    with LedgerReader(tmp_path) as reader:
        reader.check()


async def _an_empty_ledger(directory: Path) -> None:
    await (await Ledger.open(directory)).close()


# Limits of the file system


async def test_a_file_system_that_cannot_fsync_folders_is_reported_and_used(tmp_path):
    """The run completes, and a note says what a power cut may do."""

    def boundary(name: str) -> None:
        if name.endswith("folder.fsync:before"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    viewer = Notebook()
    async with serving(FAST) as sandbox:
        summary = await run(sandbox, tmp_path, start=START, end=END, viewer=viewer, boundary=boundary)
    assert summary.exit_code is Exit.DONE
    assert len(archives(tmp_path)) == 2
    (note,) = viewer.of("note")
    assert "cannot flush folders" in note["message"]
