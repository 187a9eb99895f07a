"""Ranges, how they are cut, and moments as people and the service write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import (
    DAY,
    HOUR,
    Ago,
    Range,
    count_cut,
    cut,
    gaps,
    is_always_empty,
    merged,
    moment_of,
    read_moment,
    read_timestamp,
    read_when,
    settled_until,
    show,
)

WIDTHS = st.sampled_from([300, 900, 1800, 3600, 21_600, 86_400])
NOW = 1_767_225_600 + 12 * 3600  # 2026-01-01T12:00:00Z


@st.composite
def ranges(draw, within=4 * DAY):
    start = draw(st.integers(0, within - 1))
    return Range(start, draw(st.integers(start + 1, within)))


@given(ranges(), WIDTHS)
def test_cut_tiles_the_range(whole, width):
    """The pieces follow one another without gap or overlap, from the start to the end."""
    pieces = list(cut(whole, width))
    assert pieces[0].start == whole.start
    assert pieces[-1].end == whole.end
    assert all(a.end == b.start for a, b in zip(pieces, pieces[1:], strict=False))


@given(ranges(), WIDTHS)
def test_cut_stays_between_grid_lines(whole, width):
    """No piece crosses a grid line counted from midnight."""
    assert all(piece.start // width == (piece.end - 1) // width for piece in cut(whole, width))


@given(ranges(), WIDTHS)
def test_counting_the_pieces_needs_no_cutting(whole, width):
    """The count is that of the pieces."""
    assert count_cut(whole, width) == len(list(cut(whole, width)))


@given(ranges(), st.lists(ranges(), max_size=8))
def test_gaps_and_what_is_taken_make_the_whole(whole, taken):
    """A second is in a gap exactly if no taken range has it."""
    taken.sort()
    found = list(gaps(whole, taken))
    probes = {whole.start, whole.end - 1} | {t for r in taken for t in (r.start, r.end, r.end - 1, r.start - 1)}
    for at in (t for t in probes if whole.start <= t < whole.end):
        assert any(g.start <= at < g.end for g in found) != any(r.start <= at < r.end for r in taken)


@given(st.lists(ranges(within=3600), max_size=8))
def test_merging_keeps_the_time_and_touches_nothing_twice(pieces):
    """The union holds the same seconds in ranges that do not even touch."""
    pieces.sort()
    union = list(merged((piece.start, piece.end) for piece in pieces))
    assert all(a.end < b.start for a, b in zip(union, union[1:], strict=False))
    assert all(any(u.start <= p.start and p.end <= u.end for u in union) for p in pieces)
    assert sum(u.seconds for u in union) == len({t for p in pieces for t in range(p.start, p.end, 1)})


def test_an_empty_range_is_refused():
    """A range that does not end after it starts is no range."""
    with pytest.raises(ValueError, match="must end after it starts"):
        Range(5, 5)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01", "2026-01-01T00:00:00Z"),
        ("2026-01-01T06:30:00Z", "2026-01-01T06:30:00Z"),
        ("2026-01-01T06:30:00+02:00", "2026-01-01T04:30:00Z"),
        ("2026-01-01T06:30", "2026-01-01T06:30:00Z"),
        ("today", "2026-01-01T00:00:00Z"),
        ("yesterday", "2025-12-31T00:00:00Z"),
        ("0d", "2026-01-01T00:00:00Z"),
        ("90d", "2025-10-03T00:00:00Z"),
        ("12w", "2025-10-09T00:00:00Z"),
        ("36h", "2025-12-31T02:00:00Z"),
        ("0h", "2026-01-01T14:00:00Z"),
        (" 1w ", "2025-12-25T00:00:00Z"),
    ],
)
def test_a_moment_is_read_as_people_write_it(text, moment):
    """Dates, RFC 3339, words and what is counted back are all in UTC, and begin with a day or an hour."""
    assert show(read_moment(text, now=NOW + 2 * HOUR + 1799.5)) == moment


@given(st.integers(0, 99_999), st.integers(0, 2**40))
def test_a_week_is_seven_days_and_a_day_begins_at_an_hour(count, now):
    """Whatever time it is, and however far back."""
    weeks, days, hours = (read_moment(text, now=now) for text in (f"{count}w", f"{count}d", f"{count}h"))
    assert weeks == now // DAY * DAY - count * 7 * DAY
    assert days == now // DAY * DAY - count * DAY
    assert hours <= now - count * HOUR < hours + HOUR
    assert (weeks % DAY, days % DAY, hours % HOUR) == (0, 0, 0)


@pytest.mark.parametrize(("text", "words"), [("0d", "today"), ("1d", "yesterday"), ("2w", "14 days ago")])
def test_days_that_are_counted_back_are_shown_in_words(text, words):
    """So that a heading names no date that the clock of the service may not confirm."""
    assert str(read_when(text)) == words


@pytest.mark.parametrize(("text", "words"), [("0h", "this hour"), ("1h", "1 hour ago"), ("36h", "36 hours ago")])
def test_hours_that_are_counted_back_are_shown_in_words(text, words):
    """In hours, as they were asked for."""
    assert str(read_when(text)) == words


WHENS = st.one_of(
    st.integers(0, 10 * DAY), st.builds(Ago, st.integers(0, 10)), st.builds(Ago, st.integers(0, 240), st.just(HOUR))
)


@given(WHENS, WHENS)
def test_a_range_is_called_empty_only_if_it_is_empty_at_every_hour(start, end):
    """And if both ends are of one kind, whenever it is."""
    moments = range(20 * DAY + 7, 21 * DAY + 7, HOUR)
    empty = all(moment_of(start, now=now) >= moment_of(end, now=now) for now in moments)
    assert is_always_empty(start, end) == (empty and isinstance(start, int) == isinstance(end, int))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-13-01",
        "tomorrow",
        "30",
        "d",
        "1.5h",
        "-1h",
        "1y",
        "90m",
        "1d12h",
        "٣d",
        "100000w",
        "2026-01-01T00:00:00.5Z",
        "0001-01-01T00:00:00+05:00",
    ],
)
def test_what_is_no_moment_is_refused(text):
    """Anything else is an error that says what to write."""
    with pytest.raises(ValueError, match=r"write 2026-01-01|whole seconds|outside"):
        read_moment(text, now=NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T12:00:00Z", 0.0),
        ("2026-01-01T12:00:00.5Z", 0.5),
        ("2026-01-01T12:00:00.250000Z", 0.25),
        ("2026-01-01T12:00:00.125000000Z", 0.125),
        ("2026-01-01T13:00:00+01:00", 0.0),
    ],
)
def test_a_time_stamp_of_the_service_has_any_number_of_digits(text, seconds):
    """From none to nine fraction digits, with any offset."""
    assert read_timestamp(text) == NOW + seconds


@given(st.text(max_size=40))
def test_no_text_breaks_the_reader_of_time_stamps(text):
    """What is no time stamp is a ValueError and nothing else."""
    try:
        read_timestamp(text)
    except ValueError:
        return


def test_settled_is_now_less_the_settle_time():
    """Data younger than the settle time is not touched."""
    assert settled_until(1000.9, settle_seconds=400) == 600
