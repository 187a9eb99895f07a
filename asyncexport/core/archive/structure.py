"""What is inside of an archive: is it whole, and how many rows does it have?

1. Nothing is parsed that need not be: at a gigabyte, counting is affordable and parsing is not. So what is refused is
   what stopped early, and what is of another kind; a row that is nonsense in itself goes through as it is.
2. The verdict does not depend on where the pieces are cut.
3. NDJSON: one object a line; blank lines do not count. The first line begins like an object, the last one is parsed. A
   cut exactly after a line leaves nothing to see; the layers of gzip around it have to show it, or the framing.
4. JSON: one array of objects, every bracket closed by its like, nothing before it or after it.
5. CSV as of RFC 4180: a header, and records whose quotes are balanced; a newline between quotes is text. The last
   record is as wide as the header. A cut within the last value of a record leaves nothing to see either.
6. A container without anything in it has no rows, and is whole.
"""

import json
import re
from typing import Protocol

from asyncexport.core.exports import Format
from asyncexport.errors import CorruptError

LONGEST_ROW_BYTES = 64 << 20
"""What is longer than this is no row."""

BLANK = b" \t\r\n"
OBJECT = ord("{")


class Structure(Protocol):
    """What is inside; the first piece comes without a byte order mark."""

    def feed(self, data: bytes) -> None:
        """The next piece.

        Raises:
            CorruptError: it cannot be whole any more.
        """
        ...

    def close(self) -> int:
        """No more will come: how many rows there were.

        Raises:
            CorruptError: it is not whole.
        """
        ...


class Ndjson:
    """One object a line."""

    def __init__(self) -> None:
        self._rows = 0
        self._begun = bytearray()

    def feed(self, data: bytes) -> None:
        """The next piece."""
        start = data.find(b"\n") + 1
        if start:
            self._rows += self._is_row(bytes(self._begun) + data[:start])
            self._begun.clear()
        rows = 0
        while (end := data.find(b"\n", start)) >= 0:
            # As nearly all begin. This loop is most of what an archive costs here, so it calls nothing of ours.
            rows += data[start] == OBJECT or self._is_row(data[start:end])
            start = end + 1
        self._rows += rows
        self._begun += data[start:]
        _check_length(self._begun)

    def close(self) -> int:
        """How many lines there were that are not blank."""
        if self._is_row(bytes(self._begun)):
            if not _is_object(self._begun):
                raise CorruptError("the archive stops within a row")
            self._rows += 1
        return self._rows

    def _is_row(self, line: bytes) -> bool:
        line = line.strip()
        if line and line[0] != OBJECT:
            raise CorruptError("the archive is not NDJSON: it has a line that is no object")
        return bool(line)


class Json:
    """One array of objects, of which only the brackets are followed, as far as they are not in strings."""

    def __init__(self) -> None:
        self._rows = 0
        self._escape = b""
        self._in_string = False
        self._before = START
        self._open = bytearray()

    def feed(self, data: bytes) -> None:
        """The next piece."""
        data = ESCAPED.sub(b"", self._escape + data)
        self._escape = data[-1:] if data.endswith(b"\\") else b""
        data = data.removesuffix(b"\\")
        at = 0
        for position in _brackets(data):
            self._pass_over(data, at, position)
            if not self._in_string:
                self._take(data[position])
            at = position + 1
        self._pass_over(data, at, len(data))

    def close(self) -> int:
        """How many elements the array has."""
        if self._escape or self._open or self._before not in (START, END):
            raise CorruptError("the archive stops within its array")
        return self._rows

    def _pass_over(self, data: bytes, start: int, end: int) -> None:
        """What has no bracket in it: within a row only quotes matter, outside of rows everything does."""
        if self._open:
            self._in_string ^= data.count(b'"', start, end) % 2 == 1
        else:
            for char in data[start:end].translate(None, BLANK):
                self._follow(char)

    def _take(self, bracket: int) -> None:
        """A bracket outside of strings."""
        if not self._open:
            self._follow(bracket)
            if bracket == OBJECT:
                self._open.append(bracket)
        elif bracket in CLOSED_BY:
            self._open.append(bracket)
        elif CLOSED_BY[self._open.pop()] != bracket:
            raise CorruptError("the archive has a bracket that is closed by another")
        elif not self._open:
            self._rows += 1
            self._before = bracket

    def _follow(self, char: int) -> None:
        """Something outside of rows."""
        if char not in MAY_FOLLOW[self._before]:
            raise CorruptError("the archive is not one array of objects")
        self._before = char


def _brackets(data: bytes) -> list[int]:
    """Where brackets stand. One after another is found much faster than any of four."""
    found = []
    for bracket in (b"{", b"}", b"[", b"]"):
        at = data.find(bracket)
        while at >= 0:
            found.append(at)
            at = data.find(bracket, at + 1)
    return sorted(found)


ESCAPED = re.compile(rb"\\.", re.DOTALL)
CLOSED_BY = {ord("{"): ord("}"), ord("["): ord("]")}
START, END = 0, ord("]")
MAY_FOLLOW = {START: b"[", ord("["): b"{]", ord("{"): b"", ord("}"): b",]", ord(","): b"{", END: b""}
"""Outside of rows: what may come after what."""


class Csv:
    """A header and records."""

    def __init__(self) -> None:
        self._rows = 0
        self._header = b""
        self._last = b""
        self._begun = bytearray()
        self._in_quotes = False

    def feed(self, data: bytes) -> None:
        """The next piece."""
        start = at = rows = 0
        last = slice(0)
        is_simple = False
        while (end := data.find(b"\n", at)) >= 0:
            self._in_quotes ^= data.count(b'"', at, end) % 2 == 1
            at = end + 1
            if self._in_quotes:
                continue
            if not is_simple:
                self._take(data[start:end])
                is_simple = bool(self._header)
            elif end > start + 1 or data[start:end] not in BLANK_LINES:
                rows += 1
                last = slice(start, end)
            start = at
        self._in_quotes ^= data.count(b'"', at) % 2 == 1
        self._rows += rows
        self._last = data[last] or self._last
        self._begun += data[start:]
        _check_length(self._begun)

    def close(self) -> int:
        """How many records there are below the header."""
        if self._in_quotes:
            raise CorruptError("the archive stops within quotes")
        self._take(b"")
        if self._rows and _width(self._last) != _width(self._header):
            raise CorruptError("the archive has a record that is not as wide as its header")
        return self._rows

    def _take(self, record: bytes) -> None:
        if self._begun:
            record = bytes(self._begun) + record
            self._begun.clear()
        if record in BLANK_LINES:
            return
        if self._header:
            self._rows += 1
            self._last = record
        elif record.lstrip().startswith(NO_HEADER):
            raise CorruptError("the archive is not CSV: its first line is no header")
        else:
            self._header = record


BLANK_LINES = (b"", b"\r")
NO_HEADER = (b"<", b"{", b"[")
"""What begins so is a page, or JSON."""


def _check_length(begun: bytearray) -> None:
    if len(begun) > LONGEST_ROW_BYTES:
        raise CorruptError("the archive has a row that is too long to be one")


def _is_object(line: bytearray) -> bool:
    """Leniently: the service's rows may hold what is not quite Unicode."""
    try:
        return isinstance(json.loads(line.decode("utf-8", "replace"), strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _width(record: bytes) -> int:
    """How many values a record has."""
    return b"".join(record.split(b'"')[::2]).count(b",") + 1


STRUCTURES: dict[Format, type[Ndjson] | type[Json] | type[Csv]] = {
    Format.NDJSON: Ndjson,
    Format.JSON: Json,
    Format.CSV: Csv,
}
