"""The members of a JSON object, each value exactly as it is written.

A parser of JSON would make numbers of values such as `1.50` and write them in another way. So values are only found,
not parsed. The object must be valid JSON, which the flat table's are.
"""

import json
import re
from collections.abc import Iterator

_SPACE = r"[ \t\r\n]*+"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NAME = re.compile(rf"{_SPACE}({_STRING}){_SPACE}:{_SPACE}", re.DOTALL)
_SCALAR = re.compile(rf"{_STRING}|[^\s,{{}}\[\]\"]++", re.DOTALL)
_BRACKETS = re.compile(rf"{_STRING}|([\[{{])|([\]}}])", re.DOTALL)
_END = re.compile(rf"{_SPACE}([,}}])")
_BEGIN = re.compile(rf"{_SPACE}\{{{_SPACE}(\}})?")


def members(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of the value of each member.

    Raises:
        ValueError: the text is not a JSON object.
    """
    begin = _BEGIN.match(text)
    if begin is None:
        raise _not_an_object(0)
    at, end = begin.end(), begin[1]
    while end != "}":
        name = _NAME.match(text, at)
        if name is None:
            raise _not_an_object(at)
        start = name.end()
        at = _end_of_value(text, start)
        after = _END.match(text, at)
        if after is None:
            raise _not_an_object(at)
        yield _decoded(name[1]), text[start:at]
        at, end = after.end(), after[1]


def json_name(name: str) -> str:
    """Return a name as a JSON string. Half a character cannot be written in UTF-8, so it is escaped."""
    return json.dumps(name, ensure_ascii=any("\ud800" <= one <= "\udfff" for one in name))


def _decoded(name: str) -> str:
    return str(json.loads(name)) if "\\" in name else name[1:-1]


def _end_of_value(text: str, start: int) -> int:
    scalar = _SCALAR.match(text, start)
    if scalar is not None:
        return scalar.end()
    depth, at = 0, start
    for found in _BRACKETS.finditer(text, start):
        depth += bool(found[1]) - bool(found[2])
        at = found.end()
        if depth <= 0:
            break
    if depth or at == start:
        raise _not_an_object(start)
    return at


def _not_an_object(at: int) -> ValueError:
    return ValueError(f"not a JSON object: character {at} cannot be read")
