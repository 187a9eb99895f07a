"""What is inside of an archive: is it whole, and how many rows does it have?

1. Nothing is parsed that need not be: at a gigabyte, counting is affordable and parsing is not. So what is refused is
   what stopped early, and what is of another kind; a row that is nonsense in itself goes through as it is.
2. The verdict does not depend on where the pieces are cut.
3. NDJSON: one object a line; blank lines do not count. A line begins like an object; the last one, where no newline
   ends it, is parsed. A cut exactly after a line leaves nothing to see; the layers of gzip around it have to show it,
   or the framing.
4. JSON: one array of objects, every bracket closed by its like, nothing before it or after it (`json_array`).
5. CSV as of RFC 4180: a header, and records whose quotes are balanced; a newline between quotes is text. The last
   record is as wide as the header. A cut within the last value of a record leaves nothing to see either.
6. A container without anything in it has no rows, and is whole.
7. Time and memory do not depend on what a few bytes inflate to. A row of more than a megabyte is never held: it is
   scanned as it comes, and only its brackets or quotes have to balance. Above `max_row` it is counted in `long_rows` as
   well, so that it can be told.
8. The rows that rules are to look at are handed to them on the way (`rules`).
"""

import json
import re
from collections.abc import Callable
from typing import Protocol

from asyncexport.core.archive.json_array import ESCAPED, JsonArray
from asyncexport.core.archive.rules import PARSED_BYTES, RowSample
from asyncexport.core.exports import Format
from asyncexport.errors import CorruptError, NoExportError

MAX_ROW_BYTES = 64 << 20
"""The default of `[download] max_row`: a longer row is told."""

BLANK = b" \t\r\n"
OBJECT = ord("{")


class Structure(Protocol):
    """What is inside; the first piece comes without a byte order mark. `long_rows` counts rows above `max_row`."""

    long_rows: int

    def feed(self, data: bytes) -> None:
        """The next piece.

        Raises:
            CorruptError: it cannot be whole any more.
        """
        ...

    def close(self) -> int:
        """No more will come: how many rows there were.

        Raises:
            CorruptError: it is not whole, or not what the rules demand.
        """
        ...


class Ndjson:
    """One object a line."""

    def __init__(self, *, sample: RowSample | None = None, max_row: int = MAX_ROW_BYTES) -> None:
        self.long_rows = 0
        self._max_row = max_row
        self._sample = sample or RowSample(None)
        self._rows = 0
        self._begun = bytearray()
        self._scan: _LongObject | None = None
        self._last = b""

    def feed(self, data: bytes) -> None:
        """The next piece."""
        start = data.find(b"\n") + 1
        if not start:
            self._grow(data)
            return
        self._grow(data[: start - 1])
        self._end_row()
        end = data.rfind(b"\n") + 1
        if end > start:
            self._count(data, start, end)
        self._grow(data[end:])

    def close(self) -> int:
        """How many lines there were that are not blank."""
        if self._scan or self._begun:
            self._check_begin()
            whole = self._scan.is_whole if self._scan else _is_object(self._begun)
            if not whole:
                raise CorruptError("the archive stops within a row")
            self._end_row()
        self._sample.take(self._rows, self._last)
        self._sample.close()
        return self._rows

    def _count(self, data: bytes, start: int, stop: int) -> None:
        """Whole lines."""
        rows, due = self._rows, self._sample.due
        last = slice(0)
        while (end := data.find(b"\n", start, stop)) >= 0:
            # As nearly all begin. This loop is most of what an archive costs here, so it calls nothing of ours.
            if data[start] != OBJECT:
                start = _past_blanks(data, start, stop, rows=rows)
                if start > end:
                    continue
            rows += 1
            last = slice(start, end)
            if rows == due:
                self._sample.take(rows, data[last])
                due = self._sample.due
            start = end + 1
        self._rows = rows
        if due:
            self._last = data[last] or self._last

    def _grow(self, data: bytes) -> None:
        """More of the line that has no end yet."""
        if self._scan:
            self._scan.feed(data)
            return
        self._begun += data if self._begun else data.lstrip(BLANK)
        if len(self._begun) > PARSED_BYTES:
            self._check_begin()
            self._scan = _LongObject()
            self._scan.feed(bytes(self._begun))
            self._begun.clear()

    def _end_row(self) -> None:
        """The line that was begun has ended."""
        if self._scan:
            self._rows += 1
            self._last = b""
            self.long_rows += self._scan.size > self._max_row
            self._scan = None
            if self._rows == self._sample.due:
                self._sample.take(self._rows, b"")
        elif self._begun:
            self._check_begin()
            self._rows += 1
            if self._sample.due:
                self._last = bytes(self._begun)
                if self._rows == self._sample.due:
                    self._sample.take(self._rows, self._last)
            self._begun.clear()

    def _check_begin(self) -> None:
        if self._begun and self._begun[0] != OBJECT:
            raise _no_object(rows=self._rows)


def _past_blanks(data: bytes, start: int, stop: int, *, rows: int) -> int:
    """Where a line begins that is not blank, in one go however many blank ones there are; after so many rows."""
    found = NOT_BLANK.search(data, start, stop)
    if found is None:
        return stop
    if data[found.start()] != OBJECT:
        raise _no_object(rows=rows)
    return found.start()


def _no_object(*, rows: int) -> CorruptError:
    """What a line is that is no object, after so many that are."""
    kind = CorruptError if rows else NoExportError
    return kind("the archive is not NDJSON: it has a line that is no object")


NOT_BLANK = re.compile(rb"[^ \t\r\n]")


class _LongObject:
    """An object that is too long to be parsed; `size` counts its bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._end = b""

    def feed(self, data: bytes) -> None:
        """The next piece of it."""
        if not data:
            return
        self.size += len(data)
        self._end = data.rstrip(BLANK)[-1:] or self._end
        data = ESCAPED.sub(b"", b"\\" * self._escaped + data)
        self._escaped = data.endswith(b"\\")
        texts = data.split(b'"')
        outside = b"".join(texts[self._in_string :: 2])
        self._in_string ^= len(texts) % 2 == 0
        self._depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")

    @property
    def is_whole(self) -> bool:
        """Whether it ends where an object may end."""
        return not (self._depth or self._in_string or self._escaped) and self._end == b"}"


class Csv:
    """A header and records."""

    def __init__(self, *, sample: RowSample | None = None, max_row: int = MAX_ROW_BYTES) -> None:
        self.long_rows = 0
        self._max_row = max_row
        self._sample = sample or RowSample(None)
        self._rows = 0
        self._header: bytes | None = None
        self._last = b""
        self._begun = _BegunRecord()
        self._in_quotes = False

    def feed(self, data: bytes) -> None:
        """The next piece."""
        start = at = 0
        rows, due = self._rows, self._sample.due
        last = slice(0)
        is_simple = False
        while (end := data.find(b'"' if self._in_quotes else b"\n", at)) >= 0:
            if self._in_quotes:
                self._in_quotes, at = False, end + 1
                continue
            self._in_quotes = data.count(b'"', at, end) % 2 == 1
            at = end + 1
            if self._in_quotes:
                continue
            if not is_simple:
                self._take(data[start:end])
                is_simple, rows, due = self._header is not None, self._rows, self._sample.due
                if not is_simple:
                    at = _past_blank_records(data, at)
            elif end > start + 1 or data[start:end] not in BLANK_RECORD:
                rows += 1
                last = slice(start, end)
                if rows == due:
                    self._sample.take(rows, data[last], header=self._header)
                    due = self._sample.due
            else:
                at = _past_blank_records(data, at)
            start = at
        self._in_quotes ^= data.count(b'"', at) % 2 == 1
        self._rows = rows
        self._last = data[last] or self._last
        self._begun.grow(data[start:])

    def close(self) -> int:
        """How many records there are below the header."""
        if self._in_quotes:
            raise CorruptError("the archive stops within quotes")
        self._take(b"")
        if self._rows and self._header and self._last and _width(self._last) != _width(self._header):
            raise CorruptError("the archive has a record that is not as wide as its header")
        self._sample.take(self._rows, self._last, header=self._header)
        if not self._rows and self._header:
            self._sample.take_header(self._header)
        self._sample.close()
        return self._rows

    def _take(self, record: bytes) -> None:
        """A record, or the rest of one; an empty text stands for a record too long to be held."""
        begun, self._begun = self._begun, _BegunRecord()
        size, head = begun.size + len(record), begun.held + record
        record = b"" if begun.is_long else head
        if head in BLANK_RECORD:
            return
        self.long_rows += size > self._max_row
        if self._header is not None:
            self._rows += 1
            self._last = record
            if self._rows == self._sample.due:
                self._sample.take(self._rows, record, header=self._header)
        elif head.lstrip().startswith(NO_HEADER):
            raise NoExportError("the archive is not CSV: its first line is no header")
        else:
            self._header = record


def _past_blank_records(data: bytes, start: int) -> int:
    """Where a record begins that is not blank."""
    found = BLANK_RECORDS.match(data, start)
    return found.end() if found else start


class _BegunRecord:
    """A record without an end as yet: `held` are its bytes, of a long one only its first."""

    def __init__(self) -> None:
        self.size = 0
        self.held = b""
        self.is_long = False

    def grow(self, data: bytes) -> None:
        """More of it."""
        self.size += len(data)
        if not self.is_long:
            self.held += data
        if len(self.held) > PARSED_BYTES:
            self.is_long = True
            self.held = self.held[:LONG_HEAD_BYTES]


LONG_HEAD_BYTES = 64
BLANK_RECORD = (b"", b"\r")
BLANK_RECORDS = re.compile(rb"(?:(?:\r\n)*+\n*+)*+")
"""However many stand beside each other, in one go."""
NO_HEADER = (b"<", b"{", b"[")
"""What begins so is a page, or JSON."""


def _is_object(line: bytearray) -> bool:
    """Leniently: the service's rows may hold what is not quite Unicode."""
    try:
        return isinstance(json.loads(line.decode("utf-8", "replace"), strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _width(record: bytes) -> int:
    """How many values a record has."""
    return b"".join(record.split(b'"')[::2]).count(b",") + 1


STRUCTURES: dict[Format, Callable[..., Structure]] = {
    Format.NDJSON: Ndjson,
    Format.JSON: JsonArray,
    Format.CSV: Csv,
}
