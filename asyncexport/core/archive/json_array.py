"""An archive that is one JSON array of objects: is it whole, and how many objects has it?

1. Only brackets and quotes are followed. Within a row every bracket must be closed by its like, outside of rows nothing
   may stand but the array's own brackets, commas and white space.
2. What is looked at in one go is short, whatever comes. Within a row of many brackets they are taken by the hundred:
   pairs are removed, and where what is left cannot end the row, it is followed in one go, too.
3. Brackets nested deeper than any reader goes are only counted.
"""

import re

from asyncexport.core.archive.rules import PARSED_BYTES, RowSample
from asyncexport.errors import CorruptError, NoExportError

SLICE_BYTES = 64 << 10
"""What is looked at in one go."""

DEEPEST = 1024
"""Below so many brackets only their number is followed; no reader of JSON goes deeper."""

SINGLY = 64
"""So many brackets of a row are followed one by one: most rows have fewer."""

TOGETHER, MOST_TOGETHER = 512, 8192
"""After that, so many are taken at once: twice as many each time that goes well, up to the most."""

ROUNDS = 8
"""So often pairs of brackets are taken out of these."""

FILLER = b"x" * SLICE_BYTES
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
        plain = self._without_strings(data)
        brackets = plain.translate(None, NO_BRACKET)
        places: list[int] | None = None
        at = begin = index = 0
        while True:
            if self._nesting.depth:
                index = self._nesting.follow(brackets, index)
                if self._nesting.depth:
                    break
                places = places or _places(plain)
                at = places[index - 1] + 1
                self._before = brackets[index - 1]
                self._end_row(data[begin:at])
            if index == len(brackets):
                self._follow(plain[at:])
                return
            places = places or _places(plain)
            begin = places[index]
            self._follow(plain[at : begin + 1])
            self._nesting.begin(brackets[index])
            at, index = begin + 1, index + 1
        self._row.grow(data[begin:], is_held=self._sample.due > 0)

    def _without_strings(self, data: bytes) -> bytes:
        """The same with other characters in place of escaped ones, and of all within strings."""
        if self._escaped:
            data = b"x" + data[1:]
        data = ESCAPED.sub(b"xx", data)
        self._escaped = data.endswith(b"\\")
        if self._escaped:
            data = data[:-1] + b"x"
        texts = data.split(b'"')
        inside = slice(0 if self._in_string else 1, None, 2)
        texts[inside] = [FILLER[: len(text)] for text in texts[inside]]
        self._in_string ^= len(texts) % 2 == 0
        return b'"'.join(texts)

    def _end_row(self, rest: bytes) -> None:
        self._rows += 1
        if len(rest) < SLICE_BYTES and not self._sample.due and not self._row.size:
            return
        row, self._row = self._row, _OpenRow()
        self.long_rows += row.size + len(rest) > self._max_row
        if self._sample.due:
            self._last = b"" if row.is_long else row.held + rest
            if self._rows == self._sample.due:
                self._sample.take(self._rows, self._last)

    def _follow(self, text: bytes) -> None:
        """Something outside of rows."""
        if text == b",{" and self._before == CLOSED_BY[OBJECT]:
            self._before = OBJECT
            return
        for char in text.translate(None, BLANK):
            if char not in MAY_FOLLOW[self._before]:
                kind = NoExportError if self._before == START else CorruptError
                raise kind("the archive is not one array of objects")
            self._before = char


class _Nesting:
    """The brackets of a row that are open, its own included."""

    def __init__(self) -> None:
        self.depth = 0
        self._open = bytearray()

    def begin(self, bracket: int) -> None:
        """A row begins, if that is an object's bracket."""
        if bracket == OBJECT:
            self._open.append(bracket)
            self.depth = 1

    def follow(self, brackets: bytes, index: int) -> int:
        """Follow brackets from an index on, to the end of the row or to their own: the index after the last."""
        index = self._follow_singly(brackets, index, min(index + SINGLY, len(brackets)))
        together = TOGETHER
        while self.depth and index < len(brackets):
            end = min(index + together, len(brackets))
            if self._follow_together(brackets[index:end]):
                index, together = end, min(2 * together, MOST_TOGETHER)
            else:
                index, together = self._follow_singly(brackets, index, min(index + TOGETHER, end)), TOGETHER
        return index

    def _follow_singly(self, brackets: bytes, index: int, end: int) -> int:
        opened, depth = self._open, self.depth
        while depth and index < end:
            bracket = brackets[index]
            index += 1
            if bracket in CLOSED_BY:
                if depth < DEEPEST:
                    opened.append(bracket)
                depth += 1
            else:
                depth -= 1
                if depth < DEEPEST and CLOSED_BY[opened.pop()] != bracket:
                    raise CorruptError(MISMATCH)
        self.depth = depth
        return index

    def _follow_together(self, brackets: bytes) -> bool:
        """Follow all of them; False, with nothing done, where they may end the row, or are not simple enough."""
        for _ in range(ROUNDS):
            size = len(brackets)
            brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
            if len(brackets) == size:
                break
        opening = brackets.lstrip(b"]}")
        closing = len(brackets) - len(opening)
        if closing >= self.depth or opening.translate(None, b"[{"):
            return False
        known = max(0, closing - max(0, self.depth - DEEPEST))
        if known:
            closed = self._open[-known:]
            closed.reverse()
            if closed.translate(CLOSING) != brackets[closing - known : closing]:
                raise CorruptError(MISMATCH)
            del self._open[-known:]
        self._open += opening[: max(0, DEEPEST - (self.depth - closing))]
        self.depth += len(opening) - closing
        return True


MISMATCH = "the archive has a bracket that is closed by another"


class _OpenRow:
    """A row that has no end yet: how long it is, and its bytes unless it is long."""

    def __init__(self) -> None:
        self.size = 0
        self.held = b""
        self.is_long = False

    def grow(self, data: bytes, *, is_held: bool) -> None:
        """More of it."""
        self.size += len(data)
        if self.is_long or not is_held:
            return
        self.held += data
        if len(self.held) > PARSED_BYTES:
            self.held, self.is_long = b"", True


def _places(data: bytes) -> list[int]:
    """Where brackets stand. One after another is found much faster than any of four."""
    found = []
    for bracket in (b"{", b"}", b"[", b"]"):
        at = data.find(bracket)
        while at >= 0:
            found.append(at)
            at = data.find(bracket, at + 1)
    return sorted(found)
