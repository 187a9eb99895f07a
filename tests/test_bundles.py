"""Ranges, how they are cut, and what of them is to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import (
    DAY,
    Bundle,
    Range,
    count_cut,
    cut,
    gaps,
    merged,
    read_moment,
    read_timestamp,
    settled_until,
    show,
)
from asyncexport.core.exports import Export
from asyncexport.core.states import Created, Creating, Failed, Overdue, Planned, Ready, Standing, State, Stored
from asyncexport.core.work import Stock, Work, in_order, needs_refresh

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


@given(st.lists(ranges(), max_size=8))
def test_merging_keeps_the_time_and_touches_nothing_twice(pieces):
    """The union holds the same seconds in ranges that do not even touch."""
    pieces.sort()
    union = list(merged(pieces))
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
        ("30d", "2025-12-02T00:00:00Z"),
    ],
)
def test_a_moment_is_read_as_people_write_it(text, moment):
    """Dates, RFC 3339, words and days ago are all in UTC."""
    assert show(read_moment(text, now=NOW)) == moment


@pytest.mark.parametrize(
    "text", ["", "2026-13-01", "tomorrow", "30", "d", "2026-01-01T00:00:00.5Z", "0001-01-01T00:00:00+05:00"]
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


def standing(start: int, end: int, state: State, *, stored: Stored | None = None) -> Standing:
    return Standing(Bundle("e", Range(start, end)), 0, state, stored)


STORED = Stored("p", 1, 1, "s", exported_at=0.0)


@st.composite
def stocks(draw):
    """What a ledger may hold: bundles side by side, of any width, some of them stored, claimed or parked."""
    at, unfinished, covered = 0, [], []
    for _ in range(draw(st.integers(0, 12))):
        at += draw(st.sampled_from([0, 0, 1800, 3600, 700]))
        end = at + draw(st.sampled_from([300, 1800, 3600, 21_600]))
        kind = draw(st.sampled_from(["stored", "claimed", "parked", "planned"]))
        states: dict[str, State] = {
            "claimed": Created(1, 0.0, "op"),
            "parked": Failed("why"),
            "planned": Planned(2),
            "stored": STORED,
        }
        state = states[kind]
        if kind == "stored":
            covered.append(Range(at, end))
        else:
            unfinished.append(standing(at, end, state))
        at = end
    return Stock(tuple(unfinished), tuple(merged(covered)), len(covered))


@given(stocks(), ranges(within=2 * DAY), WIDTHS)
def test_a_run_takes_up_every_second_that_is_not_stored_and_none_twice(stock, span, width):
    """Stored time and the bundles taken up tile the range, whatever the widths before and now."""
    stock = Stock(
        tuple(one for one in stock.unfinished if one.bundle.range.overlaps(span)),
        tuple(piece for piece in stock.covered if piece.overlaps(span)),
        stock.already,
    )
    work = Work(Export("e", bundle_seconds=width), span, stock)
    taken = sorted([*(one.bundle.range for one in in_order([work])), *stock.covered])
    assert all(a.end <= b.start for a, b in zip(taken, taken[1:], strict=False))
    assert not list(gaps(span, taken))


@given(stocks(), ranges(within=2 * DAY), WIDTHS)
def test_the_count_is_that_of_the_bundles(stock, span, width):
    """What `plan` says is what a run does."""
    stock = Stock(tuple(one for one in stock.unfinished if one.bundle.range.overlaps(span)), stock.covered)
    work = Work(Export("e", bundle_seconds=width), span, stock)
    assert work.count == len(list(in_order([work])))


def test_what_is_claimed_comes_first():
    """A bundle that the service works on is taken up before any that lies earlier."""
    claimed = standing(7200, 9000, Ready(1, 0.0, "x"))
    work = Work(Export("e"), Range(0, 9000), Stock((claimed,)))
    assert [one.bundle.range.start for one in in_order([work])] == [7200, 0, 1800, 3600, 5400]


def test_parked_bundles_are_taken_up_in_their_own_width():
    """A changed width does not cut what was parked anew."""
    parked = standing(0, 21_600, Overdue(1, 0.0, "op"))
    work = Work(Export("e", bundle_seconds=1800), Range(0, 23_400), Stock((parked,)))
    assert [one.bundle.range.seconds for one in in_order([work])] == [21_600, 1800]


def test_a_bundle_between_attempts_keeps_its_count():
    """Attempt 3 of a bundle that was interrupted is attempt 3 in the next run."""
    begun = standing(0, 1800, Planned(3))
    work = Work(Export("e"), Range(0, 3600), Stock((begun,)))
    assert [one.state for one in in_order([work])] == [Planned(3), Planned(1)]


def test_exports_go_side_by_side():
    """Several exports are taken up in order of time, not one after the other."""
    works = [Work(Export(name), Range(0, 3600), Stock()) for name in ("a", "b")]
    assert [one.bundle.export for one in in_order(works)] == ["a", "b", "a", "b"]


def test_creating_is_claimed():
    """A bundle whose create may have arrived is not cut anew."""
    lost = standing(900, 1800, Creating(1, 0.0))
    work = Work(Export("e"), Range(0, 3600), Stock((lost,)))
    assert [one.bundle.range for one in in_order([work])] == [Range(900, 1800), Range(0, 900), Range(1800, 3600)]


def test_a_refresh_is_due_once_the_time_has_passed():
    """What was exported too soon is exported once more, and only once."""
    span = Range(0, 1800)
    early, late = Stored("p", 1, 1, "s", exported_at=2000.0), Stored("p", 1, 1, "s", exported_at=6000.0)
    assert needs_refresh(early, span, refresh_seconds=3600, now=5400)
    assert not needs_refresh(early, span, refresh_seconds=3600, now=5399)
    assert not needs_refresh(late, span, refresh_seconds=3600, now=9000)
    assert not needs_refresh(early, span, refresh_seconds=0, now=9000)


def test_a_refreshed_bundle_gets_a_new_take():
    """The archive that stands is kept until the new one replaces it."""
    old = standing(0, 1800, STORED, stored=STORED)
    work = Work(Export("e"), Range(0, 1800), Stock((), (Range(0, 1800),), 1), (old,))
    (again,) = in_order([work])
    assert (again.take, again.state, again.stored) == (1, Planned(1), STORED)
