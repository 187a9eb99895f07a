"""Events of a shop that does not exist, made from the time and a seed alone.

1. When something happens is in `visits`; what it is follows from the numbers drawn there.
2. Which pages a visit has is cheap to compute, and their rows are only made for pages in the range.
3. Time is counted in whole milliseconds here, as the service does.
"""

import random
from collections.abc import Iterator, Sequence

from asyncexport.sandbox.chance import WORD, mixed
from asyncexport.sandbox.rows import Row, SandboxPageView, SandboxRows, event_stamp, micros
from asyncexport.sandbox.shop import IN_THE_APP, KINDS, ON_THE_SITE, SITE, SandboxShopEvent, arrival, pool
from asyncexport.sandbox.visitors import LIFE_DAYS, visitor
from asyncexport.sandbox.visits import (
    DAY_MS,
    END_BEFORE_MS,
    LOAD_AFTER_MS,
    LONGEST_VISIT_MS,
    SandboxVisitedPage,
    SandboxVisits,
)

__all__ = ["Row", "SandboxRows", "SandboxSyntheticRows"]

END_OF_TIME_MS = 253_402_300_800_000
"""The year 10000, which no time stamp can tell."""

REFERERS = ("", "", "https://search.example/?q=loose+leaf", "https://tea-forum.example/t/12?page=3#post-7")
"""Where a visit comes from."""


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
        self._visits = SandboxVisits(seed, rows_per_hour, late_share=late_share, late_seconds=late_seconds, quiet=quiet)

    def between(self, start: float, end: float, *, arrived_by: float | None = None) -> Iterator[Row]:
        """The rows with start <= EventStart < end, shuffled, the same way each time."""
        first, last = _first_ms(start), _first_ms(end)
        limit = END_OF_TIME_MS if arrived_by is None else micros(arrived_by) // 1000
        shuffle = random.Random(mixed(self._seed, first, last)).shuffle
        cells = list(self._visits.cells(first, last))
        shuffle(cells)
        for cell in cells:
            pages = (page for page in self._visits.pages(cell) if page.start < last and page.end > first)
            rows = [row for page in pages for row in self._rows(page, first, last, limit)]
            shuffle(rows)
            yield from rows

    def history(self, start: float, end: float, *, as_of: float) -> Iterator[SandboxPageView | None]:
        """All page views up to `as_of` of everybody who has an event in the range; None between cells."""
        first, last, limit = _first_ms(start), _first_ms(end), micros(as_of) // 1000
        seen: set[tuple[int, ...]] = set()
        for cell in self._visits.cells(first, last):
            yield None
            seen.update(
                page.visit[2:4]
                for page in self._visits.pages(cell)
                if page.start < last and page.end > first
                if any(first <= at < last for at, _ in self._visits.events(page, limit))
            )
        if not seen:
            return
        born, died = min(seen)[0] * DAY_MS, (max(seen)[0] + LIFE_DAYS) * DAY_MS + LONGEST_VISIT_MS
        for cell in self._visits.cells(born, min(died, limit + 1)):
            yield None
            for page in self._visits.pages(cell):
                if page.visit[2:4] in seen and (events := self._visits.events(page, limit)):
                    kind, head, middle, tail = self._parts(page)
                    moments = sorted(at * 1000 for at, _ in _happenings(page, events, kind))
                    yield SandboxPageView(head | middle | tail, tuple(moments))

    def _rows(self, page: SandboxVisitedPage, first: int, last: int, limit: int) -> Iterator[Row]:
        """The rows of a page's events in a range."""
        events = [event for event in self._visits.events(page, limit) if first <= event[0] < last]
        if not events:
            return
        kind, head, middle, tail = self._parts(page)
        for at, happening in _happenings(page, events, kind):
            yield {
                **head,
                "EventStart": event_stamp(at),
                **happening.event,
                "EventPageOffset": at - page.start,
                "EventSessionOffset": at - page.visit.start,
                **middle,
                **happening.timing,
                **tail,
                **happening.variables,
            }

    def _parts(self, page: SandboxVisitedPage) -> tuple[int, Row, Row, Row]:
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
            "SessionStart": event_stamp(visit.start),
        }
        middle: Row = {
            "PageStart": event_stamp(page.start),
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


def _happenings(
    page: SandboxVisitedPage, events: Sequence[tuple[int, int]], kind: int
) -> Iterator[tuple[int, SandboxShopEvent]]:
    """What happens on a page of a kind, and when, from the moments of its events and their numbers."""
    for at, dice in events:
        happening = _happening(page, at, dice, kind)
        yield at, happening
        if happening.twin is not None:
            yield at, happening.twin


def _happening(page: SandboxVisitedPage, at: int, dice: int, kind: int) -> SandboxShopEvent:
    """What happens then.

    A page of the site begins with a navigate, most often followed by a load. All pages end with a pageview, as those
    of the service do; in between comes what the pool of its kind has.
    """
    if at == page.end - END_BEFORE_MS:
        choices = arrival("pageview")
    elif at == page.start and not KINDS[kind].in_the_app:
        choices = arrival("navigate")
    elif at == page.start + LOAD_AFTER_MS and (page.first or dice % 4) and not KINDS[kind].in_the_app:
        choices = arrival("load")
    else:
        choices = pool(kind)
    return choices[(dice & 0xFFFFFFFF) % len(choices)]


def _referer(page: SandboxVisitedPage) -> str:
    return REFERERS[(page.dice >> 50) % len(REFERERS)] if page.first else f"{SITE}/"


def _first_ms(moment: float) -> int:
    """The first whole millisecond at that moment or after it, within what can be told."""
    if moment >= END_OF_TIME_MS / 1000:
        return END_OF_TIME_MS
    return -(-micros(max(moment, 0.0)) // 1000)
