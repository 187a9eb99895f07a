"""SQL for JSON: each value is an expression that gives JSON text, or NULL where there is no value.

1. Objects are built by concatenation, never by parsing, so that a number stays as it is written.
2. A member without a value is left out, and so is an object without members.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from asyncexport.core.warehouse.identifiers import literal, quoted


@dataclass(frozen=True, slots=True)
class Value:
    """One value: an SQL expression that gives JSON text, and the columns of the flat table that it reads."""

    sql: str
    columns: tuple[str, ...]


def flat(column: str) -> str:
    """Return a column of the flat table, which each statement names `flat`."""
    return f"flat.{quoted(column)}"


def json_text(sql: str) -> str:
    """Return an expression that quotes a text as a JSON string."""
    return f"CAST(to_json({sql}) AS VARCHAR)"


def number_or_text(sql: str) -> str:
    """Return an expression that writes a number, `true` or `false` as it is, and any other text as a JSON string."""
    scalar = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false"
    return f"CASE WHEN regexp_full_match({sql}, {literal(scalar)}) THEN {sql} ELSE {json_text(sql)} END"


def text(*columns: str) -> Value:
    """Return the text of a column, or of the first of several that has one that is not empty."""
    if len(columns) == 1:
        return Value(json_text(flat(columns[0])), columns)
    tried = ", ".join(f"nullif({flat(name)}, '')" for name in columns)
    return Value(json_text(f"coalesce({tried})"), columns)


def text_if_any(column: str) -> Value:
    """Return the text of a column unless it is empty."""
    return Value(json_text(f"nullif({flat(column)}, '')"), (column,))


def number(column: str) -> Value:
    """Return the number in a column."""
    return Value(f"CAST({flat(column)} AS VARCHAR)", (column,))


def difference(minuend: str, subtrahend: str) -> Value:
    """Return one number less another."""
    wide = f"CAST({flat(minuend)} AS HUGEINT) - {flat(subtrahend)}"
    return Value(f"CAST({wide} AS VARCHAR)", (minuend, subtrahend))


def share(percent: str) -> Value:
    """Return a percentage as a share of 1."""
    return Value(f"CAST({flat(percent)} / 100.0 AS VARCHAR)", (percent,))


def time(column: str) -> Value:
    """Return a time with six digits of the second, as the vendor writes it in files."""
    return Value(f"'\"' || {time_text(flat(column))} || '\"'", (column,))


def time_text(sql: str) -> str:
    """Return an expression that writes a time in UTC; DuckDB's own formatting of times with a zone is an extension."""
    return f"strftime(make_timestamp(epoch_us({sql})), '%Y-%m-%dT%H:%M:%S.%fZ')"


def choice(column: str, values: Mapping[str | int, str]) -> Value:
    """Return a JSON text by a column's value; no other value gives one."""
    cases = " ".join(
        f"WHEN {literal(found) if isinstance(found, str) else found} THEN {literal(given)}"
        for found, given in values.items()
    )
    return Value(f"CASE {flat(column)} {cases} END", (column,))


Tree: TypeAlias = dict[str, "str | Tree"]


def json_object(members: Iterable[tuple[str, str]]) -> str:
    """Return an expression for an object: NULL if all members are NULL.

    Args:
        members: The path of each member with dots between its names, and the expression of its value.
    """
    tree: Tree = {}
    for path, sql in members:
        *parents, name = path.split(".")
        place = tree
        for parent in parents:
            inner = place.setdefault(parent, {})
            assert isinstance(inner, dict), f"{path}: {parent} is a value and an object"  # noqa: S101 - our own table
            place = inner
        place[name] = sql
    return _object(tree)


def _object(tree: Tree) -> str:
    members = ", ".join(
        literal(f'"{name}":') + f" || {inner if isinstance(inner, str) else _object(inner)}"
        for name, inner in tree.items()
    )
    return f"nullif(concat('{{', concat_ws(',', {members}), '}}'), '{{}}')"
