"""Archives on a real disk, with every write observed, failed and cancelled."""

import asyncio
import errno
import gzip
import hashlib
import os
import random
import re
import resource
import socket
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.access import Access, access_of
from asyncexport.core.archive.expected_rows import ExpectedRows, RowCheck
from asyncexport.core.archive.proof import BodyProof
from asyncexport.core.archive.wire_hash import WireHashes
from asyncexport.core.bundles import Bundle, Range, show
from asyncexport.core.exports import Definition, Export, Format, Type
from asyncexport.core.states import Archive
from asyncexport.errors import (
    CorruptError,
    FewerRowsError,
    IncompleteError,
    LedgerError,
    LedgerLockedError,
    StorageError,
)
from asyncexport.storage import Archives, ArchiveWriter, archive_path, has_archives
from asyncexport.storage.layout import archive_range
from asyncexport.storage.part_names import ABANDONED_SECONDS, is_rubbish, part_path
from asyncexport.storage.threads import CORES, THREADS
from asyncexport.storage.writer import GATHER_BYTES
from tests.failpoints import at_failpoints

HALF_HOUR = Range(1_767_225_600, 1_767_227_400)
BUNDLE = Bundle("everyone-events", HALF_HOUR)
PATH = "everyone-events/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson.gz"
ROWS = b'{"a":1}\n{"a":2}\n'
BODY = gzip.compress(ROWS, mtime=0)
OTHER = gzip.compress(b'{"a":3}\n', mtime=0)

FOLDERS = ["folder", "folder.fsync"] * 2
WRITES = [*FOLDERS, "part.create", "part.write", "part.fsync", "rename", "folder.fsync"]


@pytest.fixture(autouse=True)
def _never_blocked() -> Iterator[None]:
    """Fail the test if a call of the package blocks the event loop."""
    with blockbuster_ctx("asyncexport"):
        yield


class Watch:
    """Records every write, and can act at each of them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.do: Callable[[str], None] = lambda _: None

    def __call__(self, name: str) -> None:
        """Record a failpoint and act on it, in the thread that writes."""
        self.names.append(name)
        self.do(name)

    @property
    def writes(self) -> list[str]:
        """The writes that were completed."""
        return [name.removesuffix(":after") for name in self.names if name.endswith(":after")]

    def fail(self, at: str, number: int, *, after: int = 0) -> None:
        """Fail at a failpoint with a disk error, after it was passed `after` times."""
        seen = self.names.count(at)

        def failing(name: str) -> None:
            if name == at and self.names.count(at) > seen + after:
                raise OSError(number, os.strerror(number))

        self.do = failing


@pytest.fixture
def watch() -> Watch:
    """Create an observer of the writes."""
    return Watch()


@pytest.fixture
async def archives(tmp_path: Path, watch: Watch) -> AsyncIterator[Archives]:
    """Open archives in an output directory."""
    with at_failpoints(watch):
        found = Archives(tmp_path / "out")
    async with found:
        yield found


@pytest.fixture
def _not_as_root(tmp_path: Path) -> Iterator[None]:
    """Run as a user who may not write to the folder."""
    tmp_path.chmod(0o500)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65_534)
    yield
    os.seteuid(before)
    tmp_path.chmod(0o700)


def large(size: int) -> bytes:
    """Return a complete body of at least that many bytes."""
    text = random.Random(size).randbytes(size).hex().encode()
    return gzip.compress(b'{"a":"' + text + b'"}\n', 0, mtime=0)


def pieces(body: bytes, size: int = 65_536) -> Iterator[bytes]:
    """Yield the body in pieces, as they arrive from the network."""
    yield from (body[at : at + size] for at in range(0, len(body), size))


async def fill(new_part: ArchiveWriter, body: bytes) -> None:
    """Write the complete body."""
    for piece in pieces(body):
        await new_part.write(piece)


async def keep(archives: Archives, body: bytes = BODY, bundle: Bundle = BUNDLE) -> Archive:
    """Store a complete body as an archive."""
    async with archives.new_part(bundle, Format.NDJSON) as new_part:
        await fill(new_part, body)
        archive = await new_part.commit(BodyProof(end_proved=True))
    assert archive.path == archive_path(bundle, Format.NDJSON)
    return archive


def files(directory: Path) -> dict[str, bytes]:
    """Return all files with their contents, including hidden ones."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


# The order of writes


async def test_an_archive_is_written_synced_renamed_and_synced_again(archives, watch, tmp_path):
    """New folders are synced into their parents, and the file is synced, renamed, and its folder synced."""
    (tmp_path / "out").mkdir()
    seen: dict[str, dict[str, bytes]] = {}
    watch.do = lambda name: seen.setdefault(name, files(tmp_path / "out"))
    found = await keep(archives)
    assert watch.writes == WRITES
    part = str(part_path(Path(PATH)))
    assert seen["part.fsync:before"] == seen["rename:before"] == {part: BODY}
    assert seen["rename:after"] == {PATH: BODY}
    assert (found.bytes, found.rows) == (len(BODY), 2)


async def test_a_large_body_is_written_as_it_arrives(archives, watch, tmp_path):
    """A large body is written in several blocks while it arrives."""
    body = large(3 * GATHER_BYTES)
    async with archives.new_part(BUNDLE, Format.NDJSON) as new_part:
        await fill(new_part, body)
        assert watch.writes.count("part.write") >= 4
        assert new_part.received == len(body)
        await new_part.commit(BodyProof(end_proved=True))
    assert files(tmp_path / "out") == {PATH: body}


async def test_a_new_revision_replaces_the_archive_in_one_rename(archives, watch, tmp_path):
    """The old archive keeps its name until the rename puts the new one there."""
    await keep(archives)
    watch.names.clear()
    seen: dict[str, dict[str, bytes]] = {}
    watch.do = lambda name: seen.setdefault(name, files(tmp_path / "out"))
    await keep(archives, OTHER)
    assert watch.writes == ["part.create", "part.write", "part.fsync", "rename", "folder.fsync"]
    assert seen["rename:before"][PATH] == BODY
    assert seen["rename:after"] == {PATH: OTHER}


async def test_an_identical_revision_changes_nothing(archives, watch, tmp_path):
    """If a new revision has the same bytes, the file keeps its inode and date, so that no backup copies it again."""
    await keep(archives)
    before = (tmp_path / "out" / PATH).stat()
    watch.names.clear()
    await keep(archives)
    after = (tmp_path / "out" / PATH).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert "rename" not in watch.writes
    assert watch.writes[-1] == "folder.fsync"
    assert files(tmp_path / "out") == {PATH: BODY}


@pytest.mark.parametrize(
    ("rows", "stays"),
    [
        (b'{"a":2}\n{"a":1}\n', True),
        (b'{ "a" : 1 }\n\n{"a":2}', True),
        (b'{"a":2}\n{"a":1.0}\n', False),
        (b'{"a":2}\n{"a":1}\n{"a":1}\n', False),
        (b'{"a":2}\n{"a":2}\n', False),
    ],
)
async def test_the_same_rows_in_other_bytes_change_nothing(archives, watch, tmp_path, rows, stays):
    """If a new revision has the same rows in other bytes, the file stays unchanged; other rows replace it."""
    before = await keep(archives)
    path = tmp_path / "out" / PATH
    there = path.stat()
    watch.names.clear()
    found = await keep(archives, gzip.compress(rows, mtime=0))
    after = path.stat()
    assert ((there.st_ino, there.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)) == stays
    assert ("rename" in watch.writes) != stays
    assert (found == before) == stays
    assert files(tmp_path / "out") == {PATH: BODY if stays else gzip.compress(rows, mtime=0)}


async def test_the_same_rows_replace_a_damaged_archive(archives, tmp_path):
    """A damaged archive is replaced, even by the same rows."""
    await keep(archives)
    (tmp_path / "out" / PATH).write_bytes(BODY[:-1])
    again = gzip.compress(b'{"a":2}\n{"a":1}\n', mtime=0)
    await keep(archives, again)
    assert files(tmp_path / "out") == {PATH: again}


async def test_a_new_revision_of_the_same_size_is_compared_to_the_last_byte(archives, tmp_path):
    """Files of equal size are compared byte by byte before they count as equal."""
    body = large(2 * GATHER_BYTES)
    damaged = body[:-1] + bytes([body[-1] ^ 1])
    await keep(archives, body)
    (tmp_path / "out" / PATH).write_bytes(damaged)
    await keep(archives, body)
    assert files(tmp_path / "out") == {PATH: body}


@pytest.mark.parametrize(
    ("there", "least", "replaced"),
    [
        (BODY, 2, False),
        (BODY, 1, True),
        (BODY, 3, True),
        (BODY[:-1], 2, True),
        (BODY + b"x", 2, True),
        (b"", 2, True),
        (None, 2, True),
    ],
    ids=["intact", "enough", "itself too small", "cut", "damaged", "empty file", "missing"],
)
async def test_fewer_rows_replace_only_an_archive_that_is_not_intact(archives, watch, tmp_path, there, least, replaced):  # noqa: PLR0917 - parameters of pytest
    """An intact archive is kept if the new one has too few rows, and no part file is left."""
    await keep(archives)
    path = tmp_path / "out" / PATH
    path.unlink() if there is None else path.write_bytes(there)
    inode = None if there is None else path.stat().st_ino
    watch.names.clear()
    async with archives.new_part(BUNDLE, Format.NDJSON) as new_part:
        await fill(new_part, OTHER)
        if replaced:
            assert (await new_part.commit(BodyProof(end_proved=True), least_rows=least)).rows == 1
        else:
            with pytest.raises(FewerRowsError) as caught:
                await new_part.commit(BodyProof(end_proved=True), least_rows=least)
            assert (caught.value.rows_before, caught.value.rows_found) == (2, 1)
    assert files(tmp_path / "out") == {PATH: OTHER if replaced else there}
    assert ("rename" in watch.writes) == replaced
    assert replaced or path.stat().st_ino == inode


async def test_an_archive_with_rows_of_another_range_is_not_intact(archives, tmp_path):
    """An archive with rows of another range is replaced, however many rows it has."""
    span, later = BUNDLE.range, Range(BUNDLE.range.end, BUNDLE.range.end + 1800)
    other, own = (
        gzip.compress(f'{{"EventStart":"{show(one.start)}"}}\n'.encode() * rows)
        for one, rows in ((later, 9), (span, 1))
    )
    await keep(archives, other)
    async with archives.new_part(BUNDLE, Format.NDJSON, rules=RowCheck(ExpectedRows(span=span))) as new_part:
        await fill(new_part, own)
        assert (await new_part.commit(BodyProof(end_proved=True), least_rows=5)).rows == 1
    assert files(tmp_path / "out") == {PATH: own}


@pytest.mark.parametrize("least", [0, 1])
async def test_the_rows_on_disk_count_and_not_only_those_in_the_ledger(archives, tmp_path, least):
    """An archive with many more rows than an outdated ledger says is kept, unless any number of rows is accepted."""
    await keep(archives, there := gzip.compress(ROWS * 20, mtime=0))
    async with archives.new_part(BUNDLE, Format.NDJSON) as new_part:
        await fill(new_part, BODY)
        if least:
            with pytest.raises(FewerRowsError) as caught:
                await new_part.commit(BodyProof(end_proved=True), least_rows=least)
            assert (caught.value.rows_before, caught.value.rows_found) == (40, 2)
        else:
            await new_part.commit(BodyProof(end_proved=True), least_rows=least)
    assert files(tmp_path / "out") == {PATH: there if least else BODY}


@pytest.mark.parametrize(
    ("there", "stays"),
    [
        (gzip.compress(ROWS + b'{"a":3}\n'), True),
        (gzip.compress(b'{"a":8}\n{"a":9}\n'), True),
        (OTHER, False),
        (BODY[:-1], False),
        (b"", False),
    ],
    ids=["more", "as many others", "fewer", "cut", "empty file"],
)
async def test_an_unrecorded_archive_is_replaced_only_by_more_rows(archives, caplog, tmp_path, there, stays):
    """An intact archive without a ledger row is replaced only by one with more rows, and the choice is logged."""
    path = tmp_path / "out" / PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(there)
    async with archives.new_part(BUNDLE, Format.NDJSON) as new_part:
        await fill(new_part, BODY)
        found = await new_part.commit(BodyProof(end_proved=True), least_rows=None)
    assert files(tmp_path / "out") == {PATH: there if stays else BODY}
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [f"{PATH}: the ledger has no record of" in record.getMessage() for record in caplog.records] == [True] * (
        stays or there == OTHER
    )


# Errors


@pytest.mark.slow
@pytest.mark.parametrize("had_one", [False, True], ids=["new", "another revision"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", sorted({*WRITES} - {"folder"}))
async def test_a_disk_error_at_any_write_leaves_no_partial_file(archives, watch, tmp_path, write, moment, had_one):  # noqa: PLR0917 - parameters of pytest
    """A disk error at any write raises, and leaves the old archive, the complete new one, or no file."""
    if had_one:
        await keep(archives)
    watch.fail(f"{write}:{moment}", errno.EIO)
    with pytest.raises(StorageError, match="Input/output error"):
        await keep(archives, OTHER)
    found = files(tmp_path / "out")
    assert found in ({PATH: BODY}, {PATH: OTHER}) if had_one else found in ({}, {PATH: OTHER})
    named = (write, moment) == ("rename", "after") or (write == "folder.fsync" and had_one)
    assert (found.get(PATH) == OTHER) == named
    watch.do = lambda _: None
    assert (await keep(archives, OTHER)).rows == 1
    assert files(tmp_path / "out") == {PATH: OTHER}


async def test_a_disk_that_becomes_full_leaves_nothing(archives, watch, tmp_path):
    """If the disk becomes full, the part file is removed to free its space."""
    watch.fail("part.write:before", errno.ENOSPC, after=2)
    with pytest.raises(StorageError, match="is full") as caught:
        await keep(archives, large(5 * GATHER_BYTES))
    assert "run the same command again" in caught.value.hint
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("pieces_before", [0, 1])
async def test_a_partial_write_is_continued_until_its_error(archives, tmp_path, pieces_before):
    """A write that the system cuts short is continued, so that its error is raised even at the end of the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (pieces_before * GATHER_BYTES + 1000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            await keep(archives, large(pieces_before * GATHER_BYTES + 10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (errno.ENOSPC, "the disk of {} is full", "free some space"),
        (errno.EDQUOT, "the disk of {} is full", "free some space"),
        (errno.EROFS, "cannot use {}: Read-only file system", "check the owner"),
        (errno.EACCES, "cannot use {}: Permission denied", "check the owner"),
        (errno.EPERM, "cannot use {}: Operation not permitted", "check the owner"),
        (errno.EIO, "{}: Input/output error", "check the disk"),
    ],
)
async def test_a_disk_error_is_reported_in_plain_words(archives, watch, tmp_path, number, message, hint):  # noqa: PLR0917 - parameters of pytest
    """A disk error becomes one line with the cause and the path, and a hint with the next step."""
    watch.fail("part.create:before", number)
    with pytest.raises(StorageError, match=f"^{re.escape(message.format(tmp_path / 'out'))}$") as caught:
        await keep(archives)
    assert hint in caught.value.hint


async def test_a_directory_that_cannot_be_created_is_reported(tmp_path):
    """The error names the file that is in the way of the output directory."""
    (tmp_path / "file").write_bytes(b"")
    async with Archives(tmp_path / "file" / "out") as archives:
        with pytest.raises(StorageError, match=r"/file: File exists$"):
            await archives.prepare([Export("everyone-events")])


@pytest.mark.usefixtures("_not_as_root")
async def test_a_directory_without_write_permission_is_reported(tmp_path):
    """The error names the directory, and the hint says what to check."""
    async with Archives(tmp_path / "out") as archives:
        with pytest.raises(StorageError, match=r"cannot use .*: Permission denied") as caught:
            await archives.prepare([Export("everyone-events")])
    assert "check the owner" in caught.value.hint


async def test_a_directory_that_disappears_during_a_write_is_reported(archives, watch, tmp_path):
    """If the output directory is moved away during a write, that is reported as a storage error."""

    def move_away(name: str) -> None:
        if name == "part.fsync:before":
            (tmp_path / "out").rename(tmp_path / "elsewhere")

    watch.do = move_away
    with pytest.raises(StorageError, match="out disappeared"):
        await keep(archives)


async def test_a_directory_that_disappeared_is_not_created_again(archives, tmp_path):
    """An output directory that disappeared is not created again, because a new one would have no ledger."""
    await archives.prepare([Export("everyone-events")])
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="out disappeared"):
        await keep(archives)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("body", "proved", "error"),
    [(BODY[:-1], True, IncompleteError), (ROWS, False, IncompleteError), (BODY + b"x", True, CorruptError)],
)
async def test_an_incomplete_or_damaged_body_is_not_stored(archives, tmp_path, body, proved, error):
    """A body that is not one complete export raises an error, and the archive from before stays."""
    await keep(archives)
    async with archives.new_part(BUNDLE, Format.NDJSON) as new_part:
        await new_part.write(body)
        with pytest.raises(error):
            await new_part.commit(BodyProof(end_proved=proved))
    assert files(tmp_path / "out") == {PATH: BODY}


async def test_damage_is_reported_before_the_end_of_the_body(archives, tmp_path):
    """A body that is found to be damaged is not read to its end."""
    async with archives.new_part(BUNDLE, Format.NDJSON) as new_part:
        with pytest.raises(CorruptError, match="after its end"):
            await fill(new_part, BODY + b"x" * (5 * GATHER_BYTES))
    assert new_part.received <= 2 * GATHER_BYTES
    assert files(tmp_path / "out") == {}


async def test_a_body_must_have_its_hash(archives):
    """A body that does not match the hash of the storage host is not stored."""
    async with archives.new_part(BUNDLE, Format.NDJSON, wire_hashes=WireHashes(crc32c=b"none")) as new_part:
        await new_part.write(BODY)
        with pytest.raises(CorruptError, match="hash"):
            await new_part.commit(BodyProof(end_proved=True))


# Cancellation


def open_handles() -> int:
    """Return how many files and sockets this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.slow
@pytest.mark.parametrize(("size", "leaves"), [(10, {(PATH,)}), (3 * GATHER_BYTES, {(), (PATH,)})])
async def test_a_cancel_at_any_write_leaves_no_partial_file_and_no_thread(archives, watch, tmp_path, size, leaves):
    """After a cancel at any write nothing more is written, and there is a complete archive or none.

    A small body is written by its commit, which is always finished.
    """
    body = large(size)
    await keep(archives, body)
    moments = len(watch.names)
    (tmp_path / "out" / PATH).unlink()
    (tmp_path / "out" / "everyone-events" / "date=2026-01-01").rmdir()
    (tmp_path / "out" / "everyone-events").rmdir()
    (tmp_path / "out").rmdir()
    loop = asyncio.get_running_loop()
    outcomes = set()
    for moment in range(moments):
        watch.names.clear()
        task = asyncio.create_task(keep(archives, body))

        def cancel(_name: str, moment: int = moment, task: "asyncio.Task[Archive]" = task) -> None:
            if len(watch.names) == moment + 1:
                done = threading.Event()
                loop.call_soon_threadsafe(task.cancel)
                loop.call_soon_threadsafe(done.set)
                done.wait()

        watch.do = cancel
        await asyncio.wait([task])
        assert task.cancelled()
        written = len(watch.names)
        found = files(tmp_path / "out")
        outcomes.add(tuple(found))
        assert found in ({}, {PATH: body})
        await asyncio.sleep(0)
        assert len(watch.names) == written
        for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "out").rmdir()
    assert outcomes == leaves


async def test_a_file_is_not_closed_during_a_write(archives, watch, tmp_path):
    """A task cancelled while a thread writes waits for the thread before it removes the file."""
    task = asyncio.create_task(keep(archives, large(3 * GATHER_BYTES)))
    loop = asyncio.get_running_loop()
    stayed: list[bool] = []

    def cancel(name: str) -> None:
        if name == "part.write:before" and not stayed:
            loop.call_soon_threadsafe(task.cancel)
            # Long enough for another thread to remove it.
            deadline = time.monotonic() + 0.05
            while time.monotonic() < deadline and files(tmp_path / "out"):
                pass
            stayed.append(bool(files(tmp_path / "out")))

    watch.do = cancel
    await asyncio.wait([task])
    assert task.cancelled()
    assert stayed == [True]
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("write", [*WRITES[len(FOLDERS) :], "folder"])
@pytest.mark.parametrize("body", [BODY, BODY[:-1]], ids=["complete", "cut"])
async def test_a_task_that_is_cancelled_repeatedly_still_waits(archives, watch, tmp_path, write, body):
    """Even after several cancels the task waits for its thread, and neither a handle nor a part file is left."""
    loop = asyncio.get_running_loop()
    await archives.files("everyone-events")
    handles = open_handles()
    task = asyncio.create_task(keep(archives, body))

    def cancel(name: str) -> None:
        if name == f"{write}:before" and not task.cancelling():
            for _ in range(3):
                done = threading.Event()
                loop.call_soon_threadsafe(task.cancel)
                loop.call_soon_threadsafe(loop.call_soon, loop.call_soon, done.set)
                done.wait()

    watch.do = cancel
    await asyncio.wait([task])
    assert task.cancelled() or (body != BODY and task.exception())
    assert open_handles() == handles
    assert files(tmp_path / "out") == ({PATH: BODY} if body == BODY else {})


async def test_a_folder_created_by_another_process_is_synced_before_use(archives, watch, tmp_path):
    """A folder that already exists is synced once before the first archive is renamed into it."""
    (tmp_path / "out" / PATH).parent.mkdir(parents=True)
    await keep(archives)
    assert watch.writes == ["folder.fsync", *WRITES[len(FOLDERS) :]]
    watch.names.clear()
    await keep(archives, OTHER)
    assert watch.writes == WRITES[len(FOLDERS) :]


async def test_a_cancelled_commit_is_finished(archives, watch, tmp_path):
    """A commit that is cancelled still finishes, so the archive is complete and durable."""
    task = asyncio.create_task(keep(archives))
    loop = asyncio.get_running_loop()

    def cancel(name: str) -> None:
        if name == "part.fsync:before":
            loop.call_soon_threadsafe(task.cancel)

    watch.do = cancel
    await asyncio.wait([task])
    assert task.cancelled()
    assert watch.writes[-2:] == ["rename", "folder.fsync"]
    assert files(tmp_path / "out") == {PATH: BODY}


async def test_a_part_can_be_discarded_at_any_time(archives, tmp_path):
    """A part can be discarded while it is written, twice, and after its commit, which then changes nothing."""
    new_part = archives.new_part(BUNDLE, Format.NDJSON)
    await new_part.write(large(2 * GATHER_BYTES))
    await new_part.discard()
    await new_part.discard()
    assert files(tmp_path / "out") == {}
    new_part = archives.new_part(BUNDLE, Format.NDJSON)
    await new_part.write(BODY)
    await new_part.commit(BodyProof(end_proved=True))
    await new_part.discard()
    assert files(tmp_path / "out") == {PATH: BODY}


# Many at the same time


async def test_more_parts_than_threads_are_all_finished(archives, tmp_path):
    """Five times as many parts as threads are all written completely."""
    bundles = [Bundle("everyone-events", Range(start, start + 1800)) for start in range(0, 5 * THREADS * 1800, 1800)]
    bodies = {bundle: large(2 * GATHER_BYTES + bundle.range.start) for bundle in bundles}
    async with asyncio.TaskGroup() as group:
        for bundle in bundles:
            group.create_task(keep(archives, bodies[bundle], bundle))
    found = files(tmp_path / "out")
    assert found == {archive_path(bundle, Format.NDJSON): body for bundle, body in bodies.items()}


async def test_no_more_archives_are_checked_at_a_time_than_there_are_cores(archives, watch):
    """The number of archives checked at the same time is limited to the number of cores."""
    checking, most, lock = 0, 0, threading.Lock()

    def count(name: str) -> None:
        nonlocal checking, most
        with lock:
            checking += {"part.fsync:before": 1, "part.fsync:after": -1}.get(name, 0)
            most = max(most, checking)

    watch.do = count
    async with asyncio.TaskGroup() as group:
        for start in range(0, 2 * THREADS * 1800, 1800):
            body = large(2 * GATHER_BYTES)
            group.create_task(keep(archives, body, Bundle("everyone-events", Range(start, start + 1800))))
    assert 1 <= most <= CORES
    assert checking == 0


async def test_closing_ends_every_thread(tmp_path):
    """Closing the archives ends all their threads."""
    async with Archives(tmp_path / "out") as archives:
        await keep(archives)
        assert any(thread.name.startswith("storage") for thread in threading.enumerate())
    assert not any(thread.name.startswith("storage") for thread in threading.enumerate())


# Names and links


@given(
    start=st.integers(0, 4_000_000_000),
    seconds=st.integers(1, 10 * 86_400),
    container=st.sampled_from(Format),
    export=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
)
def test_the_range_can_be_read_from_a_path(start, seconds, container, export):
    """The range read from an archive's path is the range of its bundle."""
    bundle = Bundle(export, Range(start, start + seconds))
    assert archive_range(archive_path(bundle, container)) == bundle.range


@pytest.mark.parametrize(
    "path",
    [
        "",
        "20260101T000000Z_20260101T003000Z.ndjson.gz",
        "e/20260101T000000Z_20260101T003000Z.ndjson.gz",
        "e/date=2026-01-02/20260101T000000Z_20260101T003000Z.ndjson.gz",
        "e/date=2026-01-01/20260101T003000Z_20260101T000000Z.ndjson.gz",
        "e/date=2026-01-01/20260101T000000Z_20260101T000000Z.ndjson.gz",
        "e/date=2026-01-01/20260199T000000Z_20260101T003000Z.ndjson.gz",
        "e/date=2026-01-01/20260101T000000Z_20260101T003000Z.parquet.gz",
        "e/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson",
        "e/date=2026-01-01/.20260101T000000Z_20260101T003000Z.ndjson.gz.part",
        "e/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson.gz.damaged-1",
        "e/date=2026-01-01/\u0662\u0660260101T000000Z_20260101T003000Z.ndjson.gz",
    ],
)
def test_a_path_that_is_not_an_archives_has_no_range(path):
    """A path that is misplaced or only similar to an archive's gives no range."""
    assert archive_range(path) is None


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "../a", "a b", "a\n", "a\0"])
async def test_an_invalid_export_name_is_refused(archives, tmp_path, name):
    """An export name that is not a plain folder name is refused, and nothing is written outside the directory."""
    with pytest.raises(StorageError, match="not a valid folder name"):
        await archives.prepare([Export(name)])
    assert files(tmp_path) == {}


async def test_a_link_in_place_of_an_export_folder_is_refused(archives, tmp_path):
    """An export folder that is a link is refused, and part files at its target are not removed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".x.part").write_bytes(b"foreign")
    (tmp_path / "out" / "everyone-events").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is a link"):
        await archives.prepare([Export("everyone-events")])
    assert files(tmp_path / "elsewhere") == {".x.part": b"foreign"}


async def test_a_link_in_place_of_a_day_folder_is_refused(archives, tmp_path):
    """A day folder that becomes a link during a run is not written to."""
    await archives.prepare([Export("everyone-events")])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / PATH).parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is a link"):
        await keep(archives)
    assert files(tmp_path / "elsewhere") == {}


async def test_the_directory_itself_may_be_a_link(tmp_path):
    """The output directory itself may be a link, which is followed."""
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk")
    async with Archives(tmp_path / "out") as archives:
        await archives.prepare([Export("everyone-events")])
        await keep(archives)
    assert (tmp_path / "large disk" / PATH).read_bytes() == BODY


async def test_a_link_in_place_of_an_archive_is_replaced_and_not_followed(archives, tmp_path):
    """A link in place of an archive or a part file is replaced, and its target stays unchanged."""
    final = tmp_path / "out" / PATH
    final.parent.mkdir(parents=True)
    # It has the same content, and its name is so long that the link has the same size.
    victim = final.with_name("v" * len(OTHER))
    victim.write_bytes(OTHER)
    final.symlink_to(victim.name)
    part_path(final).symlink_to(victim.name)
    await keep(archives, OTHER)
    assert not final.is_symlink()
    final.write_bytes(BODY)
    assert victim.read_bytes() == OTHER
    assert sorted(files(final.parent)) == [final.name, victim.name]


async def test_a_folder_in_place_of_an_archive_is_moved_aside(archives, tmp_path):
    """A folder in place of an archive is moved aside with its contents, and the archive gets its name."""
    folder = tmp_path / "out" / PATH
    folder.mkdir(parents=True)
    (folder / "mine").write_bytes(b"mine")
    async with archives.new_part(BUNDLE, Format.NDJSON) as new_part:
        await fill(new_part, BODY)
        await new_part.commit(BodyProof(end_proved=True), least_rows=99)
    assert files(tmp_path / "out") == {PATH: BODY, f"{PATH}.damaged-1/mine": b"mine"}


# Two writers


async def test_a_part_file_replaced_by_another_process_is_not_renamed(archives, watch, tmp_path):
    """A part file that was replaced after it was checked does not become an archive."""
    part = part_path(tmp_path / "out" / PATH)

    def replace(name: str) -> None:
        if name == "part.fsync:after":
            part.unlink()
            part.write_bytes(b"of another")

    watch.do = replace
    with pytest.raises(LedgerLockedError, match="two runs write") as raised:
        await keep(archives)
    assert raised.value.hint
    assert not (tmp_path / "out" / PATH).exists()


def test_the_name_of_a_part_file_contains_its_process_id():
    """A part file is a hidden file in the archive's folder, with the machine and process id in its name."""
    part = part_path(Path(PATH))
    assert re.fullmatch(rf"\.{re.escape(Path(PATH).name)}\.[A-Za-z0-9-]{{1,64}}-{os.getpid()}\.part", part.name)
    assert part.parent == Path(PATH).parent
    assert archive_range(str(part)) is None


def test_a_part_file_is_abandoned_once_its_process_has_ended_or_after_a_day(tmp_path):
    """A part file is abandoned if its process has ended or it is a day old, and one of another machine only then."""
    ours = part_path(tmp_path / "x.ndjson.gz")
    with subprocess.Popen(["sleep", "60"]) as running, subprocess.Popen(["true"]) as ended:
        try:
            # It has ended, but its exit code was not collected yet.
            os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
            parts = {
                pid: ours.with_name(ours.name.replace(str(os.getpid()), str(pid))) for pid in (running.pid, ended.pid)
            }
            elsewhere = ours.with_name(".x.ndjson.gz.elsewhere-1.part")
            old = ours.with_name(".x.ndjson.gz.part")
            every = (ours, *parts.values(), elsewhere, old)
            for part in every:
                part.write_bytes(b"half")
            # A file with our own process id is from an earlier process, since this one has not started any.
            assert [is_rubbish(part) for part in every] == [True, False, True, False, True]
            for part in every:
                os.utime(part, (0, time.time() - ABANDONED_SECONDS - 60))
            assert all(map(is_rubbish, every))
        finally:
            running.kill()
    assert not is_rubbish(ours.with_name(".x.ndjson.gz.elsewhere-2.part"))
    assert socket.gethostname()


# Permissions


def modes(directory: Path) -> set[str]:
    """Return the kind and mode of everything in the directory."""
    found = ((path, path.stat().st_mode) for path in (directory, *directory.rglob("*")))
    return {f"{'folder' if path.is_dir() else 'file'} {stat.S_IMODE(mode):o}" for path, mode in found}


@pytest.mark.parametrize(
    ("access", "umask", "expected"),
    [
        (Access.PRIVATE, 0o022, {"folder 700", "file 600"}),
        (Access.PRIVATE, 0o000, {"folder 700", "file 600"}),
        (Access.UMASK, 0o022, {"folder 755", "file 644"}),
        (Access.UMASK, 0o027, {"folder 750", "file 640"}),
    ],
)
async def test_files_and_folders_get_the_configured_access(archives, tmp_path, access, umask, expected):
    """Folders, definitions and archives are private, or follow the umask if that is configured."""
    before = os.umask(umask)
    try:
        await archives.prepare([Export("everyone-events")], access=access)
        await keep(archives)
    finally:
        os.umask(before)
    assert modes(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("chosen", "remembered", "is_open", "expected"),
    [
        (None, None, False, Access.PRIVATE),
        (None, None, True, Access.UMASK),
        (None, "umask", False, Access.UMASK),
        (None, "private", True, Access.PRIVATE),
        (None, "nonsense", False, Access.PRIVATE),
        (Access.PRIVATE, "umask", True, Access.PRIVATE),
        (Access.UMASK, "private", False, Access.UMASK),
    ],
)
def test_access_is_chosen_or_stays_as_it_was(chosen, remembered, is_open, expected):
    """A new directory is private, and one that others can already read stays open unless the user decides otherwise."""
    assert access_of(chosen=chosen, remembered=remembered, is_open=is_open) is expected


# Preparing


async def test_only_part_files_of_ended_runs_are_removed(archives, tmp_path):
    """Preparing removes part files of ended runs, and leaves archives and foreign files."""
    await archives.prepare([Export("everyone-events")])
    await keep(archives)
    folder = tmp_path / "out" / "everyone-events"
    for name in (".export.json.part", "date=2026-01-01/.x.ndjson.gz.part", "date=2025-12-31/.y.part"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"half")
    for name in ("notes.part", "date=2026-01-01/data.part", ".hidden"):
        (folder / name).write_bytes(b"mine")
    await archives.prepare([Export("everyone-events")])
    assert set(files(folder)) == {
        ".export.json",
        PATH.removeprefix("everyone-events/"),
        "notes.part",
        "date=2026-01-01/data.part",
        ".hidden",
    }


async def test_a_definition_is_written_once_and_read_back(archives, watch, tmp_path):
    """The definition is written before the first archive, is read back, and is not written again if it is unchanged."""
    definition = Definition("checkout", Type.INDIVIDUAL, Format.CSV, ("Uid", "user_*"), "SCOPE_EVENTS", "Europe/Paris")
    exports = [Export("a", definition), Export("b")]
    await archives.prepare(exports)
    wrote = ["definition.write", "definition.rename", "folder.fsync"]
    assert watch.writes[-3:] == wrote
    assert orjson.loads((tmp_path / "out" / "a" / ".export.json").read_bytes())["name"] == "a"
    assert await archives.definitions() == exports
    watch.names.clear()
    await archives.prepare(exports)
    assert watch.writes == []
    await archives.prepare([Export("a")])
    assert watch.writes == wrote
    assert await archives.definitions() == [Export("a"), Export("b")]


async def test_a_definition_next_to_archives_is_not_replaced(archives, tmp_path):
    """If archives exist, another definition is refused, but an unreadable definition file is written again."""
    await archives.prepare([Export("everyone-events", Definition("checkout"))])
    await keep(archives)
    path = tmp_path / "out" / "everyone-events" / ".export.json"
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="exported with another definition") as raised:
        await archives.prepare([Export("everyone-events")])
    assert raised.value.hint
    assert path.read_bytes() == before
    path.write_bytes(b"broken")
    await archives.prepare([Export("everyone-events", Definition("checkout"))])
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"1", b'"x"', b'{"segment":"x"}', b'{"type":"none"}'])
async def test_an_unreadable_definition_is_reported(archives, tmp_path, text):
    """A definition that cannot be read is an error that names the file."""
    await archives.prepare([Export("a")])
    (tmp_path / "out" / "a" / ".export.json").write_bytes(text)
    with pytest.raises(StorageError, match=r"cannot read .*a/\.export\.json"):
        await archives.definitions()


# Reading


async def test_existing_archives_are_detected(archives, tmp_path):
    """A directory that is missing or has only other files has no archives."""

    async def found() -> bool:
        return await asyncio.to_thread(has_archives, tmp_path / "out")

    assert not await found()
    await archives.prepare([Export("everyone-events")])
    (tmp_path / "out" / "everyone-events" / "date=2026-01-01").mkdir()
    (tmp_path / "out" / "everyone-events" / "date=2026-01-01" / "other.gz").write_bytes(BODY)
    assert not await found()
    await keep(archives)
    assert await found()


async def test_files_are_listed_in_order_without_internal_ones(archives, tmp_path):
    """Archives and foreign files are listed in order, without part files and the definition."""
    await archives.prepare([Export("everyone-events")])
    await keep(archives)
    folder = tmp_path / "out" / "everyone-events"
    for name in ("z", "a", ".x.part"):
        (folder / name).write_bytes(b"")
    assert await archives.files("everyone-events") == ["everyone-events/a", PATH, "everyone-events/z"]
    assert await archives.files("unknown") == []


async def test_an_archive_is_checked_to_its_end(archives, tmp_path):
    """A check finds whether an archive is intact, missing, cut, or compressed twice."""
    body = large(3 * GATHER_BYTES)
    found = await keep(archives, body)
    assert await archives.check(PATH, Format.NDJSON) == found
    assert await archives.check(f"{PATH}.gone", Format.NDJSON) is None
    (tmp_path / "out" / PATH).write_bytes(body[:-1])
    with pytest.raises(IncompleteError):
        await archives.check(PATH, Format.NDJSON)
    (tmp_path / "out" / PATH).write_bytes(gzip.compress(BODY))
    with pytest.raises(CorruptError, match="one layer"):
        await archives.check(PATH, Format.NDJSON)


async def test_an_archive_that_is_deleted_while_it_is_read_is_missing(archives, tmp_path):
    """An archive deleted while it is checked counts as missing, although its open handle still has all bytes."""
    await keep(archives)

    class Deleting(RowCheck):
        def add(self, row: Mapping[str, Any]) -> None:
            """Delete the archive that this row was read from."""
            (tmp_path / "out" / PATH).unlink(missing_ok=True)
            super().add(row)

    rules = Deleting(ExpectedRows.of(Definition(), HALF_HOUR), raises=False)
    assert await archives.check(PATH, Format.NDJSON, rules=rules) is None


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no file that fails to be read")
async def test_an_archive_that_the_disk_cannot_read_is_damaged():
    """A read error of the disk makes one archive count as damaged, so that it can be exported again."""
    async with Archives(Path("/proc/self")) as archives:
        with pytest.raises(CorruptError, match="failed to read"):
            await archives.check("mem", Format.NDJSON)


@pytest.mark.parametrize("what", ["folder", "link", "link to nowhere", "pipe"])
async def test_something_other_than_a_file_is_not_an_archive(archives, tmp_path, what):
    """A folder, link or pipe in place of an archive counts as damaged, and a pipe is not read."""
    place = tmp_path / "out" / PATH
    place.parent.mkdir(parents=True)
    (tmp_path / "intact").write_bytes(BODY)
    match what:
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
        case _:
            place.symlink_to(tmp_path / ("intact" if what == "link" else "nowhere"))
    with pytest.raises(CorruptError, match="in place of the archive"):
        await archives.check(PATH, Format.NDJSON)


async def test_folders_may_be_very_deep(archives, tmp_path):
    """Very deep folders are listed without a recursion error."""
    await archives.prepare([Export("everyone-events")])
    await keep(archives)
    at = os.open(tmp_path / "out" / "everyone-events", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    try:
        assert PATH in await archives.files("everyone-events")
    finally:
        # pytest itself would remove them recursively.
        await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(tmp_path / "out")], check=True)


async def test_only_links_to_day_folders_are_followed(archives, tmp_path):
    """A day folder may be a link to another disk; other links, even circular ones, are listed but not followed."""
    await archives.prepare([Export("everyone-events")])
    await keep(archives)
    folder = tmp_path / "out" / "everyone-events"
    folder.joinpath("date=2026-01-01").rename(tmp_path / "moved")
    folder.joinpath("date=2026-01-01").symlink_to(tmp_path / "moved")
    folder.joinpath("other").symlink_to(tmp_path / "moved")
    folder.joinpath("circle").symlink_to(folder)
    folder.joinpath("date=2026-01-02").symlink_to("date=2026-01-02")
    (tmp_path / "moved" / "date=2026-01-01").symlink_to(tmp_path / "moved")
    assert await archives.files("everyone-events") == [
        "everyone-events/circle",
        PATH,
        "everyone-events/date=2026-01-01/date=2026-01-01",
        "everyone-events/date=2026-01-02",
        "everyone-events/other",
    ]


async def test_moving_aside_overwrites_nothing(archives, tmp_path):
    """Each file moved aside gets the next free name, which is not the name of an archive."""
    for number, body in enumerate([BODY, OTHER], 1):
        await keep(archives, body)
        aside = await archives.name_aside(PATH)
        await archives.move_aside(PATH, aside)
        assert aside == f"{PATH}.damaged-{number}"
        assert archive_range(aside) is None
    assert files(tmp_path / "out") == {f"{PATH}.damaged-1": BODY, f"{PATH}.damaged-2": OTHER}
