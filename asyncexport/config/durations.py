"""Durations as the configuration has them: "250ms", "10s", "1h30m", "7d"; seconds everywhere else.

The form for people, "1 h 30 min", is `core.text.show_duration`.
"""

import re

UNIT_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""Seconds in each unit, in the order in which the parts of a duration stand."""

LONGEST_SECONDS = 3_650 * 86_400.0
"""Ten years: beyond it is a slip of the finger, and moments that no calendar holds."""

SHAPE = re.compile("".join(rf"(?:([0-9]{{1,15}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in UNIT_SECONDS))


def read_duration(text: str) -> float:
    """Seconds from "250ms", "10s", "30m", "24h", "1h30m" or "7d".

    Raises:
        ValueError: it is none of these, or longer than ten years.
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
    """The shortest text that `read_duration` takes for the same, to the microsecond; up to two days in hours."""
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
