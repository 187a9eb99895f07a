"""The rules that notice stored time with far fewer rows than usual, and what a run makes of them."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.client.clock import ServiceClock
from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME, DAY, HOUR, Bundle, Range, show
from asyncexport.core.events import Event, ShortfallFound
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Export
from asyncexport.core.sentinel.memory import MOST_KNOWN, NOTE, SentinelMemory
from asyncexport.core.sentinel.row_counts import HALF_HOUR, RowCounts
from asyncexport.core.sentinel.rules import HALF_HOURS_A_WEEK, empty_half_hours, is_low, short_pieces, surprise
from asyncexport.core.sentinel.shortfalls import (
    Shortfall,
    ShortfallRule,
    ShortPiece,
    not_accepted,
    reconciled,
    troubles,
)
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.core.summary import Tally
from asyncexport.ledger import AcceptedGap, Ledger
from asyncexport.run.sentinel import judge, open_shortfalls, sentinel
from asyncexport.run.spec import Backfill, Nightly
from asyncexport.sandbox import SandboxBehaviour, serving
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.rows import Row, SandboxPageView
from asyncexport.sandbox.visits import SandboxVisits
from tests.exporting import Notebook, moment, run

EXPORT = "everyone-events"

START = moment("2026-01-01")

FIRST = START // HALF_HOUR
"""The number of the first half hour."""

DAYS = 90

MONTHS = 3


def counted(half_hours: dict[int, int]) -> RowCounts:
    """Return the counts of half hours, with those of their whole days."""
    days, known = Counter[int](), Counter(number // 48 for number in half_hours)
    for number, rows in half_hours.items():
        days[number // 48] += rows
    return RowCounts(half_hours, {day: rows for day, rows in days.items() if known[day] == 48})


@cache
def generated(seed: int) -> dict[int, int]:
    """Return the events of 90 days by half hour, as the sandbox generates them."""
    visits = SandboxVisits(seed, 200.0, late_share=0.0, late_seconds=0.0, quiet=0.25)
    first, last = START * 1000, (START + DAYS * DAY) * 1000
    found = Counter(
        at // (HALF_HOUR * 1000)
        for cell in visits.cells(first, last)
        for page in visits.pages(cell)
        for at, _ in visits.events(page, 1 << 50)
        if first <= at < last
    )
    return {number: found[number] for number in range(FIRST, FIRST + DAYS * 48)}


def alarms(half_hours: dict[int, int]) -> list[Shortfall]:
    """Return everything that the rules report for these half hours."""
    return list(troubles(EXPORT, short_pieces(counted(half_hours), ALL_TIME)))


def emptied(half_hours: dict[int, int], start: float, hours: float) -> dict[int, int]:
    """Return the half hours with some hours, from this number of days after the start on, without rows."""
    first = FIRST + round(start * 48)
    return half_hours | dict.fromkeys(range(first, first + round(hours * 2)), 0)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_ordinary_rows_raise_at_most_one_false_alarm_a_month(seed, summary_line):
    """In 90 days of rows, of which a quarter of the half hours before 06:00 are truly empty."""
    found = alarms(generated(seed))
    summary_line(f"sentinel: {len(found)} false alarms in 90 days of seed {seed}")
    assert len(found) <= MONTHS, [one.text for one in found]


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("hour", [9, 14, 18])
def test_three_emptied_busy_hours_raise_one_alarm(seed, hour):
    """It says when, how many rows are usual, and that none came."""
    usual = alarms(generated(seed))
    start = 80 + hour / 24
    found = [one for one in alarms(emptied(generated(seed), start, 3)) if one not in usual]
    (one,) = found
    lost = Range(START + round(start * DAY), START + round(start * DAY) + 3 * HOUR)
    assert one.bundle.range.start <= lost.start
    assert lost.end <= one.bundle.range.end
    assert one.bundle.range.seconds <= lost.seconds + HOUR
    assert (one.rule, one.found) == (ShortfallRule.EMPTY, 0)
    really_lost = sum(generated(seed)[number] for number in range(lost.start // HALF_HOUR, lost.end // HALF_HOUR))
    assert one.expected is not None
    assert 0.6 < one.expected / really_lost < 1.6


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_a_day_with_half_of_its_rows_raises_one_alarm(seed):
    """Although no half hour of it is empty."""
    first = FIRST + 60 * 48
    halved = {number: (rows + 1) // 2 for number, rows in generated(seed).items() if first <= number < first + 48}
    (one,) = alarms(generated(seed) | halved)
    assert one.bundle.range == Range(START + 60 * DAY, START + 61 * DAY)
    assert one.rule is ShortfallRule.LOW_DAY
    assert one.found == sum(halved.values())


def test_a_trouble_of_several_days_is_one_alarm():
    """If it is empty throughout, its exact time is reported; a day that is low for another reason is added to it."""
    (one,) = alarms(emptied(generated(1), 80.5, 60))
    assert one.rule is ShortfallRule.EMPTY
    assert one.bundle.range == Range(START + 80 * DAY + 12 * HOUR, START + 83 * DAY)
    rows = emptied(generated(1), 80.5, 60)
    first = FIRST + 83 * 48
    rows |= {number: rows[number] // 2 for number in range(first, first + 48)}
    (one,) = alarms(rows)
    assert one.rule is ShortfallRule.LOW_DAY
    assert one.bundle.range == Range(START + 80 * DAY + 12 * HOUR, START + 84 * DAY)


@pytest.mark.parametrize(
    ("weeks", "empty", "expected"),
    [(3, 0, 0.0), (4, 0, 0.778), (8, 0, 1.0), (98, 0, 2.0), (98, 9, 1.0), (26, 25, 0.032), (26, 26, 0.0)],
)
def test_an_empty_half_hour_is_as_surprising_as_it_is_rare(weeks, empty, expected):
    """The surprise is -log10((empty + 1) / (weeks + 2)), and 0 before four weeks or if it was empty each time."""
    assert surprise(weeks=weeks, empty=empty) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize(
    ("weeks", "half_hours", "expected"),
    [(3, 48, False), (4, 7, False), (4, 8, True), (8, 6, False), (9, 5, False), (9, 6, True)],
)
def test_a_run_of_empty_half_hours_is_short_above_six(weeks, half_hours, expected):
    """The surprises of a run add up; eight half hours are enough after four weeks, and six after nine."""
    rows = dict.fromkeys(range(FIRST, FIRST + (weeks + 1) * HALF_HOURS_A_WEEK), 7)
    first = FIRST + weeks * HALF_HOURS_A_WEEK + 20
    rows |= dict.fromkeys(range(first, first + half_hours), 0)
    found = [one.range.start // HALF_HOUR for one in empty_half_hours(counted(rows))]
    assert found == (list(range(first, first + half_hours)) if expected else [])


@pytest.mark.parametrize(
    ("rows", "history", "expected"),
    [
        (0, [1000, 1000], False),
        (699, [1000, 1000, 1000], True),
        (700, [1000, 1000, 1000], False),
        (500, [700, 800, 1000, 1200, 1300], False),
        (500, [950, 1000, 1000, 1050, 2000], True),
        (0, [16, 16, 16], False),
        (0, [20, 20, 20], True),
    ],
)
def test_a_day_is_low_below_70_percent_and_four_sigmas(rows, history, expected):
    """Both limits count; two earlier days are too few, and small numbers scatter by themselves."""
    assert is_low(rows, history) is expected


@given(st.integers(0, 5000), st.lists(st.integers(0, 5000), max_size=12))
def test_a_low_day_is_low_by_the_definition(rows, history):
    """A day is low if and only if it is below 70 % of the median and more than four deviations below it."""
    if len(history) < 3:
        assert not is_low(rows, history)
        return
    middle = median(history)
    deviation = max(1.4826 * median(abs(one - middle) for one in history), math.sqrt(middle))
    assert is_low(rows, history) is (rows < 0.7 * middle and middle - rows > 4 * deviation)
    assert not is_low(rows + 5000, history)


SPARSE = st.dictionaries(st.integers(0, 9 * HALF_HOURS_A_WEEK), st.sampled_from([0, 0, 0, 5]), max_size=400)
"""Few half hours of nine weeks."""

DENSE = st.builds(
    lambda empty: {number: 0 if number in empty else 5 for number in range(7 * HALF_HOURS_A_WEEK)},
    st.sets(st.integers(0, 7 * HALF_HOURS_A_WEEK), max_size=40).map(
        lambda starts: {number for start in starts for number in range(start, start + start % 12)}
    ),
)
"""Seven weeks with short runs of empty half hours."""


@given(st.one_of(SPARSE, DENSE))
def test_runs_of_empty_half_hours_by_the_definition(rows):
    """The rule reports exactly the runs whose surprises add up to more than six, counted in the simplest way."""
    expected: list[int] = []
    group: list[int] = []
    total = 0.0
    for number in sorted(rows):
        if group and (rows[number] or number - 1 not in rows):
            expected += group if total > 6 else []
            group, total = [], 0.0
        if not rows[number]:
            earlier = [rows[one] for one in range(number - HALF_HOURS_A_WEEK, -1, -HALF_HOURS_A_WEEK) if one in rows]
            group.append(number)
            total += surprise(weeks=len(earlier), empty=earlier.count(0))
    expected += group if total > 6 else []
    assert [one.range.start // HALF_HOUR for one in empty_half_hours(counted(rows))] == expected


@given(DENSE, st.integers(1, 7 * HALF_HOURS_A_WEEK))
def test_later_rows_change_no_verdict(rows, end):
    """What is reported of the time before `end` does not depend on what comes after it, but for a run that goes on."""
    early = list(empty_half_hours(counted({number: rows[number] for number in rows if number < end})))
    late = list(empty_half_hours(counted(rows)))
    assert set(early) <= set(late)
    first_open = next((number for number in range(end - 1, 0, -1) if rows[number]), 0)
    assert {one for one in late if one.range.end <= first_open * HALF_HOUR} <= set(early)


def piece(start: int, width: int = HALF_HOUR, rule: ShortfallRule = ShortfallRule.EMPTY) -> ShortPiece:
    return ShortPiece(Range(start, start + width), 10.0, 0, rule)


def short(start: int, end: int, rule: ShortfallRule = ShortfallRule.EMPTY) -> Shortfall:
    return Shortfall(Bundle(EXPORT, Range(start, end)), rule, 10, 0)


@given(st.lists(st.integers(0, 400).map(lambda number: piece(number * HALF_HOUR)), unique=True))
def test_troubles_are_a_day_apart_and_hold_every_piece(pieces):
    """Every short half hour lies in one trouble, and two troubles are at least a day apart."""
    found = list(troubles(EXPORT, pieces))
    spans = [one.bundle.range for one in found]
    assert all(later.start - earlier.end >= DAY for earlier, later in zip(spans, spans[1:], strict=False))
    inside = [[one for one in spans if one.start <= each.range.start and each.range.end <= one.end] for each in pieces]
    assert all(len(one) == 1 for one in inside)
    assert sum(one.expected or 0 for one in found) == 10 * len(pieces)


def test_a_trouble_that_goes_on_is_not_new():
    """It keeps its beginning, takes the newer end, and is not reported again; one that is a day away is new."""
    known = [short(10 * DAY, 11 * DAY)]
    judged = Range(0, 30 * DAY)
    goes_on, other = short(11 * DAY + HOUR, 12 * DAY), short(14 * DAY, 15 * DAY)
    found = reconciled(known, [goes_on, other], judged=judged, accepted=[])
    assert [one.bundle.range for one in found.open] == [Range(10 * DAY, 12 * DAY), other.bundle.range]
    assert found.new == (other,)
    again = reconciled(found.open, [goes_on, other], judged=judged, accepted=[])
    assert (again.open, again.new) == (found.open, ())


def test_a_trouble_is_over_when_its_time_is_no_longer_short():
    """A shortfall that was not judged again stays open."""
    known = [short(10 * DAY, 11 * DAY), short(40 * DAY, 41 * DAY)]
    found = reconciled(known, [], judged=Range(0, 30 * DAY), accepted=[])
    assert (found.open, found.new) == ((known[1],), ())


def test_what_goes_on_after_an_acceptance_is_new():
    """The accepted trouble is no longer open, and what comes after it is reported once."""
    known, accepted = [short(10 * DAY, 11 * DAY)], [Range(10 * DAY, 10 * DAY + HOUR), Range(10 * DAY + HOUR, 12 * DAY)]
    assert list(not_accepted(known, accepted)) == []
    later = short(12 * DAY, 13 * DAY)
    found = reconciled(known, [later], judged=Range(0, 30 * DAY), accepted=accepted)
    assert (found.open, found.new) == ((later,), (later,))


@given(
    st.lists(
        st.builds(
            lambda start, rule: short(start, start + 1800, rule), st.integers(0, 10**10), st.sampled_from(ShortfallRule)
        ),
        max_size=150,
    )
)
def test_the_memory_keeps_the_newest_shortfalls(known):
    """What is remembered survives the ledger's note, up to a limit that keeps the note small."""
    memory = SentinelMemory(7.5, {"e": 9}, tuple(known), frozenset({"e"}))
    read = SentinelMemory.read(memory.to_text())
    assert len(read.known) == min(len(known), MOST_KNOWN)
    assert set(read.known) <= set(known)
    assert (read.ledger, read.judged, read.old_judged) == (7.5, {"e": 9}, frozenset({"e"}))
    assert SentinelMemory.read(read.to_text()) == read
    assert len(memory.to_text()) < 12_000


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", '{"ledger": 1, "judged": [], "known": [[1]], "old_judged": []}']
)
def test_an_unreadable_memory_is_empty(text):
    """Then everything is judged again."""
    assert SentinelMemory.read(text) == SentinelMemory()


@pytest.mark.parametrize(
    ("shortfall", "text"),
    [
        (
            Shortfall(Bundle("e", Range(START, START + 10_800)), ShortfallRule.EMPTY, 5400, 0),
            "no rows from 2026-01-01T00:00:00Z to 2026-01-01T03:00:00Z, where about 5,400 are usual",
        ),
        (
            Shortfall(Bundle("e", Range(START, START + DAY)), ShortfallRule.LOW_DAY, 19_000, 9_000),
            "only 9,000 rows from 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z, where about 19,000 are usual",
        ),
        (
            Shortfall(Bundle("e", Range(START, START + DAY)), ShortfallRule.OLD_EMPTY, None, 0),
            (
                "no rows at all from 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z: "
                "everything that was older than 30 days when it was exported is empty"
            ),
        ),
    ],
)
def test_a_shortfall_says_what_was_expected_and_what_came(shortfall, text):
    """In one sentence."""
    assert shortfall.text == text


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Ledger]:
    """Open a ledger in which the export is registered."""
    ledger = await Ledger.open(directory)
    try:
        await ledger.register([Export(EXPORT)])
        yield ledger
    finally:
        await ledger.close()


def stored(start: int, rows: int, *, width: int = HALF_HOUR, age: float = 26.0 * HOUR) -> BundleRecord:
    """Return a bundle that was exported at this age."""
    archive = Stored("file.gz", 9, rows, "0" * 64, start + width + age)
    return BundleRecord(Bundle(EXPORT, Range(start, start + width)), 0, archive, archive)


async def store(ledger: Ledger, records: Sequence[BundleRecord]) -> None:
    await ledger.restore(records, at=START)


async def judged(ledger: Ledger) -> list[Shortfall]:
    """Judge as a run does; return what it reports."""
    found = await ledger.query(lambda queries: judge(queries, [EXPORT]))
    ledger.remember(NOTE, found.memory.to_text())
    return list(found.new)


async def still_open(ledger: Ledger) -> list[Shortfall]:
    return await ledger.query(
        lambda queries: open_shortfalls(SentinelMemory.read(queries.recall(NOTE)), queries.accepted(), EXPORT)
    )


def half_hours_of(rows: dict[int, int], first_day: float, last_day: float) -> list[BundleRecord]:
    numbers = range(FIRST + round(first_day * 48), FIRST + round(last_day * 48))
    return [stored(number * HALF_HOUR, rows[number]) for number in numbers]


async def test_a_trouble_is_reported_by_one_night(tmp_path):
    """The night that stores the empty hours reports them; the nights before and after it report nothing."""
    rows = emptied(generated(2), 82.5, 5)
    async with opened(tmp_path) as ledger:
        await store(ledger, half_hours_of(rows, 0, 80))
        reports = [await judged(ledger)]
        for day in range(80, 90):
            await store(ledger, half_hours_of(rows, day, day + 1))
            reports.append(await judged(ledger))
            assert await judged(ledger) == []
        assert [len(one) for one in reports] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        assert await still_open(ledger) == reports[3]


async def test_an_outage_that_lasts_for_weeks_is_reported_once(tmp_path):
    """It is known by its beginning, which it keeps, and ends when its time is exported again with rows."""
    rows = generated(3)
    lost = emptied(rows, 60.5, 26 * 24)
    async with opened(tmp_path) as ledger:
        await store(ledger, half_hours_of(lost, 0, 60))
        assert await judged(ledger) == []
        reports = []
        for day in range(60, 90):
            await store(ledger, half_hours_of(lost, day, day + 1))
            reports += await judged(ledger)
        assert len(reports) == 1
        (one,) = await still_open(ledger)
        assert one.bundle.range.start <= START + 61 * DAY
        assert one.bundle.range.end >= START + 86 * DAY
        await store(ledger, half_hours_of(rows, 60, 90))
        assert await judged(ledger) == []
        assert await still_open(ledger) == []


async def test_what_was_accepted_is_not_reported_again(tmp_path):
    """An accepted shortfall is closed, and its hours are no part of the history."""
    rows = emptied(generated(4), 80.5, 6)
    async with opened(tmp_path) as ledger:
        await store(ledger, half_hours_of(rows, 0, 81))
        (one,) = await judged(ledger)
        await ledger.accept(AcceptedGap(one.bundle, "a move", float(START)))
        assert await still_open(ledger) == []
        await store(ledger, half_hours_of(rows, 81, 90))
        assert await judged(ledger) == []
        assert await still_open(ledger) == []


async def test_a_rebuilt_ledger_reports_nothing_twice(tmp_path):
    """Row numbers of another ledger are not used, so everything is judged again, and known shortfalls stay known."""
    rows = emptied(generated(4), 80.5, 6)
    async with opened(tmp_path / "old") as ledger:
        await store(ledger, half_hours_of(rows, 0, 90))
        assert len(await judged(ledger)) == 1
        note = await ledger.recall(NOTE)
    async with opened(tmp_path / "new") as ledger:
        ledger.remember(NOTE, note or "")
        await store(ledger, half_hours_of(rows, 0, 90))
        assert await judged(ledger) == []
        assert len(await still_open(ledger)) == 1


async def test_narrow_bundles_are_summed_and_wide_ones_count_in_days(tmp_path):
    """Half hours of 5-minute bundles have their sums; bundles of an hour only count in days."""
    async with opened(tmp_path) as ledger:
        narrow = [stored(START + number * 300, number, width=300) for number in range(11)]
        wide = [stored(START + DAY + number * HOUR, number, width=HOUR) for number in range(24)]
        await store(ledger, [*narrow, *wide])
        counts = await ledger.query(lambda queries: queries.row_counts(EXPORT, Range(START, START + 2 * DAY)))
    assert counts.half_hours == {FIRST: 0 + 1 + 2 + 3 + 4 + 5}
    assert counts.days == {START // DAY + 1: sum(range(24))}


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
async def test_a_history_that_is_empty_beyond_30_days_is_reported_once(tmp_path, seed):
    """One alarm names it, of the whole empty time, and it is over when old rows come after all."""
    now, rows = START + DAYS * DAY, generated(seed)
    records = [
        stored(number * HALF_HOUR, rows[number] if age < 30 * DAY else 0, age=age)
        for number in range(FIRST, FIRST + DAYS * 48)
        for age in [now - (number + 1) * HALF_HOUR]
    ]
    async with opened(tmp_path) as ledger:
        await store(ledger, records[: 7 * 48])
        first = await judged(ledger)
        await store(ledger, records[7 * 48 :])
        assert [*first, *await judged(ledger)] == first
        (one,) = await still_open(ledger)
        assert [each.rule for each in (*first, one)] == [ShortfallRule.OLD_EMPTY] * 2
        assert (one.bundle.range, one.expected) == (Range(START, START + 60 * DAY), None)
        await store(ledger, [stored(START, 7, age=40.0 * DAY)])
        assert await judged(ledger) == []
        assert await still_open(ledger) == []


@pytest.mark.parametrize(
    "records",
    [
        [stored(START + number * HALF_HOUR, 0, age=40.0 * DAY) for number in range(335)],
        [stored(START + number * HALF_HOUR, int(number == 50), age=40.0 * DAY) for number in range(400)],
        [stored(START + number * HALF_HOUR, 0, age=29.0 * DAY) for number in range(400)],
    ],
    ids=["less than a week", "one row", "not older than 30 days"],
)
async def test_old_data_is_not_judged_too_early(tmp_path, records):
    """Less than a week of it, a single row in it, or empty data of the last 30 days, is no alarm."""
    async with opened(tmp_path) as ledger:
        await store(ledger, records)
        assert await judged(ledger) == []


class LosingRows:
    """A source of rows that leaves some out.

    Args:
        is_lost: Whether the row at a time, in seconds since 1970, is left out.
    """

    def __init__(self, is_lost: Callable[[float], bool]) -> None:
        self._rows = SandboxSyntheticRows(1, 120.0, quiet=0.25)
        self._is_lost = is_lost

    def between(self, start: float, end: float, *, arrived_by: float | None = None) -> Iterator[Row]:
        """See `SandboxRows`; a bundle is lost as a whole."""
        return iter(()) if self._is_lost(start) else self._rows.between(start, end, arrived_by=arrived_by)

    def history(self, start: float, end: float, *, as_of: float) -> Iterator[SandboxPageView | None]:
        """See `SandboxRows`."""
        return self._rows.history(start, end, as_of=as_of)


def losing(is_lost: Callable[[float], bool]) -> SandboxBehaviour:
    """Return a fast sandbox that loses rows."""
    return SandboxBehaviour(operation_seconds=0.01, requests_per_minute=1e6, burst=10_000, rows=LosingRows(is_lost))


LOST = Range(moment("2026-02-05T12:00:00Z"), moment("2026-02-05T16:30:00Z"))


@pytest.mark.slow
async def test_a_run_reports_a_shortfall_and_fails_only_if_fail_is_set(tmp_path):
    """The run that stores it has one `shortfall` line; later runs only list it, and end with 3 if `fail` is set."""
    viewer = Notebook()
    span: dict[str, Any] = {"start": "2026-01-01", "end": "2026-02-08"}
    async with serving(losing(lambda at: LOST.start <= at < LOST.end)) as sandbox:
        summary = await run(sandbox, tmp_path, **span, viewer=viewer)
        (line,) = viewer.of("shortfall")
        assert (summary.exit_code, summary.to_dict()["bundles"]["stored"]) == (Exit.DONE, 38 * 48)
        assert (line["export"], line["rule"], line["found"]) == (EXPORT, "empty", 0)
        assert line["start"] <= show(LOST.start)
        assert line["end"] >= show(LOST.end)
        assert line["expected"] > 300
        facts = {key: value for key, value in line.items() if key != "type"}
        assert summary.to_dict()["shortfalls"] == [facts]
        fail: dict[str, Any] = {"changes": {"sentinel": {"fail": True}}}
        for more, code in (({}, Exit.DONE), (fail, Exit.PARTIAL)):
            later = Notebook()
            again = await run(sandbox, tmp_path, **span, **more, viewer=later)
            assert (again.exit_code, again.to_dict()["shortfalls"]) == (code, [facts])
            assert (later.of("shortfall"), sum(again.requests.values())) == ([], 0)
        elsewhere = await run(sandbox, tmp_path, start="2026-01-01", end="2026-02-01", **fail)
        assert (elsewhere.exit_code, elsewhere.to_dict()["shortfalls"]) == (Exit.DONE, [])


async def test_a_run_with_the_sentinel_off_judges_nothing(tmp_path):
    """Neither does it remember anything, so a later run judges everything."""
    span: dict[str, Any] = {"start": "2026-01-01", "end": "2026-01-08"}
    async with serving(losing(lambda _at: True)) as sandbox:
        for enabled, expected in ((False, 0), (True, 1)):
            viewer = Notebook()
            changes = {"sentinel": {"enabled": enabled}, "export": [{"bundle": "6h"}]}
            summary = await run(sandbox, tmp_path, **span, changes=changes, viewer=viewer)
            assert len(viewer.of("shortfall")) == len(summary.to_dict()["shortfalls"]) == expected


async def test_a_long_run_reports_a_shortfall_before_its_end(tmp_path):
    """It looks at intervals, reports what it finds once, and has it in its tally at the end."""
    settings, exports, tally = Settings.from_layers({}), (Export(EXPORT),), Tally()
    found, events = asyncio.Event(), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        found.set()

    async with opened(tmp_path) as ledger:
        order: dict[str, Any] = {"ledger": ledger, "clock": ServiceClock(), "tally": tally, "emit": on_event}
        async with sentinel(settings, Backfill(exports, START), **order, every_seconds=0.01):
            await store(ledger, [stored(START + number * HALF_HOUR, 0, age=40.0 * DAY) for number in range(336)])
            await found.wait()
            assert not tally.exit_code()
    (event,) = events
    assert isinstance(event, ShortfallFound)
    assert tally.shortfalls == (event.shortfall,)
    assert tally.exit_code() is Exit.DONE


@pytest.mark.parametrize("kind", [Backfill, Nightly])
async def test_empty_history_is_named_by_the_first_run(tmp_path, kind):
    """All bundles are older than 30 days and empty: the run that stores them names the trap, once."""
    async with serving(losing(lambda at: at < moment("2026-01-10"))) as sandbox:
        reports = []
        for end in ("2026-01-08T12:00:00Z", "2026-01-10"):
            viewer = Notebook()
            summary = await run(
                sandbox, tmp_path, end=end, kind=kind, changes={"export": [{"bundle": "6h"}]}, viewer=viewer
            )
            assert summary.exit_code is Exit.DONE
            reports += viewer.of("shortfall")
        (one,) = reports
        assert (one["rule"], one["expected"], one["found"]) == ("old_empty", None, 0)
        (open_now,) = summary.to_dict()["shortfalls"]
        assert (open_now["start"], open_now["end"]) == ("2026-01-01T00:00:00Z", "2026-01-10T00:00:00Z")
