"""The fields of a row that is plain JSON, and how values are written as JSON.

1. A value is kept as a text. That of a string is its content. That of any other value, a `Token`, is its JSON text:
   numbers as they are written, no white space between tokens, each string as `json_string` writes it. DuckDB writes
   JSON in the same way, but rewrites some numbers.
2. The standard library's parser is used: with its hooks it keeps numbers as they are written and shows repeated keys.
3. A row is plain if its bytes are UTF-8, no key comes twice, and every value is one that a column can hold. For all
   other rows there is `odd_json`, which is slower.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

PARSED_BYTES = 256 << 10
"""A longer row is not parsed here, since an object per value takes many times the row's memory."""

DEEPEST_LEVEL = 128
"""The levels that DuckDB reads: the row is the first, and a number or string has a level of its own."""

ESCAPES = {
    **{code: f"\\u{code:04X}" for code in range(32)},
    **{ord(char): f"\\{short}" for char, short in zip('\b\t\n\f\r"\\', 'btnfr"\\', strict=True)},
}
"""What is written for each character that must be escaped."""

HALF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
CONSTANTS: dict[bool | None, str] = {True: "true", False: "false", None: "null"}


class Token(str):
    """The JSON text of a value that is not a string: a number, true, false, a list or an object."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """The members of an object."""


class _NotPlainError(ValueError):
    """The row has a value that no column can hold."""


encode_string = json.JSONEncoder(ensure_ascii=False).encode


def json_string(text: str) -> str:
    r"""Return a string as JSON, written as DuckDB does: only what must be escaped is, as `\n` or `\u001F`."""
    found = encode_string(text)
    return f'"{text.translate(ESCAPES)}"' if "\\u00" in found else found


def json_of(text: str) -> str:
    """Return the JSON text of a value."""
    return text if type(text) is Token else json_string(text)


def _refuse_constant(_name: str) -> None:
    raise _NotPlainError


parse = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_int=Token, parse_float=Token, parse_constant=_refuse_constant, strict=False
).decode


def plain_cells(row: bytes) -> dict[str, str] | None:
    """Return the values by name without those that are `null`, or None if the row is not plain."""
    if len(row) > PARSED_BYTES:
        return None
    try:
        text = row.decode()
        if "\\u" in text and HALF_A_PAIR.search(text):
            return None
        pairs = parse(text)
        if type(pairs) is not Pairs:
            return None
        cells = dict(pairs)
        if len(cells) != len(pairs):
            return None
        for name, value in pairs:
            if type(value) is not str and type(value) is not Token:
                if value is None:
                    del cells[name]
                else:
                    cells[name] = Token("".join(_pieces(value, level=2)))
    except (ValueError, RecursionError):
        return None
    return cells


def _pieces(value: Any, *, level: int) -> Sequence[str]:
    """Return the JSON text of a parsed value in pieces."""
    if level > DEEPEST_LEVEL:
        raise _NotPlainError
    match value:
        case Token():
            return (value,)
        case str():
            return (json_string(value),)
        case Pairs():
            members = (f"{json_string(name)}:{''.join(_pieces(inner, level=level + 1))}" for name, inner in value)
            return ("{", ",".join(members), "}")
        case list():
            return ("[", ",".join("".join(_pieces(inner, level=level + 1)) for inner in value), "]")
        case _:
            return (CONSTANTS[value],)
