"""Rows as files: NDJSON, JSON and CSV, and which fields are in them.

1. Fields are chosen as reference section 3.1 has it: exact names, and `user_*`, `evt_*`, `page_*`. None means all.
2. A row that knows how it was written (see `rowfile`) is written that way again, in every format.
3. NDJSON is one object a line. JSON is one array, a line break after the comma between two objects, as the real one is.
4. CSV is a header and records that end in a line feed; quotes only where they are needed, line breaks within them kept.
   Columns are the fields asked for, in that order, or all the default ones; the custom ones that are there come sorted
   by name, so that the same rows in another order have the same header. Which are there, one has to look for before the
   first byte is written. What a guess is in this: reference section 8.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import orjson

from asyncexport.core.row_names import EVENT_FIELDS, INDIVIDUAL_FIELDS
from asyncexport.sandbox.rowfile import SandboxFileRow
from asyncexport.sandbox.rows import Row

__all__ = ["EVENT_FIELDS", "INDIVIDUAL_FIELDS", "empty", "names_its_columns", "render", "row_json", "select"]

PIECE_BYTES = 64 << 10

WILDCARDS = frozenset({"user_*", "evt_*", "page_*"})

SAME_FIELD = {
    "EventTargetSelectorTok": "EventTargetSelector",
    "EventTargetSelector": "EventTargetSelectorTok",
    "PageAgent": "PageUserAgent",
    "PageUserAgent": "PageAgent",
}
"""Old names and new ones: a row has one of the two, and is asked for by either."""

PLAIN = frozenset({str, int, float})
"""What the CSV writer writes as it should be; a bool, of all things, it writes as Python does."""


def select(rows: Iterable[Row], fields: Sequence[str] | None) -> Iterator[Row]:
    """The rows with nothing but the fields asked for; None or none: as they are."""
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
    """The whole file, uncompressed, in pieces.

    Args:
        rows: What is in it.
        format: `ndjson`, `json` or `csv`.
        fields: What to leave of each row; None: everything.
        columns: The columns of a CSV file without `fields`: EVENT_FIELDS or INDIVIDUAL_FIELDS.
        keys: For CSV: the names in the rows, before `fields` are chosen; only needed where `names_its_columns` says
            so. None: they are looked for, and all rows are held meanwhile.
        pieces: About how many bytes a piece has.
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
        raise ValueError(f"no such format: {format!r}")
    return _gathered(parts, pieces)


def empty(
    format: str,  # noqa: A002 - the user's word
    shape: str = "usual",
    *,
    fields: Sequence[str] | None = None,
    columns: Sequence[str] = EVENT_FIELDS,
) -> bytes:
    """An export without rows, in a shape of reference section 8: `usual`, or `nothing` at all."""
    if shape == "nothing":
        return b""
    if shape == "usual":
        return b"".join(render([], format, fields=fields, columns=columns))
    raise ValueError(f"no such shape of an empty export: {shape!r}")


def row_json(row: Row) -> bytes:
    """One row as a JSON object on one line."""
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


def names_its_columns(fields: Sequence[str] | None) -> bool:
    """Whether the columns of a CSV file depend on its rows, and not on the fields asked for alone."""
    return not fields or not WILDCARDS.isdisjoint(fields)


def _columns(keys: Collection[str], fields: Sequence[str] | None, defaults: Sequence[str]) -> list[str]:
    """The columns of a CSV file."""
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
        writer.writerow(map(_cells(row).get, columns))  # what a row has not, the writer leaves empty
        yield _pop_line(lines)


class _CsvLines:
    r"""What the writer writes to: with `\r\n` for a line's end it quotes both, with `\n` it would not quote `\r`."""

    def __init__(self, lines: list[str]) -> None:
        self._ndjson = lines

    def write(self, line: str) -> None:
        self._ndjson.append(line.removesuffix("\r\n") + "\n")


def _pop_line(lines: list[str]) -> bytes:
    return lines.pop().encode("utf-8", "replace")


def _cells(row: Row) -> dict[str, Any]:
    """A row's values as the text of cells; numbers of a written row as they were written."""
    if isinstance(row, SandboxFileRow):
        return {key: row[key] if value[0] == '"' else _word(value) for key, value in row.members()}
    odd = {key: _word(row_json(value).decode()) for key, value in row.items() if type(value) not in PLAIN}
    return row | odd if odd else row


def _word(text: str) -> str:
    return "" if text == "null" else text


def _gathered(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of about that size."""
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
