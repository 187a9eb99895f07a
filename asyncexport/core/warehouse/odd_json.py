r"""Reads a row that is not plain JSON: repeated keys, invalid Unicode, deep nesting, NaN, or simply a long row.

1. NaN and Infinity are read, and so are control characters within a string. Everything else that is not JSON is not a
   row.
2. Half of a surrogate pair, or a byte that is not UTF-8, becomes U+FFFD. The value is then also kept as it is written:
   with its quotes and escapes, and `\xff` for a byte that is not UTF-8. JSON has no escape `\x`, so the bytes can be
   recovered. If a name has such a fault, the whole member is kept under the name with U+FFFD.
3. No column can hold NaN and Infinity, nor a value that is nested more deeply than DuckDB reads.
4. Nothing here is recursive, and time and memory grow with the length of the row only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from asyncexport.core.warehouse.json_text import DEEPEST_LEVEL, Token, json_string, parse

STRING = r'"[^"\\]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\]*+)*+"'
VALUE = re.compile(
    rf"[ \t\n\r]*+(?:(?P<string>{STRING})|(?P<opens>[\[{{])|(?P<constant>NaN|-?Infinity)"
    r"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+|true|false|(?P<null>null))"
)
NAME = re.compile(rf"[ \t\n\r]*+({STRING})[ \t\n\r]*+:")
SIGN = re.compile(r"[ \t\n\r]*+(.?)", re.DOTALL)
OPEN_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?', re.DOTALL)
STRING_OR_BLANKS = re.compile(rf"{STRING}|[ \t\n\r]++")
SURROGATE = re.compile("[\ud800-\udfff]")
CLOSED_BY = {"{": "}", "[": "]"}


class NotARowError(ValueError):
    """It is not a JSON object, or not a CSV record that fits its header. The message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """One field of a row.

    Attributes:
        name: Its name.
        text: The text of its value; None for `null`.
        rescued: What is kept in `_rescued` in any case. None for most fields.
        is_held: Whether a column can hold the value.
    """

    name: str
    text: str | None
    rescued: str | None = None
    is_held: bool = True


def members(row: bytes) -> list[Member]:
    """Return all members in order.

    Raises:
        NotARowError: it is not one JSON object.
    """
    text = row.decode("utf-8", "surrogateescape")
    sign = _sign(text, 0)
    if sign[1] != "{":
        raise NotARowError("the row is not a JSON object")
    at = sign.end()
    sign = _sign(text, at)
    found: list[Member] = []
    if sign[1] == "}":
        at = sign.end()
    else:
        for member, end in _members(text, at):
            found.append(member)
            at = end
    if _sign(text, at)[1]:
        raise NotARowError(f"the row has something after its object, at character {at + 1}")
    return found


def _members(text: str, at: int) -> Iterator[tuple[Member, int]]:
    """Yield each member of the row with the position after the comma or bracket that follows it."""
    while True:
        name = _name(text, at)
        value = _value(text, name.end())
        sign = _sign(text, value.end)
        if sign[1] not in (",", "}"):
            _refuse(text, value.end)
        yield _member(text, name, value), sign.end()
        if sign[1] == "}":
            return
        at = sign.end()


@dataclass(frozen=True, slots=True)
class _Value:
    """Where a value is, and what is in it."""

    start: int
    end: int
    is_string: bool
    is_null: bool
    is_held: bool


def _value(text: str, at: int) -> _Value:
    """Find the end of the value that follows, and check that it is JSON."""
    opened: list[str] = []
    first: re.Match[str] | None = None
    is_held = True
    while True:
        found = VALUE.match(text, at) or _refuse(text, at)
        first = first or found
        at = found.end()
        is_held = is_held and found.lastgroup != "constant" and len(opened) + 2 <= DEEPEST_LEVEL
        if found.lastgroup == "opens":
            opened.append(found["opens"])
            sign = _sign(text, at)
            if sign[1] != CLOSED_BY[opened[-1]]:
                at = _name(text, at).end() if opened[-1] == "{" else at
                continue
        at = _past_ends(text, at, opened)
        if not opened:
            break
    start = first.end() - len(first[0].lstrip(" \t\n\r"))
    return _Value(start, at, first.lastgroup == "string", first.lastgroup == "null", is_held)


def _past_ends(text: str, at: int, opened: list[str]) -> int:
    """Return where the next value begins after one that has ended; closes the brackets that end there."""
    while opened:
        sign = _sign(text, at)
        if sign[1] == ",":
            return _name(text, sign.end()).end() if opened[-1] == "{" else sign.end()
        if sign[1] != CLOSED_BY[opened[-1]]:
            _refuse(text, at)
        opened.pop()
        at = sign.end()
    return at


def _sign(text: str, at: int) -> re.Match[str]:
    found = SIGN.match(text, at)
    if found is None:
        raise AssertionError("the pattern matches everything")
    return found


def _name(text: str, at: int) -> re.Match[str]:
    return NAME.match(text, at) or _refuse(text, at)


def _refuse(text: str, at: int) -> NoReturn:
    sign = _sign(text, at)
    if not sign[1] or OPEN_STRING.fullmatch(text, sign.start(1)):
        raise NotARowError("the row ends before its object does")
    raise NotARowError(f"the row is not valid JSON, at character {sign.end()}")


def _member(text: str, name: re.Match[str], value: _Value) -> Member:
    raw = text[value.start : value.end]
    found: str | None = None
    if value.is_string:
        found = str(parse(raw))
    elif not value.is_null:
        found = Token(STRING_OR_BLANKS.sub(_compact, raw))
    title = str(parse(name[1]))
    if SURROGATE.search(title):
        rescued = f"{name[1]}:{raw}"
    elif found is not None and SURROGATE.search(found):
        rescued = raw
    else:
        return Member(title, found, None if value.is_held else found, value.is_held)
    clean = None if found is None else type(found)(without_surrogates(found))
    return Member(without_surrogates(title), clean, with_visible_bytes(rescued), value.is_held)


def _compact(part: re.Match[str]) -> str:
    """Write a string as `json_string` does, and nothing for white space."""
    return json_string(parse(part[0])) if part[0][0] == '"' else ""


def without_surrogates(text: str) -> str:
    """Return a text with U+FFFD for each half of a surrogate pair and each byte that is not UTF-8."""
    return SURROGATE.sub("\ufffd", text)


def with_visible_bytes(text: str) -> str:
    r"""Return a text with `\xff` and the like for bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
