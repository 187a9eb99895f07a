"""Times and durations as the functions of the library take them: text, dates, numbers."""

from datetime import date, timedelta

from asyncexport.config import read_duration
from asyncexport.core.bundles import Ago, When, is_always_empty, read_when
from asyncexport.errors import Problem

Moment = When | str | date
"""Whole seconds since 1970 UTC, a text such as "2026-01-01" or "90d", a `date`, or a `datetime` (in UTC if naive)."""

MaxDuration = float | str | timedelta | None
"""Seconds, a text such as "5h", or a `timedelta`. None: no limit."""


def read_range(start: Moment, end: Moment | None, problems: list[Problem]) -> tuple[When, When | None]:
    """Read a range; what is wrong with it is added to the problems."""
    first, last = _when(start, "start", problems), None if end is None else _when(end, "end", problems)
    if first is not None and last is not None and is_always_empty(first, last):
        problems.append(Problem("end", f"{end} is not after the start, {start}"))
    return first or 0, last


def _when(value: Moment, place: str, problems: list[Problem]) -> When | None:
    """Convert a time; a `date` or `datetime` is read like its ISO text."""
    if isinstance(value, int | Ago):
        return value
    text = value.isoformat() if isinstance(value, date) else str(value)
    try:
        return read_when(text)
    except ValueError as error:
        problems.append(Problem(place, str(error)))
        return None


def read_seconds(value: MaxDuration, problems: list[Problem], *, place: str = "max_duration") -> float | None:
    """Read a duration in seconds; None if it was not given. What is wrong with it is added to the problems."""
    if value is None:
        return None
    try:
        seconds = read_duration(value) if isinstance(value, str) else value
    except ValueError as error:
        problems.append(Problem(place, str(error)))
        return None
    seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if not seconds > 0:
        problems.append(Problem(place, "must be longer than 0s"))
    return seconds
