"""Decides whether a new export may replace an existing archive.

A service in trouble may answer with an empty export, or with a part of one, and call it complete. So a new export
replaces an intact archive only if it is not much smaller. A small loss is accepted: people are deleted on request, and
their rows have to go.
"""

LEAST_SHARE = (9, 10)
"""A new export with at least this share of the old rows is accepted; numerator and denominator."""

SMALL_LOSS_ROWS = 19
"""So is one with at most this many rows fewer, whatever their share."""


def least_rows(rows_before: int) -> int:
    """Return the fewest rows that may replace an archive: at least one, unless the archive itself is empty."""
    if rows_before == 0:
        return 0
    share, whole = LEAST_SHARE
    return max(1, min(-(-rows_before * share // whole), rows_before - SMALL_LOSS_ROWS))


def is_far_fewer(rows_found: int, *, rows_before: int) -> bool:
    """Whether a new export may not replace an intact archive."""
    return rows_found < least_rows(rows_before)
