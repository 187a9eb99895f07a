"""Reads the values in hauser's configuration: durations as Go writes them, times, placeholders."""

import re
from datetime import UTC, date, datetime
from typing import Any

UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")

FIRST_YEAR = 1971
"""Go's zero time is in the year 1, and means that no time is set."""


def go_duration(value: Any) -> float | None:
    """Return the seconds in "1h", "1.5h" or "1h30m"; None if it is no such text."""
    text = value.strip() if isinstance(value, str) else ""
    if text == "0":
        return 0.0
    if not re.fullmatch(rf"\+?(?:{PART.pattern})+", text):
        return None
    return round(sum(float(number) * UNIT_SECONDS[unit] for number, unit in PART.findall(text)), 9)


def is_placeholder(value: Any) -> bool:
    """Return whether a value is one of those that hauser's example asks to replace, such as "<your bucket>"."""
    return isinstance(value, str) and bool(re.search(r"<[^<>]*>", value))


def describe_time(value: Any) -> str:
    """Return a time as RFC 3339, in whole seconds (rounded down) and UTC; "" if it is not a time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return ""
    if not isinstance(value, date) or value.year < FIRST_YEAR:
        return ""
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%SZ")
