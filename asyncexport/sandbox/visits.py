"""Visits of the fictional shop: when visitors come, which pages they open, and when events happen there.

1. Time is divided into cells. Seed and cell determine which visits begin in the cell. A random number drawn with each
   page determines the times of its events. Nothing depends on the requested range, so adjacent ranges fit together.
2. A visit ends within LONGEST_VISIT_MS, so the events of a range come from visits that began at most that long before.
3. A quiet half-hour has no events: pages that would begin or end in one are left out.
4. Times are whole milliseconds since 1970.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from asyncexport.sandbox.chance import WORD, identifier, mixed

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HALF_HOUR_MS = HOUR_MS // 2

CELL_ROWS = 2000
"""Approximate maximum number of rows in a cell. The rows of one cell are in memory at the same time."""

PAGES = (1, 1, 2, 2, 3, 3, 4, 5, 7, 10)
"""Numbers of pages in a visit, all equally likely."""

EVENTS = (3, 4, 5, 6, 8, 9, 11, 14, 18, 26)
"""Numbers of events on a page, all equally likely."""

GAP_MS = (400, 6400)
"""Minimum and maximum of the average time between two events of a page."""

LOAD_AFTER_MS = 13
"""Time of a page's second event, usually its load, after the start of the page."""

END_BEFORE_MS = 1
"""Time between a page's last event and its end."""

TWIN_ONE_IN = 25
"""One page in 25 has an event twice."""

LONGEST_VISIT_MS = max(PAGES) * (max(EVENTS) * GAP_MS[1] + 1000)

ROWS_A_VISIT = sum(PAGES) / len(PAGES) * (sum(EVENTS) / len(EVENTS) + 1 / TWIN_ONE_IN)

VISITS_A_VISITOR = 3
"""Average number of visits of a visitor."""

AGES = (0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6)
"""Days since a visitor's first visit, all less than LIFE_DAYS."""

RHYTHM = (5, 4, 3, 3, 4, 7, 12, 18, 24, 28, 30, 30, 29, 28, 28, 29, 31, 34, 36, 36, 32, 24, 16, 9)
"""Relative traffic in each hour of the day, UTC."""

QUIET_HOURS = 6
"""Quiet half-hours occur only before this hour, UTC."""


class SandboxVisit(NamedTuple):
    """A session of the visitor with number `visitor_number` among those who first came on `visitor_day`."""

    id: int
    start: int
    visitor_day: int
    visitor_number: int
    entropy: int


class SandboxVisitedPage(NamedTuple):
    """A page view in a visit, with start, end and number of events.

    `entropy` is the random number that determines everything else about the page; `first` marks the first page of a
    visit.
    """

    visit: SandboxVisit
    start: int
    end: int
    events: int
    entropy: int
    first: bool


class SandboxVisits:
    """Synthetic visits, made from the time and a seed; see `SandboxSyntheticRows` for the arguments."""

    def __init__(
        self, seed: int, rows_per_hour: float, *, late_share: float, late_seconds: float, quiet: float
    ) -> None:
        self._seed = seed & WORD
        self._late_below = round(late_share * (1 << 24))
        self._late_ms = round(late_seconds * 1000)
        self._quiet_below = round(quiet * (1 << 24))
        per_cell = ((width, rows_per_hour * width / HOUR_MS) for width in (600_000, 60_000, 10_000, 1000))
        self._cell_ms = next((width for width, rows in per_cell if rows <= CELL_ROWS), 1000)
        lost = quiet * sum(RHYTHM[:QUIET_HOURS]) / sum(RHYTHM)
        visits_a_day = rows_per_hour * 24 / ROWS_A_VISIT / max(1 - lost, 0.01)
        self._visits_a_cell = [visits_a_day * weight / sum(RHYTHM) * self._cell_ms / HOUR_MS for weight in RHYTHM]
        self._visitors_a_day = max(1, round(visits_a_day / VISITS_A_VISITOR))

    def cells(self, first: int, last: int) -> range:
        """Return the cells whose visits may have events in a range."""
        return range((first - LONGEST_VISIT_MS) // self._cell_ms, -(-last // self._cell_ms))

    def pages(self, cell: int) -> Iterator[SandboxVisitedPage]:
        """Yield all pages of all visits that begin in a cell."""
        rng = random.Random(mixed(self._seed, cell))
        begin = cell * self._cell_ms
        for _ in range(int(self._visits_a_cell[begin // HOUR_MS % 24] + rng.random())):
            at = begin + int(rng.random() * self._cell_ms)
            entropy = rng.getrandbits(64)
            day = at // DAY_MS - AGES[entropy % len(AGES)]
            visit = SandboxVisit(identifier(rng), at, day, (entropy >> 8) % self._visitors_a_day, entropy)
            for number in range(PAGES[int(rng.random() * len(PAGES))]):
                entropy = rng.getrandbits(64)
                count = EVENTS[entropy % len(EVENTS)]
                end = at + count * (GAP_MS[0] + (entropy >> 16) % (GAP_MS[1] - GAP_MS[0]))
                if not (self._is_quiet(at // HALF_HOUR_MS) or self._is_quiet(end // HALF_HOUR_MS)):
                    yield SandboxVisitedPage(visit, at, end, count, entropy, number == 0)
                at = end + (entropy >> 40) % 1000

    def _is_quiet(self, half_hour: int) -> bool:
        return half_hour % 48 < QUIET_HOURS * 2 and mixed(self._seed, half_hour, 48) >> 40 < self._quiet_below

    def events(self, page: SandboxVisitedPage, limit: int) -> list[tuple[int, int]]:
        """Return the times of a page's events that had arrived by `limit`, each with its random number."""
        bits = random.Random(mixed(page.entropy)).getrandbits
        start, span = page.start, page.end - page.start - 20
        events = [(start, bits(64)), (start + LOAD_AFTER_MS, bits(64)), (page.end - END_BEFORE_MS, bits(64))]
        for _ in range(page.events - 3):
            entropy = bits(64)
            events.append((start + LOAD_AFTER_MS + 1 + ((entropy >> 40) * span >> 24), entropy))
        if bits(16) % TWIN_ONE_IN == 0:
            events.append(events[bits(16) % page.events])
        if page.end + self._late_ms <= limit:
            return events
        return [event for event in events if event[0] + self._delay(event[1]) <= limit]

    def _delay(self, entropy: int) -> int:
        """Return how long after its event a row arrives."""
        return self._late_ms if mixed(entropy) >> 40 < self._late_below else 0
