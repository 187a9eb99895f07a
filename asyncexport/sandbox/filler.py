"""Big files that are cheap to make, for archives of a gigabyte: one block of rows, repeated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import EVENT_FIELDS, empty, render, row_json
from asyncexport.sandbox.rows import Row

BLOCK_BYTES = 1 << 20
"""The block is compressed once and sent many times. It fits into memory; its gzip header hardly adds to its size."""

SPAN_SECONDS = 300
"""All rows lie within this time: the width of the narrowest bundle."""

ROWS_PER_HOUR = 100_000
"""Enough rows for a block within that time even in the quietest hour."""

HEAD_AND_FOOT = {"ndjson": (b"", b"\n", b"\n"), "json": (b"[", b",\n", b"]"), "csv": (b"", b"\n", b"\n")}
"""For each format: the start of the file, the end of a row, and the end of the last row."""


@dataclass(frozen=True, slots=True)
class SandboxFiller:
    """A file of `head`, then `times` times `block`, then `tail`.

    Each of the three can be compressed once, as its own gzip member, and sent as often as needed.

    Attributes:
        rows: The number of rows in the complete file.
    """

    head: bytes
    block: bytes
    times: int
    tail: bytes
    rows: int

    def __iter__(self) -> Iterator[bytes]:
        """Yield the file piece by piece."""
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
    """Return a valid file of exactly `size` bytes, uncompressed.

    Args:
        format: `ndjson`, `json` or `csv`; a CSV file has only the default columns.
        size: At least the size of one row.
        start: The time of the first row, in seconds since 1970; all rows lie within five minutes of it.

    Raises:
        ValueError: No row fits into this size.
    """
    if format not in HEAD_AND_FOOT:
        raise ValueError(f"there is no format {format!r}")
    head, between, foot = HEAD_AND_FOOT[format]
    head = empty("csv") if format == "csv" else head
    lines = [_row_bytes(row, format) + between for row in _block_rows(start)]
    block = b"".join(lines)
    least = len(_row_bytes(_padded_row(start, 0), format)) + len(foot)
    times, rest = divmod(size - len(head) - least, len(block))
    if times < 0:
        raise ValueError(f"no row fits into {size} bytes: the minimum is {len(head) + least}")
    fitting = _lines_that_fit(lines, rest)
    padding = rest - sum(map(len, fitting))
    tail = b"".join(fitting) + _row_bytes(_padded_row(start, padding), format) + foot
    return SandboxFiller(head, block, times, tail, rows=times * len(lines) + len(fitting) + 1)


def _block_rows(start: float) -> Iterator[Row]:
    """Yield as many rows as fill a block."""
    length = 0
    for row in SandboxSyntheticRows(rows_per_hour=ROWS_PER_HOUR, quiet=0).between(start, start + SPAN_SECONDS):
        length += len(row_json(row))
        if length > BLOCK_BYTES:
            return
        yield row


def _padded_row(start: float, length: int) -> Row:
    """Return a row with a text of this length in it."""
    row = next(SandboxSyntheticRows(rows_per_hour=ROWS_PER_HOUR, quiet=0).between(start, start + SPAN_SECONDS))
    return row | {"EventTargetText": "x" * length}


def _row_bytes(row: Row, format: str) -> bytes:  # noqa: A002 - the user's word
    if format == "csv":
        return b"".join(render([row], "csv", fields=EVENT_FIELDS)).removeprefix(empty("csv")).removesuffix(b"\n")
    return row_json(row)


def _lines_that_fit(lines: Sequence[bytes], size: int) -> list[bytes]:
    """Return as many of the first lines as fit into `size` bytes."""
    taken = []
    for line in lines:
        size -= len(line)
        if size < 0:
            break
        taken.append(line)
    return taken
