"""How archives are read: the SQL that finds the fields of a day's rows, and the one that makes texts of them.

1. The fields of the rows are found first, in a pass of its own. A reader that is told the columns drops all others
   silently, and a reader that guesses them changes values.
2. Documented fields, and custom variables with a column of their own, are read as text. All other fields are read as
   JSON, and joined into `vars`, sorted by name.
3. Some names cannot be columns of one statement: names that differ only in case, and names with control characters.
   Archives with such a name are read row by row.
4. The canonical form, which the row-by-row reader writes, has one JSON object per line, whose members are strings: the
   fields, `vars`, `_rescued`, `_key` and `_archive`. The same statement reads it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import EVENT_KEY, Layout
from asyncexport.core.warehouse.identifiers import literal, quoted

FILE = "_asyncexport_file"
"""The column in which DuckDB returns the path of the file."""

LONGEST_ROW = 16 << 20
"""The longest row that is read in the statement, in bytes. Archives with longer ones are read row by row: the reader's
buffers are twice this large."""

EVENT_VARIABLE = "evt_"
"""The prefix of an event's variables, which are part of its key."""


def field_names(files: Sequence[str]) -> str:
    """Return the statement that finds the fields of each file: rows of file, name and number of occurrences."""
    return (
        f"SELECT {FILE}, name, count(*) FROM (SELECT {FILE}, unnest(json_keys(json)) AS name FROM "
        f"read_ndjson_objects({_list(files)}, compression = 'gzip', filename = '{FILE}', hive_partitioning = false, "
        f"maximum_object_size = {LONGEST_ROW})) GROUP BY ALL"
    )


@dataclass(frozen=True, slots=True)
class Names:
    """The names of the fields of a day.

    Attributes:
        fields: The names that get a column while reading, sorted.
        odd: The files that have other names, with one of these.
    """

    fields: tuple[str, ...]
    odd: Mapping[str, str]

    @classmethod
    def of(cls, found: Iterable[tuple[str, str, int]], layout: Layout) -> "Names":
        """Sort out what `field_names` found: of names that differ only in case, one is chosen."""
        rows = list(found)
        totals: dict[str, int] = {}
        for _, name, count in rows:
            totals[name] = totals.get(name, 0) + count
        own = {column.name for column in layout.fields}
        chosen = {name.casefold(): name for name in (FILE, *own)}
        for name in sorted(totals, key=lambda one: (-totals[one], one)):
            if name and name.isprintable():
                chosen.setdefault(name.casefold(), name)
        good = set(chosen.values()) - {FILE}
        odd = {file: name for file, name, _ in rows if name not in good}
        return cls(tuple(sorted(good - own)), odd)


def texts_of_archives(files: Sequence[str], layout: Layout, names: Names, *, has_key: bool) -> str:
    """Return the statement that reads archives as text: the columns t0, t1, … of the layout's fields, and so on."""
    own = [column.name for column in layout.fields]
    columns = ", ".join(
        [*(f"{literal(name)}: 'VARCHAR'" for name in own), *(f"{literal(name)}: 'JSON'" for name in names.fields)]
    )
    key = _key(layout, names) if has_key else "NULL"
    texts = ", ".join(f"{quoted(name)} AS t{number}" for number, name in enumerate(own))
    return (
        f"SELECT {texts}, {_vars(names.fields)} AS vars, NULL AS rescued, {key} AS key, {FILE} AS file FROM read_json("
        f"{_list(files)}, format = 'newline_delimited', compression = 'gzip', columns = {{{columns}}}, "
        f"filename = '{FILE}', hive_partitioning = false, maximum_object_size = {LONGEST_ROW})"
    )


def texts_of_canonical(files: Sequence[str], layout: Layout, *, longest: int) -> str:
    """Return the statement that reads files in canonical form, as the same columns; `longest` is their longest line."""
    own = [column.name for column in layout.fields]
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in (*own, "vars", "_rescued", "_key", "_archive"))
    texts = ", ".join(f"{quoted(name)} AS t{number}" for number, name in enumerate(own))
    return (
        f"SELECT {texts}, vars, _rescued AS rescued, CAST(json(_key) AS VARCHAR) AS key, _archive AS file FROM "
        f"read_json({_list(files)}, format = 'newline_delimited', columns = {{{columns}}}, hive_partitioning = false, "
        f"maximum_object_size = {max(longest, 1 << 20) + 1})"
    )


def _vars(names: Sequence[str]) -> str:
    if not names:
        return "CAST(NULL AS VARCHAR)"
    members = ", ".join(f"{literal(_json(name) + ':')} || CAST({quoted(name)} AS VARCHAR)" for name in names)
    return f"nullif('{{' || concat_ws(',', {members}) || '}}', '{{}}')"


def _key(layout: Layout, names: Names) -> str:
    """Return the expression of a row's key: a JSON array of texts."""
    if layout.type is not Type.EVENT:
        return "NULL"
    parts = [f"coalesce({_quoted_text(name)}, 'null')" for name in EVENT_KEY]
    own = {column.name for column in layout.fields}
    custom = [name for name in layout.custom if name.startswith(EVENT_VARIABLE)]
    for name in sorted([*custom, *(one for one in names.fields if one.startswith(EVENT_VARIABLE))]):
        text = _quoted_text(name) if name in own else _quoted_json(name)
        parts.append(f"{literal(_json(name) + ',')} || {text}")
    return f"'[' || concat_ws(',', {', '.join(parts)}) || ']'"


def _quoted_text(name: str) -> str:
    """Return the expression of a text as a JSON string, NULL if it is empty."""
    return f"CAST(to_json(nullif({quoted(name)}, '')) AS VARCHAR)"


def _quoted_json(name: str) -> str:
    """Return the same for a field that is read as JSON."""
    text = f"CAST({quoted(name)} AS VARCHAR)"
    return (
        f"CASE WHEN starts_with({text}, '\"') THEN nullif({text}, '\"\"') WHEN starts_with({text}, '{{') OR "
        f"starts_with({text}, '[') THEN CAST(to_json({text}) AS VARCHAR) ELSE '\"' || {text} || '\"' END"
    )


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


def _list(files: Sequence[str]) -> str:
    return f"[{', '.join(map(literal, files))}]"
