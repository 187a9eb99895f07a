"""Downloads to a real disk from a host in memory that cuts, changes and refuses bodies."""

import asyncio
import base64
import errno
import gzip
import hashlib
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncexport.core.archive.proof import BodyForm
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Definition, Format
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.states import Archive
from asyncexport.engine.download import ArchiveDownload, ArchiveDownloads
from asyncexport.errors import (
    CorruptError,
    ExportError,
    GoneError,
    IncompleteError,
    OtherHashError,
    StorageError,
    UnavailableError,
    UnprovedEmptyError,
)
from asyncexport.storage import Archives
from tests.failpoints import at_failpoints

BUNDLE = Bundle("everyone-events", Range(1_767_225_600, 1_767_227_400))
PATH = "everyone-events/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson.gz"
LINK = DownloadLink("https://storage.invalid/export?signature")
CHUNK_BYTES = 1 << 18


def body_of(number: int, *, size: int = 1_500_000) -> bytes:
    """Return a complete body, a different one for each number."""
    text = random.Random(number).randbytes(size).hex().encode()
    return gzip.compress(b'{"a":"' + text + b'"}\n', 1, mtime=0)


BODY, OTHER = body_of(1), body_of(2)
HALF = len(BODY) // 2
ROWS = b'{"a":1}\n{"a":2}\n'


@dataclass(frozen=True)
class Answer:
    """What the host does with a request.

    Args:
        refuses: The error to raise instead of sending a body.
        cut: The number of bytes after which the body is cut.
        ends: Whether a cut body looks as if it had ended normally.
        proves: Whether the framing proves the end of the body.
        spoils: The position of a byte that is changed.
    """

    refuses: ExportError | None = None
    cut: int | None = None
    ends: bool = False
    proves: bool = True
    spoils: int | None = None


@dataclass
class Host:
    """The storage host: one file, and its behaviour for the next requests."""

    content: bytes = BODY
    etag: str = '"one"'
    hashes: tuple[str, ...] = ()
    form: BodyForm = BodyForm.STORED
    knows_ranges: bool = True
    answers: list[Answer] = field(default_factory=list)
    requests: list[tuple[int, str]] = field(default_factory=list)
    sent: int = 0
    open_bodies: int = 0
    at_wait: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def open(self, location: DownloadLink, *, offset: int = 0, etag: str = "") -> AsyncIterator["HostBody"]:
        """Open a body as the client does."""
        assert location is LINK
        await self.wait()
        self.requests.append((offset, etag))
        answer = self.answers.pop(0) if self.answers else Answer()
        if answer.refuses:
            raise answer.refuses
        resumes = self.knows_ranges and offset > 0 and etag == self.etag
        self.open_bodies += 1
        try:
            yield HostBody(self, answer, offset if resumes else 0)
        finally:
            self.open_bodies -= 1

    async def wait(self) -> None:
        """Run a hook, and let other tasks run as a network call would."""
        self.at_wait()
        await asyncio.sleep(0)


class HostBody:
    """A body that the host sends."""

    def __init__(self, host: Host, answer: Answer, offset: int) -> None:
        self.offset = offset
        self.etag = host.etag
        self.goog_hash = host.hashes
        self.end_proved = False
        self.form = host.form
        self._host = host
        self._answer = answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they arrive."""
        answer, content = self._answer, bytearray(self._host.content)
        if answer.spoils is not None:
            content[answer.spoils % len(content)] ^= 1
        end = len(content) if answer.cut is None else answer.cut
        for at in range(self.offset, end, CHUNK_BYTES):
            await self._host.wait()
            chunk = bytes(content[at : min(at + CHUNK_BYTES, end)])
            self._host.sent += len(chunk)
            yield chunk
        if answer.cut is not None and not answer.ends:
            raise IncompleteError("it was cut")
        self.end_proved = answer.proves


@pytest.fixture(autouse=True)
def _never_blocked() -> Iterator[None]:
    """Fail if a call of ours blocks the event loop."""
    with blockbuster_ctx("asyncexport"):
        yield


@dataclass
class Scene:
    """A host, a disk, and the downloads between them."""

    host: Host
    downloads: ArchiveDownloads
    directory: Path
    boundary: Callable[[str], None] = lambda _: None

    def files(self) -> dict[str, bytes]:
        """Return the content of all files, hidden ones included."""
        found = sorted(path for path in self.directory.rglob("*") if path.is_file())
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in found}

    async def fetch(self, *errors: type[Exception]) -> Archive:
        """Fetch until the archive is stored; each attempt but the last fails with the next of these errors."""
        async with self.downloads.begin(BUNDLE, Definition()) as download:
            for error in errors:
                await failing(download, error)
            return await download.fetch(LINK)


async def failing(download: ArchiveDownload, error: type[Exception]) -> None:
    """Make an attempt that fails with this error."""
    with pytest.raises(error):
        await download.fetch(LINK)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """An output directory, and a host without faults."""

    def boundary(name: str) -> None:
        found.boundary(name)

    with at_failpoints(boundary):
        archives = Archives(tmp_path / "out")
    async with archives:
        host = Host()
        found = Scene(host, ArchiveDownloads(host, archives), tmp_path / "out")
        yield found
        assert host.open_bodies == 0


def goog_hash(content: bytes) -> tuple[str, ...]:
    """Return the header that the storage host sends."""
    return (f"crc32c={base64.b64encode(google_crc32c.Checksum(content).digest()).decode()}",)


# Bodies that need a second check


async def test_a_file_without_rows_needs_a_second_check(scene):
    """A proxy could send an empty body, so it is only stored after a second download."""
    scene.host.content = b"\n"
    archive = await scene.fetch(UnprovedEmptyError)
    assert archive.rows == 0
    assert gzip.decompress(scene.files()[PATH]) == b"\n"
    assert [offset for offset, _ in scene.host.requests] == [0, 0]


@pytest.mark.parametrize("content", [gzip.compress(b"", mtime=0), b""])
async def test_a_file_without_rows_is_stored_immediately_if_it_is_proved(scene, content):
    """A complete gzip file or a matching hash is proof."""
    scene.host.content = content
    scene.host.hashes = () if content else goog_hash(content)
    assert (await scene.fetch()).rows == 0


async def test_rows_that_arrive_at_the_second_check_are_stored(scene):
    """The second download replaces the empty first one."""
    scene.host.content = b"[]"
    async with scene.downloads.begin(BUNDLE, Definition(format=Format.JSON)) as download:
        await failing(download, UnprovedEmptyError)
        scene.host.content = b'[{"a":1}]'
        assert (await download.fetch(LINK)).rows == 1


@pytest.mark.parametrize("content", [ROWS, gzip.compress(ROWS, mtime=7)])
async def test_a_body_changed_by_a_proxy_is_checked_by_framing_and_structure(scene, content):
    """The hash is that of the stored form, which the headers show to be different."""
    scene.host.content, scene.host.hashes, scene.host.form = content, goog_hash(BODY), BodyForm.CHANGED
    assert (await scene.fetch()).rows == 2
    assert gzip.decompress(scene.files()[PATH]) == ROWS


async def test_a_body_with_another_hash_must_arrive_twice(scene):
    """A random error would change it differently each time, so the same body twice is accepted."""
    scene.host.content, scene.host.hashes, scene.host.form = ROWS, goog_hash(BODY), BodyForm.PLAIN_IS_CHANGED
    scene.host.answers = [Answer(spoils=9), Answer(spoils=12)]
    assert (await scene.fetch(OtherHashError, OtherHashError, OtherHashError)).rows == 2
    assert gzip.decompress(scene.files()[PATH]) == ROWS


async def test_a_gzip_body_with_another_hash_is_never_accepted(scene):
    """The headers do not show that a proxy compressed it again."""
    scene.host.hashes, scene.host.form = goog_hash(ROWS), BodyForm.PLAIN_IS_CHANGED
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        for _ in range(3):
            await failing(download, CorruptError)


# Complete bodies


async def test_a_complete_body_is_stored_and_described(scene):
    """The result has the path, size, number of rows and hash."""
    archive = await scene.fetch()
    assert scene.files() == {PATH: BODY}
    assert (archive.path, archive.bytes, archive.rows) == (PATH, len(BODY), 1)
    assert archive.sha256 == hashlib.sha256(BODY).hexdigest()
    assert scene.host.requests == [(0, "")]


async def test_received_bytes_are_counted(scene):
    """The count is that of the part file, and 0 when the download is complete or starts again."""
    scene.host.answers = [Answer(cut=HALF), Answer(cut=HALF + 5)]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        assert download.received == 0
        await failing(download, IncompleteError)
        assert download.received == HALF
        await failing(download, IncompleteError)
        assert download.received == HALF + 5
        await download.fetch(LINK)
        assert download.received == 0


# Cut bodies


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, CHUNK_BYTES, HALF, len(BODY) - 1])
async def test_a_cut_body_resumes_where_it_stopped(scene, cut):
    """The rest of the same file is requested by range, and no byte is sent twice."""
    scene.host.answers = [Answer(cut=cut)]
    await scene.fetch(IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (cut, '"one"')]
    assert scene.host.sent == len(BODY)


async def test_a_body_cut_again_and_again_is_completed(scene):
    """Each attempt resumes where the previous one stopped."""
    cuts = list(range(100_000, len(BODY), 100_000))
    scene.host.answers = [Answer(cut=cut) for cut in cuts]
    await scene.fetch(*[IncompleteError] * len(cuts))
    assert scene.files() == {PATH: BODY}
    assert scene.host.sent == len(BODY)


async def test_a_body_cut_before_its_first_byte_starts_again(scene):
    """Nothing was received, so the next body may be another file."""
    scene.host.answers = [Answer(cut=0)]
    scene.host.hashes = goog_hash(OTHER)
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        scene.host.hashes = goog_hash(BODY)
        await download.fetch(LINK)
    assert scene.host.requests == [(0, ""), (0, "")]


async def test_without_an_etag_a_cut_body_starts_again(scene):
    """Without an ETag the rest may belong to another file."""
    scene.host.etag = ""
    scene.host.answers = [Answer(cut=HALF)]
    await scene.fetch(IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (0, "")]


async def test_a_host_without_ranges_sends_the_complete_body_again(scene):
    """The bytes received so far are discarded."""
    scene.host.knows_ranges = False
    scene.host.answers = [Answer(cut=HALF)]
    await scene.fetch(IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (HALF, '"one"')]


async def test_another_file_behind_the_link_is_fetched_from_its_start(scene):
    """Its bytes are not appended to those of the first file, and its own ETag is used to resume."""
    scene.host.answers = [Answer(cut=HALF), Answer(cut=HALF)]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        scene.host.content, scene.host.etag = OTHER, '"two"'
        await failing(download, IncompleteError)
        await download.fetch(LINK)
    assert scene.files() == {PATH: OTHER}
    assert scene.host.requests == [(0, ""), (HALF, '"one"'), (HALF, '"two"')]


async def test_a_range_that_is_refused_is_not_requested_again(scene):
    """If the host refuses the range or sends another one, the complete body is requested."""
    scene.host.answers = [Answer(cut=HALF), Answer(refuses=IncompleteError("another part"))]
    await scene.fetch(IncompleteError, IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (HALF, '"one"'), (0, "")]


@pytest.mark.parametrize("error", [GoneError("expired"), UnavailableError("503")])
async def test_an_expired_link_or_an_outage_loses_no_received_bytes(scene, error):
    """The next attempt resumes where the last one stopped."""
    scene.host.answers = [Answer(cut=HALF), Answer(refuses=error), Answer(refuses=error)]
    await scene.fetch(IncompleteError, type(error), type(error))
    assert scene.host.requests[-1] == (HALF, '"one"')
    assert scene.host.sent == len(BODY)


# Damaged bodies


@pytest.mark.slow
async def test_damage_found_during_a_download_starts_it_again(scene):
    """The host would send the rest, but it is not appended to damaged bytes."""
    scene.host.content = body_of(3, size=3_000_000)
    scene.host.answers = [Answer(spoils=0)]
    await scene.fetch(CorruptError)
    assert scene.host.requests == [(0, ""), (0, "")]
    assert len(scene.host.content) < scene.host.sent < 2 * len(scene.host.content)
    assert scene.files() == {PATH: scene.host.content}


@pytest.mark.parametrize(
    "answer", [Answer(spoils=len(BODY) - 6), Answer(cut=HALF, ends=True)], ids=["wrong checksum", "short"]
)
async def test_a_damaged_or_short_body_that_ended_starts_again(scene, answer):
    """It is not resumed, since further bytes would not repair it."""
    scene.host.answers = [answer]
    await scene.fetch(IncompleteError if answer.ends else CorruptError)
    assert scene.host.requests == [(0, ""), (0, "")]
    assert scene.files() == {PATH: BODY}


async def test_other_bytes_under_the_same_etag_are_noticed(scene):
    """Two halves of different files are never stored as one."""
    scene.host.answers = [Answer(cut=HALF), Answer()]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        scene.host.content = OTHER
        await failing(download, CorruptError)
        assert scene.files() == {}
        await download.fetch(LINK)
    assert scene.files() == {PATH: OTHER}


async def test_a_hash_is_checked_over_all_parts_of_a_body(scene):
    """The hash is sent with the first part and checked at the end of the last."""
    scene.host.content, scene.host.hashes = ROWS, goog_hash(ROWS)
    scene.host.answers = [Answer(cut=5), Answer(cut=9), Answer(proves=False)]
    archive = await scene.fetch(IncompleteError, IncompleteError)
    assert archive.rows == 2
    assert scene.host.requests[-1] == (9, '"one"')


async def test_a_wrong_hash_starts_the_download_again(scene):
    """This also holds for a body received in parts."""
    scene.host.hashes = goog_hash(OTHER)
    scene.host.answers = [Answer(cut=HALF)]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        await failing(download, CorruptError)
        assert scene.files() == {}
        scene.host.hashes = goog_hash(BODY)
        await download.fetch(LINK)
    assert scene.host.requests == [(0, ""), (HALF, '"one"'), (0, "")]


async def test_a_plain_body_without_a_proved_end_is_incomplete(scene):
    """It is fetched again from its start."""
    scene.host.content = ROWS
    scene.host.answers = [Answer(proves=False)]
    await scene.fetch(IncompleteError)
    assert gzip.decompress(scene.files()[PATH]) == ROWS
    assert scene.host.requests == [(0, ""), (0, "")]


# Part files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(refuses=GoneError("expired")), GoneError),
        (Answer(cut=HALF), IncompleteError),
        (Answer(cut=len(BODY) - 1, ends=True), IncompleteError),
        (Answer(spoils=len(BODY) - 1), CorruptError),
    ],
    ids=["refused", "cut", "short", "damaged"],
)
async def test_a_part_file_is_removed_after_a_failure(scene, answer, error):
    """The previous archive stays."""
    await scene.fetch()
    scene.host.answers = [answer]
    with pytest.raises(error):
        await scene.fetch()
    assert scene.files() == {PATH: BODY}


async def test_a_disk_that_fills_up_ends_the_download(scene):
    """Neither a part file nor an archive is left."""
    written = []

    def boundary(name: str) -> None:
        written.append(name)
        if written.count("part.write:before") == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scene.boundary = boundary
    with pytest.raises(StorageError, match="full"):
        await scene.fetch()
    assert scene.files() == {}


@pytest.mark.slow
async def test_a_cancel_at_any_wait_leaves_no_partial_file(scene):
    """This holds for every wait for network or disk, also when resuming and when removing a damaged file."""
    loop = asyncio.get_running_loop()
    waits = outcomes = 0

    async def once(cancel_at: int) -> asyncio.Task[Archive]:
        nonlocal waits
        waits = 0
        scene.host.answers = [Answer(cut=HALF), Answer(spoils=len(BODY) - 1)]
        task = asyncio.create_task(scene.fetch(IncompleteError, CorruptError))

        def note_wait(_name: str = "") -> None:
            nonlocal waits
            waits += 1
            if waits == cancel_at:
                loop.call_soon_threadsafe(task.cancel)

        scene.host.at_wait = scene.boundary = note_wait
        await asyncio.wait([task])
        return task

    assert not (await once(0)).cancelled()
    for cancel_at in range(1, waits + 1):
        (scene.directory / PATH).unlink(missing_ok=True)
        task = await once(cancel_at)
        found = scene.files()
        # The very last write may finish before the cancel arrives.
        assert task.cancelled() or cancel_at >= waits - 1
        assert found in ({}, {PATH: BODY})
        assert scene.host.open_bodies == 0
        outcomes |= 1 << len(found)
    assert outcomes == 0b11


# Any sequence of faults


ANSWERS = st.lists(
    st.builds(Answer, cut=st.integers(0, 40), ends=st.booleans(), proves=st.just(False))
    | st.builds(Answer, spoils=st.integers(0, 20))
    | st.builds(Answer, proves=st.booleans())
    | st.builds(Answer, refuses=st.sampled_from([IncompleteError("part"), GoneError("gone"), UnavailableError("503")])),
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    answers=ANSWERS,
    content=st.sampled_from([ROWS, gzip.compress(ROWS, mtime=0), gzip.compress(gzip.compress(ROWS, mtime=0), mtime=0)]),
    etag=st.sampled_from(["", '"one"']),
    knows_ranges=st.booleans(),
    hashed=st.booleans(),
)
def test_a_stored_archive_is_complete_whatever_the_host_does(answers, content, etag, knows_ranges, hashed):
    """After any sequence of faults all rows are stored, or nothing is."""
    if content == ROWS and not hashed:
        # A changed byte in a plain body without a hash cannot be detected.
        answers = [answer for answer in answers if answer.spoils is None]

    async def scenario(directory: Path) -> None:
        hashes = goog_hash(content) if hashed else ()
        host = Host(content, etag, hashes, knows_ranges=knows_ranges, answers=list(answers))
        async with Archives(directory) as archives:
            async with ArchiveDownloads(host, archives).begin(BUNDLE, Definition()) as download:
                while True:
                    try:
                        archive = await download.fetch(LINK)
                    except ExportError:
                        assert not (directory / PATH).exists()
                    else:
                        break
            assert gzip.decompress((directory / PATH).read_bytes()) == ROWS
            assert archive.rows == 2
            assert [path.name for path in (directory / PATH).parent.iterdir()] == [Path(PATH).name]

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scenario(Path(directory) / "out"))
