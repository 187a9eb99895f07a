"""The content of the storage host: turns rows into a file, compresses it for delivery, and damages it if a fault asks.

1. The bytes of an export depend only on its request, its creation time and the behaviour, so they are always the same.
2. Threads make the files, so that the event loop, which an exporter may share, is never blocked. Each file is made in
   short steps, and files take turns: a small one does not wait for a big one. Rows are made while they are written, and
   no file is in memory as a whole, except one that is to be damaged. Finished files are kept while there is room.
3. Damage changes the bytes but not the checksums, which stay those of the intact file, unless the fault says otherwise.
"""

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice

from asyncexport.core.exports import Format, Type
from asyncexport.sandbox.behaviour import Delivery, SandboxBehaviour
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.filler import filler
from asyncexport.sandbox.formats import EVENT_FIELDS, INDIVIDUAL_FIELDS, columns_depend_on_rows, empty, render
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.people import count_individuals
from asyncexport.sandbox.reading import SandboxExportRequest
from asyncexport.sandbox.rows import Row, SandboxRows
from asyncexport.sandbox.segments import holds
from asyncexport.sandbox.stored_files import SandboxDiskBody, SandboxFile, SandboxMaking, stored

KEPT_BYTES = 64 << 20
"""Room in memory for finished files."""

KEPT_DISK_BYTES = 1 << 30
"""Room on disk for finished files."""

THREADS = 4
"""Number of files that take a step at the same time."""

ROWS_A_STEP = 200
"""Rows read in one step in which nothing is written: a few milliseconds."""

LEVEL = 1
"""Compression level: the fastest."""

OTHER_LEVEL = 6
"""Another compression level, for the same rows in other bytes."""


@dataclass(frozen=True, slots=True)
class SandboxRepeatedBody:
    """A body of `head`, then `times` times `block`, then `tail`. Only these parts are in memory."""

    head: bytes
    block: bytes
    times: int
    tail: bytes

    def __len__(self) -> int:
        return len(self.head) + self.times * len(self.block) + len(self.tail)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `stop`."""
        at = 0
        if start >= len(self.head) and self.times:
            skipped = min((start - len(self.head)) // len(self.block), self.times)
            at = len(self.head) + skipped * len(self.block)
        for piece in self._from(at):
            if at >= stop:
                return
            if at + len(piece) > start:
                yield piece[max(0, start - at) : stop - at]
            at += len(piece)

    def _from(self, at: int) -> Iterator[bytes]:
        """Yield the parts from the offset `at` on, which must be the beginning of a part."""
        if at == 0 and self.head:
            yield self.head
        for _ in range(self.times - max(0, at - len(self.head)) // len(self.block)):
            yield self.block
        yield self.tail


class SandboxArchives:
    """Makes files in threads and keeps some of them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], SandboxFile] = OrderedDict()
        self._making: dict[tuple[object, ...], asyncio.Task[SandboxFile]] = {}
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="sandbox-archives")

    async def close(self) -> None:
        """Stop the threads; unfinished files are dropped."""
        making = list(self._making.values())
        for one in making:
            one.cancel()
        if making:
            await asyncio.wait(making)
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def get(
        self, one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour, damage: str = ""
    ) -> SandboxFile:
        """Return the file of an export, with or without damage."""
        shaping = (behaviour.delivery, behaviour.empty, behaviour.filler_bytes, damage)
        return await self.shared((one.export_id, *shaping), lambda: make(one, request, behaviour, damage))

    async def shared(self, key: tuple[object, ...], make_it: Callable[[], SandboxMaking]) -> SandboxFile:
        """Return the file with this key: a finished one, one in progress, or else a new one."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._making:
            self._making[key] = made = asyncio.create_task(self._made(make_it()))
            made.add_done_callback(lambda done: self._keep(key, done))
        # Several requests may wait for the same file. If one is cancelled, the file is still made for the others.
        return await asyncio.shield(self._making[key])

    async def _made(self, making: SandboxMaking) -> SandboxFile:
        """Make the file step by step. Between two steps other files have a turn."""
        loop = asyncio.get_running_loop()
        while (file := await loop.run_in_executor(self._threads, _step, making)) is None:
            pass
        return file

    def _keep(self, key: tuple[object, ...], done: "asyncio.Future[SandboxFile]") -> None:
        del self._making[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        while len(self._kept) > 1 and not self._has_room():
            self._kept.popitem(last=False)

    def _has_room(self) -> bool:
        sizes = list(map(_size, self._kept.values()))
        in_memory = sum(size for size, _ in sizes)
        on_the_disk = sum(size for _, size in sizes)
        return in_memory <= KEPT_BYTES and on_the_disk <= KEPT_DISK_BYTES


def _step(making: SandboxMaking) -> SandboxFile | None:
    """Take one step; return the file after the last one, else None."""
    try:
        next(making)
    except StopIteration as end:
        file: SandboxFile = end.value
        return file
    return None


def _size(file: SandboxFile) -> tuple[int, int]:
    """Return the bytes that a file takes in memory and on disk."""
    match file.content:
        case SandboxDiskBody():
            return 0, len(file.content)
        case SandboxRepeatedBody(head, block, _, tail):
            return len(head) + len(block) + len(tail), 0
        case _:
            return len(file.content), 0


def source(behaviour: SandboxBehaviour) -> SandboxRows:
    """Return the source of the event rows."""
    if behaviour.rows is not None:
        return behaviour.rows
    return SandboxSyntheticRows(
        behaviour.seed,
        behaviour.rows_per_hour,
        late_share=behaviour.late_share,
        late_seconds=behaviour.late_seconds,
        quiet=behaviour.quiet,
    )


def make(
    one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour, damage: str = ""
) -> SandboxMaking:
    """Make the file of an export step by step."""
    if behaviour.filler_bytes is not None:
        return SandboxFile.of(_filled(one, request, behaviour))
    if request.type is Type.EVENT:
        rows: Iterable[Row] = SandboxEventRows(one, request, behaviour)
        columns = EVENT_FIELDS
    else:
        rows = yield from _individual_rows(one, request, behaviour)
        columns = INDIVIDUAL_FIELDS
    if behaviour.empty != "usual" and next(iter(rows), None) is None:
        return SandboxFile.of(_nothing(request, behaviour, columns))
    fields = request.fields or None
    keys = (yield from _keys(rows)) if request.format is Format.CSV and columns_depend_on_rows(fields) else ()

    def pieces() -> Iterator[bytes]:
        return render(rows, request.format, fields=fields, columns=columns, keys=keys)

    if damage:
        data = yield from _joined(pieces())
        return _damaged(data, request, behaviour.delivery, damage)
    if behaviour.delivery in ON_THE_WAY:
        return (yield from _changed_on_the_way(pieces, behaviour.delivery))
    return (yield from stored(_packed(pieces(), behaviour.delivery)))


@dataclass(frozen=True, slots=True)
class SandboxEventRows:
    """The rows of an export of events, as of its creation. Each iteration makes the same rows again."""

    one: SandboxOperation
    request: SandboxExportRequest
    behaviour: SandboxBehaviour

    def __iter__(self) -> Iterator[Row]:
        start, end = self.one.span
        rows = source(self.behaviour).between(start, end, arrived_by=self.one.created_at)
        return _of_the_export(rows, self.one, self.request)


def _individual_rows(
    one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour
) -> Generator[None, None, list[Row]]:
    """Return the rows of an export of individuals, as of its creation. They are kept, being few and slow to make."""
    rows = yield from count_individuals(source(behaviour), *one.span, as_of=one.created_at)
    return list(_of_the_export(rows, one, request))


def _of_the_export(rows: Iterator[Row], one: SandboxOperation, request: SandboxExportRequest) -> Iterator[Row]:
    return islice((row for row in rows if holds(request.segment, row)), one.most_rows)


def _keys(rows: Iterable[Row]) -> Generator[None, None, set[str]]:
    """Return the names of all members: a CSV file needs them in its header, even if only the last row has one."""
    found: set[str] = set()
    for number, row in enumerate(rows):
        found.update(row)
        if number % ROWS_A_STEP == 0:
            yield
    return found


def _joined(pieces: Iterable[bytes]) -> Generator[None, None, bytes]:
    held = []
    for piece in pieces:
        held.append(piece)
        yield
    return b"".join(held)


def _nothing(request: SandboxExportRequest, behaviour: SandboxBehaviour, columns: tuple[str, ...]) -> bytes:
    """Return an export without rows in one of its unusual forms. Damage does not apply to it."""
    shape = "usual" if behaviour.empty == "plain" else "nothing"
    data = empty(request.format, shape, fields=request.fields or None, columns=columns)
    return packed(data, behaviour.delivery) if behaviour.empty == "gzip-of-nothing" else data


def _filled(one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour) -> SandboxRepeatedBody:
    made = filler(request.format, behaviour.filler_bytes or 0, start=one.span[0])
    if behaviour.delivery == "plain":
        return SandboxRepeatedBody(made.head, made.block, made.times, made.tail)
    head, block, tail = (_gzip(part) if part else b"" for part in (made.head, made.block, made.tail))
    return SandboxRepeatedBody(head, block, made.times, tail)


def packed(data: bytes, delivery: Delivery, *, level: int = LEVEL) -> bytes:
    """Return a file as the storage host stores it."""
    return b"".join(_packed([data], delivery, level=level))


def _packed(pieces: Iterable[bytes], delivery: Delivery, *, level: int = LEVEL) -> Iterable[bytes]:
    match delivery:
        case "plain":
            return pieces
        case "members":
            return _members(pieces, level=level)
        case "nested" | "encoded-gzip":
            return _gzipped(_gzipped(pieces, level=level))
        case _:
            return _gzipped(pieces, level=level)


def _members(pieces: Iterable[bytes], *, level: int) -> Iterator[bytes]:
    """Yield three gzip members: two with a third of the first piece each, and one with all the rest."""
    rest = iter(pieces)
    first = next(rest, b"")
    width = len(first) // 3 + 1
    yield _gzip(first[:width], level=level)
    yield _gzip(first[width : 2 * width], level=level)
    yield from _gzipped(chain([first[2 * width :]], rest), level=level)


def _gzip(data: bytes, *, level: int = LEVEL) -> bytes:
    return b"".join(_gzipped([data], level=level))


def _gzipped(pieces: Iterable[bytes], *, level: int = LEVEL) -> Iterator[bytes]:
    """Yield one gzip member without a time stamp, piece by piece, so that a month of rows is never in memory."""
    deflate = zlib.compressobj(level, wbits=31)
    yield from map(deflate.compress, pieces)
    yield deflate.flush()


def _changed_on_the_way(pieces: Callable[[], Iterator[bytes]], delivery: Delivery) -> SandboxMaking:
    """Make what a proxy delivers of a file that is stored as gzip. ETag and checksums are those of the stored file."""
    kept = yield from stored(_gzipped(pieces()))
    sent = yield from stored(pieces() if delivery == "inflated" else _gzipped(pieces(), level=OTHER_LEVEL))
    return replace(kept, content=sent.content)


def _damaged(data: bytes, request: SandboxExportRequest, delivery: Delivery, damage: str) -> SandboxFile:
    """Return the damaged file, with the checksums that belong to the fault."""
    whole = SandboxFile.of(packed(data, delivery))
    file = bytes(whole.content) if isinstance(whole.content, bytes) else b""
    match damage:
        case "corrupt":
            at = len(file) // 2
            return replace(whole, content=file[:at] + bytes([file[at] ^ 0xFF]) + file[at + 1 :])
        case "bad-crc":
            return SandboxFile.of(file[:-8] + bytes(byte ^ 0xFF for byte in file[-8:-4]) + file[-4:])
        case "bad-size":
            return SandboxFile.of(file[:-4] + bytes(byte ^ 0xFF for byte in file[-4:]))
        case "truncated":
            return SandboxFile.of(file[: len(file) * 2 // 3])
        case "trailing":
            return SandboxFile.of(file + b"\x00\x00and something more")
        case "cut-line":
            half = data[: _row_end(data, request.format)]
            return replace(whole, content=packed(half, delivery))
        case "cut-row":
            return SandboxFile.of(packed(data[: -max(3, min(20, len(data) // 2))], delivery))
        case "endless-row":
            return SandboxFile.of(b"".join(_gzipped(_with_endless_row(data, request.format))))
        case "open-array":
            return SandboxFile.of(packed(data[:-1], delivery))
        case "wrong-hash":
            return replace(whole, crc32c=bytes(byte ^ 0xFF for byte in whole.crc32c), md5=whole.md5[::-1])
        case "changed":
            return SandboxFile.of(packed(data, delivery, level=OTHER_LEVEL))
        case "changed-quietly":
            return replace(SandboxFile.of(packed(data, delivery, level=OTHER_LEVEL)), etag=whole.etag)
        case _:
            raise ValueError(f"no such damage: {damage!r}")


def _with_endless_row(data: bytes, container: Format) -> Iterator[bytes]:
    """Yield the data with a last row that is very long and never ends. It compresses to a few kilobytes."""
    begin, more = {
        Format.NDJSON: (data + b'{"a":[', b"[],"),
        Format.JSON: (b'[{"a":[', b"["),
        Format.CSV: (data + b'"', b"\n"),
    }[container]
    yield begin
    for _ in range(ENDLESS_MIB):
        yield more * ((1 << 20) // len(more))


ENDLESS_MIB = 96
"""Longer than any row that the exporter parses."""


def _row_end(data: bytes, container: Format) -> int:
    """Return the end of a row near the middle. A line feed within CSV quotes does not end a row."""
    at = data.rfind(b"\n", 0, len(data) // 2) + 1
    while container is Format.CSV and data.count(b'"', 0, at) % 2:
        at = data.rfind(b"\n", 0, at - 1) + 1
    return at


ON_THE_WAY = ("inflated", "recompressed")
"""Deliveries whose body differs from the stored file."""

DAMAGES = frozenset(
    {
        *("corrupt", "bad-crc", "bad-size", "truncated", "trailing", "cut-line", "cut-row", "open-array"),
        "endless-row",
        *("wrong-hash", "changed", "changed-quietly"),
    }
)
"""The faults that damage a file."""
