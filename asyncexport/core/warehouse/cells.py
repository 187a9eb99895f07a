"""Which texts fit a column, by the kind of the column. All others are kept in `_rescued`, and the column is NULL.

1. An integer column holds the text of a 64-bit integer, written as usual: `12`, also within quotes. `1.0`, `1e3`, `-0`
   and `true` do not fit: nobody knows what they mean to their writer.
2. A time column holds an instant of the years 1 to 9999 in RFC 3339, with a capital T and Z. Any other offset is
   converted to UTC, since the column holds the instant. A fraction may have more than six digits if these are zeros.
3. A real column holds numbers that a double does not change: those of at most 15 significant digits, and longer ones
   that are the shortest text of their double. It does not hold NaN, Infinity and what would become zero or infinite.
4. A column of true and false holds these two words. A column of text holds every text. A JSON column holds JSON.
5. The rules are the same in SQL (`casting`), so a value does not depend on the way it is read.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

from asyncexport.core.warehouse.columns import ColumnKind
from asyncexport.core.warehouse.json_text import json_of

INTEGER = r"0|-?[1-9][0-9]{0,18}"
REAL = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
TIME = (
    r"((?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2})T((?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])"
    r"(?:\.([0-9]{1,6})0*)?(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
"""Patterns that the whole text has to match; for Python and for DuckDB."""

_is_integer = re.compile(INTEGER, re.ASCII).fullmatch
_is_real = re.compile(REAL, re.ASCII).fullmatch
_match_time = re.compile(TIME, re.ASCII).fullmatch

LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**63 - 1
SURE_DIGITS = 18
"""Integers with this many characters always have 64 bits."""

MOST_DIGITS = 15
"""Every number of this many significant digits survives as a double."""

LEAST_REAL, MOST_REAL = 2.2250738585072014e-308, 1.7976931348623157e308
"""Between these, doubles have their full precision."""


def integer_text(text: str) -> str | None:
    """Return the text if an integer column holds it."""
    if not _is_integer(text):
        return None
    return text if len(text) <= SURE_DIGITS or LEAST_INTEGER <= int(text) <= MOST_INTEGER else None


def real_text(text: str) -> str | None:
    """Return the shortest text of the double if a real column holds it."""
    if not _is_real(text):
        return None
    value = float(text)
    shortest = repr(value)
    if shortest in (text, f"{text}.0"):
        return shortest
    digits = text.lstrip("-").replace("E", "e").partition("e")[0].replace(".", "").strip("0")
    fits = len(digits) <= MOST_DIGITS and (not digits or LEAST_REAL <= abs(value) <= MOST_REAL)
    return shortest if fits else None


def time_text(text: str) -> str | None:
    """Return the text of the instant, with the offset Z and at most six digits, if a time column holds it."""
    found = _match_time(text)
    if not found or not _is_date(found[1]):
        return None
    day, clock, fraction, sign, hours, minutes = found.groups()
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        local = datetime.fromisoformat(f"{day}T{clock}")
        try:
            day, clock = (local - offset if sign == "+" else local + offset).isoformat().split("T")
        except OverflowError:
            return None
    return f"{day}T{clock}.{fraction}Z" if fraction else f"{day}T{clock}Z"


@lru_cache(maxsize=1 << 10)
def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def switch_text(text: str) -> str | None:
    """Return the text if a column of true and false holds it."""
    return text if text in ("true", "false") else None


def any_text(text: str) -> str:
    """Return the text: a column of text holds every one."""
    return text


COLUMN_TEXT: dict[ColumnKind, Callable[[str], str | None]] = {
    ColumnKind.INTEGER: integer_text,
    ColumnKind.REAL: real_text,
    ColumnKind.TIME: time_text,
    ColumnKind.SWITCH: switch_text,
    ColumnKind.TEXT: any_text,
    ColumnKind.JSON: json_of,
}
"""By the kind of a column: from the text of a value, the text that DuckDB casts to the column. None if it does not fit.
"""
