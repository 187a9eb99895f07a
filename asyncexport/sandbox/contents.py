"""What is in the store: rows into a file, the file into what is delivered, and damage where a fault wants it.

1. The bytes of an export follow from its request, from when it was made, and from the behaviour: the same each time.
2. They are made in threads, so that the event loop, which may be that of an exporter too, goes on. Each file is made in
   short steps, and files take turns: a small one does not wait for a big one. Rows are made as they are written, and no
   file is held whole, but where damage is done to it. What was made is kept as long as there is room for it.
3. Damage is done to the bytes and never to the checksums, but where it says so: these are of what should have come.
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
from asyncexport.sandbox.formats import EVENT_FIELDS, INDIVIDUAL_FIELDS, empty, names_its_columns, render
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.people import count_individuals
from asyncexport.sandbox.reading import SandboxExportRequest
from asyncexport.sandbox.rows import Row, SandboxRows
from asyncexport.sandbox.segments import holds
from asyncexport.sandbox.stored_files import SandboxDiskBody, SandboxFile, SandboxMaking, stored

KEPT_BYTES = 64 << 20
"""Room in memory for files that were made already."""

KEPT_DISK_BYTES = 1 << 30
"""Likewise on the disk."""

THREADS = 4
"""So many files take a step at once."""

ROWS_A_STEP = 200
"""Rows that are looked through in one step, where nothing is written: a few milliseconds."""

LEVEL = 1
"""Of compression: the sandbox shall be quick."""

OTHER_LEVEL = 6
"""The same rows in other bytes."""


@dataclass(frozen=True, slots=True)
class SandboxRepeatedBody:
    """A body that is `head`, then `block` as many `times`, then `tail`; only these are held."""

    head: bytes
    block: bytes
    times: int
    tail: bytes

    def __len__(self) -> int:
        return len(self.head) + self.times * len(self.block) + len(self.tail)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`."""
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
        """The three parts, from a place on where one of them begins."""
        if at == 0 and self.head:
            yield self.head
        for _ in range(self.times - max(0, at - len(self.head)) // len(self.block)):
            yield self.block
        yield self.tail


class SandboxArchives:
    """Makes files, away from the event loop, and keeps some."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], SandboxFile] = OrderedDict()
        self._making: dict[tuple[object, ...], asyncio.Task[SandboxFile]] = {}
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="sandbox-archives")

    async def close(self) -> None:
        """Make no more; what is being made is dropped."""
        making = list(self._making.values())
        for one in making:
            one.cancel()
        if making:
            await asyncio.wait(making)
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def get(
        self, one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour, damage: str = ""
    ) -> SandboxFile:
        """The file of an export, with or without damage."""
        shaping = (behaviour.delivery, behaviour.empty, behaviour.filler_bytes, damage)
        return await self.shared((one.export_id, *shaping), lambda: make(one, request, behaviour, damage))

    async def shared(self, key: tuple[object, ...], make_it: Callable[[], SandboxMaking]) -> SandboxFile:
        """What is kept under a key, or is being made, or else is made now."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._making:
            self._making[key] = made = asyncio.create_task(self._made(make_it()))
            made.add_done_callback(lambda done: self._keep(key, done))
        # Several who want the same file wait for it together; one of them going away ends nothing.
        return await asyncio.shield(self._making[key])

    async def _made(self, making: SandboxMaking) -> SandboxFile:
        """Take a step after the other; in between it is the turn of other files."""
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
    """One step; the file if it was the last one."""
    try:
        next(making)
    except StopIteration as end:
        file: SandboxFile = end.value
        return file
    return None


def _size(file: SandboxFile) -> tuple[int, int]:
    """The bytes that a file takes in memory and on the disk."""
    match file.content:
        case SandboxDiskBody():
            return 0, len(file.content)
        case SandboxRepeatedBody(head, block, _, tail):
            return len(head) + len(block) + len(tail), 0
        case _:
            return len(file.content), 0


def source(behaviour: SandboxBehaviour) -> SandboxRows:
    """Where the event rows come from."""
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
    """Make the file of an export, step by step."""
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
    keys = (yield from _keys(rows)) if request.format is Format.CSV and names_its_columns(fields) else ()

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
    """The rows of an export of events, as of when it was made: made anew, and the same, on each pass over them."""

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
    """The rows of an export of individuals, as of when it was made. They are held: they are few, and take long."""
    rows = yield from count_individuals(source(behaviour), *one.span, as_of=one.created_at)
    return list(_of_the_export(rows, one, request))


def _of_the_export(rows: Iterator[Row], one: SandboxOperation, request: SandboxExportRequest) -> Iterator[Row]:
    return islice((row for row in rows if holds(request.segment, row)), one.most_rows)


def _keys(rows: Iterable[Row]) -> Generator[None, None, set[str]]:
    """All names in the rows: the header of a CSV file names what only its last row may have."""
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
    """An export without rows in one of its odd forms, which damage cannot make odder."""
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
    """A file as it lies in the store."""
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
    """Three members of gzip: two with a third of the first piece each, and one with all the rest."""
    rest = iter(pieces)
    first = next(rest, b"")
    width = len(first) // 3 + 1
    yield _gzip(first[:width], level=level)
    yield _gzip(first[width : 2 * width], level=level)
    yield from _gzipped(chain([first[2 * width :]], rest), level=level)


def _gzip(data: bytes, *, level: int = LEVEL) -> bytes:
    return b"".join(_gzipped([data], level=level))


def _gzipped(pieces: Iterable[bytes], *, level: int = LEVEL) -> Iterator[bytes]:
    """One member of gzip, without a date in it: a month of rows need not be in memory to be packed."""
    deflate = zlib.compressobj(level, wbits=31)
    yield from map(deflate.compress, pieces)
    yield deflate.flush()


def _changed_on_the_way(pieces: Callable[[], Iterator[bytes]], delivery: Delivery) -> SandboxMaking:
    """What a box makes of a file that is stored as gzip; ETag and checksums are of what is stored."""
    kept = yield from stored(_gzipped(pieces()))
    sent = yield from stored(pieces() if delivery == "inflated" else _gzipped(pieces(), level=OTHER_LEVEL))
    return replace(kept, content=sent.content)


def _damaged(data: bytes, request: SandboxExportRequest, delivery: Delivery, damage: str) -> SandboxFile:
    """What comes instead, with the checksums that a fault leaves it."""
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
    """The same with a last row that goes on and on, and does not end; it packs into next to nothing."""
    begin, more = {
        Format.NDJSON: (data + b'{"a":[', b"[],"),
        Format.JSON: (b'[{"a":[', b"["),
        Format.CSV: (data + b'"', b"\n"),
    }[container]
    yield begin
    for _ in range(ENDLESS_MIB):
        yield more * ((1 << 20) // len(more))


ENDLESS_MIB = 96
"""More than any row is long that is looked into."""


def _row_end(data: bytes, container: Format) -> int:
    """Where a row ends, about half way: within quotes of CSV no line end is one."""
    at = data.rfind(b"\n", 0, len(data) // 2) + 1
    while container is Format.CSV and data.count(b'"', 0, at) % 2:
        at = data.rfind(b"\n", 0, at - 1) + 1
    return at


ON_THE_WAY = ("inflated", "recompressed")
"""Deliveries in which another body comes than is stored."""

DAMAGES = frozenset(
    {
        *("corrupt", "bad-crc", "bad-size", "truncated", "trailing", "cut-line", "cut-row", "open-array"),
        "endless-row",
        *("wrong-hash", "changed", "changed-quietly"),
    }
)
"""The faults that are damage to a file."""
