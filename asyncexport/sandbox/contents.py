"""What is in the store: rows into a file, the file into what is delivered, and damage where a fault wants it.

1. The bytes of an export follow from its request, from when it was made, and from the behaviour: the same each time.
2. They are made in a thread, so that the event loop, which may be that of an exporter too, goes on. What was made is
   kept as long as there is room for it.
3. Damage is done to the bytes and never to the checksums, but where it says so: these are of what should have come.
"""

import asyncio
import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice

from asyncexport.core.exports import Format, Type
from asyncexport.sandbox.answers import SandboxContent
from asyncexport.sandbox.behaviour import Delivery, SandboxBehaviour
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.filler import filler
from asyncexport.sandbox.formats import EVENT_FIELDS, INDIVIDUAL_FIELDS, empty, render
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.people import individuals
from asyncexport.sandbox.reading import SandboxExportRequest
from asyncexport.sandbox.rows import Row, SandboxRows
from asyncexport.sandbox.segments import holds

try:
    import google_crc32c
except ImportError:  # no wheel for this platform: the store then tells md5 alone
    google_crc32c = None  # type: ignore[assignment]

KEPT_BYTES = 64 << 20
"""Room for files that were made already."""

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


@dataclass(frozen=True, slots=True)
class SandboxFile:
    """A file in the store: its bytes, and the checksums that go with it; `crc32c` is b"" where it cannot be had."""

    content: bytes | SandboxContent
    etag: str
    crc32c: bytes
    md5: bytes

    @classmethod
    def of(cls, content: bytes | SandboxContent) -> "SandboxFile":
        """With the checksums of these very bytes."""
        md5, crc32c = hashlib.md5(usedforsecurity=False), 0
        for piece in [content] if isinstance(content, bytes) else content.pieces(0, len(content)):
            md5.update(piece)
            crc32c = google_crc32c.extend(crc32c, piece) if google_crc32c else 0
        digest = crc32c.to_bytes(4, "big") if google_crc32c else b""
        return cls(content, f'"{md5.hexdigest()}"', digest, md5.digest())


class SandboxArchives:
    """Makes files, away from the event loop, and keeps some."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], SandboxFile] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[tuple[object, ...], asyncio.Future[SandboxFile]] = {}
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-archives")

    async def close(self) -> None:
        """Make no more; what is being made is finished and dropped."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def get(
        self, one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour, damage: str = ""
    ) -> SandboxFile:
        """The file of an export, with or without damage."""
        shaping = (behaviour.delivery, behaviour.empty, behaviour.filler_bytes, damage)
        return await self.shared((one.export_id, *shaping), lambda: make(one, request, behaviour, damage))

    async def shared(self, key: tuple[object, ...], make_it: Callable[[], SandboxFile]) -> SandboxFile:
        """What is kept under a key, or is being made, or else is made now."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._making:
            made = asyncio.get_running_loop().run_in_executor(self._threads, make_it)
            self._making[key] = made
            made.add_done_callback(lambda done: self._keep(key, done))
        # Several who want the same file wait for it together; one of them going away ends nothing.
        return await asyncio.shield(self._making[key])

    def _keep(self, key: tuple[object, ...], done: "asyncio.Future[SandboxFile]") -> None:
        del self._making[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        self._kept_bytes += _held(done.result())
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= _held(dropped)


def _held(stored: SandboxFile) -> int:
    content = stored.content
    return (
        len(content.head + content.block + content.tail) if isinstance(content, SandboxRepeatedBody) else len(content)
    )


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


def rows_of(one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour) -> Iterator[Row]:
    """The rows of an export, as of when it was made."""
    start, end = one.span
    if request.type is Type.EVENT:
        rows = source(behaviour).between(start, end, arrived_by=one.created_at)
    else:
        rows = individuals(source(behaviour), start, end, as_of=one.created_at)
    return islice((row for row in rows if holds(request.segment, row)), one.most_rows)


def make(
    one: SandboxOperation, request: SandboxExportRequest, behaviour: SandboxBehaviour, damage: str = ""
) -> SandboxFile:
    """The file of an export."""
    if behaviour.filler_bytes is not None:
        return SandboxFile.of(_filled(one, request, behaviour))
    rows = rows_of(one, request, behaviour)
    columns = EVENT_FIELDS if request.type is Type.EVENT else INDIVIDUAL_FIELDS
    first = next(rows, None)
    if first is None and behaviour.empty != "usual":
        return SandboxFile.of(_nothing(request, behaviour, columns))
    all_of_them = rows if first is None else chain([first], rows)
    pieces = render(all_of_them, request.format, fields=request.fields or None, columns=columns)
    if damage:
        return _damaged(b"".join(pieces), request, behaviour.delivery, damage)
    if behaviour.delivery in ON_THE_WAY:
        return _changed_on_the_way(b"".join(pieces), behaviour.delivery)
    if behaviour.delivery in ("gzip", "encoded"):
        return SandboxFile.of(b"".join(_gzipped(pieces)))
    return SandboxFile.of(packed(b"".join(pieces), behaviour.delivery))


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
    match delivery:
        case "plain":
            return data
        case "members":
            width = len(data) // 3 + 1
            return b"".join(_gzip(data[at : at + width], level=level) for at in range(0, max(len(data), 1), width))
        case "nested" | "encoded-gzip":
            return _gzip(_gzip(data, level=level))
        case _:
            return _gzip(data, level=level)


def _gzip(data: bytes, *, level: int = LEVEL) -> bytes:
    return b"".join(_gzipped([data], level=level))


def _gzipped(pieces: Iterable[bytes], *, level: int = LEVEL) -> Iterator[bytes]:
    """One member of gzip, without a date in it: a month of rows need not be in memory to be packed."""
    deflate = zlib.compressobj(level, wbits=31)
    yield from map(deflate.compress, pieces)
    yield deflate.flush()


def _changed_on_the_way(data: bytes, delivery: Delivery) -> SandboxFile:
    """What a box makes of a file that is stored as gzip; ETag and checksums are of what is stored."""
    content = data if delivery == "inflated" else _gzip(data, level=OTHER_LEVEL)
    return replace(SandboxFile.of(_gzip(data)), content=content)


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
