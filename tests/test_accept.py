"""Parked bundles and shortfalls that the user accepts as missing."""

import asyncio
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.coverage import ExportPlan, RecordedRange
from asyncexport.core.events import Joining
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Export
from asyncexport.core.health.acceptance import Acceptance, acceptance
from asyncexport.core.health.report import StatusReport
from asyncexport.core.join_progress import ShareProgress
from asyncexport.core.joining import Share, progress_of
from asyncexport.core.states import BundleRecord, Failed, FewerRows, State
from asyncexport.errors import LedgerError, LedgerLockedError
from asyncexport.ledger import Ledger, LedgerReader, hold
from asyncexport.run.accept import accept
from asyncexport.run.lock_wait import LockWait, hold_or_wait
from asyncexport.run.spec import Backfill, Nightly, Retry
from asyncexport.run.status import read_status
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import archives, run, settings_for

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=60, requests_per_minute=1e6, burst=10_000)

EVENTS = "everyone-events"
FIRST = 1_767_297_600
RANGE: dict[str, Any] = {"start": "2026-01-01T20:00:00Z", "end": "2026-01-01T22:00:00Z"}

SPANS = st.builds(lambda start, width: Range(start, start + width), st.integers(0, 60), st.integers(1, 9))


def half_hour(number: int, count: int = 1) -> Range:
    return Range(FIRST + number * 1800, FIRST + (number + count) * 1800)


async def park(sandbox, directory: Path, span: Range, state: State | None = None) -> None:
    """Record that an earlier run parked a bundle."""
    ledger = await Ledger.open(directory)
    await ledger.register(settings_for(sandbox, directory).exports)
    await ledger.append(BundleRecord(Bundle(EVENTS, span), 0, state or Failed("it failed")), at=sandbox.now - 60)
    await ledger.close()


async def accepted(directory: Path, span: Range, *, reason: str = "the site was down") -> Acceptance:
    """Accept what is open in a range."""
    warnings: list[str] = []
    found = await accept(directory, EVENTS, span, reason=reason, at=time.time(), warn=warnings.append)
    assert warnings == []
    return found


def status_of(sandbox, directory: Path) -> StatusReport:
    """Return the report of `status`."""
    with LedgerReader(directory) as ledger:
        settings = settings_for(sandbox, directory)
        return read_status(settings, ledger, names=(), now=sandbox.now, again=lambda *words: " ".join(words))


@given(SPANS, st.lists(SPANS, max_size=8), st.lists(SPANS, max_size=4))
def test_accepted_is_what_lies_in_the_range(span, parked, shortfalls):
    """Everything that overlaps the range is either accepted as a whole or reported as reaching beyond it."""
    found = acceptance(span, parked=parked, shortfalls=shortfalls)
    inside = [one for one in (*parked, *shortfalls) if span.start <= one.start and one.end <= span.end]
    touching = [one for one in (*parked, *shortfalls) if one.start < span.end and span.start < one.end]
    assert found.parked + found.shortfalls == len(inside)
    assert sorted([*inside, *found.beyond]) == sorted(touching)
    seconds = {second for one in inside for second in range(one.start, one.end)}
    assert {second for one in found.spans for second in range(one.start, one.end)} == seconds
    assert all(one.end < other.start for one, other in zip(found.spans, found.spans[1:], strict=False))


@pytest.mark.parametrize("kind", [Backfill, Nightly, Retry])
async def test_an_accepted_bundle_is_left_alone(tmp_path, kind):
    """Runs end with 0 and send nothing for it, and its time is not exported by other bundles either."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1))
        if kind is not Retry:
            await run(sandbox, tmp_path, kind=Nightly, **RANGE)
        found = await accepted(tmp_path, half_hour(0, 4))
        assert (found.spans, found.parked, found.shortfalls, found.beyond) == ((half_hour(1),), 1, 0, ())
        sandbox.reset_counts()
        span = {"start": "1970-01-01", "end": None} if kind is Retry else RANGE
        summary = await run(sandbox, tmp_path, kind=kind, **span)
        said = summary.to_dict()
        assert (summary.exit_code, said["problems"], sandbox.counts["create"]) == (Exit.DONE, [], 0)
        already = 0 if kind is Retry else 3
        assert said["bundles"] == {
            "planned": already,
            "already": already,
            "stored": 0,
            "empty": 0,
            "failed": 0,
            "unfinished": 0,
        }


async def test_retry_with_a_range_retries_an_accepted_bundle(tmp_path):
    """If it is stored then, nothing of it is missing any more."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, start="2026-01-01T20:00:00Z", end="2026-01-01T20:30:00Z")
        await park(sandbox, tmp_path, half_hour(1))
        await accepted(tmp_path, half_hour(1))
        summary = await run(sandbox, tmp_path, kind=Retry, **RANGE)
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 1)
        assert len(archives(tmp_path)) == 2
        with LedgerReader(tmp_path) as ledger:
            assert ledger.unfinished(EVENTS, ALL_TIME) == []


async def test_status_lists_what_was_accepted_and_is_healthy(tmp_path):
    """The reason is shown, the gap is no gap, and the night that ended with 3 because of it no longer counts."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1))
        night = await run(sandbox, tmp_path, kind=Nightly, **RANGE)
        assert night.exit_code is Exit.PARTIAL
        before = status_of(sandbox, tmp_path)
        assert "1 bundle parked" in before.verdict.reason
        await accepted(tmp_path, half_hour(1), reason="a move of the servers")
        (report,) = status_of(sandbox, tmp_path).exports
    assert [(one.bundle.range, one.reason) for one in report.accepted] == [(half_hour(1), "a move of the servers")]
    assert report.open_parked == ()
    assert not [gap for gap in report.gaps if gap.range == half_hour(1)]
    assert not any("parked" in one for one in report.problems)


async def test_a_bundle_that_fails_later_in_the_same_range_is_a_new_problem(tmp_path):
    """Only what was open at the time is accepted."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1))
        await accepted(tmp_path, half_hour(0, 4))
        await park(sandbox, tmp_path, half_hour(2))
        summary = await run(sandbox, tmp_path, kind=Nightly, **RANGE)
        assert summary.exit_code is Exit.PARTIAL
        assert [one["start"] for one in summary.to_dict()["problems"]] == ["2026-01-01T21:00:00Z"]


async def test_an_accepted_kept_archive_is_no_longer_listed(tmp_path):
    """A bundle that kept its archive because far fewer rows came can be accepted, too."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, **RANGE)
        with LedgerReader(tmp_path) as reader:
            (first, *_) = list(reader.stored(EVENTS, ALL_TIME))
        ledger = await Ledger.open(tmp_path)
        kept = BundleRecord(first.bundle, 1, FewerRows(rows_before=30, rows_found=0), first.stored)
        await ledger.append(kept, at=sandbox.now)
        await ledger.close()
        assert len(status_of(sandbox, tmp_path).exports[0].open_parked) == 1
        await accepted(tmp_path, first.bundle.range)
        assert status_of(sandbox, tmp_path).exports[0].open_parked == ()
        summary = await run(sandbox, tmp_path, **RANGE)
        assert (summary.exit_code, summary.tally.stored_before) == (Exit.DONE, 4)


def test_a_joining_run_does_not_count_an_accepted_bundle():
    """It is neither parked nor left, so the run that waits for another one ends with 0."""
    parked = BundleRecord(Bundle(EVENTS, half_hour(1)), 0, Failed("it failed"))
    stored = RecordedRange((parked,), (half_hour(0), half_hour(2, 2)), 3)
    plan = ExportPlan(Export(EVENTS), half_hour(0, 4), stored, accepted_gaps=frozenset({parked.bundle}))
    assert progress_of(Share.of(plan), plan) == ShareProgress(stored=3)
    open_plan = replace(plan, accepted_gaps=frozenset())
    assert progress_of(Share.of(open_plan), open_plan) == ShareProgress(stored=3, left=1)


async def test_nothing_is_written_if_there_is_nothing_to_accept(tmp_path):
    """A bundle that reaches beyond the range stays open, and is reported."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1, 2))
        found = await accepted(tmp_path, half_hour(1))
        assert (found.spans, found.beyond) == ((), (half_hour(1, 2),))
        with LedgerReader(tmp_path) as ledger:
            assert ledger.accepted() == []


async def test_a_waiting_command_says_whom_it_waits_for_when_that_changes(tmp_path):
    """When another run has taken the lock, that is reported at once; a stop ends the wait."""
    waits, heard, stopped = list[Joining](), asyncio.Event(), asyncio.Event()

    def on_wait(event: Joining) -> None:
        waits.append(event)
        heard.set()

    with ExitStack() as stack:
        with hold(tmp_path, command="backfill"):
            wait = LockWait(on_wait, check_seconds=0.01)
            taking = asyncio.create_task(hold_or_wait(stack, tmp_path, command="audit", wait=wait, stopped=stopped))
            await heard.wait()
            heard.clear()
            # The same process takes over, as another run would do.
            (tmp_path / ".asyncexport" / "lock").write_bytes(
                orjson.dumps({"command": "nightly", "pid": os.getpid(), "host": gethostname(), "since": time.time()})
            )
            await heard.wait()
            stopped.set()
            assert await taking is None
        with hold(tmp_path, command="other"):
            pass
    assert [one.run.command for one in waits if one.run] == ["backfill", "nightly"]
    assert not any(one.has_share for one in waits)


async def test_accept_needs_a_ledger(tmp_path):
    """No directory is created."""
    with pytest.raises(LedgerError, match="has no ledger"):
        await accepted(tmp_path / "none", half_hour(1))
    assert not (tmp_path / "none").exists()


async def test_accept_does_not_write_during_a_run(tmp_path):
    """The error names the run that holds the directory."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1))
    with hold(tmp_path, command="nightly"), pytest.raises(LedgerLockedError, match="nightly, process"):
        await accepted(tmp_path, half_hour(1))


async def test_a_waiting_command_takes_the_lock_when_it_is_free(tmp_path):
    """What holds the lock is reported once, and the lock is released with the stack."""
    holding, waits, is_waiting = ExitStack(), list[Joining](), asyncio.Event()

    def on_wait(event: Joining) -> None:
        waits.append(event)
        is_waiting.set()

    holding.enter_context(hold(tmp_path, command="nightly"))
    with ExitStack() as stack:
        taking = asyncio.create_task(
            hold_or_wait(stack, tmp_path, command="accept", wait=LockWait(on_wait, check_seconds=0.01))
        )
        await is_waiting.wait()
        await asyncio.sleep(0.03)
        assert not taking.done()
        holding.close()
        assert await taking == ()
        with pytest.raises(LedgerLockedError, match="accept, process"), hold(tmp_path, command="other"):
            pass
    with hold(tmp_path, command="other"):
        assert len(waits) == 1
        assert "nightly, process" in waits[0].text
