"""The two rules that tell a shortfall from an ordinary quiet time, by counting rows.

1. Half hours. An empty half hour is as surprising as it is rare: -log10(p), where p = (empty + 1) / (weeks + 2), from
   the same half hour of the week in the last 26 weeks that are stored, at least four. One that was empty each time is
   no surprise at all; otherwise a segment without any rows would add up, too. The surprises of a run of empty half
   hours add up. A run is short if they come to more than 6, a probability of one in a million.
2. Days. A day is short if it has less than 70 % of the median of the same weekday, and is more than four robust
   standard deviations below it, from the last 12 weeks that are stored, at least three. The deviation is 1.4826 times
   the median distance from the median, and at least the square root of the median: counts scatter that much anyway.
3. A day that would not be short with the rows that its short half hours usually have is not reported itself, because
   the half hours say more exactly when rows are missing.
4. Only earlier time is compared with, so a verdict does not depend on when it is made.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from math import log10, sqrt
from statistics import median

from asyncexport.core.bundles import DAY, Range
from asyncexport.core.sentinel.row_counts import HALF_HOUR, RowCounts
from asyncexport.core.sentinel.shortfalls import ShortfallRule, ShortPiece

HALF_HOURS_A_WEEK = 7 * DAY // HALF_HOUR

LEAST_WEEKS = 4
"""Weeks of history that an empty half hour needs to be surprising."""

MOST_WEEKS = 26
"""Weeks of history that half hours are compared with."""

SURPRISE_LIMIT = 6.0

LEAST_DAYS = 3
"""Earlier days of the same weekday that a day needs to be judged."""

MOST_DAYS = 12
"""Earlier days of the same weekday that a day is compared with."""

LOW_SHARE = 0.7

LOW_SIGMAS = 4.0

ROBUST_SIGMA = 1.4826
"""The standard deviation of a normal distribution, as a multiple of its median absolute deviation."""

HISTORY_SECONDS = MOST_WEEKS * 7 * DAY
"""How long before a half hour or a day its history begins."""


def surprise(*, weeks: int, empty: int) -> float:
    """Return how surprising an empty half hour is that was empty in some of these weeks (rule 1)."""
    if weeks < LEAST_WEEKS or empty == weeks:
        return 0.0
    return -log10((empty + 1) / (weeks + 2))


def empty_half_hours(counts: RowCounts) -> Iterator[ShortPiece]:
    """Return the half hours of all surprising runs of empty ones, in order (rule 1)."""
    history = [_HalfHourHistory() for _ in range(HALF_HOURS_A_WEEK)]
    run: list[tuple[int, float]] = []
    total, last = 0.0, 0
    for number in sorted(counts.half_hours):
        rows, earlier = counts.half_hours[number], history[number % HALF_HOURS_A_WEEK]
        earlier.forget(number - MOST_WEEKS * HALF_HOURS_A_WEEK)
        if run and (rows or number != last + 1):
            yield from _pieces(run, total)
            run, total = [], 0.0
        if not rows:
            run.append((number, earlier.mean))
            total += surprise(weeks=len(earlier.counts), empty=earlier.empty)
        earlier.add(number, rows)
        last = number
    yield from _pieces(run, total)


class _HalfHourHistory:
    """The rows of one half hour of the week in earlier weeks."""

    __slots__ = ("counts", "empty", "rows")

    def __init__(self) -> None:
        self.counts: deque[tuple[int, int]] = deque()
        self.empty = 0
        self.rows = 0

    @property
    def mean(self) -> float:
        return self.rows / len(self.counts) if self.counts else 0.0

    def add(self, number: int, rows: int) -> None:
        self.counts.append((number, rows))
        self.empty += not rows
        self.rows += rows

    def forget(self, before: int) -> None:
        while self.counts and self.counts[0][0] < before:
            _, rows = self.counts.popleft()
            self.empty -= not rows
            self.rows -= rows


def _pieces(run: list[tuple[int, float]], total: float) -> Iterator[ShortPiece]:
    if total > SURPRISE_LIMIT:
        for number, expected in run:
            yield ShortPiece(_span(number, HALF_HOUR), expected, 0, ShortfallRule.EMPTY)


def is_low(rows: float, history: list[int]) -> bool:
    """Whether a day with so many rows is short, compared with earlier days of the same weekday (rule 2)."""
    if len(history) < LEAST_DAYS:
        return False
    usual = median(history)
    sigma = max(ROBUST_SIGMA * median(abs(one - usual) for one in history), sqrt(usual))
    return rows < LOW_SHARE * usual and usual - rows > LOW_SIGMAS * sigma


def low_days(counts: RowCounts, *, explained: Mapping[int, float]) -> Iterator[ShortPiece]:
    """Return the days that are short, in order (rule 2).

    `explained` has the rows that short half hours usually have, by the number of their day (rule 3).
    """
    days = counts.days
    for number in sorted(days):
        weeks = (number - 7 * week for week in range(1, MOST_DAYS + 1))
        history = [days[one] for one in weeks if one in days]
        if is_low(days[number] + explained.get(number, 0.0), history):
            yield ShortPiece(_span(number, DAY), median(history), days[number], ShortfallRule.LOW_DAY)


def short_pieces(counts: RowCounts, judged: Range) -> list[ShortPiece]:
    """Return all half hours and days that are short and end after the beginning of the judged time, up to its end.

    `counts` should begin `HISTORY_SECONDS` before that time.
    """
    half_hours, explained = list(empty_half_hours(counts)), dict[int, float]()
    for one in half_hours:
        day = one.range.start // DAY
        explained[day] = explained.get(day, 0.0) + one.expected
    found = (*half_hours, *low_days(counts, explained=explained))
    return [one for one in found if judged.start < one.range.end and one.range.start < judged.end]


def _span(number: int, width: int) -> Range:
    return Range(number * width, (number + 1) * width)
