"""Runs over times that the service cannot export at all: few creates, and everything else is stored.

The first part is simulated: on a virtual clock, with operations of ten minutes. The second part runs against the
sandbox, over several nights.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, HOUR, Bundle, Range
from asyncexport.core.exits import Exit
from asyncexport.core.splitting import narrower
from asyncexport.core.states import BundleRecord, Failed, Planned, Split, Stored
from asyncexport.ledger import Ledger
from asyncexport.run.spec import Nightly, RunSpec
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from asyncexport.simulate.run import Scenario
from tests.exporting import clock_of, run, settings_for
from tests.refusals_rig import RefusingService, RunResult, run_scenario

HALF_HOUR_CREATES = 2 + 4 + 12
"""Creates for half an hour of which nothing can be exported: two for the bundle, its halves, and their pieces."""


def half_hours(*numbers: int) -> tuple[Range, ...]:
    return tuple(Range(number * 1800, (number + 1) * 1800) for number in numbers)


def check(result: RunResult, bundles: int, poison: tuple[Range, ...]) -> int:
    """Check that the run finished and stored every bundle without poison; return the creates for the others."""
    assert result.error is None
    assert not result.stopped
    bad = [one for one in half_hours(*range(bundles)) if any(one.overlaps(minutes) for minutes in poison)]
    ends = Counter[type]()
    for bundle, state in result.states.items():
        is_bad = any(bundle.range.overlaps(minutes) for minutes in poison)
        assert isinstance(state, (Failed, Split) if is_bad else Stored)
        if not isinstance(state, Split):
            ends[type(state)] += bundle.range.seconds
    assert ends.total() == bundles * 1800, "every second is stored or parked"
    return result.service.made - (bundles - len(bad))


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("counts_all", [False, True])
@pytest.mark.parametrize(
    ("bundles", "poison", "most"),
    [
        (6, half_hours(1), HALF_HOUR_CREATES),
        (6, half_hours(0), HALF_HOUR_CREATES),
        (6, half_hours(5), HALF_HOUR_CREATES),
        (6, half_hours(1, 3), 2 * HALF_HOUR_CREATES),
        (3, half_hours(1, 2), 2 * HALF_HOUR_CREATES),
        (1, half_hours(0), 5 + 4),
        (2, half_hours(0, 1), 2 * 5),
        (48, half_hours(44, 45, 46, 47), 4 * HALF_HOUR_CREATES),
        (48, half_hours(*range(40, 48)), 8 * 8),
        (48, half_hours(*range(0, 48, 2)), 24 * 5),
        (60, half_hours(*range(50, 60)), 10 * 5),
        (60, half_hours(*range(60)), 75),
    ],
    ids=[
        "one of six",
        "the first of six",
        "the last of six",
        "two of six",
        "an hour next to one bundle",
        "the only one",
        "the only two",
        "the last four of a day",
        "the last eight of a day",
        "every second of a day",
        "the last ten",
        "all",
    ],
)
def test_half_hours_that_always_fail_cost_few_creates(bundles, poison, most, counts_all, sigma):
    """The others are stored, nothing is stopped, and the run takes less than three hours."""
    service = RefusingService(poison=poison)
    result = run_scenario(Scenario(bundles, counts_all=counts_all, sigma=sigma), service)
    assert check(result, bundles, poison) <= most
    assert result.seconds < 3 * HOUR
    if len(poison) == bundles > 4:
        assert result.attempts == 1, "the service is at fault"
        assert not any(isinstance(state, Split) for state in result.states.values())


@settings(max_examples=40)
@given(
    bundles=st.integers(1, 12),
    poison=st.lists(st.tuples(st.integers(0, 71), st.integers(1, 12)), max_size=4),
    seed=st.integers(0, 1000),
)
def test_any_poison_costs_few_creates(bundles, poison, seed):
    """Whatever minutes fail, a bundle costs at most five attempts and two for each piece; the rest is stored."""
    ranges = tuple(Range(first * 300, (first + count) * 300) for first, count in poison)
    service = RefusingService(poison=ranges)
    result = run_scenario(Scenario(bundles, counts_all=False, seed=seed), service)
    bad = sum(any(one.overlaps(minutes) for minutes in ranges) for one in half_hours(*range(bundles)))
    # A bundle is split after more than two attempts if another one fails and none is stored meanwhile.
    assert check(result, bundles, ranges) <= bad * (5 + 4 + 12)
    assert result.seconds < 4 * HOUR


# Against the sandbox

EVENTS = "everyone-events"
FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=60, requests_per_minute=1e6, burst=10_000)
START, END = "2026-01-01T20:00:00Z", "2026-01-01T23:00:00Z"
FIRST = 1_767_297_600
"""`START` in seconds since 1970."""

POISON = Range(FIRST + 1800, FIRST + 3600)
"""The second of six bundles."""


def poisoned(*ranges: Range) -> SandboxBehaviour:
    """Return a service whose operations over these ranges always fail."""
    return replace(FAST, faults=tuple(SandboxFault("operation", "FAILED", window=one) for one in ranges))


async def creates_of(sandbox: Sandbox, directory: Any, kind: type[RunSpec] | None = None, **more: Any) -> int:
    """Run; check that it ends with parked bundles and nothing unfinished; return the number of its creates."""
    before = len(sandbox.operations)
    more = {"start": START, "end": END, **more, **({} if kind is None else {"kind": kind})}
    summary = await run(sandbox, directory, **more)
    assert (summary.exit_code, summary.tally.unfinished) == (Exit.PARTIAL, 0)
    return len(sandbox.operations) - before


async def test_nights_retry_a_half_hour_that_always_fails_with_one_create_for_each_piece(tmp_path):
    """The first night splits it, every due night sends six creates, every other night none."""
    async with serving(poisoned(POISON)) as sandbox:
        assert await creates_of(sandbox, tmp_path, Nightly) == 5 + HALF_HOUR_CREATES
        creates = []
        for _ in range(8):
            sandbox.behave(replace(sandbox.behaviour, clock_ahead_seconds=sandbox.behaviour.clock_ahead_seconds + DAY))
            creates.append(await creates_of(sandbox, tmp_path, Nightly, host_clock=clock_of(sandbox)))
        assert creates == [6, 0, 6, 0, 0, 0, 6, 0]
        again = await creates_of(sandbox, tmp_path, host_clock=clock_of(sandbox))
        assert again == 2 * 6, "another run makes two attempts for each piece"


async def test_pieces_that_an_earlier_run_left_planned_still_count_as_one_bundle(tmp_path):
    """If only they are left and all fail, the run neither blames the service nor stops the export."""
    async with serving(FAST) as sandbox:
        ledger = await Ledger.open(tmp_path)
        await ledger.register(settings_for(sandbox, tmp_path).exports)
        failed = BundleRecord(Bundle(EVENTS, POISON), 0, Failed("why"), None)
        await ledger.append(failed, at=sandbox.now)
        for half in await ledger.split(failed, narrower(POISON, split_to=300), at=sandbox.now):
            lost = replace(half, state=Failed("why"))
            await ledger.append(lost, at=sandbox.now)
            pieces = await ledger.split(lost, narrower(half.bundle.range, split_to=300), at=sandbox.now)
            assert [one.state for one in pieces] == [Planned()] * 3
        await ledger.close()
        sandbox.behave(poisoned(POISON))
        assert await creates_of(sandbox, tmp_path) == 5 + 2 * 6
        assert await creates_of(sandbox, tmp_path) == 2 * 6


async def test_a_half_hour_that_is_all_that_is_left_costs_few_creates(tmp_path):
    """If it is all that is left and fails, its halves are parked; a run that stores another bundle may split them."""
    last = Range(FIRST + 5 * 1800, FIRST + 6 * 1800)
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, start=START, end="2026-01-01T22:30:00Z")
        sandbox.behave(poisoned(last))
        assert await creates_of(sandbox, tmp_path) == 5 + 2 * 2
        assert await creates_of(sandbox, tmp_path) == 2 * 2
        # It depends on when the other bundle is stored whether one half is split, both, or none.
        assert 1 + 4 <= await creates_of(sandbox, tmp_path, end="2026-01-01T23:30:00Z") <= 1 + 4 + 12
        assert await creates_of(sandbox, tmp_path, end="2026-01-01T23:30:00Z") <= 12


async def test_a_day_that_always_fails_is_not_split_down_to_five_minutes(tmp_path):
    """It is split eight times in each run, next to a day that is stored."""
    wide = {"export": [{"name": EVENTS, "bundle": "24h"}]}
    days: dict[str, Any] = {"start": "2026-01-01", "end": "2026-01-03", "changes": wide}
    async with serving(poisoned(Range(FIRST - 20 * HOUR, FIRST + 4 * HOUR))) as sandbox:
        # Its pieces are 2, 4 and 8 bundles, and 3 of the eighth split.
        assert await creates_of(sandbox, tmp_path, **days) == 1 + 2 * (1 + 2 + 4 + 8 + 3)
        later = await creates_of(sandbox, tmp_path, **days)
        assert 2 * (7 + 3) <= later <= 2 * (7 + 3 + 8 * 4)
