"""The checks of `doctor`: their results, and the exit code that a run would have had.

1. A check is fine, a warning, or a failure. A failure would have ended a run, with the code that it names.
2. If several checks fail, the code is that of the first one that a run would have met (`RUN_ORDER`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from asyncexport.core.exits import Exit

RUN_ORDER = (
    "configuration",
    "key",
    "ledger",
    "permissions",
    "lock",
    "TLS and proxy",
    "host",
    "clock",
    "organisation",
    "segment",
    "disk",
    "mirror",
    "load",
    "destination",
    "listen",
)
"""The checks in the order in which a run meets what they look for."""

MONTH_DAYS = 30

SPARE_FACTOR = 1.5
"""The disk should have room for this many times the archives of the last month."""

LEAST_FREE_BYTES = 10_000_000
"""With less, a run would soon fail whatever it stores: the ledger alone needs some."""

INFLATED_FACTOR = 10
"""While a day is loaded, its archives are on the disk decompressed: about this many times as large."""


class Level(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: What was checked, one of `RUN_ORDER`.
        level: The result.
        message: What was found, in one line.
        advice: What to do; "" if there is nothing to do.
        code: The exit code that a run would have had; `Exit.DONE` unless the check failed.
    """

    name: str
    level: Level
    message: str
    advice: str = ""
    code: Exit = Exit.DONE


def passed(name: str, message: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, Level.OK, message)


def warned(name: str, message: str, advice: str = "") -> Check:
    """Return a check that found something that does not stop a run."""
    return Check(name, Level.WARN, message, advice)


def failed(name: str, message: str, advice: str = "", *, code: Exit) -> Check:
    """Return a check that found what would have ended a run with this code."""
    return Check(name, Level.FAIL, message, advice, code)


def code_of(checks: Iterable[Check]) -> Exit:
    """Return the exit code that a run would have had (rule 2)."""
    failures = [one for one in checks if one.level is Level.FAIL]
    return min(failures, key=lambda one: RUN_ORDER.index(one.name)).code if failures else Exit.DONE


def disk_level(*, free: int, month: int) -> Level:
    """Judge the free bytes of a disk by the bytes of the archives of the last month."""
    if free < max(LEAST_FREE_BYTES, month / MONTH_DAYS):
        return Level.FAIL
    return Level.WARN if free < month * SPARE_FACTOR else Level.OK


def room_for_load(month: int, largest_day: int, *, workers: int) -> int:
    """Return the bytes that a load of the last month may need: its tables, and the days that are being made.

    Args:
        month: The bytes of the archives of the last month.
        largest_day: The bytes of those of its largest day.
        workers: Days that are made at the same time.
    """
    return month + INFLATED_FACTOR * largest_day * workers


def level_of_load(*, free: int, needs: int, largest_day: int) -> Level:
    """Judge the free bytes of the disk of a load by what it may need, and by what one day needs at least."""
    if free < max(LEAST_FREE_BYTES, INFLATED_FACTOR * largest_day):
        return Level.FAIL
    return Level.WARN if free < needs else Level.OK
