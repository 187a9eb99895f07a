"""Individuals: one row for everybody who has an event in a range, with totals as of a moment.

1. Who is in it, the range says; what is said of them counts all that had reached the service by that moment. So the
   same range asked for again later has the same people, and other numbers.
2. Who they are, and on what device, is as their last page has it.
3. That `UserVars` is an object, and what times look like, is a guess (reference section 8).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from asyncexport.sandbox.rows import Row, SandboxPageView, SandboxRows, event_stamp, micros

FROM_THE_USER = {"Created": "UserCreated", "Uid": "UserAppKey", "DisplayName": "UserDisplayName", "Email": "UserEmail"}

FROM_THE_LAST_PAGE = {
    "LastPage": "PageUrl",
    "LastIp": "PageIp",
    "LastLatLong": "PageLatLong",
    "LastBrowser": "PageBrowser",
    "LastDevice": "PageDevice",
    "LastPlatform": "PagePlatform",
    "LastOperatingSystem": "PageOperatingSystem",
}
"""A field, and that of an event it is taken from; absent where that is."""

VIEWS_A_STEP = 20
"""So many page views, or stretches without one, are counted between two pauses: a few milliseconds."""


def individuals(rows: SandboxRows, start: float, end: float, *, as_of: float) -> Iterator[Row]:
    """One row for everybody with an event in [start, end), totals as of `as_of`; in no order, the same each time."""
    counting = count_individuals(rows, start, end, as_of=as_of)
    while True:
        try:
            next(counting)
        except StopIteration as end_of_it:
            counted: Iterator[Row] = end_of_it.value
            return counted


def count_individuals(
    rows: SandboxRows, start: float, end: float, *, as_of: float
) -> Generator[None, None, Iterator[Row]]:
    """The same rows, as the result of a generator that pauses now and then, since counting takes long."""
    lives: dict[Any, _Life] = {}
    first, last = micros(start), micros(end)
    for number, view in enumerate(rows.history(start, end, as_of=as_of)):
        if number % VIEWS_A_STEP == 0:
            yield
        if view is None or "IndvId" not in view.facts:
            continue  # a given file may have such rows: they are nobody's
        life = lives.setdefault(view.facts["IndvId"], _Life())
        life.add(view)
        life.is_in_range = life.is_in_range or any(first <= moment < last for moment in view.moments)
    return (life.row() for life in lives.values() if life.is_in_range)


@dataclass(slots=True)
class _Session:
    """What one session comes to."""

    start: int
    end: int
    active: int = 0
    pages: int = 0
    events: int = 0


@dataclass(slots=True)
class _Life:
    """All that somebody did."""

    sessions: dict[Any, _Session] = field(default_factory=dict)
    facts: Row = field(default_factory=dict)
    latest: int = -1
    is_in_range: bool = False

    def add(self, view: SandboxPageView) -> None:
        """Take in one page view."""
        begin, end = view.moments[0], view.moments[-1]
        key = (view.facts.get("UserId"), view.facts.get("SessionId"))
        session = self.sessions.setdefault(key, _Session(begin, end))
        session.start, session.end = min(session.start, begin), max(session.end, end)
        session.active += min(view.facts.get("PageActiveDuration", 0) * 1000, end - begin)
        session.pages += 1
        session.events += len(view.moments)
        if end > self.latest:
            self.latest, self.facts = end, view.facts

    def row(self) -> Row:
        """As it is exported."""
        sessions = list(self.sessions.values())
        last = max(sessions, key=lambda session: session.end)
        total = sum(session.end - session.start for session in sessions)
        active = sum(session.active for session in sessions)
        return {
            "IndvId": self.facts["IndvId"],
            **_renamed(self.facts, FROM_THE_USER),
            "NumSessions": len(sessions),
            "NumPages": sum(session.pages for session in sessions),
            "NumEvents": sum(session.events for session in sessions),
            "TotalSec": _seconds(total),
            "ActiveSec": _seconds(active),
            "AvgSessionSec": _seconds(total / len(sessions)),
            "AvgSessionActiveSec": _seconds(active / len(sessions)),
            "MaxSessionSec": _seconds(max(session.end - session.start for session in sessions)),
            "LastSessionStart": event_stamp(last.start // 1000),
            "LastEventStart": event_stamp(self.latest // 1000),
            "LastSessionSec": _seconds(last.end - last.start),
            "LastSessionActiveSec": _seconds(last.active),
            "LastSessionNumPages": last.pages,
            "LastSessionNumEvents": last.events,
            **_renamed(self.facts, FROM_THE_LAST_PAGE),
            "UserVars": {key[5:]: value for key, value in self.facts.items() if key.startswith("user_")},
        }


def _renamed(facts: Row, names: dict[str, str]) -> Row:
    return {name: facts[source] for name, source in names.items() if source in facts}


def _seconds(length: float) -> float:
    """Microseconds as seconds, to the millisecond; a whole number where it is one."""
    seconds = round(length / 1_000_000, 3)
    return int(seconds) if seconds == int(seconds) else seconds
