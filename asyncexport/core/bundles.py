"""Ranges of time, how they are cut into bundles, and what remains of them to export.

1. A range is half-open, `[start, end)`, in whole seconds since 1970 UTC. Ranges tile: no gap, no overlap.
2. Coverage is counted in time, not in bundles: to do = the range - what is stored - what is claimed.
3. What is left is cut at the grid lines of the width, counted from midnight UTC. A width divides a day, so the grid
   counted from 1970 is the same. A piece at an edge may be narrower.
4. Everything is made lazily and in order of time: a year of bundles takes no more memory than one.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

DAY = 86_400

HOUR = 3_600

FIRST_WRITTEN = -62_135_596_800
"""0001-01-01T00:00:00Z."""

LAST_WRITTEN = 253_402_300_799
"""9999-12-31T23:59:59Z."""

TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """A half-open span of UTC time, in whole seconds since 1970.

    Raises:
        ValueError: it is empty or runs backwards.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError(f"a range must end after it starts: {show(self.start)} to {show(self.end)}")

    def __str__(self) -> str:
        """Return the range for messages."""
        return f"{show(self.start)} to {show(self.end)}"

    @property
    def seconds(self) -> int:
        """The width in seconds."""
        return self.end - self.start

    def contains(self, other: "Range") -> bool:
        """Whether another range lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: "Range") -> bool:
        """Whether another range shares at least one second with this one."""
        return self.start < other.end and other.start < self.end


ALL_TIME = Range(-(2**62), 2**62)
"""The range for requests without a time limit. Both ends fit into a column of the ledger."""


@dataclass(frozen=True, slots=True, order=True)
class Bundle:
    """One piece of a range of one export: the unit of work, retry and storage."""

    export: str
    range: Range

    def __str__(self) -> str:
        """Return the bundle for messages."""
        return f"{self.export} {self.range}"

    def contains(self, other: "Bundle") -> bool:
        """Whether another bundle is of the same export and lies within this one."""
        return self.export == other.export and self.range.contains(other.range)


def show(moment: float) -> str:
    """Return a time as RFC 3339 in UTC, to the second, for the service and for messages.

    Clocks may report anything: a time before the year 1 or after 9999 becomes the nearest one that can be written.
    """
    written = min(max(moment, FIRST_WRITTEN), LAST_WRITTEN)
    return f"{datetime.fromtimestamp(written, UTC).isoformat()[:19]}Z"


def compact(moment: int) -> str:
    """Return a time as in file names: `20260101T003000Z`."""
    return show(moment).replace("-", "").replace(":", "")


def day(moment: int) -> str:
    """Return the UTC day of a time: `2026-01-01`."""
    return show(moment)[:10]


def show_day_or_time(at: int) -> str:
    """Return the day of a time that is a midnight UTC, else the time: the shorter form that options accept."""
    return show(at) if at % DAY else day(at)


@dataclass(frozen=True, slots=True)
class Ago:
    """The start of the UTC day or hour that is `count` units before the current one, which depends on the clock.

    Attributes:
        count: Units to go back.
        unit_seconds: `DAY` or `HOUR`.
    """

    count: int
    unit_seconds: int = DAY

    def __str__(self) -> str:
        """Return it for messages."""
        if self.unit_seconds == HOUR:
            return {0: "this hour", 1: "1 hour ago"}.get(self.count, f"{self.count} hours ago")
        return {0: "today", 1: "yesterday"}.get(self.count, f"{self.count} days ago")


UNITS_AGO = {"w": (7, DAY), "d": (1, DAY), "h": (1, HOUR)}
"""The units of `12w`, `90d` and `36h`: how many units of which length each stands for. Weeks are whole days."""

When = int | Ago
"""A time as it was asked for: in seconds since 1970 UTC, or relative to the clock."""


def moment_of(when: When, *, now: float) -> int:
    """Return the time that is meant, at the current time `now`; both in seconds since 1970 UTC."""
    if isinstance(when, int):
        return when
    return (int(now) // when.unit_seconds - when.count) * when.unit_seconds


def is_always_empty(start: When, end: When) -> bool:
    """Whether a range with these ends is empty, whatever the time.

    If one end is fixed and the other relative, that depends on the clock. If both are relative, the answer is the same
    on every day, and within a day it can change from hour to hour.
    """
    if isinstance(start, int) != isinstance(end, int):
        return False
    return all(moment_of(start, now=now) >= moment_of(end, now=now) for now in range(0, DAY, HOUR))


def read_moment(text: str, *, now: float) -> int:
    """Read a time as people write it, at a known current time; see `read_when`.

    Raises:
        ValueError: it is not a time, or finer than a second.
    """
    return moment_of(read_when(text), now=now)


def read_when(text: str) -> When:
    """Read a time as people write it: `2026-01-01`, RFC 3339, `today`, `yesterday`, or `90d`, `12w` or `36h` ago.

    Days and weeks are counted back from midnight UTC, hours from the full hour; a time without an offset is UTC.

    Raises:
        ValueError: it is none of these, or finer than a second.
    """
    text = text.strip()
    if text in ("today", "yesterday"):
        return Ago(int(text == "yesterday"))
    if ago := re.fullmatch(r"([0-9]{1,5})([wdh])", text):
        units, unit_seconds = UNITS_AGO[ago[2]]
        return Ago(int(ago[1]) * units, unit_seconds)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is not a date: write 2026-01-01, 2026-01-01T12:00:00Z, today, yesterday, "
            "or how long ago: 90d, 12w or 36h"
        ) from None
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text[:40]!r} is outside the years 1 to 9999") from None
    if moment.microsecond:
        raise ValueError(f"{text[:40]!r} is finer than a second: ranges are in whole seconds")
    return int(moment.timestamp())


@lru_cache(maxsize=1024)
def read_timestamp(text: str) -> float:
    """Return the seconds since 1970 of one of the service's time stamps.

    They are RFC 3339 with 0 to 9 fraction digits (API reference, section 3.0).

    The latest results are cached, since lists repeat the time stamps of the same operations.

    Raises:
        ValueError: it is not a time stamp.
    """
    found = TIMESTAMP.fullmatch(text.strip())
    if not found:
        raise ValueError(f"not a time stamp: {text[:60]!r}")
    whole = datetime.fromisoformat(f"{found[1]}+00:00").timestamp() + float(found[2] or 0)
    zone = found[3] or "Z"
    if zone in "Zz":
        return whole
    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:])).total_seconds()
    return whole + offset if zone[0] == "-" else whole - offset


def settled_until(now: float, *, settle_seconds: int) -> int:
    """Return the time up to which data no longer changes (API reference, section 7): now less the settle time."""
    return int(now) - settle_seconds


def merged(spans: Iterable[tuple[int, int]]) -> Iterator[Range]:
    """Return the union of spans, given as pairs of start and end in order of start, as the fewest ranges possible.

    It takes plain numbers, since the ledger merges a hundred thousand spans that often make a single range.
    """
    begun, reached = None, 0
    for start, end in spans:
        if begun is None:
            begun, reached = start, end
        elif start > reached:
            yield Range(begun, reached)
            begun, reached = start, end
        elif end > reached:
            reached = end
    if begun is not None:
        yield Range(begun, reached)


def gaps(whole: Range, taken: Iterable[Range]) -> Iterator[Range]:
    """Return the parts of `whole` that no range of `taken` covers; `taken` in order of start, overlaps allowed."""
    at = whole.start
    for piece in taken:
        if piece.start >= whole.end:
            break
        if piece.start > at:
            yield Range(at, piece.start)
        at = max(at, piece.end)
        if at >= whole.end:
            return
    if at < whole.end:
        yield Range(at, whole.end)


def cut(whole: Range, width_seconds: int, *, newest_first: bool = False) -> Iterator[Range]:
    """Return the pieces of a range between the grid lines of a width, in order of time or newest first."""
    if newest_first:
        end = whole.end
        while end > whole.start:
            line = max((end - 1) // width_seconds * width_seconds, whole.start)
            yield Range(line, end)
            end = line
        return
    at = whole.start
    while at < whole.end:
        line = min((at // width_seconds + 1) * width_seconds, whole.end)
        yield Range(at, line)
        at = line


def count_cut(whole: Range, width_seconds: int) -> int:
    """Return the number of pieces `cut` would make, without making them."""
    return -(-whole.end // width_seconds) - whole.start // width_seconds
