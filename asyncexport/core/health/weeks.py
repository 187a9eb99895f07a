"""Coverage as a line per week, with a character for every six hours.

1. A cell shows the worst kind of time in its due part: `#` if everything that is due in it is stored.
2. It shows `.` only if nothing in it is due.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import DAY, HOUR
from asyncexport.core.health.missing import MISSING, Coverage, Piece

CELL_SECONDS = 6 * HOUR

WEEK_SECONDS = 7 * DAY

CELLS_PER_WEEK = WEEK_SECONDS // CELL_SECONDS

FIRST_MONDAY = 4 * DAY
"""1970-01-05."""

OUTSIDE = " "
"""The character of time before the first and after the last piece."""

MARKS = {
    Coverage.NOT_DUE: ".",
    Coverage.STORED: "#",
    Coverage.ACCEPTED: "a",
    Coverage.IN_PROGRESS: "~",
    Coverage.BEHIND: "-",
    Coverage.NEVER_ASKED: "-",
    Coverage.PARKED: "x",
    Coverage.ALTERED: "!",
}
"""The characters. If several kinds meet in a cell, it shows the last of them in this order (rules 1 and 2)."""

_ORDER = {mark: number for number, mark in enumerate((OUTSIDE, *MARKS.values()))}


@dataclass(frozen=True, slots=True)
class Week:
    """One week, from Monday to Sunday, UTC.

    Attributes:
        start: Its first second, in seconds since 1970.
        cells: A character for every six hours, see `MARKS`; 28 characters.
        missing_seconds: How much time of it is missing.
    """

    start: int
    cells: str
    missing_seconds: int

    @property
    def only_mark(self) -> str:
        """The mark of all of its cells; "" if they differ."""
        return self.cells[0] if len(set(self.cells)) == 1 else ""


def weeks_of(pieces: Sequence[Piece]) -> Iterator[Week]:
    """Return the weeks that a timeline touches, in order."""
    if not pieces:
        return
    start = monday(pieces[0].range.start)
    count = (monday(pieces[-1].range.end - 1) - start) // WEEK_SECONDS + 1
    cells = [OUTSIDE] * (count * CELLS_PER_WEEK)
    missing = [0] * count
    for span, coverage in pieces:
        mark = MARKS[coverage]
        first, last = (span.start - start) // CELL_SECONDS, (span.end - 1 - start) // CELL_SECONDS
        for at in range(first, last + 1):
            cells[at] = max(cells[at], mark, key=_ORDER.__getitem__)
        if coverage in MISSING:
            for week in range(first // CELLS_PER_WEEK, last // CELLS_PER_WEEK + 1):
                begin = start + week * WEEK_SECONDS
                missing[week] += min(span.end, begin + WEEK_SECONDS) - max(span.start, begin)
    for week in range(count):
        own = cells[week * CELLS_PER_WEEK : (week + 1) * CELLS_PER_WEEK]
        yield Week(start + week * WEEK_SECONDS, "".join(own), missing[week])


def monday(at: int) -> int:
    """Return the first second of the week of a time."""
    return (at - FIRST_MONDAY) // WEEK_SECONDS * WEEK_SECONDS + FIRST_MONDAY
