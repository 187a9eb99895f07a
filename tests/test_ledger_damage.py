"""A damaged ledger is reported and never gives a wrong answer; the ledger of a killed run is intact."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from random import Random

import pytest

from asyncexport.core.bundles import ALL_TIME
from asyncexport.core.states import Stored
from asyncexport.errors import LedgerCorruptError, LedgerError
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.ledger.commit_mark import CommitMark
from asyncexport.ledger.files import ledger_path, mark_path
from asyncexport.ledger.queries import SMALL_LEDGER_ROWS
from asyncexport.ledger.rows import LedgerHead, digest_of
from tests.ledger_rig import EXPORTS, WAL, answers, fill, read, stored, stored_of
from tests.ledger_scribe import BUNDLES_AT_ONCE, Scribe

ROOT = Path(__file__).parents[1]

KILLS = 12
FLIPS, FLIPS_TO_WRITE, FLIPS_OF_THE_LOG = 400, 100, 100
"""Numbers of bits flipped besides those of the header; for each, a ledger is opened and read completely."""

KILLED = """
import asyncio, os, pathlib, signal, sys
from asyncexport.ledger import Ledger
from tests.ledger_rig import fill

async def run():
    await fill(await Ledger.open(pathlib.Path(sys.argv[1])))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run())
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a run that ended normally, and the answers of its ledger."""
    directory = tmp_path_factory.mktemp("ended")

    async def run():
        ledger = await Ledger.open(directory)
        await fill(ledger)
        await ledger.close()

    asyncio.run(run())
    return directory, read(directory)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The directory of a killed run with a full log, and the answers of its ledger."""
    directory = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", KILLED, directory], cwd=ROOT, check=False)
    assert (directory / WAL).stat().st_size
    return directory, read(directory)


def read_all(directory):
    """Check the ledger completely, history included, and return all answers."""
    with LedgerReader(directory) as ledger:
        ledger.check()
        return answers(ledger)


def read_to_write(directory):
    """Return all answers as a run gets them, which checks a small ledger completely."""

    async def ask():
        ledger = await Ledger.open(directory)
        try:
            await ledger.check_if_small()
            return await ledger._read(answers)
        finally:
            await ledger.close()

    return asyncio.run(ask())


def outcome(directory, reading=read):
    """Return the answers, or the kind of error."""
    try:
        return reading(directory)
    except LedgerCorruptError as error:
        return LedgerCorruptError if "verify --rebuild" in error.hint else error


def laid_out(files, directory):
    """Write these files to the ledger's folder."""
    folder = directory / ".asyncexport"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def files_of(directory):
    """Return the ledger's files without the index of the log, which SQLite rebuilds."""
    found = (directory / ".asyncexport").iterdir()
    return {path.name: path.read_bytes() for path in found if not path.name.endswith("-shm")}


def some_bits(content, count, *, header):
    """Yield all bits of the header and random others, most of them in bytes that are not zero."""
    chance = Random(1)
    filled = [at for at, byte in enumerate(content) if byte]
    yield from range(header * 8)
    for number in range(count):
        at = chance.choice(filled) if number % 5 else chance.randrange(len(content))
        yield at * 8 + chance.randrange(8)


def flipped(content, bit):
    """Return the content with one bit flipped."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize(("reading", "count"), [(read, FLIPS), (read_to_write, FLIPS_TO_WRITE)], ids=["read", "write"])
def test_a_flipped_bit_never_gives_a_wrong_answer(finished, tmp_path, reading, count):
    """The answers are right or the ledger is reported as damaged, and a damaged file is not changed."""
    directory, truth = finished
    files = files_of(directory)
    content = files["ledger.sqlite3"]
    noticed = 0
    for bit in some_bits(content, count, header=100):
        damaged = flipped(content, bit)
        laid_out({**files, "ledger.sqlite3": damaged}, tmp_path)
        found = outcome(tmp_path, reading)
        assert found in (truth, LedgerCorruptError), f"bit {bit}"
        if found is LedgerCorruptError:
            noticed += 1
            assert ledger_path(tmp_path).read_bytes() == damaged
    assert noticed > count / 4


@pytest.mark.slow
@pytest.mark.parametrize("reading", [read, read_to_write], ids=["read", "write"])
def test_a_flipped_bit_of_the_log_never_loses_a_committed_row(killed, tmp_path, reading):
    """SQLite ignores everything from the first damaged frame on, which is noticed."""
    directory, truth = killed
    files = files_of(directory)
    name = Path(WAL).name
    for bit in some_bits(files[name], FLIPS_OF_THE_LOG, header=32 + 24):
        laid_out({**files, name: flipped(files[name], bit)}, tmp_path)
        assert outcome(tmp_path, reading) in (truth, LedgerCorruptError), f"bit {bit}"
    laid_out(files, tmp_path)
    assert outcome(tmp_path, reading) == truth


def test_a_log_that_is_cut_or_missing_is_noticed(killed, tmp_path):
    """This holds wherever the log ends early."""
    directory, truth = killed
    files = files_of(directory)
    log = files.pop(Path(WAL).name)
    laid_out(files, tmp_path)
    assert outcome(tmp_path) is LedgerCorruptError
    assert outcome(tmp_path, read_to_write) is LedgerCorruptError
    for size in (0, 31, 32, *range(32 + 4120, len(log), 4120 * 5), len(log) - 1):
        laid_out({**files, Path(WAL).name: log[:size]}, tmp_path)
        assert outcome(tmp_path) is LedgerCorruptError, size
    laid_out({**files, Path(WAL).name: log}, tmp_path)
    assert outcome(tmp_path) == truth


def test_uncommitted_frames_are_ignored(killed, tmp_path):
    """What a crash left after the last commit is no damage."""
    directory, truth = killed
    files = files_of(directory)
    for rubbish in (b"\0" * 5000, files[Path(WAL).name][-4120:], b"half a frame"):
        laid_out({**files, Path(WAL).name: files[Path(WAL).name] + rubbish}, tmp_path)
        assert outcome(tmp_path) == truth
        assert outcome(tmp_path, read_to_write) == truth


def test_a_cut_file_is_noticed(finished, tmp_path):
    """It may be cut between pages or within a page."""
    directory, truth = finished
    files = files_of(directory)
    content = files["ledger.sqlite3"]
    for size in (*range(0, len(content), 4096), 1, 99, 100, 512, len(content) - 1):
        for reading in (read_all, read_to_write):
            laid_out({**files, "ledger.sqlite3": content[:size]}, tmp_path)
            assert outcome(tmp_path, reading) is LedgerCorruptError, size
            assert ledger_path(tmp_path).read_bytes() == content[:size]
    laid_out(files, tmp_path)
    assert outcome(tmp_path) == truth


def test_a_page_from_elsewhere_or_without_content_is_noticed(finished, tmp_path):
    """A failing disk may return zeros or another page."""
    directory, _ = finished
    files = files_of(directory)
    content = files["ledger.sqlite3"]
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    for number in range(len(pages)):
        for other in (b"\0" * 4096, b"\xff" * 4096, pages[number - 1]):
            changed = b"".join([*pages[:number], other, *pages[number + 1 :]])
            laid_out({**files, "ledger.sqlite3": changed}, tmp_path)
            assert outcome(tmp_path) is LedgerCorruptError, number


def foreign_database(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "make",
    [
        Path.touch,
        Path.mkdir,
        lambda path: path.write_text("not a database, but a note of mine\n" * 200),
        foreign_database,
    ],
    ids=["empty file", "folder", "text", "other database"],
)
def test_a_file_that_is_no_ledger_is_left_unchanged(tmp_path, make):
    """The error names the file, and the file is not changed."""
    path = ledger_path(tmp_path)
    path.parent.mkdir()
    make(path)
    before = path.stat(), path.read_bytes() if path.is_file() else b""
    for reading in (read, read_to_write):
        with pytest.raises(LedgerCorruptError, match=r"is not a ledger|is damaged") as caught:
            reading(tmp_path)
        assert str(path) in str(caught.value)
    after = path.stat(), path.read_bytes() if path.is_file() else b""
    assert (after[0].st_mode, after[0].st_mtime_ns, after[1]) == (before[0].st_mode, before[0].st_mtime_ns, before[1])


async def test_a_newer_ledger_is_not_reported_as_damaged(finished, tmp_path):
    """The hint says to upgrade, not to rebuild."""
    laid_out(files_of(finished[0]), tmp_path)
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.text_factory = bytes
    head = LedgerHead.read(connection)
    head.version += 1
    text = head.to_text()
    connection.execute("UPDATE head SET text = ?, digest = ?", (text, digest_of(1, text.encode())))
    connection.execute(f"PRAGMA user_version = {head.version}")
    connection.execute("CREATE TABLE something_new (a)")
    connection.close()
    with pytest.raises(LedgerError, match="newer") as caught:
        read(tmp_path)
    assert not isinstance(caught.value, LedgerCorruptError)
    assert "upgrade" in caught.value.hint
    with pytest.raises(LedgerError, match="newer"):
        await Ledger.open(tmp_path)


CHANGES = {
    "the newest state is missing": "DELETE FROM state WHERE seq = (SELECT max(seq) FROM state)",
    "a bundle is missing": "DELETE FROM bundle WHERE start = 0",
    "all bundles are missing": "DELETE FROM bundle",
    "a bundle refers to an older state": "UPDATE bundle SET latest = latest - 1 WHERE start = 0",
    "a bundle refers to the state of another": "UPDATE bundle SET latest = 1 WHERE start = 1800",
    "a bundle has lost its archive": "UPDATE bundle SET stored = NULL WHERE start = 0",
    "an archive has other rows": "UPDATE bundle SET rows = rows + 1 WHERE start = 0",
    "two bundles are swapped": "UPDATE bundle SET latest = CASE latest WHEN 4 THEN 12 ELSE 4 END,"
    " stored = CASE stored WHEN 4 THEN 12 ELSE 4 END WHERE latest IN (4, 12)",
    "a state is changed": "UPDATE state SET state = 'failed' WHERE seq = 4",
    "a request is missing": "DELETE FROM request WHERE seq = 2",
    "the first request is missing": "DELETE FROM request WHERE seq = 1",
    "the status of a request is changed": "UPDATE request SET status = 429 WHERE seq = 2",
    "a duration is missing": "DELETE FROM duration WHERE seq = 12",
    "a duration is changed": "UPDATE duration SET seconds = 61 WHERE seq = 3",
    "an id is missing": "DELETE FROM service_id WHERE state = 2",
    "all ids are missing": "DELETE FROM service_id",
    "an id refers to another state": "UPDATE service_id SET state = 6 WHERE state = 2",
    "an id is changed": "UPDATE service_id SET hash = hash + 1 WHERE state = 2",
    "two ids are swapped": "UPDATE service_id SET state = -state WHERE state IN (2, 6);"
    " UPDATE service_id SET state = 8 + state WHERE state < 0",
    "a run is missing": "DELETE FROM run WHERE seq = 1",
    "the newest run is missing": "DELETE FROM run WHERE seq = 2",
    "the exit code of a run is changed": "UPDATE run SET exit_code = 0",
    "the end of a run is missing": "UPDATE run SET ended = NULL",
    "an hour is missing": "DELETE FROM hour",
    "the requests of an hour are changed": "UPDATE hour SET requests = requests + 1",
    "an hour is changed": "UPDATE hour SET hour = hour + 1",
    "an accepted range is missing": "DELETE FROM accepted",
    "an accepted range is changed": "UPDATE accepted SET stop = stop + 1",
    "the head is missing": "DELETE FROM head",
    "the head is changed": "UPDATE head SET text = replace(text, 'everyone', 'buyers')",
    "a table is missing": "DROP TABLE duration",
    "a table is added": "CREATE TABLE mine (a)",
    "an index is added": "CREATE INDEX mine ON state (revision)",
    "the view is changed": "DROP VIEW standing; CREATE VIEW standing AS SELECT * FROM bundle",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_or_missing_row_is_noticed(finished, tmp_path, change):
    """This also holds if SQLite's own checksums are right."""
    laid_out(files_of(finished[0]), tmp_path)
    connection = sqlite3.connect(ledger_path(tmp_path))
    connection.executescript(CHANGES[change])
    connection.close()
    assert outcome(tmp_path) is LedgerCorruptError


@pytest.mark.parametrize(
    "change",
    ["UPDATE state SET written_at = 1 WHERE seq = 1", "DELETE FROM state WHERE seq = 1"],
    ids=["changed", "missing"],
)
def test_a_superseded_state_is_checked_too(finished, tmp_path, change):
    """A full check includes the history."""
    laid_out(files_of(finished[0]), tmp_path)
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.execute(change)
    connection.close()
    assert outcome(tmp_path) == finished[1]
    with LedgerReader(tmp_path) as reader, pytest.raises(LedgerCorruptError, match="state"):
        reader.check()


@pytest.mark.slow
@pytest.mark.parametrize(("bundles", "is_small"), [(100, True), (SMALL_LEDGER_ROWS + 1, False)])
async def test_a_small_ledger_is_checked_immediately_and_a_large_one_on_request(tmp_path, bundles, is_small):
    """A run does not wait for a long check; a full check finds the damage in either."""
    ledger = await Ledger.open(tmp_path)
    await ledger.register(EXPORTS)
    await ledger.restore([stored(number) for number in range(bundles)], at=1.0)
    await ledger.close()
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.execute("UPDATE state SET written_at = 2 WHERE seq = 50")
    connection.close()
    with LedgerReader(tmp_path) as reader:
        with pytest.raises(LedgerCorruptError) if is_small else nullcontext():
            reader.check_if_small()
        with pytest.raises(LedgerCorruptError):
            reader.check()


async def test_an_overview_does_not_invent_its_last_change(tmp_path):
    """If the row that it is read from is missing, the ledger is damaged."""
    ledger = await Ledger.open(tmp_path)
    await ledger.register(EXPORTS)
    await ledger.append(stored(0), at=1.0)
    await ledger.close()
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.execute("DELETE FROM state")
    connection.close()
    with LedgerReader(tmp_path) as reader, pytest.raises(LedgerCorruptError, match="row 1 is missing"):
        reader.overviews()


@pytest.mark.slow
def test_an_unusable_mark_is_ignored(killed, tmp_path):
    """With a damaged, cut, missing, old or foreign mark the ledger is read as it is."""
    directory, truth = killed
    files = files_of(directory)
    name = mark_path(ledger_path(directory)).name
    mark = CommitMark.read(mark_path(ledger_path(directory)))
    assert mark is not None
    marks = [flipped(files[name], bit) for bit in range(len(files[name]) * 8)]
    marks += [files[name][:size] for size in range(len(files[name]))]
    marks += [
        CommitMark(mark.created_at, mark.commits - 3).to_bytes(),
        CommitMark(mark.created_at + 1, 10**9).to_bytes(),
    ]
    for content in marks:
        laid_out({**files, name: content}, tmp_path)
        assert outcome(tmp_path) == truth
    del files[name]
    laid_out(files, tmp_path)
    assert outcome(tmp_path, read_to_write) == truth


@pytest.mark.slow
def test_a_killed_writer_loses_no_acknowledged_row(tmp_path):
    """After each of a dozen kills all acknowledged rows are there, the ledger is intact, and writing continues."""
    total = 0
    for number in range(KILLS):
        with Scribe(tmp_path, first=total) as scribe:
            scribe.wait_for(1 + number * 31)
            scribe.kill()
            with LedgerReader(tmp_path) as reader:
                reader.check()
                found = [one.bundle.range.start // 1800 for one in reader.stored("events", ALL_TIME)]
                requests = len(reader.requests_since(0.0))
        assert scribe.acknowledged <= set(found)
        assert found == list(range(len(found)))
        assert requests * BUNDLES_AT_ONCE >= len(scribe.acknowledged)
        assert len(found) > total
        total = len(found)


async def test_damage_found_during_a_run_is_raised(tmp_path):
    """A run that reads a changed row ends like one with a damaged ledger."""
    ledger = await Ledger.open(tmp_path)
    await fill(ledger)
    await ledger.close()
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.execute("UPDATE state SET written_at = 1 WHERE seq = (SELECT max(stored) FROM bundle)")
    connection.close()
    ledger = await Ledger.open(tmp_path)
    with pytest.raises(LedgerCorruptError) as caught:
        [await stored_of(ledger, export.name, ALL_TIME) for export in EXPORTS]
    assert "verify --rebuild" in caught.value.hint
    await ledger.close()


def test_the_ledgers_under_test_contain_archives(finished, killed):
    """The answers that damage is compared with are not empty."""
    for _, truth in (finished, killed):
        assert sum(one.stored for one in truth[5]) == 9
        assert any(isinstance(one.state, Stored) for one in truth[6][2])
