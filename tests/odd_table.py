"""Makes the page's table of odd input: what plain DuckDB and asyncexport make of each row.

Run `python -m tests.odd_table` in the repository to print it in Markdown. DuckDB reads each row in two ways: as its
documentation shows (`read_json_auto`, `read_csv_auto`), and told the type of each column. In both cases what counts is
whether an error is raised, and otherwise what the row holds. **Bold** is what was lost or changed without an error:
the texts of the values, by their names, are not those that were exported.
"""

import json
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from asyncexport.core.exports import Format
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.warehouse.make_day import make_day
from tests.day_making import request_of, table_of
from tests.odd_rows import LAYOUT, ODD_FILES, ODD_OBJECTS

ORIGIN = ("event_id", "_archive", "_bundle_start", "_bundle_end", "_exported_at", "_revision")
LONGEST_CELL = 70
TYPES = "{" + ", ".join(f"{literal(one.name)}: '{one.kind.value}'" for one in LAYOUT.fields) + "}"

Rows = list[dict[str, Any]]


def without_nulls(names: list[str], rows: list[tuple[Any, ...]]) -> Rows:
    """Return rows without what is NULL."""
    pairs = [[(name, value) for name, value in zip(names, row, strict=True) if value is not None] for row in rows]
    return [dict(one) for one in pairs]


def read_plainly(reader: str, file: Path) -> Rows | None:
    """Return what DuckDB reads; None for an error."""
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        try:
            found = duck.execute(f"SELECT * FROM {reader.format(file=literal(str(file)), types=TYPES)}")
            return without_nulls([one[0] for one in found.description or ()], found.fetchall())
        except duckdb.Error:
            return None


READERS: dict[Format, tuple[str, str]] = {
    Format.NDJSON: ("read_json_auto({file})", "read_json({file}, columns = {types})"),
    Format.CSV: ("read_csv_auto({file})", "read_csv({file}, header = true, all_varchar = true)"),
}


def read_by_us(folder: Path, content: bytes, form: Format) -> tuple[Rows, int]:
    """Return the rows that asyncexport makes, and how many are quarantined."""
    request = request_of(folder, content, form=form, layout=LAYOUT)
    made = make_day(request)
    rows = table_of(request.flat) if request.flat.exists() else []
    names = [name for name in (rows[0] if rows else ()) if name not in ORIGIN]
    return without_nulls(names, [tuple(row[name] for name in names) for row in rows]), sum(made.quarantined.values())


def row_of_table(says: str, content: bytes, form: Format) -> str:
    """Return one line of the table."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"odd.{form.value}"
        file.write_bytes(content)
        ours, quarantined = read_by_us(Path(folder), content, form)
        plain = [read_plainly(reader, file) for reader in READERS[form]]
    cells = [says, *(verdict(rows, ours, quarantined) for rows in plain), result(ours, quarantined)]
    return f"| {' | '.join(cells)} |"


def verdict(rows: Rows | None, ours: Rows, quarantined: int) -> str:
    """Return the cell of a reader of DuckDB's."""
    if rows is None:
        return "error"
    is_same = not quarantined and list(map(normal, rows)) == [as_exported(row) for row in ours]
    return shown(rows) if is_same else f"**{shown(rows)}**"


def as_exported(row: dict[str, Any]) -> dict[str, Any]:
    """Return what asyncexport holds of a row: the texts of the columns, of `vars` and of `_rescued`, by name."""
    held = {name: value for name, value in row.items() if name not in {"vars", "_rescued"}}
    others = json.loads(row.get("vars", "{}"), parse_float=str, parse_int=str)
    return {**normal(held), **normal(others), **json.loads(row.get("_rescued", "{}"))}


def normal(value: Any) -> Any:
    """Return a value with texts for all scalars, whatever their types are."""
    match value:
        case dict():
            return {name: normal(one) for name, one in value.items()}
        case list():
            return [normal(one) for one in value]
        case bool():
            return str(value).lower()
        case _:
            return text_of(value) if isinstance(value, datetime) else str(value)


def result(ours: Rows, quarantined: int) -> str:
    """Return the cell of asyncexport."""
    return ", ".join([*([shown(ours)] if ours or not quarantined else []), *(["quarantined"] if quarantined else [])])


def shown(rows: Rows) -> str:
    """Return rows as they are shown in a cell."""
    if not rows:
        return "no row"
    texts = ["{" + ", ".join(f"{name}: {text_of(value)}" for name, value in row.items()) + "}" for row in rows]
    text = " ".join(texts)
    text = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


def text_of(value: object) -> str:
    """Return a value on one line."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text) if text else '""'


def table() -> str:
    """Return the table."""
    lines = ["| row | DuckDB, guessing | DuckDB, told the columns | asyncexport |", "|---|---|---|---|"]
    accepted = [odd for odd in ODD_OBJECTS if odd.row.lstrip().startswith(b"{")]
    lines += [row_of_table(odd.says, odd.row + b"\n", Format.NDJSON) for odd in accepted]
    lines += [row_of_table(f"CSV: {odd.says}", odd.content, Format.CSV) for odd in ODD_FILES]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201 - for the page
