"""An archive that is one JSON array of objects: is it whole, and how many objects has it?

1. Only brackets and quotes are followed. Within a row every bracket must be closed by its like, outside of rows nothing
   may stand but the array's own brackets, commas and white space.
2. What is looked at in one go is short, whatever comes. Of a row that is longer than that only the depth is followed
   where it cannot end within what came; its kinds of brackets are compared as far as they are not nested too deep.
"""

import re

from asyncexport.core.archive.rules import PARSED_BYTES, RowSample
from asyncexport.errors import CorruptError

SLICE_BYTES = 64 << 10
"""What is looked at in one go."""

DEEPEST = 1024
"""Below so many brackets only their number is followed; no reader of JSON goes deeper."""

ROUNDS = 8
"""So often pairs of brackets are taken out of a part of a long row before the rest is followed one by one."""

ESCAPED = re.compile(rb"\\.", re.DOTALL)
BLANK = b" \t\r\n"
NO_BRACKET = bytes(char for char in range(256) if char not in b"[]{}")
CLOSING = bytes.maketrans(b"[{", b"]}")
CLOSED_BY = {ord("{"): ord("}"), ord("["): ord("]")}
OBJECT = ord("{")
START, END = 0, ord("]")
MAY_FOLLOW = {START: b"[", ord("["): b"{]", ord("{"): b"", ord("}"): b",]", ord(","): b"{", END: b""}
"""Outside of rows: what may come after what."""


class JsonArray:
    """One array of objects."""

    def __init__(self, *, sample: RowSample | None = None, max_row: int = 64 << 20) -> None:
        self.long_rows = 0
        self._max_row = max_row
        self._sample = sample or RowSample(None)
        self._rows = 0
        self._row = _OpenRow()
        self._last = b""
        self._escaped = False
        self._in_string = False
        self._before = START
        self._nesting = _Nesting()

    def feed(self, data: bytes) -> None:
        """The next piece."""
        for at in range(0, len(data), SLICE_BYTES):
            self._take(data[at : at + SLICE_BYTES])

    def close(self) -> int:
        """How many elements the array has."""
        if self._nesting.depth or self._before not in (START, END):
            raise CorruptError("the archive stops within its array")
        self._sample.take(self._rows, self._last)
        self._sample.close()
        return self._rows

    def _take(self, data: bytes) -> None:
        """A slice."""
        plain = self._without_escapes(data)
        if self._row.size < SLICE_BYTES or not self._pass_over_whole(plain):
            self._follow_brackets(plain, data)
        if self._nesting.depth:
            self._row.grow(data, is_held=self._sample.due > 0)

    def _without_escapes(self, data: bytes) -> bytes:
        """The same with other characters in place of escaped ones, so that each quote begins or ends a string."""
        if self._escaped:
            data = b"x" + data[1:]
        data = ESCAPED.sub(b"xx", data)
        self._escaped = data.endswith(b"\\")
        return data[:-1] + b"x" if self._escaped else data

    def _pass_over_whole(self, data: bytes) -> bool:
        """Follow a slice in which the row does not end; False, with nothing done, where it may."""
        texts = data.split(b'"')
        brackets = b"".join(texts[self._in_string :: 2]).translate(None, NO_BRACKET)
        for _ in range(ROUNDS):
            size = len(brackets)
            brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
            if len(brackets) == size:
                break
        if brackets.count(b"]") + brackets.count(b"}") >= self._nesting.depth:
            return False
        self._nesting.follow(brackets)
        self._in_string ^= len(texts) % 2 == 0
        return True

    def _follow_brackets(self, plain: bytes, data: bytes) -> None:
        """Follow a slice bracket by bracket; `data` is the same as it came, and what a row is cut out of."""
        at = begin = 0
        for position in _brackets(plain):
            self._pass_over(plain, at, position)
            at = position + 1
            if self._in_string:
                continue
            bracket = plain[position]
            if not self._nesting.depth:
                self._follow(bracket)
                if bracket == OBJECT:
                    self._nesting.open(bracket)
                    begin = position
            elif bracket in CLOSED_BY:
                self._nesting.open(bracket)
            else:
                self._nesting.close(bracket)
                if not self._nesting.depth:
                    self._before = bracket
                    self._end_row(data[begin:at])
        self._pass_over(plain, at, len(plain))
        if self._nesting.depth and not self._row.size:
            self._row.skip(begin)

    def _end_row(self, rest: bytes) -> None:
        row, self._row = self._row, _OpenRow()
        self._rows += 1
        self.long_rows += row.size + len(rest) > self._max_row
        if self._sample.due:
            self._last = b"" if row.is_long else row.held + rest
            if self._rows == self._sample.due:
                self._sample.take(self._rows, self._last)

    def _pass_over(self, data: bytes, start: int, end: int) -> None:
        """What has no bracket in it: within a row only quotes matter, outside of rows everything does."""
        if self._nesting.depth:
            self._in_string ^= data.count(b'"', start, end) % 2 == 1
        elif start < end:
            for char in data[start:end].translate(None, BLANK):
                self._follow(char)

    def _follow(self, char: int) -> None:
        """Something outside of rows."""
        if char not in MAY_FOLLOW[self._before]:
            raise CorruptError("the archive is not one array of objects")
        self._before = char


class _Nesting:
    """The brackets that are open."""

    def __init__(self) -> None:
        self.depth = 0
        self._open = bytearray()

    def open(self, bracket: int) -> None:
        """A bracket opens."""
        if self.depth < DEEPEST:
            self._open.append(bracket)
        self.depth += 1

    def close(self, bracket: int) -> None:
        """A bracket closes."""
        self.depth -= 1
        if self.depth < DEEPEST and CLOSED_BY[self._open.pop()] != bracket:
            raise CorruptError(MISMATCH)

    def follow(self, brackets: bytes) -> None:
        """Many brackets, which do not close the outermost."""
        opening = brackets.lstrip(b"]}")
        if opening.translate(None, b"[{"):
            for bracket in brackets:
                if bracket in CLOSED_BY:
                    self.open(bracket)
                else:
                    self.close(bracket)
            return
        closing = len(brackets) - len(opening)
        known = max(0, closing - max(0, self.depth - DEEPEST))
        if known:
            closed = self._open[-known:]
            closed.reverse()
            if closed.translate(CLOSING) != brackets[closing - known : closing]:
                raise CorruptError(MISMATCH)
            del self._open[-known:]
        self._open += opening[: DEEPEST - len(self._open)]
        self.depth += len(opening) - closing


MISMATCH = "the archive has a bracket that is closed by another"


class _OpenRow:
    """A row that has no end yet: how long it is, and its bytes unless it is long."""

    def __init__(self) -> None:
        self.size = 0
        self.held = b""
        self.is_long = False
        self._begin = 0

    def skip(self, begin: int) -> None:
        """In the slice that comes next it begins here."""
        self._begin = begin

    def grow(self, data: bytes, *, is_held: bool) -> None:
        """More of it."""
        data, self._begin = data[self._begin :], 0
        self.size += len(data)
        if self.is_long or not is_held:
            return
        self.held += data
        if len(self.held) > PARSED_BYTES:
            self.held, self.is_long = b"", True


def _brackets(data: bytes) -> list[int]:
    """Where brackets stand. One after another is found much faster than any of four."""
    found = []
    for bracket in (b"{", b"}", b"[", b"]"):
        at = data.find(bracket)
        while at >= 0:
            found.append(at)
            at = data.find(bracket, at + 1)
    return sorted(found)
