"""Checks whether an otherwise complete file holds the rows that were requested, by a sample of its rows.

1. If the sampled rows have fields, but none that a row of an export has, the file is not an export: a proxy or gateway
   sent it. Rows are sparse, and a row without fields proves nothing. A CSV's header counts as a row.
2. The `EventStart` of events lies in the requested range. This is checked if the field is exported, and if the scope
   limits the rows to the events that the segment matched. If most sampled rows lie outside, the file is another
   bundle's, and it is rejected. If only a few do, they are counted and reported.
3. A time that cannot be read proves nothing, and neither does a row that was not sampled.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from asyncexport.core.bundles import Range, read_timestamp
from asyncexport.core.exports import Definition, Type
from asyncexport.core.row_names import EVENT_START, is_known, matches_field
from asyncexport.core.text import one_line
from asyncexport.errors import ForeignRowsError, UnknownRowsError

EVENTS_ONLY = ("", "SCOPE_EVENTS")
"""With any other scope, the export includes rows of the same page, session or person from any time."""

FRACTION = re.compile(r"(?<=:[0-9]{2})\.[0-9]+")


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """What the rows of a bundle's archive must look like.

    Args:
        asked: The fields that were asked for. Empty if the default ones were.
        span: The range that their `EventStart` must lie in. None if they may be of any time.
    """

    asked: tuple[str, ...] = ()
    span: Range | None = None

    @classmethod
    def of(cls, definition: Definition, span: Range, *, checks_range: bool = True) -> Self:
        """Return what the rows of a range must look like; they may be of any time unless `checks_range`."""
        fields = definition.fields
        is_exported = not fields or any(matches_field(EVENT_START, field=field) for field in fields)
        events_only = definition.type is Type.EVENT and definition.scope in EVENTS_ONLY
        return cls(fields, span if checks_range and is_exported and events_only else None)


@dataclass(slots=True)
class RowCheck:
    """Checks rows of one archive, and counts what it finds.

    Args:
        expected: What the rows must look like.
        raises: Whether `close` raises the error in `wrong`.

    Attributes:
        expected, raises: As given.
        timed: Rows whose time could be read.
        outside: Rows of these that lie outside the range.
        named: Whether any row had fields.
        known: Whether any of these fields is known or was asked for.
        members: Some of the fields that are neither.
    """

    expected: ExpectedRows
    raises: bool = True
    timed: int = 0
    outside: int = 0
    named: bool = False
    known: bool = False
    members: tuple[str, ...] = ()

    @property
    def wrong(self) -> UnknownRowsError | ForeignRowsError | None:
        """The error in the rows seen so far. None if there is none."""
        if self.named and not self.known:
            return UnknownRowsError(self.members)
        if self.outside * 2 > self.timed:
            return ForeignRowsError(outside=self.outside, timed=self.timed)
        return None

    @property
    def decides(self) -> bool:
        """Whether the rows seen so far are enough to tell that the file is the requested one."""
        return self.known if self.expected.span is None else self.timed > 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Check a row: a mapping of fields to values; for a CSV, the values are texts."""
        self.add_names(row)
        if self.expected.span is not None:
            second = whole_second(row.get(EVENT_START))
            if second is not None:
                self.timed += 1
                self.outside += not self.expected.span.start <= second < self.expected.span.end

    def add_names(self, names: Iterable[str]) -> None:
        """Check field names alone: those of a CSV's header if the file has no row."""
        if self.known:
            return
        found = [name for name in names if name]
        self.named |= bool(found)
        self.known = any(is_known(name, asked=self.expected.asked) for name in found)
        if not self.known:
            self.members = self.members or tuple(one_line(name, limit=40) for name in found[:3])

    def close(self) -> None:
        """Note that all rows were seen, and that the file is complete otherwise.

        Raises:
            UnknownRowsError: none of its fields is known or was asked for.
            ForeignRowsError: most of its rows lie outside the range.
        """
        if self.raises and self.wrong:
            raise self.wrong

    def fresh(self) -> Self:
        """Return a new check for another archive of the same bundle; its `close` raises."""
        return type(self)(self.expected)


def whole_second(stamp: object) -> float | None:
    """Return the whole second that a time stamp lies in, since 1970. None if it cannot be read.

    The fraction is cut off before parsing: as a float, nanoseconds could be rounded up to the next second, which may
    belong to the next range.
    """
    if not isinstance(stamp, str) or len(stamp) > 100:
        return None
    try:
        return read_timestamp(FRACTION.sub("", stamp, count=1))
    except ValueError:
        return None
