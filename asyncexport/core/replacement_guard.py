"""When a new export may take the place of an archive that is there already.

A service in trouble may answer with an empty export, or with a part of one, and call it complete. So a new export
replaces a sound archive only if it is not much smaller. A small loss is let through: people are deleted on request,
and their rows have to go.
"""

LEAST_SHARE = (9, 10)
"""A new export with this share of the old rows or more is let through, as numerator and denominator."""

SMALL_LOSS_ROWS = 19
"""So is one that has at most this many rows fewer, whatever share that is."""


def least_rows(rows_before: int) -> int:
    """The fewest rows that may replace an archive of so many: at least one, unless the archive itself is empty."""
    if rows_before == 0:
        return 0
    share, whole = LEAST_SHARE
    return max(1, min(-(-rows_before * share // whole), rows_before - SMALL_LOSS_ROWS))


def is_far_fewer(rows_found: int, *, rows_before: int) -> bool:
    """Whether a new export is refused as long as the archive is sound."""
    return rows_found < least_rows(rows_before)
