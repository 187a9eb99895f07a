"""A ledger that is not what was written says so, and nothing else comes of it; a killed one is whole."""

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
"""How many bits are tried besides those of the header; for each a ledger is opened and read to its end."""

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
def ended(tmp_path_factory):
    """The directory of a run that ended well, and what it has to say."""
    directory = tmp_path_factory.mktemp("ended")

    async def run():
        ledger = await Ledger.open(directory)
        await fill(ledger)
        await ledger.close()

    asyncio.run(run())
    return directory, read(directory)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The directory of a run that was killed, its log full; and what it has to say."""
    directory = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", KILLED, directory], cwd=ROOT, check=False)
    assert (directory / WAL).stat().st_size
    return directory, read(directory)


def read_all(directory):
    """All that can be asked, once the history was read as well."""
    with LedgerReader(directory) as ledger:
        ledger.check()
        return answers(ledger)


def read_to_write(directory):
    """All that can be asked, by a run, which reads a small ledger whole."""

    async def ask():
        ledger = await Ledger.open(directory)
        try:
            await ledger.check_if_small()
            return await ledger._read(answers)
        finally:
            await ledger.close()

    return asyncio.run(ask())


def outcome(directory, reading=read):
    """What comes of asking: answers, or the kind of error."""
    try:
        return reading(directory)
    except LedgerCorruptError as error:
        return LedgerCorruptError if "verify --rebuild" in error.hint else error


def laid_out(files, directory):
    """A directory with these files in it."""
    folder = directory / ".asyncexport"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def files_of(directory):
    """Without the log's index, which is made anew."""
    found = (directory / ".asyncexport").iterdir()
    return {path.name: path.read_bytes() for path in found if not path.name.endswith("-shm")}


def some_bits(content, count, *, header):
    """All bits of the header; others by chance, most of them where there is something."""
    chance = Random(1)
    filled = [at for at, byte in enumerate(content) if byte]
    yield from range(header * 8)
    for number in range(count):
        at = chance.choice(filled) if number % 5 else chance.randrange(len(content))
        yield at * 8 + chance.randrange(8)


def flipped(content, bit):
    """One bit turned."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize(("reading", "count"), [(read, FLIPS), (read_to_write, FLIPS_TO_WRITE)], ids=["read", "write"])
def test_no_flipped_bit_makes_a_wrong_answer(ended, tmp_path, reading, count):
    """Either what was written is read, or it is damaged; whatever is damaged is left for a person to look at."""
    directory, truth = ended
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
def test_no_flipped_bit_of_the_log_takes_what_was_acknowledged(killed, tmp_path, reading):
    """SQLite leaves out all from the first damaged frame on; that is not passed over."""
    directory, truth = killed
    files = files_of(directory)
    name = Path(WAL).name
    for bit in some_bits(files[name], FLIPS_OF_THE_LOG, header=32 + 24):
        laid_out({**files, name: flipped(files[name], bit)}, tmp_path)
        assert outcome(tmp_path, reading) in (truth, LedgerCorruptError), f"bit {bit}"
    laid_out(files, tmp_path)
    assert outcome(tmp_path, reading) == truth


def test_a_log_that_is_cut_or_missing_is_noticed(killed, tmp_path):
    """Wherever it ends before its end."""
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


def test_frames_that_were_never_committed_are_none(killed, tmp_path):
    """What a crash left behind the last commit is no damage."""
    directory, truth = killed
    files = files_of(directory)
    for rubbish in (b"\0" * 5000, files[Path(WAL).name][-4120:], b"half a frame"):
        laid_out({**files, Path(WAL).name: files[Path(WAL).name] + rubbish}, tmp_path)
        assert outcome(tmp_path) == truth
        assert outcome(tmp_path, read_to_write) == truth


def test_a_file_that_is_cut_is_noticed(ended, tmp_path):
    """At every page, and in the middle of one."""
    directory, truth = ended
    files = files_of(directory)
    content = files["ledger.sqlite3"]
    for size in (*range(0, len(content), 4096), 1, 99, 100, 512, len(content) - 1):
        for reading in (read_all, read_to_write):
            laid_out({**files, "ledger.sqlite3": content[:size]}, tmp_path)
            assert outcome(tmp_path, reading) is LedgerCorruptError, size
            assert ledger_path(tmp_path).read_bytes() == content[:size]
    laid_out(files, tmp_path)
    assert outcome(tmp_path) == truth


def test_a_page_of_another_place_or_of_nothing_is_noticed(ended, tmp_path):
    """What a failing disk gives back: zeros, or what stood elsewhere."""
    directory, _ = ended
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
    ids=["nothing", "folder", "text", "database"],
)
def test_what_is_no_ledger_is_left_alone(tmp_path, make):
    """Something else under its name is an error that names it, and is not touched."""
    path = ledger_path(tmp_path)
    path.parent.mkdir()
    make(path)
    before = path.stat(), path.read_bytes() if path.is_file() else b""
    for reading in (read, read_to_write):
        with pytest.raises(LedgerCorruptError, match=r"is not a ledger|is damaged") as told:
            reading(tmp_path)
        assert str(path) in str(told.value)
    after = path.stat(), path.read_bytes() if path.is_file() else b""
    assert (after[0].st_mode, after[0].st_mtime_ns, after[1]) == (before[0].st_mode, before[0].st_mtime_ns, before[1])


async def test_a_newer_ledger_is_not_called_damaged(ended, tmp_path):
    """The way out is an upgrade, not a rebuild."""
    laid_out(files_of(ended[0]), tmp_path)
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.text_factory = bytes
    head = LedgerHead.read(connection)
    head.version += 1
    text = head.to_text()
    connection.execute("UPDATE head SET text = ?, digest = ?", (text, digest_of(1, text.encode())))
    connection.execute(f"PRAGMA user_version = {head.version}")
    connection.execute("CREATE TABLE something_new (a)")
    connection.close()
    with pytest.raises(LedgerError, match="newer") as told:
        read(tmp_path)
    assert not isinstance(told.value, LedgerCorruptError)
    assert "upgrade" in told.value.hint
    with pytest.raises(LedgerError, match="newer"):
        await Ledger.open(tmp_path)


CHANGES = {
    "the newest state is gone": "DELETE FROM state WHERE seq = (SELECT max(seq) FROM state)",
    "a bundle is gone": "DELETE FROM bundle WHERE start = 0",
    "all bundles are gone": "DELETE FROM bundle",
    "a bundle leads to an older state": "UPDATE bundle SET latest = latest - 1 WHERE start = 0",
    "a bundle leads to another's state": "UPDATE bundle SET latest = 1 WHERE start = 1800",
    "an archive is not shown": "UPDATE bundle SET stored = NULL WHERE start = 0",
    "an archive has other rows": "UPDATE bundle SET rows = rows + 1 WHERE start = 0",
    "two bundles have changed places": "UPDATE bundle SET latest = CASE latest WHEN 4 THEN 12 ELSE 4 END,"
    " stored = CASE stored WHEN 4 THEN 12 ELSE 4 END WHERE latest IN (4, 12)",
    "a state says something else": "UPDATE state SET state = 'failed' WHERE seq = 4",
    "a request is gone": "DELETE FROM request WHERE seq = 2",
    "the first request is gone": "DELETE FROM request WHERE seq = 1",
    "a request was refused": "UPDATE request SET status = 429 WHERE seq = 2",
    "a duration is gone": "DELETE FROM duration WHERE seq = 12",
    "a duration is longer": "UPDATE duration SET seconds = 61 WHERE seq = 3",
    "an id is not found": "DELETE FROM service_id WHERE state = 2",
    "all ids are not found": "DELETE FROM service_id",
    "an id leads elsewhere": "UPDATE service_id SET state = 6 WHERE state = 2",
    "an id is another": "UPDATE service_id SET hash = hash + 1 WHERE state = 2",
    "two ids have changed places": "UPDATE service_id SET state = -state WHERE state IN (2, 6);"
    " UPDATE service_id SET state = 8 + state WHERE state < 0",
    "a run is gone": "DELETE FROM run WHERE seq = 1",
    "the newest run is gone": "DELETE FROM run WHERE seq = 2",
    "a run ended well": "UPDATE run SET exit_code = 0",
    "a run never ended": "UPDATE run SET ended = NULL",
    "an hour is gone": "DELETE FROM hour",
    "an hour has other requests": "UPDATE hour SET requests = requests + 1",
    "an hour is another": "UPDATE hour SET hour = hour + 1",
    "what was accepted is gone": "DELETE FROM accepted",
    "what was accepted is another": "UPDATE accepted SET stop = stop + 1",
    "the head is gone": "DELETE FROM head",
    "the head is another": "UPDATE head SET text = replace(text, 'everyone', 'buyers')",
    "a table is gone": "DROP TABLE duration",
    "a table is new": "CREATE TABLE mine (a)",
    "an index is new": "CREATE INDEX mine ON state (revision)",
    "the view is another": "DROP VIEW standing; CREATE VIEW standing AS SELECT * FROM bundle",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_row_that_is_not_as_it_was_written_is_noticed(ended, tmp_path, change):
    """Whatever went missing or was changed: with the right checksums of SQLite, too."""
    laid_out(files_of(ended[0]), tmp_path)
    connection = sqlite3.connect(ledger_path(tmp_path))
    connection.executescript(CHANGES[change])
    connection.close()
    assert outcome(tmp_path) is LedgerCorruptError


@pytest.mark.parametrize(
    "change",
    ["UPDATE state SET written_at = 1 WHERE seq = 1", "DELETE FROM state WHERE seq = 1"],
    ids=["other", "gone"],
)
def test_a_state_that_nothing_leads_to_is_checked_too(ended, tmp_path, change):
    """History is part of the record: a whole check reads it."""
    laid_out(files_of(ended[0]), tmp_path)
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.execute(change)
    connection.close()
    assert outcome(tmp_path) == ended[1]
    with LedgerReader(tmp_path) as reader, pytest.raises(LedgerCorruptError, match="state"):
        reader.check()


@pytest.mark.slow
@pytest.mark.parametrize(("bundles", "is_small"), [(100, True), (SMALL_LEDGER_ROWS + 1, False)])
async def test_a_small_ledger_is_checked_at_once_and_a_large_one_only_when_asked(tmp_path, bundles, is_small):
    """A run does not wait for what would take long; a whole check finds it all the same."""
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


async def test_an_overview_does_not_make_up_its_last_news(tmp_path):
    """Where the row that it would be told from is gone."""
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
def test_a_mark_that_is_no_use_is_no_hindrance(killed, tmp_path):
    """Damaged, cut, gone, behind, or another ledger's: the ledger is read as it is."""
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
def test_a_killed_writer_takes_nothing_along_that_it_acknowledged(tmp_path):
    """A dozen times in one directory: each acknowledged row is there, what more there is is whole, and it goes on."""
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


async def test_damage_under_a_run_is_told_to_whoever_asks(tmp_path):
    """A run that reads what is not as it was written ends as one with a damaged ledger does."""
    ledger = await Ledger.open(tmp_path)
    await fill(ledger)
    await ledger.close()
    connection = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    connection.execute("UPDATE state SET written_at = 1 WHERE seq = (SELECT max(stored) FROM bundle)")
    connection.close()
    ledger = await Ledger.open(tmp_path)
    with pytest.raises(LedgerCorruptError) as told:
        [await stored_of(ledger, export.name, ALL_TIME) for export in EXPORTS]
    assert "verify --rebuild" in told.value.hint
    await ledger.close()


def test_the_truth_has_archives_in_it(ended, killed):
    """What damage is measured against is not empty."""
    for _, truth in (ended, killed):
        assert sum(one.stored for one in truth[5]) == 9
        assert any(isinstance(one.state, Stored) for one in truth[6][2])
