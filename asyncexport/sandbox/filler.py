"""Big files that are cheap to make: one block of rows, over and over, for archives of a gigabyte."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import EVENT_FIELDS, empty, render, row_json
from asyncexport.sandbox.rows import Row

BLOCK_BYTES = 1 << 20
"""Compressed once and sent many times: small enough to hold, big enough that its gzip header does not count."""

SPAN_SECONDS = 300
"""How far apart the rows are at most: the narrowest bundle."""

ROWS_PER_HOUR = 100_000
"""Enough for a block in that time at the quietest hour."""

HEAD_AND_FOOT = {"ndjson": (b"", b"\n", b"\n"), "json": (b"[", b",\n", b"]"), "csv": (b"", b"\n", b"\n")}
"""What begins a file, what ends a row, and what ends the last one."""


@dataclass(frozen=True, slots=True)
class SandboxFiller:
    """A file that is `head`, then `block` as many `times`, then `tail`.

    Each of the three may be compressed once, as a gzip member of its own, and sent as often as it is needed.

    Attributes:
        rows: How many rows are in the whole file.
    """

    head: bytes
    block: bytes
    times: int
    tail: bytes
    rows: int

    def __iter__(self) -> Iterator[bytes]:
        """The file, piece by piece."""
        if self.head:
            yield self.head
        for _ in range(self.times):
            yield self.block
        yield self.tail


def filler(
    format: str,  # noqa: A002 - the user's word
    size: int,
    *,
    start: float = 1_767_225_600,
) -> SandboxFiller:
    """A valid file of exactly `size` bytes, uncompressed.

    Args:
        format: `ndjson`, `json` or `csv`, the latter with the default columns alone.
        size: At least a row's worth.
        start: When its rows begin, seconds since 1970; they are within five minutes of it.

    Raises:
        ValueError: no row fits into that size.
    """
    if format not in HEAD_AND_FOOT:
        raise ValueError(f"no such format: {format!r}")
    head, between, foot = HEAD_AND_FOOT[format]
    head = empty("csv") if format == "csv" else head
    lines = [_row_bytes(row, format) + between for row in _block_rows(start)]
    block = b"".join(lines)
    least = len(_row_bytes(_stuffed(start, 0), format)) + len(foot)
    times, rest = divmod(size - len(head) - least, len(block))
    if times < 0:
        raise ValueError(f"no row fits into {size} bytes: {len(head) + least} is the least")
    fitting = _fitting(lines, rest)
    stuffing = rest - sum(map(len, fitting))
    tail = b"".join(fitting) + _row_bytes(_stuffed(start, stuffing), format) + foot
    return SandboxFiller(head, block, times, tail, rows=times * len(lines) + len(fitting) + 1)


def _block_rows(start: float) -> Iterator[Row]:
    """Rows of a busy shop, as many as make a block."""
    length = 0
    for row in SandboxSyntheticRows(rows_per_hour=ROWS_PER_HOUR, quiet=0).between(start, start + SPAN_SECONDS):
        length += len(row_json(row))
        if length > BLOCK_BYTES:
            return
        yield row


def _stuffed(start: float, length: int) -> Row:
    """A row of any length one likes."""
    row = next(SandboxSyntheticRows(rows_per_hour=ROWS_PER_HOUR, quiet=0).between(start, start + SPAN_SECONDS))
    return row | {"EventTargetText": "x" * length}


def _row_bytes(row: Row, format: str) -> bytes:  # noqa: A002 - the user's word
    if format == "csv":
        return b"".join(render([row], "csv", fields=EVENT_FIELDS)).removeprefix(empty("csv")).removesuffix(b"\n")
    return row_json(row)


def _fitting(lines: Sequence[bytes], size: int) -> list[bytes]:
    """The first lines, as many as fit."""
    taken = []
    for line in lines:
        size -= len(line)
        if size < 0:
            break
        taken.append(line)
    return taken
