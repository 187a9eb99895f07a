"""When stored bundles are exported once more, night by night."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, HOUR, Bundle, Range
from asyncexport.core.refreshing import acting_ages, needs_refresh
from asyncexport.core.states import BundleRecord, Failed, FewerRows, State, Stored

END = 1800
BUNDLE = Bundle("events", Range(0, END))
ARCHIVE = Stored("events/file.gz", 9, 1, "0" * 64, exported_at=0.0)

AGES = st.lists(st.integers(1, 20 * DAY), min_size=1, max_size=4, unique=True)
NIGHTS = st.lists(st.integers(0, 40 * DAY), min_size=1, max_size=30, unique=True).map(sorted)
"""Seconds since the end of the bundle."""


def archived(age: float, *, asked: float | None = None, state: State | None = None) -> BundleRecord:
    """The bundle, exported and asked for so many seconds after its end."""
    archive = replace(ARCHIVE, exported_at=END + age, asked_at=None if asked is None else END + asked)
    return BundleRecord(BUNDLE, 0, state or archive, archive)


def exported_at(first: float, nights: Sequence[float], ages: Sequence[float]) -> list[float]:
    """At which ages the bundle is exported, if it was first exported at one and these nights follow."""
    found = [first]
    for night in nights:
        if night >= first and needs_refresh(archived(found[-1]), ages=ages, now=END + night):
            found.append(night)
    return found


def test_a_refresh_is_due_once_its_age_is_reached():
    """From that second on, and only until the bundle was exported at that age or later."""
    assert needs_refresh(archived(200), ages=[3600], now=END + 3600)
    assert not needs_refresh(archived(200), ages=[3600], now=END + 3599)
    assert not needs_refresh(archived(3600), ages=[3600], now=END + 9000)
    assert not needs_refresh(archived(200), ages=[], now=END + 9000)


def test_only_archives_are_refreshed_and_not_once_that_was_refused():
    """A bundle without an archive is exported anyway; one that kept its archive would be exported every night."""
    kept = FewerRows(rows_before=100, rows_found=1)
    assert not needs_refresh(BundleRecord(BUNDLE, 0, Failed("why")), ages=[3600], now=9000)
    assert not needs_refresh(archived(200, state=kept), ages=[3600], now=9000)
    assert needs_refresh(archived(200, state=Failed("why")), ages=[3600], now=9000)


def test_an_age_is_done_if_the_service_dates_its_export_a_little_before_the_create():
    """The time of asking counts then; one that is further ahead was written by a wrong clock."""
    assert not needs_refresh(archived(3600 - 299, asked=3600), ages=[3600], now=END + DAY)
    assert needs_refresh(archived(3600 - 301, asked=3600), ages=[3600], now=END + DAY)
    assert needs_refresh(archived(1000, asked=90 * DAY), ages=[3600], now=END + DAY)


def test_an_age_up_to_the_settle_time_never_acts():
    """The others come youngest first."""
    assert acting_ages([7 * DAY, DAY, 2 * DAY, DAY + 1, 2 * DAY], settle_seconds=DAY) == (DAY + 1, 2 * DAY, 7 * DAY)


def test_two_ages_over_a_week_of_nights():
    """48h and 72h are two refreshes; where nights were missed, only the highest due age counts."""
    ages, first = [48 * HOUR, 72 * HOUR], 27 * HOUR
    every_night = [first + number * DAY for number in range(8)]
    assert exported_at(first, every_night, ages) == [27 * HOUR, 51 * HOUR, 75 * HOUR]
    assert exported_at(first, [51 * HOUR, *every_night[4:]], ages) == [27 * HOUR, 51 * HOUR, 123 * HOUR]
    assert exported_at(first, every_night[3:], ages) == [27 * HOUR, 99 * HOUR]
    assert exported_at(60 * HOUR, [60 * HOUR + one for one in every_night], ages) == [60 * HOUR, 87 * HOUR]
    assert exported_at(73 * HOUR, [74 * HOUR, 99 * HOUR], ages) == [73 * HOUR]


@given(ages=AGES, nights=NIGHTS, first=st.integers(0, 30 * DAY))
def test_each_age_leads_to_one_refresh_at_most(ages, nights, first):
    """Between two exports an age was reached, and after the last night none that was reached is still owed."""
    found = exported_at(first, nights, ages)
    assert all(any(before < age <= after for age in ages) for before, after in pairwise(found))
    last = max(nights)
    assert not [age for age in ages if found[-1] < age <= last and first <= last]
    assert exported_at(found[-1], nights, ages) == [found[-1]]


@given(ages=AGES, nights=NIGHTS, first=st.integers(0, 30 * DAY))
def test_a_night_refreshes_once_for_all_ages_that_were_reached_since_the_last(ages, nights, first):
    """As many refreshes as there are pauses between nights in which an age was reached."""
    after_first = [first, *(night for night in nights if night > first)]
    reached = sum(any(before < age <= night for age in ages) for before, night in pairwise(after_first))
    assert len(exported_at(first, nights, ages)) == 1 + reached


@given(ages=AGES, age=st.integers(0, 30 * DAY), now=st.integers(0, 40 * DAY), order=st.randoms())
def test_the_order_of_the_ages_does_not_matter(ages, age, now, order):
    """Nor does it matter whether an age is listed twice."""
    shuffled = [*ages, *ages]
    order.shuffle(shuffled)
    due = [needs_refresh(archived(age), ages=some, now=END + now) for some in (ages, shuffled)]
    assert due[0] == due[1]
