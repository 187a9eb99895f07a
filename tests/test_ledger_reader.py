"""Reading the ledger during a run, and the files of the ledger."""

import asyncio
import gc
import os
import sqlite3
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from asyncexport.core.bundles import ALL_TIME, Range
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.errors import LedgerError, StorageError
from asyncexport.ledger import Ledger, LedgerReader, present, set_aside
from asyncexport.ledger.files import ledger_path, mark_path
from tests.ledger_rig import (
    EXPORTS,
    WAL,
    answers,
    bundle,
    creating,
    fill,
    give_to_other_user,
    read,
    usual_states,
    without_permissions,
)
from tests.ledger_scribe import BUNDLES_AT_ONCE, Scribe


async def opened(directory):
    ledger = await Ledger.open(directory)
    await ledger.register(EXPORTS)
    return ledger


async def test_a_reader_sees_consistent_states_during_a_run(tmp_path):
    """Each answer is a snapshot: the numbers of stored and unfinished bundles add up at any time."""
    ledger = await opened(tmp_path)
    for number in range(50):
        await ledger.append(creating(number), at=1.0)
    ended = threading.Event()
    records_read = []

    def read_until_ended():
        with LedgerReader(tmp_path) as reader:
            while True:
                over = ended.is_set()
                records_read.append(reader.recorded_range("events", ALL_TIME))
                if over:
                    return

    reading = asyncio.create_task(asyncio.to_thread(read_until_ended))
    for number in range(50):
        for state in usual_states(number)[1:]:
            archived = state if isinstance(state, Stored) else None
            await ledger.append(BundleRecord(bundle(number), 0, state, archived), at=1.0)
    ended.set()
    await reading
    await ledger.close()
    assert all(len(one.unfinished) + one.stored_before == 50 for one in records_read)
    assert [one.stored_before for one in records_read] == sorted(one.stored_before for one in records_read)
    assert records_read[-1].stored_before == 50


async def test_reading_changes_no_file(tmp_path):
    """There is no new row, no checkpoint and, after a run that ended normally, no new file."""
    ledger = await Ledger.open(tmp_path)
    await fill(ledger)
    log = (tmp_path / WAL).stat().st_size
    size = ledger_path(tmp_path).stat().st_size
    during = read(tmp_path)
    assert (tmp_path / WAL).stat().st_size == log
    assert ledger_path(tmp_path).stat().st_size == size
    await ledger.close()
    content = ledger_path(tmp_path).read_bytes()
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert read(tmp_path) == during
    assert ledger_path(tmp_path).read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == names


async def test_a_reader_cannot_write(tmp_path):
    """SQLite itself rejects any change through a reader's connection."""
    ledger = await Ledger.open(tmp_path)
    await fill(ledger)
    for _ in ("during a run", "after it"):
        with LedgerReader(tmp_path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM state")
        await ledger.close()


@pytest.fixture
def folder():
    """A folder that a user without permissions may enter, and that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="asyncexport-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for path in (Path(name), *Path(name).rglob("*")):
            if path.is_dir():
                path.chmod(0o700)


async def test_a_ledger_can_be_read_without_write_permission(folder):
    """This holds after a run that ended normally or was killed, and nothing is left behind."""
    for crashed in (False, True):
        directory = folder / f"exports-{crashed}"
        ledger = await Ledger.open(directory)
        await fill(ledger)
        truth = await ledger._read(answers)
        if crashed:
            kept = {path.name: path.read_bytes() for path in (directory / ".asyncexport").iterdir()}
            await ledger.close()
            for name, content in kept.items():
                if not name.endswith("-shm"):
                    (directory / ".asyncexport" / name).write_bytes(content)
        else:
            await ledger.close()
        give_to_other_user(directory)
        (directory / ".asyncexport").chmod(0o500)
        before = sorted(path.name for path in directory.rglob("*"))
        with without_permissions():
            assert read(directory) == truth
        assert sorted(path.name for path in directory.rglob("*")) == before


@pytest.mark.slow
def test_a_copied_ledger_is_consistent(folder):
    """If the index of the log cannot be read, the reader uses a copy, which is consistent during the fastest run."""
    with Scribe(folder, pages=30) as scribe:
        scribe.wait_for(1)
        give_to_other_user(folder)
        (folder / ".asyncexport").chmod(0o500)
        (folder / ".asyncexport" / "ledger.sqlite3-shm").chmod(0)
        seen = [0]
        for _ in range(30):
            acknowledged = len(scribe.acknowledged)
            with without_permissions(), LedgerReader(folder) as reader:
                recorded = reader.recorded_range("events", ALL_TIME)
                assert len(reader.requests_since(0.0)) >= acknowledged // BUNDLES_AT_ONCE
            assert recorded.covered == (Range(0, recorded.stored_before * 1800),)
            assert recorded.stored_before >= max(acknowledged, seen[-1])
            seen.append(recorded.stored_before)
    assert seen[-1] > seen[1]


def test_a_missing_ledger_is_an_error(tmp_path):
    """Reading creates no ledger."""
    assert not present(tmp_path)
    with pytest.raises(LedgerError, match="no ledger") as caught:
        LedgerReader(tmp_path)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_directory_without_permission_is_a_storage_error(folder):
    """This holds for the check for a ledger and for a reader."""
    (folder / ".asyncexport").mkdir(mode=0o000)
    with without_permissions():
        for ask in (present, LedgerReader):
            with pytest.raises(StorageError, match="Permission denied"):
                ask(folder)


async def test_the_ledger_is_private(tmp_path):
    """Regardless of the umask files are 0600 in a folder of 0700, and open modes of an older ledger are restricted."""
    before = os.umask(0)
    try:
        ledger = await opened(tmp_path / "exports")
        names = {path.name for path in (tmp_path / "exports" / ".asyncexport").iterdir()}
        assert names == {"ledger.sqlite3", *(f"ledger.sqlite3{suffix}" for suffix in ("-wal", "-shm", "-mark"))}
        for path in (tmp_path / "exports").rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        await ledger.close()
        ledger_path(tmp_path / "exports").chmod(0o644)
        (tmp_path / "exports" / ".asyncexport").chmod(0o755)
        await _create_and_close(tmp_path / "exports")
    finally:
        os.umask(before)
    for path in (tmp_path / "exports").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@pytest.mark.slow
async def test_no_file_is_left_open(tmp_path):
    """The number of open files is the same before and after a run and a reader."""

    def count():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    await _create_and_close(tmp_path)
    before = count()
    for _ in range(3):
        ledger = await opened(tmp_path)
        await ledger.append(creating(0), at=1.0)
        await ledger.close()
        read(tmp_path)
    assert count() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "ledger"]


async def test_a_damaged_ledger_is_moved_aside(tmp_path):
    """It gets the next free name together with its side files, and a new ledger can be created."""
    for number in (1, 2):
        ledger = await opened(tmp_path)
        await ledger.append(creating(number), at=1.0)
        await ledger.close()
        content = ledger_path(tmp_path).read_bytes()
        mark = mark_path(ledger_path(tmp_path)).read_bytes()
        aside = set_aside(tmp_path)
        assert aside is not None
        assert aside.name == f"ledger.sqlite3.damaged-{number}"
        assert aside.read_bytes() == content
        assert mark_path(aside).read_bytes() == mark
        assert not present(tmp_path)
        assert not mark_path(ledger_path(tmp_path)).exists()


async def _create_and_close(directory):
    await (await Ledger.open(directory)).close()
