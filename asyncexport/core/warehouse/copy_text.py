r"""Rows in the text format of PostgreSQL's COPY: tabs between values, `\N` for NULL, backslashes as escapes.

1. DuckDB writes the lines, which is several times faster than Python.
2. A row that PostgreSQL cannot hold as it is comes as its values instead: one with U+0000, or with JSON that jsonb may
   refuse. `copy_line` makes its line and says whether anything was replaced.
3. The CSV format is not used: in it, servers before version 18 take a line `\.` within a text for the end of the data.
"""

from collections.abc import Mapping, Sequence

from asyncexport.core.warehouse.columns import DATE, ColumnKind
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal, quoted
from asyncexport.core.warehouse.jsonb import DEEPEST, LONG, ODD, ODD_DIGITS, fit_for_jsonb

_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}

NULL = r"\N"

_PLAIN = "hive_partitioning = false"

_FIRST_YEAR = "TIMESTAMP WITH TIME ZONE '0001-01-01 00:00:00+00'"
"""DuckDB writes earlier times in another way than PostgreSQL."""


def copy_statement(types: Mapping[str, str], json: frozenset[str], *, day: str, file: str) -> str:
    """Return the statement that reads a Parquet file and gives a line per row, or else the values of the row (rule 2).

    Args:
        types: The columns of the file, in the order of the line, and their types in DuckDB.
        json: The columns that become jsonb.
        day: The date, the last value of each line.
        file: The path of the file.
    """
    texts = {name: _text(name, type_) for name, type_ in types.items()} | {DATE.name: literal(day)}
    values = [_escaped(text, is_text=types.get(name) == ColumnKind.TEXT.value) for name, text in texts.items()]
    odd = " OR ".join(["contains(_line, chr(0))", *map(_is_odd, sorted(json))])
    rows = f"SELECT *, concat_ws(chr(9), {', '.join(values)}) AS _line FROM read_parquet({one_file(file)}, {_PLAIN})"
    marked = f"SELECT *, {odd} AS _odd FROM ({rows})"
    listed = f"[{', '.join(texts.values())}]"
    return f"SELECT CASE WHEN NOT _odd THEN _line END, CASE WHEN _odd THEN {listed} END FROM ({marked})"


def _text(name: str, type_: str) -> str:
    column = quoted(name)
    if type_ == ColumnKind.TIME.value:
        before = f"replace(CAST({column} AS VARCHAR), ' (BC)', '') || ' BC'"
        return f"CASE WHEN {column} < {_FIRST_YEAR} THEN {before} ELSE CAST({column} AS VARCHAR) END"
    return column if type_ == ColumnKind.TEXT.value else f"CAST({column} AS VARCHAR)"


def _escaped(text: str, *, is_text: bool) -> str:
    if not is_text:
        return f"coalesce({text}, {literal(NULL)})"
    replaced = text
    for character, escape in _ESCAPES.items():
        replaced = f"replace({replaced}, chr({ord(character)}), {literal(escape)})"
    # Few texts need it, and finding out is much cheaper than four replacements.
    needs = rf"regexp_matches({text}, '[\\\t\n\r]')"
    return f"coalesce(CASE WHEN {needs} THEN {replaced} ELSE {text} END, {literal(NULL)})"


def _is_odd(name: str) -> str:
    column = quoted(name)
    brackets = f"length({column}) - length(replace(replace({column}, '[', ''), '{{', '')) > {DEEPEST}"
    has_odd_digits = f"regexp_matches({column}, {literal(ODD_DIGITS)})"
    long = f"CASE WHEN length({column}) >= {LONG} THEN {has_odd_digits} OR {brackets} ELSE false END"
    return f"coalesce(regexp_matches({column}, {literal(ODD)}) OR {long}, false)"


def copy_line(values: Sequence[str | None], json: Sequence[bool]) -> tuple[str, bool]:
    """Return the line of a row, and whether something in it was replaced.

    Args:
        values: The values as text.
        json: Whether each value becomes jsonb.
    """
    stored = [
        value
        if value is None
        else fit_for_jsonb(value)
        if is_json
        else value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        for value, is_json in zip(values, json, strict=True)
    ]
    return "\t".join(map(_field, stored)), stored != list(values)


def _field(value: str | None) -> str:
    if value is None:
        return NULL
    for character, escape in _ESCAPES.items():
        value = value.replace(character, escape)
    return value
