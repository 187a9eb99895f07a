"""Ranges, how they are cut into bundles, and times as users and the service write them."""

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
    """The pieces cover the range from start to end without gap or overlap."""
    pieces = list(cut(whole, width))
    assert pieces[0].start == whole.start
    assert pieces[-1].end == whole.end
    assert all(a.end == b.start for a, b in zip(pieces, pieces[1:], strict=False))


@given(ranges(), WIDTHS)
def test_cut_stays_between_grid_lines(whole, width):
    """No piece crosses a grid line, counted from midnight UTC."""
    assert all(piece.start // width == (piece.end - 1) // width for piece in cut(whole, width))


@given(ranges(), WIDTHS)
def test_pieces_are_counted_without_cutting(whole, width):
    """The count equals the number of pieces."""
    assert count_cut(whole, width) == len(list(cut(whole, width)))


@given(ranges(), st.lists(ranges(), max_size=8))
def test_gaps_and_taken_ranges_make_the_whole(whole, taken):
    """Each second is either in a gap or in a taken range."""
    taken.sort()
    found = list(gaps(whole, taken))
    probes = {whole.start, whole.end - 1} | {t for r in taken for t in (r.start, r.end, r.end - 1, r.start - 1)}
    for at in (t for t in probes if whole.start <= t < whole.end):
        assert any(g.start <= at < g.end for g in found) != any(r.start <= at < r.end for r in taken)


@given(st.lists(ranges(within=3600), max_size=8))
def test_merging_keeps_every_second_once(pieces):
    """The merged ranges cover the same seconds and do not touch each other."""
    pieces.sort()
    union = list(merged((piece.start, piece.end) for piece in pieces))
    assert all(a.end < b.start for a, b in zip(union, union[1:], strict=False))
    assert all(any(u.start <= p.start and p.end <= u.end for u in union) for p in pieces)
    assert sum(u.seconds for u in union) == len({t for p in pieces for t in range(p.start, p.end, 1)})


def test_an_empty_range_is_rejected():
    """A range must end after it starts."""
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
def test_a_time_is_read_as_users_write_it(text, moment):
    """All forms result in UTC, and relative ones are rounded down to a whole day or hour."""
    assert show(read_moment(text, now=NOW + 2 * HOUR + 1799.5)) == moment


@given(st.integers(0, 99_999), st.integers(0, 2**40))
def test_a_week_is_seven_days_and_relative_hours_are_whole(count, now):
    """Relative weeks and days start at midnight and relative hours at a full hour, at any time of day."""
    weeks, days, hours = (read_moment(text, now=now) for text in (f"{count}w", f"{count}d", f"{count}h"))
    assert weeks == now // DAY * DAY - count * 7 * DAY
    assert days == now // DAY * DAY - count * DAY
    assert hours <= now - count * HOUR < hours + HOUR
    assert (weeks % DAY, days % DAY, hours % HOUR) == (0, 0, 0)


@pytest.mark.parametrize(("text", "words"), [("0d", "today"), ("1d", "yesterday"), ("2w", "14 days ago")])
def test_relative_days_are_shown_in_words(text, words):
    """The text contains no date, since the service's clock may differ."""
    assert str(read_when(text)) == words


@pytest.mark.parametrize(("text", "words"), [("0h", "this hour"), ("1h", "1 hour ago"), ("36h", "36 hours ago")])
def test_relative_hours_are_shown_in_words(text, words):
    """Hours are shown as hours, as the user wrote them."""
    assert str(read_when(text)) == words


WHENS = st.one_of(
    st.integers(0, 10 * DAY), st.builds(Ago, st.integers(0, 10)), st.builds(Ago, st.integers(0, 240), st.just(HOUR))
)


@given(WHENS, WHENS)
def test_a_range_is_called_always_empty_only_if_it_is_empty_at_every_hour(start, end):
    """A range of two absolute or two relative times is always empty if its end never comes after its start."""
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
def test_an_invalid_time_is_rejected(text):
    """The error shows how to write a time."""
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
def test_a_timestamp_of_the_service_has_any_number_of_digits(text, seconds):
    """Zero to nine fractional digits and any offset are accepted."""
    assert read_timestamp(text) == NOW + seconds


@given(st.text(max_size=40))
def test_no_text_breaks_the_timestamp_parser(text):
    """Text that is no timestamp raises a ValueError and nothing else."""
    try:
        read_timestamp(text)
    except ValueError:
        return


def test_settled_until_is_now_minus_the_settle_time():
    """Data younger than the settle time is not exported."""
    assert settled_until(1000.9, settle_seconds=400) == 600
