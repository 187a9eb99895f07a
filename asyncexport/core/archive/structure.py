"""Checks the content of an archive: whether it is complete, and how many rows it has.

1. As little as possible is parsed: for a gigabyte, counting is affordable and parsing is not. So only files that
   stopped early or are in another format are rejected; a row that makes no sense in itself passes as it is.
2. The result does not depend on where the pieces are cut.
3. NDJSON: one object a line; blank lines do not count. Each line must begin like an object; the last one is parsed if
   no newline ends it. A cut exactly after a line leaves no trace in the content: the layers of gzip around it, or the
   framing, have to show it.
4. JSON: one array of objects, every bracket closed by its counterpart, nothing before or after it (`json_array`).
5. CSV as in RFC 4180: a header, and records with balanced quotes; a newline between quotes is text. The last record is
   as wide as the header. A cut within the last value of a record leaves no trace either.
6. A file without any content has no rows, and is complete.
7. Time and memory do not depend on what a few bytes inflate to. A row longer than a megabyte is never held in memory:
   it is scanned as it comes, and only its brackets or quotes have to balance. Above `max_row` it is counted in
   `long_rows` as well, so that it can be reported.
8. The sampled rows are passed to their rules on the way (`rules`).
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
"""The default of `[download] max_row`: longer rows are reported."""

BLANK = b" \t\r\n"
OBJECT = ord("{")


class Structure(Protocol):
    """Checks the content; the first piece comes without a byte order mark. `long_rows` counts rows above `max_row`."""

    long_rows: int

    def feed(self, data: bytes) -> None:
        """Check the next piece.

        Raises:
            CorruptError: the content can no longer be complete.
        """
        ...

    def close(self) -> int:
        """Note that the content has ended, and return the number of rows.

        Raises:
            CorruptError: it is not complete, or not what the rules demand.
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
        """Check the next piece."""
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
        """Return the number of lines that are not blank."""
        if self._scan or self._begun:
            self._check_begin()
            whole = self._scan.is_whole if self._scan else _is_object(self._begun)
            if not whole:
                raise CorruptError("the archive stops in the middle of a row")
            self._end_row()
        self._sample.take(self._rows, self._last)
        self._sample.close()
        return self._rows

    def _count(self, data: bytes, start: int, stop: int) -> None:
        """Count complete lines."""
        rows, due = self._rows, self._sample.due
        last = slice(0)
        while (end := data.find(b"\n", start, stop)) >= 0:
            # Nearly all lines begin like this. Most of the time is spent in this loop, so it calls as little as it can.
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
        """Add to the line that has not ended yet."""
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
        """Note that the line has ended."""
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
            raise _not_an_object(rows=self._rows)


def _past_blanks(data: bytes, start: int, stop: int, *, rows: int) -> int:
    """Return the start of the next line that is not blank, or `stop`. `rows`: the rows so far."""
    found = NOT_BLANK.search(data, start, stop)
    if found is None:
        return stop
    if data[found.start()] != OBJECT:
        raise _not_an_object(rows=rows)
    return found.start()


def _not_an_object(*, rows: int) -> CorruptError:
    """Return the error for a line that is not an object, after this many that are."""
    kind = CorruptError if rows else NoExportError
    return kind("the archive is not NDJSON: a line is not an object")


NOT_BLANK = re.compile(rb"[^ \t\r\n]")


class _LongObject:
    """An object that is too long to be parsed. `size` counts its bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._end = b""

    def feed(self, data: bytes) -> None:
        """Scan the next piece of it."""
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
        """Whether it may end here."""
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
        """Check the next piece."""
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
        """Return the number of records below the header."""
        if self._in_quotes:
            raise CorruptError("the archive stops in the middle of a quoted value")
        self._take(b"")
        if self._rows and self._header and self._last and _width(self._last) != _width(self._header):
            raise CorruptError("the archive has a record that is not as wide as its header")
        self._sample.take(self._rows, self._last, header=self._header)
        if not self._rows and self._header:
            self._sample.take_header(self._header)
        self._sample.close()
        return self._rows

    def _take(self, record: bytes) -> None:
        """Take a record, or the rest of one. An empty text stands for a record too long to be held in memory."""
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
            raise NoExportError("the archive is not CSV: its first line is not a header")
        else:
            self._header = record


def _past_blank_records(data: bytes, start: int) -> int:
    """Return the start of the next record that is not blank."""
    found = BLANK_RECORDS.match(data, start)
    return found.end() if found else start


class _BegunRecord:
    """A record that has not ended yet. `held` are its bytes; of a long one only the first."""

    def __init__(self) -> None:
        self.size = 0
        self.held = b""
        self.is_long = False

    def grow(self, data: bytes) -> None:
        """Add more of it."""
        self.size += len(data)
        if not self.is_long:
            self.held += data
        if len(self.held) > PARSED_BYTES:
            self.is_long = True
            self.held = self.held[:LONG_HEAD_BYTES]


LONG_HEAD_BYTES = 64
BLANK_RECORD = (b"", b"\r")
BLANK_RECORDS = re.compile(rb"(?:(?:\r\n)*+\n*+)*+")
"""Any number of blank records in a row, in one step."""
NO_HEADER = (b"<", b"{", b"[")
"""A file that begins like this is a web page, or JSON."""


def _is_object(line: bytearray) -> bool:
    """Whether a line is a JSON object; lenient, since the service's rows may hold invalid Unicode."""
    try:
        return isinstance(json.loads(line.decode("utf-8", "replace"), strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _width(record: bytes) -> int:
    """Return the number of values in a record."""
    return b"".join(record.split(b'"')[::2]).count(b",") + 1


STRUCTURES: dict[Format, Callable[..., Structure]] = {
    Format.NDJSON: Ndjson,
    Format.JSON: JsonArray,
    Format.CSV: Csv,
}
