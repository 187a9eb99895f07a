"""Formats durations, sizes and foreign text for messages.

1. Durations are for people. The form that the configuration reads ("1h30m") is in `config.durations`.
2. Text from other programs (the service, a server's certificate, a file name) becomes one printable line of limited
   length, in which no URL has its query: a query may hold a signature.
"""

import re

LONGEST_LINE_CHARS = 200
"""Characters of a foreign text that go into a message."""

BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def show_duration(seconds: float) -> str:
    """Return a duration for people: `250 ms`, `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def show_bytes(size: float) -> str:
    """Format a size with about three digits, in steps of 1000: `20.1 MB`."""
    unit = 0
    while size >= 999.5 and unit < len(BYTE_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.0f} {BYTE_UNITS[unit]}" if unit == 0 or size >= 99.95 else f"{size:.1f} {BYTE_UNITS[unit]}"


def one_line(text: str, *, limit: int = LONGEST_LINE_CHARS) -> str:
    """Return foreign text as one printable line of at most `limit` characters, without the queries of URLs."""
    text = "".join(c for c in text[: 64 * limit] if c.isprintable() or c.isspace())
    text = re.sub(r"\?[^\s\"'<>]+", "?…", " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
