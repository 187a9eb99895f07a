"""Reads an archive row by row, exactly, and writes its rows in the canonical form that DuckDB reads without any loss.

1. This is the way of every CSV and JSON archive, and of NDJSON that DuckDB would refuse or would read inexactly. It is
   slower than DuckDB, and loses nothing (`core.warehouse.exact_reader`).
2. The file is read once, through one descriptor. Its hash is that of the bytes that were read.
3. Memory is bounded by the longest row, whatever the archive inflates to.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

from asyncexport.core.archive.gunzip import Gunzip
from asyncexport.core.archive.inspection import BOM
from asyncexport.core.exports import Format
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.exact_reader import ExactReader, QuarantinedLine
from asyncexport.errors import ArchiveError, ChangedArchiveError

READ_BYTES = 128 << 10
WRITTEN_BYTES = 1 << 20
"""Canonical rows are written in pieces of about this size."""


@dataclass(frozen=True, slots=True)
class ExactCount:
    """What was read.

    Attributes:
        rows: Canonical rows.
        quarantined: Quarantined rows.
        sha256: The hash of the file, in hex.
    """

    rows: int
    quarantined: int
    sha256: str


def read_exactly(
    file: BinaryIO,
    container: Format,
    layout: Layout,
    *,
    archive: str,
    max_row: int,
    has_key: bool,
    write: Callable[[bytes], object],
    quarantine: Callable[[QuarantinedLine], object],
) -> ExactCount:
    """Read an archive from its beginning to its end.

    Args:
        file: The archive, compressed.
        container: The format of its rows.
        layout: The columns of the table.
        archive: Its path, relative to the output directory.
        max_row: The longest row in bytes; longer ones are quarantined.
        has_key: Whether rows get a `_key`, because all fields of the key were exported.
        write: Called with canonical NDJSON, many rows at a time.
        quarantine: Called with each row that cannot be read.

    Raises:
        ChangedArchiveError: it is not complete gzip, so it is not the file that was stored.
    """
    digest = sha256()
    reader = ExactReader(container, layout, archive=archive, max_row=max_row, has_key=has_key, quarantine=quarantine)
    try:
        _write_all(_canonical_rows(_content(file, digest.update), reader), write)
    except ArchiveError as error:
        raise ChangedArchiveError(
            f"cannot read {archive} any more: {error}",
            path=archive,
            hint="run `asyncexport verify` to find damaged archives",
        ) from error
    return ExactCount(reader.rows, reader.quarantined, digest.hexdigest())


def _content(file: BinaryIO, hashed: Callable[[bytes], object]) -> Iterator[bytes]:
    """Yield the content without a byte order mark."""
    gunzip = Gunzip()
    start: bytes | None = b""
    while data := file.read(READ_BYTES):
        hashed(data)
        for piece in gunzip.feed(data):
            if start is None:
                yield piece
            elif len(start := start + piece) >= len(BOM):
                yield start.removeprefix(BOM)
                start = None
    gunzip.close()
    if start:
        yield start


def _canonical_rows(content: Iterator[bytes], reader: ExactReader) -> Iterator[bytes]:
    for piece in content:
        yield from reader.feed(piece)
    yield from reader.close()


def _write_all(rows: Iterator[bytes], write: Callable[[bytes], object]) -> None:
    """Write the rows as lines, many at a time."""
    held: list[bytes] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row)
        if size >= WRITTEN_BYTES:
            write(b"\n".join([*held, b""]))
            held, size = [], 0
    if held:
        write(b"\n".join([*held, b""]))
