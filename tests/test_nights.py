"""How often each bundle is exported by a series of nightly runs, some of which are missed."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncexport.config import Settings
from asyncexport.core.bundles import DAY, HOUR, Bundle, Range, read_when, show
from asyncexport.core.coverage import in_order
from asyncexport.core.exports import Export
from asyncexport.core.states import Stored
from asyncexport.core.summary import Exit
from asyncexport.ledger import Ledger
from asyncexport.run.planner import plan_run
from asyncexport.run.spec import Nightly, instructions
from asyncexport.run.survey import survey
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import Notebook, clock_of, moment, rows_in, run, settings_for, truth

AGES = (48.0 * HOUR, 72.0 * HOUR)

SINCE = moment("2026-01-01")

EXPORT = Export("everyone-events", bundle_seconds=6 * HOUR)

NIGHTS = [SINCE + number * DAY + 2 * HOUR for number in range(1, 15)]
"""Nightly runs at two o'clock for two weeks."""


def nights_of(bundle: Range, nights: Sequence[float]) -> set[float]:
    """Return the nights that export a bundle: the first after it settled, and the first after it reached each age."""
    firsts = ([night for night in nights if night >= bundle.end + age][:1] for age in (EXPORT.settle_seconds, *AGES))
    return {night for found in firsts for night in found}


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Ledger]:
    """Open a ledger in which the export is registered."""
    ledger = await Ledger.open(directory)
    try:
        await ledger.register([EXPORT])
        yield ledger
    finally:
        await ledger.close()


async def night(ledger: Ledger, *, now: float, ages: tuple[float, ...] = AGES) -> list[Bundle]:
    """Store what a nightly run at this time would export; return those bundles."""
    settings = Settings.from_layers({"nightly": {"since": show(SINCE)}})
    asked = instructions(Nightly((EXPORT,), refresh_ages=ages))
    plan = await ledger.query(lambda queries: plan_run(settings, (EXPORT,), asked, queries, now=now))
    records = list(in_order(plan.exports))
    assert plan.has_work == bool(records)
    for number, record in enumerate(records):
        at = now + number
        archive = Stored("file.gz", 9, 1, "0" * 64, at, at, float(EXPORT.settle_seconds))
        await ledger.append(replace(record, state=archive, stored=archive), at=at)
    return [record.bundle for record in records]


@pytest.mark.parametrize(
    "missed",
    [(), (3,), (4, 5), (3, 4, 5, 6, 7), (1, 3, 5, 7, 9, 11), tuple(range(12))],
    ids=["none", "one", "two", "five", "every other", "all but the last two"],
)
async def test_each_bundle_is_exported_by_the_right_nights(tmp_path, missed):
    """A bundle is exported when it has settled and at 48h and 72h, but only once if nights were missed."""
    nights = [at for number, at in enumerate(NIGHTS) if number not in missed]
    exported: dict[Range, list[float]] = {}
    async with opened(tmp_path) as ledger:
        for now in nights:
            for bundle in await night(ledger, now=now):
                exported.setdefault(bundle.range, []).append(now)
            assert await night(ledger, now=now + HOUR) == [], "a second run of the same night has nothing to do"
    assert exported == {bundle: sorted(nights_of(bundle, nights)) for bundle in exported}
    assert len(exported) == (NIGHTS[-1] - EXPORT.settle_seconds - SINCE) // EXPORT.bundle_seconds
    if not missed:
        assert Counter(map(len, exported.values())) == {3: 44, 2: 4, 1: 4}


async def test_ages_added_later_refresh_bundles_exported_before_them(tmp_path):
    """One refresh serves both new ages, and a bundle that was first exported at a higher age is not refreshed."""
    async with opened(tmp_path) as ledger:
        for now in (NIGHTS[4], *NIGHTS[5:9]):
            await night(ledger, now=now, ages=())
        due = {bundle.range for bundle in await night(ledger, now=NIGHTS[12])}
        assert await night(ledger, now=NIGHTS[12] + HOUR) == []
    exported_late = NIGHTS[4] - AGES[1] - SINCE
    ends = range(SINCE + EXPORT.bundle_seconds, NIGHTS[12] - EXPORT.settle_seconds + 1, EXPORT.bundle_seconds)
    assert {one.end for one in due} == {end for end in ends if end - SINCE > exported_late}


LATE = SandboxBehaviour(
    operation_seconds=0.01,
    rows_per_hour=60,
    requests_per_minute=1e6,
    burst=10_000,
    late_share=0.3,
    late_seconds=216_000,
)
"""Three rows in ten reach the service 60 hours after they happened."""


@pytest.mark.slow
async def test_refreshes_bring_late_rows(tmp_path):
    """After several nightly runs, some of them missed, all rows are stored, and each export was due and planned."""
    order: dict[str, Any] = {"kind": Nightly, "changes": {"export": [{"bundle": "6h"}]}, "refresh_ages": AGES}
    async with serving(LATE) as sandbox:
        start = int(sandbox.now) // DAY * DAY
        span: dict[str, Any] = {"start": show(start), "end": show(start + 2 * DAY)}
        nights, totals, viewer = [], Counter[str](), Notebook()
        for pause in (2, 1, 1, 2, 1, 1):
            sandbox.skip(pause * DAY)
            nights.append(sandbox.now)
            planned = survey(
                settings_for(sandbox, tmp_path, {**order["changes"], "nightly": {"since": span["start"]}}),
                Nightly((EXPORT,), read_when(span["end"]), AGES),
                now=sandbox.now,
            )
            summary = await run(sandbox, tmp_path, **order, **span, viewer=viewer, host_clock=clock_of(sandbox))
            assert summary.exit_code is Exit.DONE
            assert summary.requests["create"] == sum(plan.count for plan in planned.plans)
            assert summary.to_dict()["refreshed"]["bundles"] == sum(plan.refreshes for plan in planned.plans)
            totals.update(summary.to_dict()["refreshed"])
        made = Counter(Range(int(one.start), int(one.end)) for one in sandbox.operations)
        assert made == {bundle: len(nights_of(bundle, nights)) for bundle in made}
        assert len(made) == 8
        assert rows_in(tmp_path) == truth(sandbox, span["start"], span["end"])
    stored = viewer.of("stored")
    again = [event for event in stored if event["refresh"]]
    assert (totals["bundles"], totals["kept"]) == (len(again), 0) == (sum(made.values()) - len(made), 0)
    assert totals["rows_added"] == sum(event["rows"] - event["rows_before"] for event in again) > 0
    assert not [event for event in stored if not event["refresh"] and "rows_before" in event]
