"""Are these the rows that were asked for? Of a file that is whole otherwise, some of the rows are looked at.

1. A file whose rows have members, none of them under a name that a row of an export has, is no export: some box on the
   way sent it. Rows are sparse, and one without members says nothing. A CSV's header counts as a row.
2. Events lie in the range that was asked for, by their `EventStart`. That holds where this field is exported, and where
   the scope leaves it at the events that the segment matched. Where most of the rows lie elsewhere, the file is
   another bundle's: it is refused. A few that do are counted, for somebody to be told.
3. A time that cannot be read proves nothing, and neither does a row that nobody looked at.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from asyncexport.core.bundles import Range, read_timestamp
from asyncexport.core.exports import Definition, Type
from asyncexport.core.row_names import EVENT_START, is_known, is_meant
from asyncexport.core.text import one_line
from asyncexport.errors import ForeignRowsError, UnknownRowsError

EVENTS_ONLY = ("", "SCOPE_EVENTS")
"""With another scope, rows of the same page, session or person come along, whenever they happened."""

FRACTION = re.compile(r"(?<=:[0-9]{2})\.[0-9]+")


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """What the rows of a bundle's archive must be like.

    Args:
        asked: The fields that were asked for; none: the default ones.
        span: What their `EventStart` must lie in; None: they may be of any time.
    """

    asked: tuple[str, ...] = ()
    span: Range | None = None

    @classmethod
    def of(cls, definition: Definition, span: Range, *, checks_range: bool = True) -> Self:
        """What follows from a create for this range; the rows may be of any time unless `checks_range`."""
        fields = definition.fields
        is_exported = not fields or any(is_meant(EVENT_START, field=field) for field in fields)
        events_only = definition.type is Type.EVENT and definition.scope in EVENTS_ONLY
        return cls(fields, span if checks_range and is_exported and events_only else None)


@dataclass(slots=True)
class RowLook:
    """Looks at rows of one archive, and keeps count.

    Args:
        expected: What they must be like.
        raises: Whether `close` raises what is wrong; else `wrong` tells.

    Attributes:
        expected, raises: As they were given.
        timed: How many of the rows had a time that could be read.
        outside: How many of these lie outside of the range.
        named: Whether a row had members.
        known: Whether one of these has a name that is known.
        members: Some of the names that are not.
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
        """What is wrong with the rows that were seen; None: nothing."""
        if self.named and not self.known:
            return UnknownRowsError(self.members)
        if self.outside * 2 > self.timed:
            return ForeignRowsError(outside=self.outside, timed=self.timed)
        return None

    @property
    def decides(self) -> bool:
        """Whether the rows that were seen say anything of whose they are."""
        return self.known if self.expected.span is None else self.timed > 0

    def look(self, row: Mapping[str, Any]) -> None:
        """Look at a row: its members by their names; of a CSV, the values as texts by the names of the header."""
        self.look_at_names(row)
        if self.expected.span is not None:
            second = whole_second(row.get(EVENT_START))
            if second is not None:
                self.timed += 1
                self.outside += not self.expected.span.start <= second < self.expected.span.end

    def look_at_names(self, names: Iterable[str]) -> None:
        """Look at the names alone: those of a CSV's header, where there is no row."""
        if self.known:
            return
        found = [name for name in names if name]
        self.named |= bool(found)
        self.known = any(is_known(name, asked=self.expected.asked) for name in found)
        if not self.known:
            self.members = self.members or tuple(one_line(name, limit=40) for name in found[:3])

    def close(self) -> None:
        """All rows were seen, and the file is whole otherwise.

        Raises:
            UnknownRowsError: no name in it is one that a row of an export has.
            ForeignRowsError: most of its rows lie outside of the range.
        """
        if self.raises and self.wrong:
            raise self.wrong

    def anew(self) -> Self:
        """A look at another archive of the same bundle, which raises what is wrong."""
        return type(self)(self.expected)


def whole_second(stamp: object) -> float | None:
    """The whole second that a time stamp lies in, since 1970; None where it cannot be read.

    Nanoseconds are cut off, not read: a float would round them up to the next second, and that may be the next range.
    """
    if not isinstance(stamp, str) or len(stamp) > 100:
        return None
    try:
        return read_timestamp(FRACTION.sub("", stamp, count=1))
    except ValueError:
        return None
