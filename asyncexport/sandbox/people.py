"""Individuals: one row for each individual with an event in a range, with totals as of a given time.

1. The range decides which individuals are included. Their totals count everything that had reached the service by the
   given time. The same range exported later has the same individuals with other totals.
2. Name and device of an individual are those of the last page.
3. It is a guess that `UserVars` is an object and what time stamps look like.
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
"""Fields of an individual, each with the field of an event that it is taken from; left out if the event lacks it."""

VIEWS_A_STEP = 20
"""Items of the history that are counted between two pauses: a few milliseconds."""


def individuals(rows: SandboxRows, start: float, end: float, *, as_of: float) -> Iterator[Row]:
    """Yield a row for each individual with an event in [start, end), with totals as of `as_of`."""
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
    """Return the rows of `individuals` from a generator that yields now and then, since counting takes long."""
    histories: dict[Any, _History] = {}
    first, last = micros(start), micros(end)
    for number, view in enumerate(rows.history(start, end, as_of=as_of)):
        if number % VIEWS_A_STEP == 0:
            yield
        if view is None or "IndvId" not in view.facts:
            continue  # rows from a file may have no individual
        history = histories.setdefault(view.facts["IndvId"], _History())
        history.add(view)
        history.is_in_range = history.is_in_range or any(first <= moment < last for moment in view.moments)
    return (history.row() for history in histories.values() if history.is_in_range)


@dataclass(slots=True)
class _Session:
    """The totals of a session."""

    start: int
    end: int
    active: int = 0
    pages: int = 0
    events: int = 0


@dataclass(slots=True)
class _History:
    """The page views of one individual, summed up."""

    sessions: dict[Any, _Session] = field(default_factory=dict)
    facts: Row = field(default_factory=dict)
    latest: int = -1
    is_in_range: bool = False

    def add(self, view: SandboxPageView) -> None:
        """Add a page view."""
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
        """Return the row of the individual."""
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
    """Return microseconds as seconds with millisecond precision, as an int if it is a whole number."""
    seconds = round(length / 1_000_000, 3)
    return int(seconds) if seconds == int(seconds) else seconds
