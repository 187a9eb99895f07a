"""Converts the durations of the configuration ("250ms", "10s", "1h30m", "7d") to seconds and back.

The form for messages, "1 h 30 min", is made by `core.text.show_duration`.
"""

import re

UNIT_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""Seconds in each unit, in the order in which the parts of a duration are written."""

LONGEST_SECONDS = 3_650 * 86_400.0
"""Ten years. A longer duration is a typing error, and could lead to dates outside of the calendar."""

SHAPE = re.compile("".join(rf"(?:([0-9]{{1,15}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in UNIT_SECONDS))


def read_duration(text: str) -> float:
    """Return the seconds in "250ms", "10s", "30m", "24h", "1h30m" or "7d".

    Raises:
        ValueError: the text has another form, or means more than ten years.
    """
    text = text.strip()
    found = SHAPE.fullmatch(text)
    if not text or not found:
        raise ValueError('expected a duration such as "250ms", "10s", "30m", "1h30m" or "7d"')
    parts = zip(UNIT_SECONDS.values(), found.groups(), strict=True)
    seconds = sum(float(number) * unit for unit, number in parts if number)
    if seconds > LONGEST_SECONDS:
        raise ValueError("must not be longer than ten years")
    return round(seconds, 9)


def write_duration(seconds: float) -> str:
    """Return the shortest text for a duration, exact to the microsecond; less than two days are written in hours."""
    left = round(seconds, 6)
    if 0 < left < 1:
        return f"{_decimal(left * 1000)}ms"
    shown = ""
    for unit in ("d", "h", "m"):
        if unit == "d" and left < 2 * UNIT_SECONDS["d"]:
            continue
        whole, left = divmod(left, UNIT_SECONDS[unit])
        shown += f"{whole:.0f}{unit}" if whole else ""
    rest = _decimal(left)
    return shown + (f"{rest}s" if rest != "0" or not shown else "")


def _decimal(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")
