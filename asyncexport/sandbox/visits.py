"""When visitors of a shop that does not exist come, which pages they open, and when events happen on those.

1. Time is cut into cells. What visits begin in a cell follows from the seed and the cell; when the events of their
   pages happen follows from a number drawn with the page. Nothing depends on what is asked for, so ranges tile.
2. A visit ends within LONGEST_VISIT_MS: to find what happens in a range, one looks that far back and no further.
3. Nothing happens in a quiet half-hour: a page that would reach into one was never opened.
4. Time is counted in whole milliseconds since 1970.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from asyncexport.sandbox.chance import WORD, identifier, mixed

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HALF_HOUR_MS = HOUR_MS // 2

CELL_ROWS = 2000
"""About how many rows a cell has at most: what is in memory at once."""

PAGES = (1, 1, 2, 2, 3, 3, 4, 5, 7, 10)
"""How many pages a visit has; each as likely as the next."""

EVENTS = (3, 4, 5, 6, 8, 9, 11, 14, 18, 26)
"""How many events a page has."""

GAP_MS = (400, 6400)
"""How far apart the events of a page are on average, at least and at most."""

LOAD_AFTER_MS = 13
"""When the second event of a page is: its load, unless it needed none."""

END_BEFORE_MS = 1
"""How long before the end of a page its last event is."""

TWIN_ONE_IN = 25
"""One page in so many has an event that is there twice."""

LONGEST_VISIT_MS = max(PAGES) * (max(EVENTS) * GAP_MS[1] + 1000)

ROWS_A_VISIT = sum(PAGES) / len(PAGES) * (sum(EVENTS) / len(EVENTS) + 1 / TWIN_ONE_IN)

VISITS_A_VISITOR = 3
"""How often somebody comes, on average."""

AGES = (0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6)
"""How many days ago somebody who comes was here first: within LIFE_DAYS."""

RHYTHM = (5, 4, 3, 3, 4, 7, 12, 18, 24, 28, 30, 30, 29, 28, 28, 29, 31, 34, 36, 36, 32, 24, 16, 9)
"""How busy each hour of a day is, UTC."""

QUIET_HOURS = 6
"""Only before this hour is a half-hour ever quiet."""


class SandboxVisit(NamedTuple):
    """A session of a visitor, who is the `visitor_number`-th of those that first came on `visitor_day`."""

    id: int
    start: int
    visitor_day: int
    visitor_number: int
    dice: int


class SandboxVisitedPage(NamedTuple):
    """A page that was opened in a visit: from when to when, with how many events.

    `dice` is the number that all else about the page follows from; `first` marks the first page of the visit.
    """

    visit: SandboxVisit
    start: int
    end: int
    events: int
    dice: int
    first: bool


class SandboxVisits:
    """Visits made up from the time and a seed; see `SandboxSyntheticRows` for the arguments."""

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
        """The cells whose visits may have events in a range."""
        return range((first - LONGEST_VISIT_MS) // self._cell_ms, -(-last // self._cell_ms))

    def pages(self, cell: int) -> Iterator[SandboxVisitedPage]:
        """All pages of all visits that begin in a cell."""
        rng = random.Random(mixed(self._seed, cell))
        begin = cell * self._cell_ms
        for _ in range(int(self._visits_a_cell[begin // HOUR_MS % 24] + rng.random())):
            at = begin + int(rng.random() * self._cell_ms)
            dice = rng.getrandbits(64)
            day = at // DAY_MS - AGES[dice % len(AGES)]
            visit = SandboxVisit(identifier(rng), at, day, (dice >> 8) % self._visitors_a_day, dice)
            for number in range(PAGES[int(rng.random() * len(PAGES))]):
                dice = rng.getrandbits(64)
                count = EVENTS[dice % len(EVENTS)]
                end = at + count * (GAP_MS[0] + (dice >> 16) % (GAP_MS[1] - GAP_MS[0]))
                if not (self._is_quiet(at // HALF_HOUR_MS) or self._is_quiet(end // HALF_HOUR_MS)):
                    yield SandboxVisitedPage(visit, at, end, count, dice, number == 0)
                at = end + (dice >> 40) % 1000

    def _is_quiet(self, half_hour: int) -> bool:
        return half_hour % 48 < QUIET_HOURS * 2 and mixed(self._seed, half_hour, 48) >> 40 < self._quiet_below

    def events(self, page: SandboxVisitedPage, limit: int) -> list[tuple[int, int]]:
        """When the events of a page that had arrived by `limit` were, each with the number it is made from."""
        bits = random.Random(mixed(page.dice)).getrandbits
        start, span = page.start, page.end - page.start - 20
        events = [(start, bits(64)), (start + LOAD_AFTER_MS, bits(64)), (page.end - END_BEFORE_MS, bits(64))]
        for _ in range(page.events - 3):
            dice = bits(64)
            events.append((start + LOAD_AFTER_MS + 1 + ((dice >> 40) * span >> 24), dice))
        if bits(16) % TWIN_ONE_IN == 0:
            events.append(events[bits(16) % page.events])
        if page.end + self._late_ms <= limit:
            return events
        return [event for event in events if event[0] + self._delay(event[1]) <= limit]

    def _delay(self, dice: int) -> int:
        """How long after its event a row arrives."""
        return self._late_ms if mixed(dice) >> 40 < self._late_below else 0
