"""Reads content the exact way, for tests."""

import gzip
import io
import json
from typing import Any

from asyncexport.core.exports import Format
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.exact_reader import QuarantinedLine
from asyncexport.warehouse.exact_path import ExactCount, read_exactly
from tests.odd_rows import LAYOUT

ARCHIVE = "everyone_events/2026-01-01/a.ndjson.gz"


def read_archive(
    archive: bytes, container: Format, *, layout: Layout = LAYOUT, max_row: int = 64 << 20, has_key: bool = False
) -> tuple[ExactCount, list[bytes], list[QuarantinedLine]]:
    """Return the count, the canonical rows and the quarantined ones."""
    written: list[bytes] = []
    quarantined: list[QuarantinedLine] = []
    count = read_exactly(
        io.BytesIO(archive),
        container,
        layout,
        archive=ARCHIVE,
        max_row=max_row,
        has_key=has_key,
        write=written.append,
        quarantine=quarantined.append,
    )
    return count, b"".join(written).splitlines(), quarantined


def read_content(
    content: bytes, container: Format, *, layout: Layout = LAYOUT, max_row: int = 64 << 20
) -> tuple[list[dict[str, Any]], list[QuarantinedLine]]:
    """Return the canonical rows, with `_rescued` parsed and without `_archive`, and the quarantined ones."""
    count, lines, quarantined = read_archive(gzip.compress(content, 1), container, layout=layout, max_row=max_row)
    assert (count.rows, count.quarantined) == (len(lines), len(quarantined))
    return [_row(line) for line in lines], quarantined


def _row(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    assert all(isinstance(text, str) for text in row.values())
    assert row.pop("_archive") == ARCHIVE
    if "_rescued" in row:
        row["_rescued"] = json.loads(row["_rescued"])
    return row
