"""Events of a fictional shop, made only from the time and a seed.

1. `visits` decides when something happens. What happens follows from the random numbers drawn there.
2. The pages of a visit are cheap to compute. Rows are made only for pages in the range.
3. Times here are whole milliseconds, like those of the service.
"""

import random
from collections.abc import Iterator, Sequence

from asyncexport.sandbox.chance import WORD, mixed
from asyncexport.sandbox.rows import Row, SandboxPageView, SandboxRows, event_stamp, micros
from asyncexport.sandbox.shop import IN_THE_APP, KINDS, ON_THE_SITE, SITE, SandboxShopEvent, boundary_events, pool
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
"""The year 10000, which no time stamp can express."""

REFERERS = ("", "", "https://search.example/?q=loose+leaf", "https://tea-forum.example/t/12?page=3#post-7")
"""Pages that a visit may come from."""


class SandboxSyntheticRows:
    """Synthetic events, made from the time and a seed: the same in every process.

    Args:
        seed: Different seeds give different events.
        rows_per_hour: Events an hour, averaged over whole days.
        late_share: The share of rows that reach the service late.
        late_seconds: How long after its event a late row reaches the service; other rows arrive immediately.
        quiet: The share of the half-hours between 00:00 and 06:00 UTC that have no events at all.
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
        """Yield the rows with start <= EventStart < end, always in the same shuffled order."""
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
        """Yield all page views up to `as_of` of everyone with an event in the range, and None between cells."""
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
                    moments = sorted(at * 1000 for at, _ in _page_events(page, events, kind))
                    yield SandboxPageView(head | middle | tail, tuple(moments))

    def _rows(self, page: SandboxVisitedPage, first: int, last: int, limit: int) -> Iterator[Row]:
        """Yield the rows of a page's events in a range."""
        events = [event for event in self._visits.events(page, limit) if first <= event[0] < last]
        if not events:
            return
        kind, head, middle, tail = self._parts(page)
        for at, event in _page_events(page, events, kind):
            yield {
                **head,
                "EventStart": event_stamp(at),
                **event.event,
                "EventPageOffset": at - page.start,
                "EventSessionOffset": at - page.visit.start,
                **middle,
                **event.timing,
                **tail,
                **event.variables,
            }

    def _parts(self, page: SandboxVisitedPage) -> tuple[int, Row, Row, Row]:
        """Return the kind of a page and the three parts that all rows of its events share: ids, page, and visitor."""
        visit, entropy = page.visit, page.entropy
        who = visitor(self._seed, visit.visitor_day, visit.visitor_number)
        user_id, device = who.devices[(visit.entropy >> 40) % len(who.devices)]
        kinds = IN_THE_APP if device.runs_the_app else ON_THE_SITE
        number = kinds[(entropy >> 8) % len(kinds)]
        kind = KINDS[number]
        address = kind.addresses[(entropy >> 12) % len(kind.addresses)]
        head: Row = {
            "IndvId": who.indv_id,
            "UserId": user_id,
            "SessionId": visit.id,
            "PageId": (1 << 60) + (entropy >> 2),
            **who.created,
            "SessionStart": event_stamp(visit.start),
        }
        middle: Row = {
            "PageStart": event_stamp(page.start),
            "PageName": kind.name,
            "PageDuration": page.end - page.start,
            "PageActiveDuration": (page.end - page.start) * (40 + (entropy >> 20) % 60) // 100,
            **({} if device.runs_the_app else {"PageUrl": address, "PageRefererUrl": _referer(page)}),
            **who.place,
            **device.facts,
            "PageNumInfos": (entropy >> 24) % 6,
            "PageNumWarnings": (entropy >> 27) % 5,
            "PageNumErrors": max(0, (entropy >> 30) % 12 - 8),
            "PageNumEvents": page.events,
            "PageNumDerivedEvents": (entropy >> 34) % 9,
            **({"PageClusterId": kind.cluster_id} if entropy % 100 else {}),
            "PageMaxScrollDepthPercent": (entropy >> 38) % 101,
        }
        app = {**device.app, "AppViewName": address} if device.runs_the_app else {}
        variables = kind.variables[(entropy >> 44) % len(kind.variables)]
        return number, head, middle, {**app, **who.known, **who.variables, **variables}


def _page_events(
    page: SandboxVisitedPage, events: Sequence[tuple[int, int]], kind: int
) -> Iterator[tuple[int, SandboxShopEvent]]:
    """Yield the events on a page of this kind with their times. `events` has a time and a random number for each."""
    for at, entropy in events:
        event = _choose_event(page, at, entropy, kind)
        yield at, event
        if event.twin is not None:
            yield at, event.twin


def _choose_event(page: SandboxVisitedPage, at: int, entropy: int, kind: int) -> SandboxShopEvent:
    """Choose the event at one time on a page.

    A page of the site begins with a navigate event, mostly followed by a load. Every page ends with a pageview, like
    real ones. The events between come from the pool of the page's kind.
    """
    if at == page.end - END_BEFORE_MS:
        choices = boundary_events("pageview")
    elif at == page.start and not KINDS[kind].in_the_app:
        choices = boundary_events("navigate")
    elif at == page.start + LOAD_AFTER_MS and (page.first or entropy % 4) and not KINDS[kind].in_the_app:
        choices = boundary_events("load")
    else:
        choices = pool(kind)
    return choices[(entropy & 0xFFFFFFFF) % len(choices)]


def _referer(page: SandboxVisitedPage) -> str:
    return REFERERS[(page.entropy >> 50) % len(REFERERS)] if page.first else f"{SITE}/"


def _first_ms(moment: float) -> int:
    """Return the first whole millisecond at or after this time, limited to the years 1970 to 9999."""
    if moment >= END_OF_TIME_MS / 1000:
        return END_OF_TIME_MS
    return -(-micros(max(moment, 0.0)) // 1000)
