"""Events of a shop that does not exist, made from the time and a seed alone.

1. Time is cut into cells. What visits begin in a cell follows from the seed and the cell; what happens on their pages,
   from a number drawn with the visit. No event depends on what is asked for, so ranges tile to the row.
2. A visit ends within LONGEST_VISIT_MS: whoever wants a range looks that far back, and no further.
3. Which pages a visit has is cheap to say, and what happened on them is only made up for pages in the range.
4. Nothing happens in a quiet half-hour: a page that would reach into one was never opened.
5. Time is counted in whole milliseconds here, as the service does.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from asyncexport.sandbox.chance import WORD, identifier, mixed
from asyncexport.sandbox.rows import Row, SandboxPageView, SandboxRows, micros, stamp
from asyncexport.sandbox.shop import IN_THE_APP, KINDS, ON_THE_SITE, SITE, SandboxShopEvent, arrival, pool
from asyncexport.sandbox.visitors import LIFE_DAYS, visitor

__all__ = ["Row", "SandboxRows", "SandboxSyntheticRows"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HALF_HOUR_MS = HOUR_MS // 2

END_OF_TIME_MS = 253_402_300_800_000
"""The year 10000, which no time stamp can tell."""

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

REFERERS = ("", "", "https://search.example/?q=loose+leaf", "https://tea-forum.example/t/12?page=3#post-7")
"""Where a visit comes from."""

QUIET_HOURS = 6
"""Only before this hour is a half-hour ever quiet."""


class _Visit(NamedTuple):
    """Somebody's session."""

    id: int
    start: int
    visitor_day: int
    visitor_number: int
    dice: int


class _Page(NamedTuple):
    """A page of it: how many events it has, and the number that all else about it follows from."""

    visit: _Visit
    start: int
    end: int
    events: int
    dice: int
    first: bool


class SandboxSyntheticRows:
    """Events made up from the time and a seed: the same ones in every process.

    Args:
        seed: Another seed, another shop.
        rows_per_hour: How many events there are in an hour, on the average of whole days.
        late_share: The share of rows that reach the service late.
        late_seconds: How long after its event a late row reaches the service; all others do so at once.
        quiet: The share of the half-hours between midnight and six, UTC, in which nothing happens at all.
    """

    def __init__(
        self,
        seed: int = 1,
        rows_per_hour: float = 800,
        *,
        late_share: float = 0.0,
        late_seconds: float = 0.0,
        quiet: float = 0.25,
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

    def between(self, start: float, end: float, *, arrived_by: float | None = None) -> Iterator[Row]:
        """The rows with start <= EventStart < end, shuffled, the same way each time."""
        first, last = _first_ms(start), _first_ms(end)
        limit = END_OF_TIME_MS if arrived_by is None else micros(arrived_by) // 1000
        shuffle = random.Random(mixed(self._seed, first, last)).shuffle
        cells = list(self._cells(first, last))
        shuffle(cells)
        for cell in cells:
            pages = (page for page in self._pages(cell) if page.start < last and page.end > first)
            rows = [row for page in pages for row in self._rows(page, first, last, limit)]
            shuffle(rows)
            yield from rows

    def history(self, start: float, end: float, *, as_of: float) -> Iterator[SandboxPageView]:
        """All page views up to `as_of` of whoever has an event in the range."""
        first, last, limit = _first_ms(start), _first_ms(end), micros(as_of) // 1000
        seen = {
            page.visit[2:4]
            for cell in self._cells(first, last)
            for page in self._pages(cell)
            if page.start < last and page.end > first
            if any(first <= at < last for at, _ in self._events(page, limit))
        }
        if not seen:
            return
        born, died = min(seen)[0] * DAY_MS, (max(seen)[0] + LIFE_DAYS) * DAY_MS + LONGEST_VISIT_MS
        for cell in self._cells(born, min(died, limit + 1)):
            for page in self._pages(cell):
                if page.visit[2:4] in seen and (events := self._events(page, limit)):
                    yield SandboxPageView(self._facts(page), tuple(sorted(at * 1000 for at, _ in events)))

    def _cells(self, first: int, last: int) -> range:
        """The cells whose visits may have events in a range."""
        return range((first - LONGEST_VISIT_MS) // self._cell_ms, -(-last // self._cell_ms))

    def _pages(self, cell: int) -> Iterator[_Page]:
        """All pages of all visits that begin in a cell."""
        rng = random.Random(mixed(self._seed, cell))
        begin = cell * self._cell_ms
        for _ in range(int(self._visits_a_cell[begin // HOUR_MS % 24] + rng.random())):
            at = begin + int(rng.random() * self._cell_ms)
            dice = rng.getrandbits(64)
            day = at // DAY_MS - AGES[dice % len(AGES)]
            visit = _Visit(identifier(rng), at, day, (dice >> 8) % self._visitors_a_day, dice)
            for number in range(PAGES[int(rng.random() * len(PAGES))]):
                dice = rng.getrandbits(64)
                count = EVENTS[dice % len(EVENTS)]
                end = at + count * (GAP_MS[0] + (dice >> 16) % (GAP_MS[1] - GAP_MS[0]))
                if not (self._is_quiet(at // HALF_HOUR_MS) or self._is_quiet(end // HALF_HOUR_MS)):
                    yield _Page(visit, at, end, count, dice, number == 0)
                at = end + (dice >> 40) % 1000

    def _is_quiet(self, half_hour: int) -> bool:
        return half_hour % 48 < QUIET_HOURS * 2 and mixed(self._seed, half_hour, 48) >> 40 < self._quiet_below

    def _events(self, page: _Page, limit: int) -> list[tuple[int, int]]:
        """When the events of a page that had arrived by `limit` were, each with the number it is made from."""
        bits = random.Random(mixed(page.dice)).getrandbits
        start, span = page.start, page.end - page.start - 20
        events = [(start, bits(64)), (start + LOAD_AFTER_MS, bits(64))]
        for _ in range(page.events - 2):
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

    def _rows(self, page: _Page, first: int, last: int, limit: int) -> Iterator[Row]:
        """The rows of a page's events in a range."""
        events = [event for event in self._events(page, limit) if first <= event[0] < last]
        if not events:
            return
        kind, head, middle, tail = self._parts(page)
        for at, dice in events:
            happening = _happening(page, at, dice, kind)
            yield {
                **head,
                "EventStart": stamp(at),
                **happening.event,
                "EventPageOffset": at - page.start,
                "EventSessionOffset": at - page.visit.start,
                **middle,
                **happening.timing,
                **tail,
                **happening.variables,
            }

    def _parts(self, page: _Page) -> tuple[int, Row, Row, Row]:
        """The kind of a page, and what all rows of its events have in common: whose, which page, who they are."""
        visit, dice = page.visit, page.dice
        who = visitor(self._seed, visit.visitor_day, visit.visitor_number)
        user_id, device = who.devices[(visit.dice >> 40) % len(who.devices)]
        kinds = IN_THE_APP if device.runs_the_app else ON_THE_SITE
        number = kinds[(dice >> 8) % len(kinds)]
        kind = KINDS[number]
        address = kind.addresses[(dice >> 12) % len(kind.addresses)]
        head: Row = {
            "IndvId": who.indv_id,
            "UserId": user_id,
            "SessionId": visit.id,
            "PageId": (1 << 60) + (dice >> 2),
            **who.created,
            "SessionStart": stamp(visit.start),
        }
        middle: Row = {
            "PageStart": stamp(page.start),
            "PageName": kind.name,
            "PageDuration": page.end - page.start,
            "PageActiveDuration": (page.end - page.start) * (40 + (dice >> 20) % 60) // 100,
            **({} if device.runs_the_app else {"PageUrl": address, "PageRefererUrl": _referer(page)}),
            **who.place,
            **device.facts,
            "PageNumInfos": (dice >> 24) % 6,
            "PageNumWarnings": (dice >> 27) % 5,
            "PageNumErrors": max(0, (dice >> 30) % 12 - 8),
            "PageNumEvents": page.events,
            "PageNumDerivedEvents": (dice >> 34) % 9,
            **({"PageClusterId": kind.cluster_id} if dice % 100 else {}),
            "PageMaxScrollDepthPercent": (dice >> 38) % 101,
        }
        app = {**device.app, "AppViewName": address} if device.runs_the_app else {}
        variables = kind.variables[(dice >> 44) % len(kind.variables)]
        return number, head, middle, {**app, **who.known, **who.variables, **variables}

    def _facts(self, page: _Page) -> Row:
        _, head, middle, tail = self._parts(page)
        return head | middle | tail


def _happening(page: _Page, at: int, dice: int, kind: int) -> SandboxShopEvent:
    """What happens then: a page begins with its arrival, most often a load, and goes on from its pool."""
    if at == page.start:
        choices = arrival("pageview" if KINDS[kind].in_the_app else "navigate")
    elif at == page.start + LOAD_AFTER_MS and (page.first or dice % 4) and not KINDS[kind].in_the_app:
        choices = arrival("load")
    else:
        choices = pool(kind)
    return choices[(dice & 0xFFFFFFFF) % len(choices)]


def _referer(page: _Page) -> str:
    return REFERERS[(page.dice >> 50) % len(REFERERS)] if page.first else f"{SITE}/"


def _first_ms(moment: float) -> int:
    """The first whole millisecond at that moment or after it, within what can be told."""
    if moment >= END_OF_TIME_MS / 1000:
        return END_OF_TIME_MS
    return -(-micros(max(moment, 0.0)) // 1000)
