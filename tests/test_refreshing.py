"""When nightly runs refresh stored bundles."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, HOUR, Bundle, Range
from asyncexport.core.parking import PAUSES_DAYS, ParkedTimes
from asyncexport.core.refreshing import acting_ages, kept_is_due, needs_refresh
from asyncexport.core.states import BundleRecord, Failed, FewerRows, State, Stored

END = 1800
BUNDLE = Bundle("events", Range(0, END))
ARCHIVE = Stored("events/file.gz", 9, 1, "0" * 64, exported_at=0.0)

KEPT = BundleRecord(BUNDLE, 1, FewerRows(rows_before=100, rows_found=1), ARCHIVE)

AGES = st.lists(st.integers(1, 20 * DAY), min_size=1, max_size=4, unique=True)
NIGHTS = st.lists(st.integers(0, 40 * DAY), min_size=1, max_size=30, unique=True).map(sorted)
"""Seconds since the end of the bundle."""


def archived(age: float, *, asked: float | None = None, state: State | None = None) -> BundleRecord:
    """Return the bundle, exported `age` and requested `asked` seconds after its end."""
    archive = replace(ARCHIVE, exported_at=END + age, asked_at=None if asked is None else END + asked)
    return BundleRecord(BUNDLE, 0, state or archive, archive)


def exported_at(first: float, nights: Sequence[float], ages: Sequence[float]) -> list[float]:
    """Return the ages at which the bundle is exported: the first one, and those of the refreshes on later nights."""
    found = [first]
    for night in nights:
        if night >= first and needs_refresh(archived(found[-1]), ages=ages, now=END + night):
            found.append(night)
    return found


def test_a_refresh_is_due_once_its_age_is_reached():
    """A refresh is due as soon as its age is reached, until the bundle is exported at that age or later."""
    assert needs_refresh(archived(200), ages=[3600], now=END + 3600)
    assert not needs_refresh(archived(200), ages=[3600], now=END + 3599)
    assert not needs_refresh(archived(3600), ages=[3600], now=END + 9000)
    assert not needs_refresh(archived(200), ages=[], now=END + 9000)


def test_only_stored_bundles_without_a_kept_archive_are_refreshed():
    """A bundle without an archive needs no refresh, and one whose archive was kept has a rule of its own."""
    kept = FewerRows(rows_before=100, rows_found=1)
    assert not needs_refresh(BundleRecord(BUNDLE, 0, Failed("why")), ages=[3600], now=9000)
    assert not needs_refresh(archived(200, state=kept), ages=[3600], now=9000)
    assert needs_refresh(archived(200, state=Failed("why")), ages=[3600], now=9000)


def kept_again_at(kept: float, nights: Sequence[float], ages: Sequence[float]) -> list[float]:
    """Return the nights that export a bundle again that first kept its archive at this age, always in vain."""
    times, found = ParkedTimes(1, END + kept), list[float]()
    for night in nights:
        if kept_is_due(KEPT, times, ages=ages, now=END + night):
            found.append(night)
            times = ParkedTimes(times.times + 1, END + night)
    return found


def test_a_kept_archive_is_exported_again_after_growing_pauses():
    """Without an age, that is after 1, 2, 4 and 8 days; then somebody has to decide."""
    nights = [number * DAY for number in range(2, 60)]
    assert [night // DAY for night in kept_again_at(DAY, nights, [])] == [2, 4, 8, 16]


def test_a_kept_archive_is_exported_again_at_the_next_age():
    """An age ends every pause, even after the fifth export, but not if it was due before the archive was kept."""
    nights = [number * DAY for number in range(2, 60)]
    assert [night // DAY for night in kept_again_at(DAY, nights, [DAY, 5 * DAY, 50 * DAY])] == [2, 4, 5, 13, 50]
    assert kept_again_at(DAY, [DAY + 3600], [DAY]) == []
    assert kept_again_at(DAY, [DAY + 3600], [DAY + 3600]) == [DAY + 3600]
    assert kept_again_at(DAY, [DAY + 3599], [DAY + 3600]) == []


def test_a_kept_archive_with_a_time_in_the_future_is_exported_again():
    """A wrong clock wrote that time; the next export gets the right one."""
    assert kept_again_at(9 * DAY, [2 * DAY, 2 * DAY + 60], [DAY]) == [2 * DAY]


@given(ages=st.lists(st.integers(1, 20 * DAY), max_size=4), nights=NIGHTS, kept=st.integers(0, 20 * DAY))
def test_a_kept_archive_is_exported_at_most_once_for_each_age_and_pause(ages, nights, kept):
    """It never is exported twice for one reason, so it cannot be exported every night."""
    after = [night for night in nights if night > kept]
    found = kept_again_at(kept, after, ages)
    assert len(found) <= len({age for age in ages if age > kept}) + len(PAUSES_DAYS)
    assert not [age for age in ages if max([kept, *found]) < age <= max(after, default=0)], "an age was passed over"


def test_an_age_is_done_if_the_export_is_dated_a_little_before_the_create():
    """If the export is dated up to five minutes before its request, the request time decides whether an age is done."""
    assert not needs_refresh(archived(3600 - 299, asked=3600), ages=[3600], now=END + DAY)
    assert needs_refresh(archived(3600 - 301, asked=3600), ages=[3600], now=END + DAY)
    assert needs_refresh(archived(1000, asked=90 * DAY), ages=[3600], now=END + DAY)


def test_an_age_up_to_the_settle_time_never_acts():
    """Only ages above the settle time act, and they are returned in ascending order without duplicates."""
    assert acting_ages([7 * DAY, DAY, 2 * DAY, DAY + 1, 2 * DAY], settle_seconds=DAY) == (DAY + 1, 2 * DAY, 7 * DAY)


def test_two_ages_over_a_week_of_nightly_runs():
    """48h and 72h give two refreshes, or one if nights were missed until both are due."""
    ages, first = [48 * HOUR, 72 * HOUR], 27 * HOUR
    every_night = [first + number * DAY for number in range(8)]
    assert exported_at(first, every_night, ages) == [27 * HOUR, 51 * HOUR, 75 * HOUR]
    assert exported_at(first, [51 * HOUR, *every_night[4:]], ages) == [27 * HOUR, 51 * HOUR, 123 * HOUR]
    assert exported_at(first, every_night[3:], ages) == [27 * HOUR, 99 * HOUR]
    assert exported_at(60 * HOUR, [60 * HOUR + one for one in every_night], ages) == [60 * HOUR, 87 * HOUR]
    assert exported_at(73 * HOUR, [74 * HOUR, 99 * HOUR], ages) == [73 * HOUR]


@given(ages=AGES, nights=NIGHTS, first=st.integers(0, 30 * DAY))
def test_each_age_leads_to_at_most_one_refresh(ages, nights, first):
    """An age was reached between any two exports, and after the last night no age that was reached is due."""
    found = exported_at(first, nights, ages)
    assert all(any(before < age <= after for age in ages) for before, after in pairwise(found))
    last = max(nights)
    assert not [age for age in ages if found[-1] < age <= last and first <= last]
    assert exported_at(found[-1], nights, ages) == [found[-1]]


@given(ages=AGES, nights=NIGHTS, first=st.integers(0, 30 * DAY))
def test_a_night_refreshes_once_for_all_ages_reached_since_the_last(ages, nights, first):
    """There are as many refreshes as intervals between nights in which an age was reached."""
    after_first = [first, *(night for night in nights if night > first)]
    reached = sum(any(before < age <= night for age in ages) for before, night in pairwise(after_first))
    assert len(exported_at(first, nights, ages)) == 1 + reached


@given(ages=AGES, age=st.integers(0, 30 * DAY), now=st.integers(0, 40 * DAY), order=st.randoms())
def test_the_order_of_the_ages_does_not_matter(ages, age, now, order):
    """Neither the order of the ages nor duplicates among them change which refreshes are due."""
    shuffled = [*ages, *ages]
    order.shuffle(shuffled)
    due = [needs_refresh(archived(age), ages=some, now=END + now) for some in (ages, shuffled)]
    assert due[0] == due[1]
