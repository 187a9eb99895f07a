"""How archives are read as text: the SQL that turns the rows of a day into columns of texts, without any loss.

1. A reader that is told the columns drops all others silently, and a reader that guesses them changes values. So the
   names of all fields are found first (`scanning`).
2. Documented fields, and custom variables with a column of their own, are read as text. All other fields are read as
   JSON, and joined into `vars`, sorted by name. Columns that no row has are not read.
3. DuckDB must be told that each line is a record. Otherwise it takes `{}` for the value of the only column.
4. The canonical form, which the row-by-row reader writes, has one JSON object per line, whose members are strings: the
   fields, `vars`, `_rescued`, `_key` and `_archive`. It becomes the same columns.
"""

from collections.abc import Collection, Mapping, Sequence

import orjson

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import EVENT_KEY, EVENT_VARIABLE, ColumnKind, Layout
from asyncexport.core.warehouse.identifiers import literal, quoted
from asyncexport.core.warehouse.scanning import FILE, LONGEST_ROW

NULL = "CAST(NULL AS VARCHAR)"

NO_FIELDS = {"_asyncexport_none": "VARCHAR"}
"""Read if no row has a field, since DuckDB wants a column."""


def texts_of_archives(
    files: Sequence[str], layout: Layout, names: Collection[str], *, folder: str, has_key: bool
) -> str:
    """Return the statement that reads archives as text: the columns t0, t1, … of the layout's fields, and so on.

    Args:
        files: The paths of the decompressed archives, which all begin with `folder`.
        layout: The columns of the table.
        names: The names of all fields that rows have.
        folder: What is left out of the paths in the column `file`.
        has_key: Whether rows get a key.
    """
    own = {column.name: "JSON" if column.kind is ColumnKind.JSON else "VARCHAR" for column in layout.fields}
    others = sorted(set(names) - own.keys())
    types = {**{name: type_ for name, type_ in own.items() if name in names}, **dict.fromkeys(others, "JSON")}
    columns = ", ".join(f"{literal(name)}: '{type_}'" for name, type_ in (types or NO_FIELDS).items())
    key = _key(types) if has_key and layout.type is Type.EVENT else NULL
    texts = ", ".join(f"{_text(name, types)} AS t{number}" for number, name in enumerate(own))
    file = f"{FILE}[{len(folder) + 1}:]"
    return (
        f"SELECT {texts}, {_vars(others)} AS vars, {NULL} AS rescued, {key} AS key, {file} AS file FROM read_json("
        f"{_list(files)}, format = 'newline_delimited', records = true, compression = 'none', columns = {{{columns}}}, "
        f"filename = '{FILE}', hive_partitioning = false, maximum_object_size = {LONGEST_ROW})"
    )


def texts_of_canonical(files: Sequence[str], layout: Layout, *, longest: int) -> str:
    """Return the statement that reads files in canonical form, as the same columns; `longest` is their longest line."""
    own = [column.name for column in layout.fields]
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in (*own, "vars", "_rescued", "_key", "_archive"))
    texts = ", ".join(f"{quoted(name)} AS t{number}" for number, name in enumerate(own))
    return (
        f"SELECT {texts}, vars, _rescued AS rescued, _key AS key, _archive AS file FROM "
        f"read_json({_list(files)}, format = 'newline_delimited', records = true, columns = {{{columns}}}, "
        f"hive_partitioning = false, maximum_object_size = {max(longest, 1 << 20) + 1})"
    )


def _text(name: str, types: Mapping[str, str]) -> str:
    return f"CAST({quoted(name)} AS VARCHAR)" if name in types else NULL


def _vars(names: Sequence[str]) -> str:
    if not names:
        return NULL
    members = ", ".join(f"{literal(_json(name) + ':')} || CAST({quoted(name)} AS VARCHAR)" for name in names)
    return f"nullif('{{' || concat_ws(',', {members}) || '}}', '{{}}')"


def _key(types: Mapping[str, str]) -> str:
    """Return the expression of a row's key: a JSON array of texts."""
    parts = [f"coalesce({_as_string(name, types)}, 'null')" if name in types else "'null'" for name in EVENT_KEY]
    variables = sorted(name for name in types if name.startswith(EVENT_VARIABLE))
    parts += [f"{literal(_json(name) + ',')} || {_as_string(name, types)}" for name in variables]
    return f"'[' || concat_ws(',', {', '.join(parts)}) || ']'"


def _as_string(name: str, types: Mapping[str, str]) -> str:
    """Return the expression of a field's text as a JSON string, NULL if it is empty."""
    text = f"CAST({quoted(name)} AS VARCHAR)"
    if types[name] == "VARCHAR":
        return f"CAST(to_json(nullif({text}, '')) AS VARCHAR)"
    string, nested = f"nullif({text}, '\"\"')", f"CAST(to_json({text}) AS VARCHAR)"
    is_nested = f"starts_with({text}, '{{') OR starts_with({text}, '[')"
    other = f"WHEN {is_nested} THEN {nested} ELSE '\"' || {text} || '\"'"
    return f"CASE WHEN starts_with({text}, '\"') THEN {string} {other} END"


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


def _list(files: Sequence[str]) -> str:
    return f"[{', '.join(map(literal, files))}]"
