"""Durations and foreign text as they are shown in messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.text import LONGEST_LINE_CHARS, one_line, show_duration


@given(text=st.text(max_size=3000))
def test_one_line_is_one_printable_line(text: str) -> None:
    """Foreign text becomes one printable line of limited length."""
    line = one_line(text)
    assert len(line) <= LONGEST_LINE_CHARS
    assert line.isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250 ms"), (45, "45 s"), (600, "10 min"), (3600, "1 h"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_durations_are_easy_to_read(seconds: float, text: str) -> None:
    """A duration is shown with at most two units."""
    assert show_duration(seconds) == text
