"""Downloads from a host in memory that cuts, changes and refuses, onto a real disk."""

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
from tests.failpoints import telling

BUNDLE = Bundle("everyone-events", Range(1_767_225_600, 1_767_227_400))
PATH = "everyone-events/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson.gz"
LINK = DownloadLink("https://storage.invalid/export?signature")
CHUNK_BYTES = 1 << 18


def body_of(number: int, *, size: int = 1_500_000) -> bytes:
    """A whole body; another for each number."""
    text = random.Random(number).randbytes(size).hex().encode()
    return gzip.compress(b'{"a":"' + text + b'"}\n', 1, mtime=0)


BODY, OTHER = body_of(1), body_of(2)
HALF = len(BODY) // 2
ROWS = b'{"a":1}\n{"a":2}\n'


@dataclass(frozen=True)
class Answer:
    """What the host does with a request: `refuses` it, or sends a body that is `cut` after so many bytes.

    `ends`: a cut one ends as if that were all; `proves`: whether the end is proved; `spoils`: the byte that is wrong.
    """

    refuses: ExportError | None = None
    cut: int | None = None
    ends: bool = False
    proves: bool = True
    spoils: int | None = None


@dataclass
class Host:
    """The storage host: one file, and what it does with the next requests."""

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
        """As the client does."""
        assert location is LINK
        await self.wait()
        self.requests.append((offset, etag))
        answer = self.answers.pop(0) if self.answers else Answer()
        if answer.refuses:
            raise answer.refuses
        goes_on = self.knows_ranges and offset > 0 and etag == self.etag
        self.open_bodies += 1
        try:
            yield HostBody(self, answer, offset if goes_on else 0)
        finally:
            self.open_bodies -= 1

    async def wait(self) -> None:
        """Where the network is waited for."""
        self.at_wait()
        await asyncio.sleep(0)


class HostBody:
    """A body of the host's."""

    def __init__(self, host: Host, answer: Answer, offset: int) -> None:
        self.offset = offset
        self.etag = host.etag
        self.goog_hash = host.hashes
        self.end_proved = False
        self.form = host.form
        self._host = host
        self._answer = answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come."""
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
    """No call of ours may hold up the event loop."""
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
        """All there is, hidden or not."""
        found = sorted(path for path in self.directory.rglob("*") if path.is_file())
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in found}

    async def fetch(self, *errors: type[Exception]) -> Archive:
        """Fetch until it is there; each try but the last ends in the next of these errors."""
        async with self.downloads.begin(BUNDLE, Definition()) as download:
            for error in errors:
                await failing(download, error)
            return await download.fetch(LINK)


async def failing(download: ArchiveDownload, error: type[Exception]) -> None:
    """A try that ends in this error, and leaves nothing open."""
    with pytest.raises(error):
        await download.fetch(LINK)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """An output directory, and a host that does nothing amiss yet."""

    def boundary(name: str) -> None:
        found.boundary(name)

    with telling(boundary):
        archives = Archives(tmp_path / "out")
    async with archives:
        host = Host()
        found = Scene(host, ArchiveDownloads(host, archives), tmp_path / "out")
        yield found
        assert host.open_bodies == 0


def goog_hash(content: bytes) -> tuple[str, ...]:
    """As the storage host sends it."""
    return (f"crc32c={base64.b64encode(google_crc32c.Checksum(content).digest()).decode()}",)


# What is believed only when it comes again


async def test_a_file_without_rows_needs_a_second_look(scene):
    """Nothing, a line end: any box can say so. What is believed the second time is stored."""
    scene.host.content = b"\n"
    archive = await scene.fetch(UnprovedEmptyError)
    assert archive.rows == 0
    assert gzip.decompress(scene.files()[PATH]) == b"\n"
    assert [offset for offset, _ in scene.host.requests] == [0, 0]


@pytest.mark.parametrize("content", [gzip.compress(b"", mtime=0), b""])
async def test_a_file_without_rows_is_believed_at_once_where_something_vouches_for_it(scene, content):
    """Whole gzip around nothing, or a hash that fits."""
    scene.host.content = content
    scene.host.hashes = () if content else goog_hash(content)
    assert (await scene.fetch()).rows == 0


async def test_rows_that_come_at_the_second_look_are_stored(scene):
    """The first look was at something else."""
    scene.host.content = b"[]"
    async with scene.downloads.begin(BUNDLE, Definition(format=Format.JSON)) as download:
        await failing(download, UnprovedEmptyError)
        scene.host.content = b'[{"a":1}]'
        assert (await download.fetch(LINK)).rows == 1


@pytest.mark.parametrize("content", [ROWS, gzip.compress(ROWS, mtime=7)])
async def test_a_body_that_was_changed_on_the_way_is_whole_by_framing_and_structure(scene, content):
    """Its hash is that of what is stored, as the headers tell."""
    scene.host.content, scene.host.hashes, scene.host.form = content, goog_hash(BODY), BodyForm.CHANGED
    assert (await scene.fetch()).rows == 2
    assert gzip.decompress(scene.files()[PATH]) == ROWS


async def test_where_nothing_tells_that_it_was_changed_it_must_come_twice(scene):
    """A fault of the line spoils it in another way each time."""
    scene.host.content, scene.host.hashes, scene.host.form = ROWS, goog_hash(BODY), BodyForm.PLAIN_IS_CHANGED
    scene.host.answers = [Answer(spoils=9), Answer(spoils=12)]
    assert (await scene.fetch(OtherHashError, OtherHashError, OtherHashError)).rows == 2
    assert gzip.decompress(scene.files()[PATH]) == ROWS


async def test_a_gzip_file_with_another_hash_is_wrong_however_often_it_comes(scene):
    """Where nothing says that it was compressed again on the way."""
    scene.host.hashes, scene.host.form = goog_hash(ROWS), BodyForm.PLAIN_IS_CHANGED
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        for _ in range(3):
            await failing(download, CorruptError)


# Whole


async def test_a_whole_body_is_stored_and_described(scene):
    """What comes back names the file, its size, its rows and its digest."""
    archive = await scene.fetch()
    assert scene.files() == {PATH: BODY}
    assert (archive.path, archive.bytes, archive.rows) == (PATH, len(BODY), 1)
    assert archive.sha256 == hashlib.sha256(BODY).hexdigest()
    assert scene.host.requests == [(0, "")]


async def test_what_has_come_can_be_seen(scene):
    """A cut download has got somewhere; one that is over, or begun anew, is at nothing."""
    scene.host.answers = [Answer(cut=HALF), Answer(cut=HALF + 5)]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        assert download.received == 0
        await failing(download, IncompleteError)
        assert download.received == HALF
        await failing(download, IncompleteError)
        assert download.received == HALF + 5
        await download.fetch(LINK)
        assert download.received == 0


# Cut


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, CHUNK_BYTES, HALF, len(BODY) - 1])
async def test_a_cut_body_goes_on_where_it_stopped(scene, cut):
    """The rest is asked for by range, of the same file; no byte is sent twice."""
    scene.host.answers = [Answer(cut=cut)]
    await scene.fetch(IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (cut, '"one"')]
    assert scene.host.sent == len(BODY)


async def test_a_body_cut_again_and_again_comes_to_its_end(scene):
    """Each try goes on from the one before."""
    cuts = list(range(100_000, len(BODY), 100_000))
    scene.host.answers = [Answer(cut=cut) for cut in cuts]
    await scene.fetch(*[IncompleteError] * len(cuts))
    assert scene.files() == {PATH: BODY}
    assert scene.host.sent == len(BODY)


async def test_a_body_cut_before_its_first_byte_is_begun_anew(scene):
    """There is nothing to go on from, and what comes then may be another file."""
    scene.host.answers = [Answer(cut=0)]
    scene.host.hashes = goog_hash(OTHER)
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        scene.host.hashes = goog_hash(BODY)
        await download.fetch(LINK)
    assert scene.host.requests == [(0, ""), (0, "")]


async def test_without_an_etag_a_cut_body_is_begun_anew(scene):
    """Nothing tells whether the rest would be of the same file."""
    scene.host.etag = ""
    scene.host.answers = [Answer(cut=HALF)]
    await scene.fetch(IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (0, "")]


async def test_a_host_without_ranges_sends_the_whole_again(scene):
    """What was written is thrown away, and the whole taken instead."""
    scene.host.knows_ranges = False
    scene.host.answers = [Answer(cut=HALF)]
    await scene.fetch(IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (HALF, '"one"')]


async def test_another_file_behind_the_link_is_taken_whole(scene):
    """Its bytes are not put behind those of the first, and its own ETag is what the next cut goes on with."""
    scene.host.answers = [Answer(cut=HALF), Answer(cut=HALF)]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        scene.host.content, scene.host.etag = OTHER, '"two"'
        await failing(download, IncompleteError)
        await download.fetch(LINK)
    assert scene.files() == {PATH: OTHER}
    assert scene.host.requests == [(0, ""), (HALF, '"one"'), (HALF, '"two"')]


async def test_a_part_that_cannot_be_had_is_not_asked_for_again(scene):
    """A host that refuses the range, or sends another part, is asked for the whole."""
    scene.host.answers = [Answer(cut=HALF), Answer(refuses=IncompleteError("another part"))]
    await scene.fetch(IncompleteError, IncompleteError)
    assert scene.files() == {PATH: BODY}
    assert scene.host.requests == [(0, ""), (HALF, '"one"'), (0, "")]


@pytest.mark.parametrize("error", [GoneError("expired"), UnavailableError("503")])
async def test_a_dead_link_or_an_outage_loses_nothing_of_what_came(scene, error):
    """Through a fresh link, or after a while, it goes on where it was."""
    scene.host.answers = [Answer(cut=HALF), Answer(refuses=error), Answer(refuses=error)]
    await scene.fetch(IncompleteError, type(error), type(error))
    assert scene.host.requests[-1] == (HALF, '"one"')
    assert scene.host.sent == len(BODY)


# Wrong


@pytest.mark.slow
async def test_damage_met_on_the_way_begins_anew(scene):
    """The rest is not put behind bytes that are known to be bad, though the host would send it."""
    scene.host.content = body_of(3, size=3_000_000)
    scene.host.answers = [Answer(spoils=0)]
    await scene.fetch(CorruptError)
    assert scene.host.requests == [(0, ""), (0, "")]
    assert len(scene.host.content) < scene.host.sent < 2 * len(scene.host.content)
    assert scene.files() == {PATH: scene.host.content}


@pytest.mark.parametrize("answer", [Answer(spoils=len(BODY) - 6), Answer(cut=HALF, ends=True)], ids=["crc", "short"])
async def test_a_body_that_came_to_its_end_and_is_not_whole_is_begun_anew(scene, answer):
    """More bytes would not mend it."""
    scene.host.answers = [answer]
    await scene.fetch(IncompleteError if answer.ends else CorruptError)
    assert scene.host.requests == [(0, ""), (0, "")]
    assert scene.files() == {PATH: BODY}


async def test_other_bytes_under_the_same_etag_show(scene):
    """A host that lies about its file cannot have two halves of two files stored as one."""
    scene.host.answers = [Answer(cut=HALF), Answer()]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        scene.host.content = OTHER
        await failing(download, CorruptError)
        assert scene.files() == {}
        await download.fetch(LINK)
    assert scene.files() == {PATH: OTHER}


async def test_a_hash_is_of_the_whole_however_many_parts_it_came_in(scene):
    """It is told with the first part and holds at the end of the last."""
    scene.host.content, scene.host.hashes = ROWS, goog_hash(ROWS)
    scene.host.answers = [Answer(cut=5), Answer(cut=9), Answer(proves=False)]
    archive = await scene.fetch(IncompleteError, IncompleteError)
    assert archive.rows == 2
    assert scene.host.requests[-1] == (9, '"one"')


async def test_a_wrong_hash_begins_anew(scene):
    """Also where the body came in parts."""
    scene.host.hashes = goog_hash(OTHER)
    scene.host.answers = [Answer(cut=HALF)]
    async with scene.downloads.begin(BUNDLE, Definition()) as download:
        await failing(download, IncompleteError)
        await failing(download, CorruptError)
        assert scene.files() == {}
        scene.host.hashes = goog_hash(BODY)
        await download.fetch(LINK)
    assert scene.host.requests == [(0, ""), (HALF, '"one"'), (0, "")]


async def test_an_end_that_nothing_proves_is_no_end_of_a_plain_body(scene):
    """It is fetched again from its beginning."""
    scene.host.content = ROWS
    scene.host.answers = [Answer(proves=False)]
    await scene.fetch(IncompleteError)
    assert gzip.decompress(scene.files()[PATH]) == ROWS
    assert scene.host.requests == [(0, ""), (0, "")]


# Left


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
async def test_what_is_half_made_when_left_is_removed(scene, answer, error):
    """The archive that stood there stays."""
    await scene.fetch()
    scene.host.answers = [answer]
    with pytest.raises(error):
        await scene.fetch()
    assert scene.files() == {PATH: BODY}


async def test_a_full_disk_in_the_middle_ends_it(scene):
    """No part is left that takes room, and nothing under the name."""
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
async def test_a_cancel_at_any_wait_leaves_no_half_file(scene):
    """Whether the network or the disk is waited for, also while a cut body goes on, and while a bad one is removed."""
    loop = asyncio.get_running_loop()
    moments = outcomes = 0

    async def once(cancel_at: int) -> asyncio.Task[Archive]:
        nonlocal moments
        moments = 0
        scene.host.answers = [Answer(cut=HALF), Answer(spoils=len(BODY) - 1)]
        task = asyncio.create_task(scene.fetch(IncompleteError, CorruptError))

        def moment(_name: str = "") -> None:
            nonlocal moments
            moments += 1
            if moments == cancel_at:
                loop.call_soon_threadsafe(task.cancel)

        scene.host.at_wait = scene.boundary = moment
        await asyncio.wait([task])
        return task

    assert not (await once(0)).cancelled()
    for cancel_at in range(1, moments + 1):
        (scene.directory / PATH).unlink(missing_ok=True)
        task = await once(cancel_at)
        found = scene.files()
        # The very last write may be done before the cancel comes.
        assert task.cancelled() or cancel_at >= moments - 1
        assert found in ({}, {PATH: BODY})
        assert scene.host.open_bodies == 0
        outcomes |= 1 << len(found)
    assert outcomes == 0b11


# Anything


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
def test_whatever_the_host_does_what_is_stored_is_whole(answers, content, etag, knows_ranges, hashed):
    """After any row of faults the rows are all there, or nothing is."""
    if content == ROWS and not hashed:
        # That the bytes of a plain body are others nothing can tell.
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
