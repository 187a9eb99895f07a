"""The rows of a file, for example rows that the real service once exported.

1. Rows are served exactly as they are in the file. Each row keeps its own JSON text, so integers beyond 64 bits, `4.0`,
   `1e2`, the order of keys and even duplicate keys survive. The parsed form is only for reading.
2. A file is one JSON array of objects or one object a line, gzipped or not. Every object has an `EventStart`.
3. Any other file is refused as a whole, with the place of the first error.
"""

import gzip
import json
import random
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from json.decoder import JSONDecoder
from pathlib import Path
from typing import Any, Never

from asyncexport.core.bundles import read_timestamp
from asyncexport.sandbox.rows import Row, SandboxPageView, micros

SPACE = re.compile(r"[ \t\r\n]*")

STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'

MEMBER = re.compile(rf"[ \t\r\n,]*({STRING})[ \t\r\n]*:[ \t\r\n]*({STRING}|[^ \t\r\n\[{{,}}]+)?", re.DOTALL)
"""A key and its value in the text of an object; the value does not match if it is an array or an object."""


class SandboxFileRow(Row):
    """A row that keeps its own JSON text.

    Args:
        text: The JSON text, on one line.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__(DECODER.decode(text))
        self.text = text

    def members(self) -> Iterator[tuple[str, str]]:
        """Yield every key with its value as written; a duplicate key comes twice."""
        at = 1
        while member := MEMBER.match(self.text, at):
            quoted, value = member.groups()
            at = member.end()
            if value is None:
                begin, (_, at) = at, DECODER.raw_decode(self.text, at)
                value = self.text[begin:at]
            yield DECODER.decode(quoted) if "\\" in quoted else quoted[1:-1], value

    def only(self, shown: Mapping[str, str], prefixes: tuple[str, ...]) -> "SandboxFileRow":
        """Return the members whose key is in `shown`, under its name there, or begins with one of the prefixes."""
        chosen = (
            f"{json.dumps(shown.get(key, key))}:{value}"
            for key, value in self.members()
            if key in shown or key.startswith(prefixes)
        )
        return SandboxFileRow("{" + ",".join(chosen) + "}")


class SandboxFileRows:
    """The rows of a file. Each reached the service at the time of its event.

    Args:
        path: The path of the file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file does not consist of event rows.
    """

    def __init__(self, path: Path) -> None:
        try:
            found = sorted(
                ((_event_nanos(text), text) for text in _row_texts(_read_file(path))), key=lambda pair: pair[0]
            )
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a file of event rows: {error}") from None
        if not found:
            raise ValueError(f"{path} is not a file of event rows: it has no rows")
        self._moments = [moment for moment, _ in found]
        self._row_texts = [text for _, text in found]

    def between(self, start: float, end: float, *, arrived_by: float | None = None) -> Iterator[Row]:
        """Return the rows with start <= EventStart < end, always in the same shuffled order."""
        first = bisect_left(self._moments, _nanos(start))
        last = bisect_left(self._moments, _nanos(end))
        if arrived_by is not None:
            last = min(last, bisect_left(self._moments, _nanos(arrived_by) + 1))
        order = list(range(first, last))
        random.Random(first).shuffle(order)
        return (SandboxFileRow(self._row_texts[number]) for number in order)

    def history(self, start: float, end: float, *, as_of: float) -> Iterator[SandboxPageView | None]:  # noqa: ARG002 - returns all page views
        """Yield all page views up to `as_of`."""
        pages: dict[tuple[Any, ...], list[int]] = {}
        for number in range(bisect_left(self._moments, _nanos(as_of) + 1)):
            yield None
            row = SandboxFileRow(self._row_texts[number])
            pages.setdefault((row.get("UserId"), row.get("SessionId"), row.get("PageId")), []).append(number)
        for numbers in pages.values():
            yield SandboxPageView(
                SandboxFileRow(self._row_texts[numbers[-1]]), tuple(self._moments[number] // 1000 for number in numbers)
            )


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


DECODER = JSONDecoder(parse_constant=_no_constant)
"""The decoder of the standard library, which reads integers of any length exactly."""


def _skip(text: str, at: int) -> int:
    """Return the position after any white space."""
    found = SPACE.match(text, at)
    return found.end() if found else at


def _read_file(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"its gzip is broken ({error})") from None
    return data.decode("utf-8-sig")


def _row_texts(text: str) -> Iterator[str]:
    """Yield the JSON text of each row. A line break, which is always between tokens, becomes a space."""
    at = _skip(text, 0)
    array = text[at : at + 1] == "["
    at = _skip(text, at + array)
    while at < len(text) and text[at] != "]":
        value, end = DECODER.raw_decode(text, at)
        if not isinstance(value, dict):
            raise ValueError(f"line {_line_number(text, at)} holds something that is not an object")  # noqa: TRY004
        yield text[at:end].replace("\r", " ").replace("\n", " ")
        at = _next_row(text, end, comma=array)
    if array and (at == len(text) or _skip(text, at + 1) < len(text)):
        raise ValueError("its array is not closed" if at == len(text) else "there is something after its array")
    if not array and at < len(text):
        raise ValueError(f"line {_line_number(text, at)} holds something that is not an object")


def _next_row(text: str, at: int, *, comma: bool) -> int:
    """Return the position of the next row, after a comma or a line break."""
    begin = _skip(text, at)
    if begin == len(text):
        return begin
    if comma and text[begin] == ",":
        following = _skip(text, begin + 1)
        if text[following : following + 1] != "]":
            return following
    elif (comma and text[begin] == "]") or (not comma and "\n" in text[at:begin]):
        return begin
    raise ValueError(f"line {_line_number(text, begin)} has extra text after a row")


def _line_number(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _event_nanos(text: str) -> int:
    """Return the time of a row's event in nanoseconds since 1970: its time stamp may have nine fraction digits."""
    stamp = DECODER.decode(text).get("EventStart")
    if not isinstance(stamp, str):
        raise ValueError(f"a row has no EventStart: {text[:60]}")  # noqa: TRY004
    fraction = re.search(r"\.(\d{1,9})", stamp)
    whole = read_timestamp(re.sub(r"\.\d+", "", stamp))
    return int(whole) * 1_000_000_000 + (int(fraction[1].ljust(9, "0")) if fraction else 0)


def _nanos(moment: float) -> int:
    return micros(moment) * 1000
