"""Cuts the content of an archive into rows, without reading them, exactly as the check of the archive counted them.

1. The boundaries are those of `core.archive.structure` and `core.archive.json_array`, which the number of rows in the
   ledger comes from: lines that are not blank; records whose quotes are balanced, below a header; the objects of an
   array by their brackets. For content that was accepted there, the number of rows is the same.
2. Content that was accepted is not checked again. Whatever stands where a row should be is cut as a row, so that it can
   be quarantined. Only in an array, text outside of objects is no row.
3. The result does not depend on where the pieces are cut.
4. Of a row longer than `max_row`, only the first `HEAD_BYTES` are kept, and its length.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asyncexport.core.exports import Format

HEAD_BYTES = 1 << 20
"""Bytes that are kept of a row that is too long."""

BLANK = b" \t\r\n"
BLANK_RECORD = (b"", b"\r")

IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
BETWEEN_BRACKETS = re.compile(rb'[^"{}\[\]\\]*+(?:(?:\\.|"[^"\\]*+(?:\\.[^"\\]*+)*+")[^"{}\[\]\\]*+)*+', re.DOTALL)
"""What may stand between two brackets: complete strings, and other characters. As in the check of the archive, a
backslash outside of a string makes the next character an ordinary one, too."""

QUOTE, ESCAPE = ord('"'), ord("\\")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row.

    Attributes:
        row: Its number, counted from 1. The header of a CSV has the number 0.
        line: The number of the line that it begins in, counted from 1.
        data: Its bytes, without the line break; of a row that is too long, only the first.
        size: The number of its bytes.
    """

    row: int
    line: int
    data: bytes
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether `data` is all of it."""
        return len(self.data) == self.size


class _Begun:
    """The bytes of a row that has not ended yet."""

    def __init__(self, max_row: int) -> None:
        self.size = 0
        self._max_row = max_row
        self._held = bytearray()

    def grow(self, data: bytes) -> None:
        """Add more of it."""
        self.size += len(data)
        if self.size <= self._max_row:
            self._held += data
        elif len(self._held) < HEAD_BYTES:
            self._held += data[: HEAD_BYTES - len(self._held)]
        else:
            del self._held[HEAD_BYTES:]

    def end(self, rest: bytes) -> tuple[bytes, int]:
        """Return its bytes, or the first of them, and its length; the next one begins."""
        if not self.size and len(rest) <= self._max_row:
            return rest, len(rest)
        self.grow(rest)
        found = bytes(self._held), self.size
        self.size = 0
        self._held = bytearray()
        return found


class Lines:
    """The lines of NDJSON that are not blank."""

    def __init__(self, max_row: int) -> None:
        self._begun = _Begun(max_row)
        self._row = 0
        self._line = 1

    def feed(self, data: bytes) -> Iterator[RawRow]:
        """Yield the lines that end in the next piece."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield from self._end(line)
            self._line += 1
        self._begun.grow(self._past_blanks(rest))

    def close(self) -> Iterator[RawRow]:
        """Yield the last line if nothing ended it."""
        yield from self._end(b"")

    def _end(self, rest: bytes) -> Iterator[RawRow]:
        data, size = self._begun.end(self._past_blanks(rest))
        if size:
            self._row += 1
            yield RawRow(self._row, self._line, data, size)

    def _past_blanks(self, data: bytes) -> bytes:
        """Return the data without the blanks before a line."""
        return data if self._begun.size else data.lstrip(BLANK)


class Records:
    """The header and the records of a CSV that are not blank."""

    def __init__(self, max_row: int) -> None:
        self._begun = _Begun(max_row)
        self._row = -1
        self._line = self._lines = 1
        self._in_quotes = False

    def feed(self, data: bytes) -> Iterator[RawRow]:
        """Yield the records that end in the next piece."""
        start = at = 0
        while (end := data.find(b'"' if self._in_quotes else b"\n", at)) >= 0:
            if self._in_quotes:
                self._lines += data.count(b"\n", at, end)
                self._in_quotes, at = False, end + 1
                continue
            self._in_quotes = data.count(b'"', at, end) % 2 == 1
            if self._in_quotes:
                at = data.rfind(b'"', at, end) + 1
                continue
            yield from self._end(data[start:end])
            self._lines += 1
            self._line = self._lines
            start = at = end + 1
        if self._in_quotes:
            self._lines += data.count(b"\n", at)
        else:
            self._in_quotes = data.count(b'"', at) % 2 == 1
        self._begun.grow(data[start:])

    def close(self) -> Iterator[RawRow]:
        """Yield the last record if nothing ended it."""
        yield from self._end(b"")

    def _end(self, rest: bytes) -> Iterator[RawRow]:
        data, size = self._begun.end(rest)
        if data not in BLANK_RECORD:
            self._row += 1
            yield RawRow(self._row, self._line, data, size)


class Objects:
    """The objects of a JSON array."""

    def __init__(self, max_row: int) -> None:
        self._begun = _Begun(max_row)
        self._row = 0
        self._line = self._lines = 1
        self._depth = 0
        self._in_string = self._escaped = False

    def feed(self, data: bytes) -> Iterator[RawRow]:
        """Yield the objects that end in the next piece."""
        at = counted = 0
        while True:
            start = at
            if not self._depth:
                start = data.find(b"{", at)
                if start < 0:
                    break
                self._lines += data.count(b"\n", counted, start)
                self._line, counted = self._lines, start
                self._depth, at = 1, start + 1
            at = self._past_object(data, at)
            if self._depth:
                self._begun.grow(data[start:])
                break
            yield from self._end(data[start:at])
        self._lines += data.count(b"\n", counted)

    def close(self) -> Iterator[RawRow]:
        """Yield the last object if nothing ended it."""
        if self._depth:
            yield from self._end(b"")

    def _past_object(self, data: bytes, at: int) -> int:
        """Return where the object ends, or the length of the piece."""
        if self._escaped and data:
            self._escaped, at = False, at + 1
        while self._depth and at < len(data):
            found = (IN_STRING if self._in_string else BETWEEN_BRACKETS).match(data, at)
            at = found.end() if found else at
            if at == len(data):
                break
            sign = data[at]
            at += 1
            if sign == ESCAPE:
                self._escaped = True
            elif sign == QUOTE:
                self._in_string = not self._in_string
            else:
                self._depth += 1 if sign in b"{[" else -1
        return at

    def _end(self, rest: bytes) -> Iterator[RawRow]:
        data, size = self._begun.end(rest)
        self._row += 1
        yield RawRow(self._row, self._line, data, size)


RawRows = Lines | Records | Objects
"""Cuts content into rows; the first piece comes without a byte order mark."""

RAW_ROWS: dict[Format, Callable[[int], RawRows]] = {
    Format.NDJSON: Lines,
    Format.CSV: Records,
    Format.JSON: Objects,
}
"""What cuts the content of each format, made for a `max_row`."""
