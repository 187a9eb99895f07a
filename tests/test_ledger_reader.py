"""Reading the ledger beside a run, and the files it is made of."""

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
    given_away,
    read,
    road,
    without_rights,
)
from tests.ledger_scribe import BUNDLES_AT_ONCE, Scribe


async def opened(directory):
    ledger = await Ledger.open(directory)
    await ledger.register(EXPORTS)
    return ledger


async def test_reading_goes_on_beside_a_run_and_sees_whole_moments(tmp_path):
    """Each answer is of one moment: what is stored and what is not add up, whatever a run does meanwhile."""
    ledger = await opened(tmp_path)
    for number in range(50):
        await ledger.append(creating(number), at=1.0)
    ended = threading.Event()
    stocks = []

    def look():
        with LedgerReader(tmp_path) as reader:
            while True:
                over = ended.is_set()
                stocks.append(reader.stock("events", ALL_TIME))
                if over:
                    return

    looking = asyncio.create_task(asyncio.to_thread(look))
    for number in range(50):
        for state in road(number)[1:]:
            archived = state if isinstance(state, Stored) else None
            await ledger.append(BundleRecord(bundle(number), 0, state, archived), at=1.0)
    ended.set()
    await looking
    await ledger.close()
    assert all(len(one.unfinished) + one.stored_before == 50 for one in stocks)
    assert [one.stored_before for one in stocks] == sorted(one.stored_before for one in stocks)
    assert stocks[-1].stored_before == 50


async def test_reading_changes_nothing(tmp_path):
    """No row, no checkpoint, and where a run ended well, no file that was not there before."""
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


async def test_nobody_who_reads_can_write(tmp_path):
    """Whatever a reader is asked, SQLite itself would refuse to change anything."""
    ledger = await Ledger.open(tmp_path)
    await fill(ledger)
    for _ in ("during a run", "after it"):
        with LedgerReader(tmp_path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM state")
        await ledger.close()


@pytest.fixture
def folder():
    """A folder that a user without rights may come to, and from which it is taken away in the end."""
    with tempfile.TemporaryDirectory(prefix="asyncexport-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for path in (Path(name), *Path(name).rglob("*")):
            if path.is_dir():
                path.chmod(0o700)


async def test_a_ledger_can_be_read_where_nothing_may_be_written(folder):
    """On a read-only disk, after a run that ended well or was killed; nothing is left behind."""
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
        given_away(directory)
        (directory / ".asyncexport").chmod(0o500)
        before = sorted(path.name for path in directory.rglob("*"))
        with without_rights():
            assert read(directory) == truth
        assert sorted(path.name for path in directory.rglob("*")) == before


@pytest.mark.slow
def test_a_copy_is_of_one_moment(folder):
    """Where even the log's index may not be looked at, a copy is read, which is whole however fast a run goes on."""
    with Scribe(folder, pages=30) as scribe:
        scribe.wait_for(1)
        given_away(folder)
        (folder / ".asyncexport").chmod(0o500)
        (folder / ".asyncexport" / "ledger.sqlite3-shm").chmod(0)
        seen = [0]
        for _ in range(30):
            acknowledged = len(scribe.acknowledged)
            with without_rights(), LedgerReader(folder) as reader:
                stock = reader.stock("events", ALL_TIME)
                assert len(reader.requests_since(0.0)) >= acknowledged // BUNDLES_AT_ONCE
            assert stock.covered == (Range(0, stock.stored_before * 1800),)
            assert stock.stored_before >= max(acknowledged, seen[-1])
            seen.append(stock.stored_before)
    assert seen[-1] > seen[1]


def test_where_there_is_no_ledger_it_says_so(tmp_path):
    """Reading makes none."""
    assert not present(tmp_path)
    with pytest.raises(LedgerError, match="no ledger") as told:
        LedgerReader(tmp_path)
    assert told.value.hint
    assert not list(tmp_path.iterdir())


def test_what_may_not_be_looked_at_is_no_bug(folder):
    """A directory of somebody else is an error of the disk, for whoever asks."""
    (folder / ".asyncexport").mkdir(mode=0o000)
    with without_rights():
        for ask in (present, LedgerReader):
            with pytest.raises(StorageError, match="Permission denied"):
                ask(folder)


async def test_the_ledger_is_for_its_owner_alone(tmp_path):
    """Whatever the umask: 0600 in a folder of 0700, side files included; what was open is closed again."""
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
        await _made(tmp_path / "exports")
    finally:
        os.umask(before)
    for path in (tmp_path / "exports").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@pytest.mark.slow
async def test_nothing_is_left_open(tmp_path):
    """As many files are open after a run and a look as were before."""

    def count():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    await _made(tmp_path)
    before = count()
    for _ in range(3):
        ledger = await opened(tmp_path)
        await ledger.append(creating(0), at=1.0)
        await ledger.close()
        read(tmp_path)
    assert count() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "ledger"]


async def test_a_damaged_ledger_is_moved_aside_and_kept(tmp_path):
    """Under the next free name, with all that belongs to it; then a new one can be made."""
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


async def _made(directory):
    await (await Ledger.open(directory)).close()
