"""Rows as files: NDJSON, JSON and CSV, and the choice of their fields.

1. Fields are chosen by exact names and by `user_*`, `evt_*` and `page_*`. Without a choice, all fields are written.
2. A row that keeps its own text (see `rowfile`) is written in the same spelling again, in every format.
3. NDJSON has one object a line. JSON is one array with a line feed after each comma between two objects, as at the
   real service.
4. CSV has a header and records that end in a line feed. Quotes are used only where needed, and line breaks within them
   are kept. The columns are the requested fields in their order, or all default fields. Custom columns follow, sorted
   by name, so that the order of the rows does not change the header. They must be known before the first byte is
   written. How the real service orders columns is a guess.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import orjson

from asyncexport.core.row_names import EVENT_FIELDS, INDIVIDUAL_FIELDS
from asyncexport.sandbox.rowfile import SandboxFileRow
from asyncexport.sandbox.rows import Row

__all__ = ["EVENT_FIELDS", "INDIVIDUAL_FIELDS", "columns_depend_on_rows", "empty", "render", "row_json", "select"]

PIECE_BYTES = 64 << 10

WILDCARDS = frozenset({"user_*", "evt_*", "page_*"})

SAME_FIELD = {
    "EventTargetSelectorTok": "EventTargetSelector",
    "EventTargetSelector": "EventTargetSelectorTok",
    "PageAgent": "PageUserAgent",
    "PageUserAgent": "PageAgent",
}
"""Old and new names of a field: a row has one of the two, and a request may use either."""

PLAIN = frozenset({str, int, float})
"""Types that the CSV writer writes correctly. It writes a bool as Python does."""


def select(rows: Iterable[Row], fields: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows with only the requested fields, or unchanged if `fields` is None or empty."""
    if not fields:
        yield from rows
        return
    prefixes = tuple(field[:-1] for field in fields if field in WILDCARDS)
    shown = {SAME_FIELD[field]: field for field in fields if field in SAME_FIELD}
    shown |= {field: field for field in fields if field not in WILDCARDS}
    for row in rows:
        if isinstance(row, SandboxFileRow):
            yield row.only(shown, prefixes)
        else:
            yield {shown.get(key, key): row[key] for key in row if key in shown or key.startswith(prefixes)}


def render(
    rows: Iterable[Row],
    format: str,  # noqa: A002 - the user's word
    *,
    fields: Sequence[str] | None = None,
    columns: Sequence[str] = EVENT_FIELDS,
    keys: Collection[str] | None = None,
    pieces: int = PIECE_BYTES,
) -> Iterator[bytes]:
    """Yield the complete file, uncompressed, in pieces.

    Args:
        rows: The rows of the file.
        format: `ndjson`, `json` or `csv`.
        fields: The fields to write; None means all.
        columns: The columns of a CSV file without `fields`: EVENT_FIELDS or INDIVIDUAL_FIELDS.
        keys: For CSV: the member names of all rows, before `fields` are chosen. Only needed if
            `columns_depend_on_rows`. None means that they are collected, with all rows in memory meanwhile.
        pieces: The approximate size of a piece in bytes.
    """
    if format == "ndjson":
        parts = _ndjson(select(rows, fields))
    elif format == "json":
        parts = _json_array(select(rows, fields))
    elif format == "csv":
        if keys is None:
            rows = list(rows)
            keys = {key for row in rows for key in row}
        parts = _csv(select(rows, fields), _columns(keys, fields, columns))
    else:
        raise ValueError(f"there is no format {format!r}")
    return _gathered(parts, pieces)


def empty(
    format: str,  # noqa: A002 - the user's word
    shape: str = "usual",
    *,
    fields: Sequence[str] | None = None,
    columns: Sequence[str] = EVENT_FIELDS,
) -> bytes:
    """Return an export without rows: the `usual` empty container, or `nothing` at all."""
    if shape == "nothing":
        return b""
    if shape == "usual":
        return b"".join(render([], format, fields=fields, columns=columns))
    raise ValueError(f"there is no shape {shape!r} of an empty export")


def row_json(row: Row) -> bytes:
    """Return a row as a JSON object on one line."""
    if isinstance(row, SandboxFileRow):
        return row.text.encode()
    try:
        return orjson.dumps(row)
    except TypeError:  # an integer beyond 64 bits, or half of a surrogate pair
        return json.dumps(row, separators=(",", ":")).encode()


def _ndjson(rows: Iterable[Row]) -> Iterator[bytes]:
    for row in rows:
        yield row_json(row) + b"\n"


def _json_array(rows: Iterable[Row]) -> Iterator[bytes]:
    before = b"["
    for row in rows:
        yield before + row_json(row)
        before = b",\n"
    yield b"[]" if before == b"[" else b"]"


def columns_depend_on_rows(fields: Sequence[str] | None) -> bool:
    """Whether the columns of a CSV file depend on its rows and not only on the requested fields."""
    return not fields or not WILDCARDS.isdisjoint(fields)


def _columns(keys: Collection[str], fields: Sequence[str] | None, defaults: Sequence[str]) -> list[str]:
    """Return the columns of a CSV file."""
    if not fields:
        return list(dict.fromkeys([*defaults, *sorted(keys)]))
    found = sorted(next(select([dict.fromkeys(keys)], fields)))
    columns: dict[str, None] = {}
    for name in fields:
        if name in WILDCARDS:
            columns |= dict.fromkeys(key for key in found if key.startswith(name[:-1]))
        else:
            columns[name] = None
    return list(columns)


def _csv(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[bytes]:
    lines: list[str] = []
    writer = csv.writer(_CsvLines(lines), lineterminator="\r\n")
    writer.writerow(columns)
    yield _pop_line(lines)
    for row in rows:
        writer.writerow(map(_cells(row).get, columns))  # the writer leaves missing members empty
        yield _pop_line(lines)


class _CsvLines:
    r"""The CSV writer's output. The writer ends lines with `\r\n`, since with `\n` it would not quote `\r`."""

    def __init__(self, lines: list[str]) -> None:
        self._ndjson = lines

    def write(self, line: str) -> None:
        self._ndjson.append(line.removesuffix("\r\n") + "\n")


def _pop_line(lines: list[str]) -> bytes:
    return lines.pop().encode("utf-8", "replace")


def _cells(row: Row) -> dict[str, Any]:
    """Return a row's values as the writer should get them; a row with its own text keeps the spelling of numbers."""
    if isinstance(row, SandboxFileRow):
        return {key: row[key] if value[0] == '"' else _word(value) for key, value in row.members()}
    odd = {key: _word(row_json(value).decode()) for key, value in row.items() if type(value) not in PLAIN}
    return row | odd if odd else row


def _word(text: str) -> str:
    return "" if text == "null" else text


def _gathered(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of about this size."""
    held: list[bytes] = []
    length = 0
    for part in parts:
        held.append(part)
        length += len(part)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)
