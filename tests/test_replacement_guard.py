"""When a new export may replace an archive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.replacement_guard import is_far_fewer, least_rows


@pytest.mark.parametrize(
    ("rows_before", "rows_found", "is_kept"),
    [
        (0, 0, False),
        (1, 0, True),
        (1, 1, False),
        (20, 15, False),
        (20, 1, False),
        (20, 0, True),
        (21, 1, True),
        (21, 2, False),
        (100, 81, False),
        (100, 80, True),
        (199, 180, False),
        (200, 180, False),
        (200, 179, True),
        (201, 181, False),
        (201, 180, True),
        (1000, 900, False),
        (1000, 899, True),
        (1000, 2000, False),
        (10**15 + 1, 9 * 10**14, True),
    ],
)
def test_far_fewer_means_below_nine_tenths_and_twenty_rows_less(rows_before, rows_found, is_kept):
    """An archive is kept if the new one is empty, or has less than nine tenths and at least twenty rows fewer."""
    assert is_far_fewer(rows_found, rows_before=rows_before) is is_kept


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_the_minimum_follows_the_rule(rows_before, rows_found):
    """The single minimum number of rows agrees with the rule as it is worded."""
    empty = rows_found == 0 and rows_before > 0
    small = 10 * rows_found < 9 * rows_before and rows_before - rows_found >= 20
    assert is_far_fewer(rows_found, rows_before=rows_before) == (empty or small)


@given(st.integers(0, 10**12))
def test_as_many_rows_are_always_accepted(rows):
    """An export with the same number of rows or more always replaces the archive."""
    assert 0 <= least_rows(rows) <= rows
