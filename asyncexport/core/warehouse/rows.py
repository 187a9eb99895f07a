"""Turns the fields of a row into the canonical row: one JSON object of texts, which DuckDB reads without any loss.

1. A field with a column is a member of its own, if its value fits (`cells`). All other fields are in `vars`: a JSON
   object, sorted by name, that is one text. A field that is absent or `null` is in neither.
2. `_rescued` is a JSON object, sorted by name, of texts: the values that do not fit their column.
3. If a name comes twice, the last value counts. The earlier ones are in `_rescued` as `name#1`, `name#2` and so on.
   A number is skipped if the row has a field of that very name.
4. `_key` is a JSON array of what identifies an event: the texts of `EVENT_KEY`, then the name and text of each `evt_*`,
   sorted by name. A text that is absent or empty is null, or left out if it is an `evt_*`. It is the same for equal
   values in NDJSON, JSON and CSV.
"""

from collections.abc import Iterable, Mapping

import orjson

from asyncexport.core.warehouse.cells import COLUMN_TEXT
from asyncexport.core.warehouse.columns import EVENT_KEY, EVENT_VARIABLE, Layout
from asyncexport.core.warehouse.json_text import json_of, json_string
from asyncexport.core.warehouse.odd_json import Member


class CanonicalRows:
    """Writes the canonical rows of one archive.

    Args:
        layout: The columns of the table.
        archive: The path of the archive.
        has_key: Whether rows get a `_key`.
    """

    def __init__(self, layout: Layout, *, archive: str, has_key: bool) -> None:
        self._column_text = {column.name: COLUMN_TEXT[column.kind] for column in layout.fields}
        self._archive = archive
        self._has_key = has_key

    def plain(self, cells: Mapping[str, str]) -> bytes:
        """Return the canonical row of a plain row: the text of each value by name."""
        return self._row(cells, {}, key=_key(cells) if self._has_key else None)

    def odd(self, members: Iterable[Member]) -> bytes:
        """Return the canonical row of a row that may be odd in any way."""
        last, rescued = _last_values(members)
        texts = {name: member.text for name, member in last.items() if member.text is not None}
        held = {name: text for name, text in texts.items() if last[name].is_held}
        return self._row(held, rescued, key=_key(texts) if self._has_key else None)

    def _row(self, cells: Mapping[str, str], rescued: dict[str, str], *, key: str | None) -> bytes:
        row: dict[str, str] = {}
        others: list[tuple[str, str]] = []
        for name, text in cells.items():
            column_text = self._column_text.get(name)
            if column_text is None:
                others.append((name, text))
            elif (found := column_text(text)) is not None:
                row[name] = found
            else:
                rescued.setdefault(name, text)
        if others:
            others.sort()
            row["vars"] = "{" + ",".join([f"{json_string(name)}:{json_of(text)}" for name, text in others]) + "}"
        if rescued:
            row["_rescued"] = (
                "{" + ",".join(f"{json_string(name)}:{json_string(rescued[name])}" for name in sorted(rescued)) + "}"
            )
        if key is not None:
            row["_key"] = key
        row["_archive"] = self._archive
        return orjson.dumps(row)


def _last_values(members: Iterable[Member]) -> tuple[dict[str, Member], dict[str, str]]:
    """Return the last field of each name, and what has to be kept in `_rescued` in any case."""
    last: dict[str, Member] = {}
    earlier: list[Member] = []
    for member in members:
        if member.name in last:
            earlier.append(last[member.name])
        last[member.name] = member
    rescued = {name: member.rescued for name, member in last.items() if member.rescued is not None}
    numbers: dict[str, int] = {}
    for member in earlier:
        text = member.text if member.rescued is None else member.rescued
        if text is not None:
            number = numbers.get(member.name, 0) + 1
            while f"{member.name}#{number}" in last:
                number += 1
            numbers[member.name] = number
            rescued[f"{member.name}#{number}"] = text
    return last, rescued


def _key(cells: Mapping[str, str]) -> str:
    parts = [json_string(text) if (text := cells.get(name)) else "null" for name in EVENT_KEY]
    for name in sorted([name for name in cells if name.startswith(EVENT_VARIABLE)]):
        if cells[name]:
            parts += (json_string(name), json_string(cells[name]))
    return "[" + ",".join(parts) + "]"
