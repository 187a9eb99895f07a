"""Rows per day, and what a weekday usually has.

1. A bundle's rows count on the UTC day on which it starts.
2. A day is complete if archives cover all of it. What a weekday usually has is the median of its complete days, if
   there are at least three.
3. Only the newest ten years are shown; nobody reads more, and a mistyped start could ask for two thousand.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from asyncexport.core.bundles import DAY, Range
from asyncexport.core.health.export_report import ExportReport
from asyncexport.core.states import BundleRecord

MOST_DAYS = 3_653

LEAST_COMPLETE_DAYS = 3

THURSDAY = 3
"""The weekday of 1970-01-01; Monday is 0."""


@dataclass(slots=True)
class DayFigures:
    """The sums of one day.

    Attributes:
        rows: Rows of the archives.
        archives: How many archives start on it.
        stored_seconds: Time that archives cover.
        missing_seconds: Time that is due and not stored.
    """

    rows: int = 0
    archives: int = 0
    stored_seconds: int = 0
    missing_seconds: int = 0


def days_of(report: ExportReport, archives: Iterable[BundleRecord]) -> dict[int, DayFigures]:
    """Return the figures of all days that an export touches, by the day's number since 1970, in order (rule 3)."""
    figures: defaultdict[int, DayFigures] = defaultdict(DayFigures)
    spans = [piece.range for piece in report.pieces] + [one.bundle.range for one in report.overview.unfinished]
    last = max((span.end - 1 for span in spans), default=0) // DAY
    first = max(min((span.start for span in spans), default=0) // DAY, last - MOST_DAYS + 1)
    for one in archives:
        if one.stored is not None:
            today = figures[one.bundle.range.start // DAY]
            today.rows += one.stored.rows
            today.archives += 1
    for span in report.overview.covered:
        for number, seconds in _by_day(span, first):
            figures[number].stored_seconds += seconds
    for gap in report.gaps:
        for number, seconds in _by_day(gap.range, first):
            figures[number].missing_seconds += seconds
    return {number: figures[number] for number in range(first, last + 1)} if spans else {}


def usual_rows(days: dict[int, DayFigures]) -> list[int | None]:
    """Return what each weekday usually has, from Monday on; None if that is not known (rule 2)."""
    complete: list[list[int]] = [[] for _ in range(7)]
    for number, figures in days.items():
        if figures.stored_seconds >= DAY:
            complete[(number + THURSDAY) % 7].append(figures.rows)
    return [_median(rows) for rows in complete]


def _median(rows: Sequence[int]) -> int | None:
    return round(median(rows)) if len(rows) >= LEAST_COMPLETE_DAYS else None


def _by_day(span: Range, first: int) -> Iterator[tuple[int, int]]:
    """Yield each day of a span from this day on, with the seconds of it that the span covers."""
    for number in range(max(span.start // DAY, first), (span.end - 1) // DAY + 1):
        yield number, min(span.end, (number + 1) * DAY) - max(span.start, number * DAY)
