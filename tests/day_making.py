"""Days made of archives that a test writes, and what is in the tables made of them."""

import gzip
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from asyncexport.core.archive.structure import STRUCTURES
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.days import DaySource, SourceArchive
from asyncexport.warehouse.day_maker import DayRequest

MIDNIGHT = 1_767_225_600
"""2026-01-01, in seconds since 1970."""


def ndjson(*rows: dict[str, Any]) -> bytes:
    """Return rows as NDJSON."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def rows_in(content: bytes, form: Format) -> int:
    """Return the number of rows as the ledger counts them."""
    structure = STRUCTURES[form]()
    structure.feed(content.removeprefix(b"\xef\xbb\xbf"))
    return structure.close()


def source_archive(output: Path, number: int, content: bytes, *, form: Format = Format.NDJSON) -> SourceArchive:
    """Write the archive of a half-hour of the day, and describe it as the ledger would."""
    start = MIDNIGHT + 1800 * number
    packed = gzip.compress(content, mtime=0)
    rows = rows_in(content, form)
    return described(output, f"archive-{number:02}.{form.value}.gz", packed, start=start, rows=rows)


def described(output: Path, path: str, data: bytes, *, start: int, rows: int) -> SourceArchive:
    """Write a file and describe it as an archive of `rows` rows, of the half-hour from `start`."""
    (output / path).write_bytes(data)
    return SourceArchive(path, sha256(data).hexdigest(), rows, Range(start, start + 1800), MIDNIGHT + 200_000.25, 3)


def day_request(
    folder: Path,
    archives: Sequence[SourceArchive],
    *,
    form: Format = Format.NDJSON,
    layout: Layout | None = None,
    **more: Any,
) -> DayRequest:
    """Return the request to make a day of archives in a folder."""
    layout = layout or Layout(Type.EVENT)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    source = DaySource("everyone-events", MIDNIGHT, form, tuple(archives))
    receipt = source.receipt(layout, max_row=more.get("max_row", 64 << 20))
    return DayRequest(
        folder, source, layout, receipt, folder / "day.parquet", folder / "quarantine.ndjson.gz", scratch, **more
    )


def request_of(folder: Path, *contents: bytes, form: Format = Format.NDJSON, first: int = 0, **more: Any) -> DayRequest:
    """Write an archive per content, from the half-hour `first` on, and return the request to make a day of them."""
    archives = [source_archive(folder, number, content, form=form) for number, content in enumerate(contents, first)]
    return day_request(folder, archives, form=form, **more)


def table_of(parquet: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file."""
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        found = duck.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(parquet)])
        names = [one[0] for one in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def metadata_of(parquet: Path) -> dict[str, str]:
    """Return the metadata that a Parquet file has of its own."""
    with duckdb.connect() as duck:
        found = duck.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(parquet)]).fetchall()
    return {bytes(key).decode(): bytes(value).decode() for key, value in found}
