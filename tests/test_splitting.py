"""Bundles that keep failing are split into narrower ones, so that only a few minutes are missing."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import ALL_TIME, DAY, Bundle, Range
from asyncexport.core.events import BundleParked, Event
from asyncexport.core.exits import Exit
from asyncexport.core.splitting import (
    MOST_SPLITS,
    SPLIT_WIDTHS,
    AttemptRules,
    FailedAttempts,
    narrower,
    split_earlier,
)
from asyncexport.core.states import BundleRecord, Created, Failed, Overdue, Planned, Ready, Split, State, Stored
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.run.spec import Nightly, Repair, Retry
from asyncexport.sandbox import SandboxBehaviour, SandboxFault, serving
from tests.exporting import Notebook, archives, clock_of, rows_in, run, settings_for, truth

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=600, requests_per_minute=1e6, burst=10_000)

EVENTS = "everyone-events"
START, END = "2026-01-01T20:00:00Z", "2026-01-01T22:00:00Z"
RANGE: dict[str, Any] = {"start": START, "end": END}
FIRST = 1_767_297_600
"""`START` in seconds since 1970."""

POISON = Range(FIRST + 1800 + 640, FIRST + 1800 + 700)
"""A minute of the second bundle, which no export can contain."""

FAILING = Created(2, 0.0, "op")
ARCHIVE = Stored("p", 1, 1, "s", exported_at=0.0)


def poisoned(*ranges: Range, what: str = "FAILED") -> SandboxBehaviour:
    """Return a service whose operations over these ranges always fail."""
    return replace(FAST, faults=tuple(SandboxFault("operation", what, window=one) for one in ranges))


def part(start: int, end: int) -> Bundle:
    """Return a bundle by its first and last minute after 20:00."""
    return Bundle(EVENTS, Range(FIRST + start * 60, FIRST + end * 60))


def record(start: int, end: int, state: State = FAILING, stored: Stored | None = None) -> BundleRecord:
    return BundleRecord(part(start, end), int(stored is not None), state, stored)


@given(st.integers(0, 2 * DAY), st.integers(1, 2 * DAY), st.sampled_from(SPLIT_WIDTHS))
def test_pieces_tile_the_bundle_and_are_narrower(start, seconds, split_to):
    """Together they cover the bundle exactly once, each is narrower, and none is wider than the grid's next width."""
    whole = Range(start, start + seconds)
    pieces = narrower(whole, split_to=split_to)
    if not pieces:
        assert seconds <= split_to
        return
    assert len(pieces) >= 2
    assert [whole.start, *(one.end for one in pieces)] == [*(one.start for one in pieces), whole.end]
    assert max(one.seconds for one in pieces) <= max(width for width in SPLIT_WIDTHS if width < seconds)


@pytest.mark.parametrize(
    ("minutes", "widths"),
    [
        (1440, {720}),
        (720, {360}),
        (480, {60}),
        (360, {180}),
        (180, {60}),
        (90, {30}),
        (60, {30}),
        (45, {15}),
        (30, {15}),
        (20, {5}),
        (15, {5}),
        (5, set()),
    ],
)
def test_pieces_have_the_next_narrower_width_that_divides_the_bundle(minutes, widths):
    """From a day to five minutes, on the grid; five minutes are not split."""
    pieces = narrower(Range(3 * DAY, 3 * DAY + minutes * 60), split_to=300)
    assert {one.seconds // 60 for one in pieces} == widths


def test_a_bundle_off_the_grid_is_cut_at_its_lines():
    """If no width divides it, the pieces at its ends are narrower."""
    assert [(one.start, one.end) for one in narrower(Range(420, 1800), split_to=300)] == [(420, 900), (900, 1800)]


def test_a_bundle_is_not_split_below_the_setting():
    """`split_to` is the narrowest width of a piece."""
    assert [one.seconds for one in narrower(Range(0, 1800), split_to=900)] == [900, 900]
    assert narrower(Range(0, 900), split_to=900) == ()


def failed_attempts() -> FailedAttempts:
    """Return the failed attempts of a run in which an operation has completed."""
    attempts = FailedAttempts(AttemptRules())
    attempts.completed()
    return attempts


def test_a_bundle_is_split_late_while_nothing_succeeds():
    """It is split after its last attempt only, until an operation completes, or for a bad file a bundle is stored."""
    attempts, failing = FailedAttempts(AttemptRules()), record(0, 30)
    bad = record(0, 30, Ready(2, 0.0, "x"))
    attempts.failed(failing.bundle)
    assert [bool(attempts.pieces(failing, number)) for number in (2, 4, 5)] == [False, False, True]
    attempts.completed()
    assert [bool(attempts.pieces(one, 2)) for one in (failing, bad)] == [True, False]
    attempts.stored(part(30, 60))
    assert attempts.pieces(bad, 2)


def test_a_bundle_is_not_split_before_it_is_known_whether_all_others_fail():
    """While nothing has succeeded and bundles of another time are in progress, its last attempt parks it."""
    failing, other = record(0, 30), part(30, 60)
    in_progress = [failing.bundle, other, Bundle("other", part(10, 20).range)]
    attempts = FailedAttempts(AttemptRules(), lambda: in_progress)
    attempts.failed(failing.bundle)
    assert attempts.pieces(failing, 5) == ()
    in_progress.remove(other)
    assert attempts.pieces(failing, 5), "bundles of the same time may fail for the same reason"
    in_progress.append(other)
    attempts.stored(part(60, 90))
    assert attempts.pieces(failing, 2), "another one was stored"


def test_pieces_in_progress_do_not_keep_each_other_from_being_split():
    """They belong to one bundle, and their failures are expected."""
    whole, halves = part(0, 30), (part(0, 15), part(15, 30))
    attempts = FailedAttempts(AttemptRules(), lambda: halves)
    attempts.split(whole, halves)
    attempts.failed(halves[0])
    assert attempts.pieces(record(0, 15), 2)


def test_a_bundle_is_split_only_while_others_succeed():
    """It is if one was stored since it first failed, or if none of another time has failed since."""
    attempts, one, other = failed_attempts(), record(0, 30), record(30, 60)
    attempts.failed(one.bundle)
    assert attempts.pieces(one, 1) == (), "one failure is not enough"
    assert attempts.pieces(one, 2), "nothing else has failed"
    attempts.failed(other.bundle)
    assert attempts.pieces(one, 2) == (), "another one fails as well"
    attempts.stored(part(60, 90))
    assert attempts.pieces(one, 2), "another one was stored meanwhile"
    assert attempts.pieces(other, 2)


def test_other_exports_of_the_same_time_may_fail_as_well():
    """The minute that one export cannot contain is usually one that others cannot contain either."""
    attempts, one = failed_attempts(), record(0, 30)
    attempts.failed(one.bundle)
    attempts.failed(Bundle("people", one.bundle.range))
    assert attempts.pieces(one, 2)


def test_pieces_of_a_bundle_do_not_count_as_others_that_succeed():
    """If both halves of a bundle fail and nothing is stored, they are not split."""
    attempts, one = failed_attempts(), record(0, 30)
    halves = [record(0, 15), record(15, 30)]
    attempts.failed(one.bundle)
    attempts.split(one.bundle, [half.bundle for half in halves])
    attempts.failed(halves[0].bundle)
    assert attempts.pieces(halves[0], 2), "only one half has failed"
    attempts.failed(halves[1].bundle)
    assert attempts.pieces(halves[0], 2) == attempts.pieces(halves[1], 2) == ()


def test_pieces_of_a_bundle_may_fail_together_once_another_is_stored():
    """If the run has stored a bundle before, only failures of other times speak against the split of both halves."""
    attempts, one = failed_attempts(), record(0, 30)
    halves = [record(0, 15), record(15, 30)]
    attempts.stored(part(30, 60))
    attempts.failed(one.bundle)
    attempts.split(one.bundle, [half.bundle for half in halves])
    for half in halves:
        attempts.failed(half.bundle)
    assert all(attempts.pieces(half, 2) for half in halves)
    attempts.failed(part(60, 90))
    assert not any(attempts.pieces(half, 2) for half in halves)


def test_a_bundle_of_which_all_pieces_fail_is_split_eight_times():
    """That splits an hour into five minutes, but not a day; a stored piece allows more splits of what contains it."""
    attempts = failed_attempts()
    attempts.stored(part(-30, 0))
    splits, failing, parked = 0, [record(0, 24 * 60)], []
    while failing:
        one = failing.pop(0)
        attempts.failed(one.bundle)
        if pieces := attempts.pieces(one, 2):
            splits += 1
            bundles = [Bundle(EVENTS, piece) for piece in pieces]
            attempts.split(one.bundle, bundles)
            failing += [replace(one, bundle=bundle) for bundle in bundles]
        else:
            assert attempts.is_last(one.bundle, 2)
            parked.append(one)
    assert splits == MOST_SPLITS
    assert not any(attempts.pieces(one, 2) for one in parked)
    attempts.stored(parked[0].bundle)
    assert all(attempts.pieces(one, 2) for one in parked[1:])


def test_pieces_are_recognised_in_later_runs():
    """Each belongs to the widest split bundle that contains it and is not wider than the bundle width."""
    split = [part(0, 1440), part(0, 30), part(0, 15), Bundle("people", Range(FIRST, FIRST + 1800))]
    bundles = [part(0, 5), part(15, 30), part(30, 60), part(25, 35)]
    assert dict(split_earlier(bundles, split, width_seconds=1800)) == {
        part(0, 5): part(0, 30),
        part(15, 30): part(0, 30),
    }
    assert set(dict(split_earlier(bundles, split, width_seconds=DAY)).values()) == {part(0, 1440)}
    assert dict(split_earlier(bundles, split, width_seconds=900)) == {part(0, 5): part(0, 15)}


def test_pieces_of_an_earlier_run_keep_their_rules():
    """They get few attempts, and a piece that a night retries and cannot split gets one."""
    attempts = FailedAttempts(AttemptRules(retries_once=True))
    for one in (part(0, 5), part(5, 10)):
        attempts.split_earlier(one, part(0, 30))
        assert attempts.whole(one) == part(0, 30)
    assert [attempts.is_last(part(0, 5), number) for number in (1, 2)] == [False, True]
    attempts.retried(record(5, 10, Failed("why")))
    assert attempts.is_last(part(5, 10), 1)
    assert attempts.whole(part(30, 60)) == part(30, 60)


def test_refusals_do_not_count():
    """An attempt that was used up by an unreadable answer does not bring a bundle closer to its split."""
    attempts, one = failed_attempts(), record(0, 30)
    attempts.refused(one.bundle)
    attempts.failed(one.bundle)
    assert attempts.pieces(one, 2) == ()
    assert attempts.pieces(one, 3)


@pytest.mark.parametrize(
    ("one", "rules"),
    [
        (record(0, 30, stored=ARCHIVE), AttemptRules()),
        (record(0, 30), AttemptRules(never_split=frozenset({EVENTS}))),
        (record(0, 30), AttemptRules(attempts=3, before_split=4)),
        (record(0, 30), AttemptRules(split_to_seconds=1800)),
        (record(0, 5), AttemptRules()),
    ],
    ids=["stored", "individuals", "switched off", "narrow enough", "five minutes"],
)
def test_what_is_never_split(one, rules):
    """A bundle with an archive, one of individuals, and one that is narrow enough are parked after the last attempt."""
    attempts = FailedAttempts(rules)
    for attempt in range(1, rules.attempts + 1):
        attempts.failed(one.bundle)
        assert attempts.pieces(one, attempt) == ()
        assert attempts.is_last(one.bundle, attempt) == (attempt == rules.attempts)


def test_pieces_get_few_attempts():
    """A piece that is not split itself is parked after `before_split` attempts."""
    attempts = FailedAttempts(AttemptRules())
    attempts.split(part(0, 30), [part(0, 15)])
    assert [attempts.is_last(part(0, 15), number) for number in (1, 2)] == [False, True]


def test_pieces_inherit_that_others_succeed():
    """If both halves fail, they are split if another bundle was stored after their whole first failed."""
    attempts, one = failed_attempts(), record(0, 30)
    halves = [record(0, 15), record(15, 30)]
    attempts.failed(one.bundle)
    attempts.stored(part(30, 60))
    attempts.split(one.bundle, [half.bundle for half in halves])
    for half in halves:
        attempts.failed(half.bundle)
    assert all(attempts.pieces(half, 2) for half in halves)


@pytest.mark.parametrize(
    ("one", "limit"),
    [(record(0, 5, Failed("why")), 1), (record(0, 30, Failed("why")), 5), (record(0, 5, Overdue(1, 0.0, "op")), 5)],
    ids=["five minutes", "can be split", "overdue"],
)
def test_a_night_retries_a_parked_bundle_once(one, limit):
    """If it failed and cannot be split, one create a night is enough; another run makes all attempts."""
    for retries_once, last in ((True, limit), (False, 5)):
        attempts = FailedAttempts(AttemptRules(retries_once=retries_once))
        attempts.retried(one)
        assert [attempts.is_last(one.bundle, number) for number in (last - 1, last)] == [False, True]


@pytest.mark.parametrize("what", ["FAILED", "ERROR", "export-gone"])
async def test_a_minute_of_poison_costs_five_minutes(tmp_path, what):
    """One run stores the other 25 of 30 minutes, with few creates for that half hour, and reports the five minutes."""
    viewer = Notebook()
    async with serving(poisoned(POISON, what=what)) as sandbox:
        summary = await run(sandbox, tmp_path, viewer=viewer, **RANGE)
        creates = len(sandbox.operations) - 3
        # A bad file may need another attempt before a bundle is stored.
        assert 9 <= creates <= (12 if what == "export-gone" else 9)
        assert summary.exit_code is Exit.PARTIAL
        tally = summary.tally
        assert (tally.planned, tally.stored, tally.failed, tally.unfinished) == (7, 6, 1, 0)
        (problem,) = summary.to_dict()["problems"]
        assert (problem["start"], problem["end"]) == ("2026-01-01T20:40:00Z", "2026-01-01T20:45:00Z")
        missing = truth(sandbox, START, END) - rows_in(tmp_path)
        assert missing == truth(sandbox, problem["start"], problem["end"])
        assert [(event["start"], len(event["pieces"])) for event in viewer.of("split")] == [
            ("2026-01-01T20:30:00Z", 2),
            ("2026-01-01T20:30:00Z", 3),
        ]
        sandbox.behave(FAST)
        summary = await run(sandbox, tmp_path, kind=Retry, **RANGE)
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 1)
        assert rows_in(tmp_path) == truth(sandbox, START, END)


async def test_poison_in_both_halves_costs_ten_minutes(tmp_path):
    """Each half is split if it fails, and each five minutes with poison are reported."""
    async with serving(poisoned(POISON, Range(POISON.start + 900, POISON.end + 900))) as sandbox:
        summary = await run(sandbox, tmp_path, **RANGE)
        assert [(one["start"], one["end"]) for one in summary.to_dict()["problems"]] == [
            ("2026-01-01T20:40:00Z", "2026-01-01T20:45:00Z"),
            ("2026-01-01T20:55:00Z", "2026-01-01T21:00:00Z"),
        ]
        assert len(sandbox.operations) - 3 == 2 + 4 + 8


async def test_a_lone_bundle_is_split(tmp_path):
    """A run of one bundle splits it after its last attempt, since nothing else fails."""
    async with serving(poisoned(POISON)) as sandbox:
        only: dict[str, Any] = {"start": "2026-01-01T20:30:00Z", "end": "2026-01-01T21:00:00Z"}
        summary = await run(sandbox, tmp_path, **only)
        assert (summary.tally.stored, summary.tally.failed, len(sandbox.operations)) == (3, 1, 12)


async def test_a_day_with_a_minute_of_poison_is_split_down_to_it(tmp_path):
    """A bundle of a day becomes half a day, six, three, one hour, and so on: each level costs a few creates."""
    async with serving(replace(poisoned(POISON), rows_per_hour=20)) as sandbox:
        day = {"export": [{"name": EVENTS, "bundle": "24h"}]}
        summary = await run(sandbox, tmp_path, start="2026-01-01", end="2026-01-02", changes=day)
        assert summary.tally.failed == 1
        assert len(sandbox.operations) == 5 + 3 + 3 + 3 + 4 + 3 + 3 + 4
        widths = Counter(int(one.end - one.start) // 60 for one in sandbox.operations)
        assert widths == {1440: 5, 720: 3, 360: 3, 180: 3, 60: 4, 30: 3, 15: 3, 5: 4}


async def test_nights_retry_five_minutes_with_one_create_when_they_are_due(tmp_path):
    """After 1, 2, 4 and 8 days a night sends one create; every other night, and a second run, sends no request."""
    async with serving(poisoned(POISON)) as sandbox:
        await run(sandbox, tmp_path, kind=Nightly, **RANGE)
        creates = []
        for _ in range(24):
            sandbox.behave(replace(sandbox.behaviour, clock_ahead_seconds=sandbox.behaviour.clock_ahead_seconds + DAY))
            sandbox.reset_counts()
            for _ in range(2):
                summary = await run(sandbox, tmp_path, kind=Nightly, host_clock=clock_of(sandbox), **RANGE)
                assert (summary.exit_code, summary.tally.failed) == (Exit.PARTIAL, 1)
            assert sum(summary.requests.values()) == 0, "the second run of a night has nothing to do"
            creates.append(sandbox.counts["create"])
        assert [number + 1 for number, count in enumerate(creates) if count] == [1, 3, 7, 15, 23]
        assert set(creates) == {0, 1}


async def test_a_night_in_which_everything_fails_splits_nothing(tmp_path):
    """Whether operations fail or files are bad, the bundles stay as wide as they are."""
    for number, fault in enumerate((SandboxFault("operation", "FAILED"), SandboxFault("download", "truncated"))):
        viewer = Notebook()
        async with serving(replace(FAST, goog_hash="none", faults=(fault,))) as sandbox:
            summary = await run(sandbox, tmp_path / str(number), viewer=viewer, **RANGE)
            assert summary.tally.stored == 0
            assert {int(one.end - one.start) for one in sandbox.operations} == {1800}
            assert viewer.of("split") == []
            sandbox.behave(FAST)
            summary = await run(sandbox, tmp_path / str(number), **RANGE)
            assert (summary.exit_code, summary.tally.planned) == (Exit.DONE, 4)


async def test_a_bundle_that_fails_while_all_others_are_in_progress_stays_as_wide(tmp_path):
    """They may fail as well: however slow they are, the bundle is parked and not split."""
    stop, parked = Stop(), list[str]()

    class StopsWhenParked(Notebook):
        def on_event(self, event: Event) -> None:
            if isinstance(event, BundleParked):
                parked.append(event.reason)
                stop.ask(Exit.TERMINATED)

    rest = SandboxFault("operation", "pending", window=Range(FIRST + 1800, FIRST + 7200))
    failing = SandboxFault("operation", "FAILED", window=Range(FIRST, FIRST + 1800))
    async with serving(replace(FAST, faults=(rest, failing))) as sandbox:
        summary = await run(sandbox, tmp_path, viewer=StopsWhenParked(), stop=stop, **RANGE)
        assert {int(one.end - one.start) for one in sandbox.operations} == {1800}
    assert (summary.exit_code, len(parked), summary.tally.failed, summary.tally.unfinished) == (
        Exit.TERMINATED,
        1,
        1,
        3,
    )


async def test_individuals_are_never_split(tmp_path):
    """A day of individuals whose operations fail is parked as a day."""
    people = {"export": [{"name": EVENTS, "type": "individual", "bundle": "24h"}]}
    async with serving(poisoned(ALL_TIME)) as sandbox:
        summary = await run(sandbox, tmp_path, start="2026-01-01", end="2026-01-02", changes=people)
        assert (summary.tally.failed, len(sandbox.operations)) == (1, 5)


async def test_a_refresh_is_never_split(tmp_path):
    """A bundle that has an archive keeps it, and is parked as it is."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, **RANGE)
        sandbox.behave(poisoned(POISON))
        with LedgerReader(tmp_path) as ledger:
            stored = tuple(ledger.stored(EVENTS, ALL_TIME))
        summary = await run(sandbox, tmp_path, kind=Repair, bundles=stored)
        assert (summary.tally.stored, summary.tally.failed) == (3, 1)
        assert rows_in(tmp_path) == truth(sandbox, START, END)


async def test_pieces_that_a_run_leaves_planned_are_exported_by_the_next(tmp_path):
    """They keep their width, so nothing is merged again, stored twice or left out, in a run over a part as well."""
    async with serving(FAST) as sandbox:
        ledger = await Ledger.open(tmp_path)
        await ledger.register(settings_for(sandbox, tmp_path).exports)
        failed = record(30, 60, Failed("why"))
        await ledger.append(failed, at=sandbox.now)
        pieces = await ledger.split(failed, narrower(failed.bundle.range, split_to=300), at=sandbox.now)
        assert [one.state for one in pieces] == [Planned(), Planned()]
        await ledger.close()
        summary = await run(sandbox, tmp_path, start=START, end="2026-01-01T20:50:00Z")
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 3)
        summary = await run(sandbox, tmp_path, **RANGE)
        assert (summary.exit_code, summary.tally.stored, summary.tally.planned) == (Exit.DONE, 3, 6)
        assert rows_in(tmp_path) == truth(sandbox, START, END)
        with LedgerReader(tmp_path) as reader:
            recorded = reader.recorded_range(EVENTS, ALL_TIME)
        assert (recorded.unfinished, [type(one.state) for one in recorded.split]) == ((), [Split])
        assert len(archives(tmp_path)) == 6
