"""Checks an archive that is one JSON array of objects: whether it is complete, and how many objects it has.

1. Only brackets and quotes are followed. Within a row every bracket must be closed by its counterpart. Outside rows
   only the array's own brackets, commas and white space are allowed.
2. Work is done in short slices, whatever the input. In a row of many brackets they are taken by the hundred: matching
   pairs are removed, and if what is left cannot end the row, it is followed in one step, too.
3. Brackets nested deeper than any reader follows are only counted.
"""

import re

from asyncexport.core.archive.rules import PARSED_BYTES, RowSample
from asyncexport.errors import CorruptError, NoExportError

SLICE_BYTES = 64 << 10
"""Bytes checked in one step."""

DEEPEST = 1024
"""Below this many brackets only their number is followed; no JSON reader goes deeper."""

SINGLY = 64
"""Brackets of a row that are followed one by one at first: most rows have fewer."""

TOGETHER, MOST_TOGETHER = 512, 8192
"""After that, brackets followed in one step: at first, and at most. The number doubles each time that succeeds."""

ROUNDS = 8
"""Rounds in which pairs of brackets are removed in one step."""

FILLER = b"x" * SLICE_BYTES
ESCAPED = re.compile(rb"\\.", re.DOTALL)
BLANK = b" \t\r\n"
NO_BRACKET = bytes(char for char in range(256) if char not in b"[]{}")
CLOSING = bytes.maketrans(b"[{", b"]}")
CLOSED_BY = {ord("{"): ord("}"), ord("["): ord("]")}
OBJECT = ord("{")
START, END = 0, ord("]")
MAY_FOLLOW = {START: b"[", ord("["): b"{]", ord("{"): b"", ord("}"): b",]", ord(","): b"{", END: b""}
"""Outside rows: the characters that may follow each character."""


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
        """Check the next piece."""
        for at in range(0, len(data), SLICE_BYTES):
            self._take(data[at : at + SLICE_BYTES])

    def close(self) -> int:
        """Return the number of objects in the array."""
        if self._nesting.depth or self._before not in (START, END):
            raise CorruptError("the archive stops in the middle of its array")
        self._sample.take(self._rows, self._last)
        self._sample.close()
        return self._rows

    def _take(self, data: bytes) -> None:
        """Check a slice."""
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
        """Return the slice with fillers for escaped characters, and for all characters in strings."""
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
        """Check characters outside rows."""
        if text == b",{" and self._before == CLOSED_BY[OBJECT]:
            self._before = OBJECT
            return
        for char in text.translate(None, BLANK):
            if char not in MAY_FOLLOW[self._before]:
                kind = NoExportError if self._before == START else CorruptError
                raise kind("the archive is not one array of objects")
            self._before = char


class _Nesting:
    """The open brackets of a row, its own included."""

    def __init__(self) -> None:
        self.depth = 0
        self._open = bytearray()

    def begin(self, bracket: int) -> None:
        """Begin a row, if this is an object's bracket."""
        if bracket == OBJECT:
            self._open.append(bracket)
            self.depth = 1

    def follow(self, brackets: bytes, index: int) -> int:
        """Follow brackets from an index to the end of the row, or to the last one. Return the index after that."""
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
        """Follow all of them. Return False, with nothing changed, if they may end the row or are too complex."""
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


MISMATCH = "the archive has mismatched brackets"


class _OpenRow:
    """A row that has not ended yet: its length, and its bytes unless it is long."""

    def __init__(self) -> None:
        self.size = 0
        self.held = b""
        self.is_long = False

    def grow(self, data: bytes, *, is_held: bool) -> None:
        """Add more of it."""
        self.size += len(data)
        if self.is_long or not is_held:
            return
        self.held += data
        if len(self.held) > PARSED_BYTES:
            self.held, self.is_long = b"", True


def _places(data: bytes) -> list[int]:
    """Return the positions of all brackets. Searching for each kind in turn is much faster than for any of four."""
    found = []
    for bracket in (b"{", b"}", b"[", b"]"):
        at = data.find(bracket)
        while at >= 0:
            found.append(at)
            at = data.find(bracket, at + 1)
    return sorted(found)
