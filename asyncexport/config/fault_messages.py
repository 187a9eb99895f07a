"""Turns pydantic's errors into messages for users: where the fault is, what was expected, and what was found.

The value found is shown only if it cannot be a secret: no text of the tables in `PRIVATE`, no long text, nothing shaped
like a key.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from asyncexport.config.fields import KEY_SHAPE, TextValue
from asyncexport.config.layers import SettingsLayer, known_keys, path_of_key
from asyncexport.errors import Problem

MAX_NUMBER = 10**18
"""A number from here on is not shown, because its digits could fill a page."""

MAX_SHOWN = 30
"""Maximum length of a text that is shown; keys are longer."""

PRIVATE = {("api",), ("ping",), ("load", "postgres"), ("load", "snowflake"), ("output", "mirror")}
"""The tables and keys whose values are never shown."""

LISTS = {
    ("export", "fields"): '["EventStart", "evt_*"]',
    ("load", "to"): '["parquet", "duckdb"]',
    ("load", "columns"): '["user_plan_str"]',
}
"""An example of each list of texts, for messages."""

EXPECTED = {
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "string_type": "expected text in quotes",
    "string_unicode": "must be UTF-8 text",
    "dict_type": 'expected a table of texts, such as {"X-Team" = "data"}',
    "is_instance_of": "expected a path in quotes",
}
"""The message for each type of pydantic's errors."""


def problem(error: Mapping[str, Any], layers: Sequence[SettingsLayer]) -> Problem:
    """Return the problem for one of pydantic's errors; `layers` are ordered by precedence, highest first."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] == "value_error" and isinstance(path[-1], str):
        # For a default, pydantic reports the name in the model.
        path = (*path[:-1], path[-1].removesuffix("_seconds"))
    source = _source(path, layers)
    return Problem(_place(path, layers, source), _fault_message(error, path), source.file)


def problem_of(path: tuple[str, str], message: str, layers: Sequence[SettingsLayer]) -> Problem:
    """Return a problem with a `(table, key)` that depends on other settings; `layers` have the highest first."""
    source = _source(path, layers)
    return Problem(_place(path, layers, source), message, source.file)


def _source(path: tuple[Any, ...], layers: Sequence[SettingsLayer]) -> SettingsLayer:
    """Return the layer that the value comes from; exports can only come from the file."""
    if path[0] == "export":
        return layers[-1]
    return next((layer for layer in layers if layer.holds(path_of_key(path))), SettingsLayer())


def _place(path: tuple[Any, ...], layers: Sequence[SettingsLayer], source: SettingsLayer) -> str:
    """Return `table.key`, `export[2].bundle` or `export "checkout".bundle`, or the variable or flag it comes from."""
    if path[0] == "export" and len(path) > 1:
        return ".".join([_export(path[1], layers), *_dotted(path[2:])])
    key = path_of_key(path)
    place = source.places.get(key, ".".join(_dotted(key)))
    name, bracket, rest = place.partition(" (")
    return ".".join(_dotted(path[len(key) :], after=name)) + bracket + rest


def _dotted(path: Sequence[Any], *, after: str = "") -> list[str]:
    """Return the parts of a path, with list positions as `part[1]`, counted from one; `after` precedes the path."""
    parts = [after] if after else []
    for part in path:
        if isinstance(part, int) and parts:
            parts[-1] += f"[{part + 1}]"
        else:
            parts.append(str(part) if _may_show(str(part)) else "(a hidden name)")
    return parts


def _export(at: int, layers: Sequence[SettingsLayer]) -> str:
    names = [_name_of(table) for table in layers[-1].values["export"]]
    known = names[at]
    return f'export "{known}"' if known and names.count(known) == 1 else f"export[{at + 1}]"


def _name_of(table: Any) -> str:
    """Return the name of an `[[export]]` as written, or "" if it cannot be shown."""
    name = table.get("name") if isinstance(table, dict) else None
    return name if isinstance(name, str) and _may_show(name) else ""


def _fault_message(error: Mapping[str, Any], path: tuple[Any, ...]) -> str:
    kind, value = error["type"], error["input"]
    limit = error.get("ctx", {})
    suggestion = ""
    match kind:
        case "extra_forbidden":
            return _unknown_name(path)
        case "model_type":
            name = ".".join(map(str, path))
            return f"expected a table, written [{name}]" if name in known_keys() else "expected a table"
        case "tuple_type" if path == ("export",):
            return "expected [[export]], with double brackets"
        case "tuple_type":
            expected = f"expected a list of texts, such as {LISTS[path[0], path[-1]]}"
        case "dict_type" if isinstance(value, TextValue):
            return 'expected a JSON object of texts, such as {"X-Team": "data"}'
        case "enum":
            expected, suggestion = _choice(limit["expected"], value)
        case "value_error":
            expected = str(limit["error"])
        case "greater_than_equal":
            expected = f"must be at least {limit['ge']}"
        case "less_than_equal":
            expected = f"must be at most {limit['le']}"
        case _:
            expected = EXPECTED.get(kind, "has the wrong type")
    is_private = any(path[:n] in PRIVATE for n in (1, 2)) and (isinstance(value, str) or "headers" in path)
    is_said = kind == "value_error" and isinstance(value, list)  # the message of the rule names the member
    shown = "" if is_private or is_said else _shown(value)
    return expected + (f", got {shown}" if shown else "") + suggestion


def _unknown_name(path: tuple[Any, ...]) -> str:
    tables = known_keys()
    name, own = str(path[-1]), ".".join(map(str, path_of_key(path)[:-1])) if len(path) > 1 else None
    if re.fullmatch(r"(fullstory_)?(api_?)?(key|token)", name, re.IGNORECASE):
        return "the API key must not be in the settings: set FULLSTORY_API_KEY, or name a file in [api] api_key_file"
    homes = [_bracketed(table) for table, keys in tables.items() if name in keys and table != own]
    if homes:
        return f"unknown here: it belongs in {' or '.join(homes)}"
    if own is None:
        nearest = [_bracketed(table) for table in get_close_matches(name.lower(), tables, n=1)]
        return "unknown table" + _did_you_mean(nearest)
    inner = {table.removeprefix(f"{own}."): _bracketed(table) for table in tables if table.startswith(f"{own}.")}
    nearest = get_close_matches(name.partition(".")[0].lower(), [*tables[own], *inner], n=1)
    return "unknown key" + _did_you_mean([inner.get(one, one) for one in nearest])


def _did_you_mean(nearest: Sequence[str]) -> str:
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _bracketed(table: str) -> str:
    return "[[export]]" if table == "export" else f"[{table}]"


def _choice(expected: str, value: Any) -> tuple[str, str]:
    """Return the allowed values and a suggestion; `expected` is pydantic's list, with quotes."""
    choices = re.findall(r"'([^']*)'", expected)
    nearest = get_close_matches(value.lower(), choices, n=1) if isinstance(value, str) else []
    written = [choice or '""' for choice in choices]
    return f"expected {', '.join(written[:-1])} or {written[-1]}", _did_you_mean([one for one in nearest if one])


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number too large" if isinstance(value, int) and abs(value) >= MAX_NUMBER else repr(value)
        case "" | []:
            return ""
        case str():
            return f'"{value}"' if _may_show(value) else "a hidden text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _may_show(text: str) -> bool:
    return len(text) <= MAX_SHOWN and text.isprintable() and not KEY_SHAPE.match(text)
