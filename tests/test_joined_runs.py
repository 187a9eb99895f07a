"""Nightly runs that find their directory in use, against a sandbox in the same process."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import asyncexport
from asyncexport.config import ApiKey, Settings
from asyncexport.core.bundles import DAY, HOUR, show
from asyncexport.core.exits import Exit
from asyncexport.core.health.report import StatusReport
from asyncexport.core.summary import Summary
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import Ledger, LedgerReader, begun_run, hold, hold_place, joined_runs
from asyncexport.monitor.metrics import MetricsFacts, metrics_text
from asyncexport.run.joining import JoinTimes, export_or_join
from asyncexport.run.spec import Nightly
from asyncexport.run.status import read_status
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.exporting import Notebook, archives, clock_of, rows_in, settings_for, truth
from tests.exporting import run as run_alone
from tests.json_lines import check

SERVICE = SandboxBehaviour(operation_seconds=0.03, rows_per_hour=20, requests_per_minute=1e6, burst=10_000)

QUICK = JoinTimes(tick=0.02, holder=0.01, report=0.05, longest=30.0, pause_per_reading=0)

WIDTH: dict[str, Any] = {"export": [{"bundle": "6h"}], "concurrency": {"operations": 2}}


def start_of(sandbox: Sandbox) -> int:
    """Return a day that is settled, with its next eleven days."""
    return int(sandbox.now) // DAY * DAY - 20 * DAY


async def join(
    sandbox: Sandbox,
    directory: Path,
    *,
    start: int = 0,
    days: float = 1,
    times: JoinTimes = QUICK,
    changes: dict[str, Any] | None = None,
    stop: Stop | None = None,
    viewer: Notebook | None = None,
    host_clock: Any = None,
    **fields: Any,
) -> Summary:
    """Join as a nightly run over the first days since `start_of`."""
    start = start or start_of(sandbox)
    settings = settings_for(sandbox, directory, {**WIDTH, "nightly": {"since": show(start)}, **(changes or {})})
    return await export_or_join(
        settings,
        Nightly(settings.exports, start + int(days * DAY), **fields),
        key=ApiKey(sandbox.key),
        stop=stop,
        listeners=() if viewer is None else (viewer.on_event,),
        host_clock=host_clock,
        times=times,
    )


async def backfill(sandbox: Sandbox, directory: Path, *, days: float, **more: Any) -> Summary:
    """Run a backfill over the first days since `start_of`."""
    start = start_of(sandbox)
    return await run_alone(
        sandbox, directory, changes=WIDTH, start=show(start), end=show(start + int(days * DAY)), **more
    )


@asynccontextmanager
async def holding(sandbox: Sandbox, directory: Path, *, days: float) -> AsyncIterator["asyncio.Task[Summary]"]:
    """Run a backfill that holds the directory from the beginning of the block on."""
    viewer = Notebook()
    task = asyncio.create_task(backfill(sandbox, directory, days=days, viewer=viewer))
    try:
        while not viewer.snapshots:  # noqa: ASYNC110 - the watch has no event
            await asyncio.sleep(0.001)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def status_of(settings: Settings) -> StatusReport:
    """Return what `status` reports."""
    with LedgerReader(settings.output.directory) as ledger:
        return read_status(settings, ledger, names=(), now=time.time(), again=lambda *_: "", max_behind=40 * DAY)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the directory without a run."""
    with hold(directory, command="backfill"):
        yield


async def test_it_returns_when_its_own_range_is_stored(tmp_path):
    """It ends before the other run does, with its own summary, and no bundle is requested twice."""
    viewer = Notebook()
    async with serving(SERVICE) as sandbox, holding(sandbox, tmp_path, days=10) as holder:
        summary = await join(sandbox, tmp_path, viewer=viewer)
        assert not holder.done()
        assert (await holder).exit_code is Exit.DONE
        assert sandbox.counts["create"] == 40
    said = check(summary.to_dict())
    assert (said["command"], said["exit_code"], said["joined"]["command"]) == ("nightly", 0, "backfill")
    assert said["bundles"] == {"planned": 4, "already": 4, "stored": 0, "empty": 0, "failed": 0, "unfinished": 0}
    assert sum(said["requests"].values()) == 0
    first, *_ = viewer.of("joining")
    assert (first["command"], first["pid"]) == ("backfill", said["joined"]["pid"])
    assert {event["planned"] for event in viewer.of("joining")} <= {None, 4}


async def test_beside_a_long_backfill_new_data_comes_first(tmp_path):
    """A backfill without an end stores the newest bundles first, so a nightly run need not wait for the old ones."""
    async with serving(SERVICE) as sandbox:
        start = start_of(sandbox)
        viewer = Notebook()
        long = run_alone(sandbox, tmp_path, changes=WIDTH, start=show(start), end=None, viewer=viewer)
        holder = asyncio.create_task(long)
        while not viewer.snapshots:  # noqa: ASYNC110 - the watch has no event
            await asyncio.sleep(0.001)
        settings = settings_for(sandbox, tmp_path, {**WIDTH, "nightly": {"since": show(start + 18 * DAY)}})
        summary = await export_or_join(settings, Nightly(settings.exports), key=ApiKey(sandbox.key), times=QUICK)
        stored = len(archives(tmp_path))
        assert (summary.exit_code, holder.done()) == (Exit.DONE, False)
        everything = (await holder).tally.stored
    assert 2 <= summary.tally.stored_before <= stored < everything


async def test_it_takes_over_when_the_other_run_ends_early(tmp_path):
    """What the other run has left is resumed: no bundle is requested twice, and every row is stored."""
    async with serving(SERVICE) as sandbox:
        async with holding(sandbox, tmp_path, days=10) as holder:
            joiner = asyncio.create_task(join(sandbox, tmp_path, days=10))
            while len(archives(tmp_path)) < 5:  # noqa: ASYNC110 - written by the other run
                await asyncio.sleep(0.005)
            holder.cancel()
            summary = await joiner
        assert summary.exit_code is Exit.DONE
        assert summary.joined is not None
        assert summary.tally.stored + summary.tally.stored_before == 40
        assert sandbox.counts["create"] <= 40 + summary.tally.possible_duplicates
        start = start_of(sandbox)
        assert rows_in(tmp_path) == truth(sandbox, show(start), show(start + 10 * DAY))


async def test_it_does_what_the_other_run_leaves_out(tmp_path):
    """A backfill does not refresh, so the nightly run waits for the lock, and then refreshes."""
    async with serving(SERVICE) as sandbox:
        start = start_of(sandbox)
        # Above the ages at which the bundles are exported first, below their ages 23 hours later.
        age = sandbox.now - start - 2 * HOUR
        await backfill(sandbox, tmp_path, days=1)
        # The clocks were compared less than a day ago.
        sandbox.skip(23 * HOUR)
        with held(tmp_path):
            viewer = Notebook()
            more: dict[str, Any] = {"start": start, "host_clock": clock_of(sandbox), "viewer": viewer}
            joiner = asyncio.create_task(join(sandbox, tmp_path, refresh_ages=(age,), **more))
            while len(viewer.of("joining")) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not joiner.done()
        summary = await joiner
    assert {event["left"] for event in viewer.of("joining")} == {4}
    assert (summary.exit_code, summary.tally.refreshed.bundles) == (Exit.DONE, 4)


async def test_a_parked_bundle_does_not_keep_it_waiting(tmp_path):
    """It ends with the exit code of unfinished work and the problem of the bundle, without a request of its own."""
    async with serving(replace(SERVICE, faults=(SandboxFault.parse("operation:FAILED,nth=2"),))) as sandbox:
        changes = {**WIDTH, "retry": {"attempts": 1}}
        start = start_of(sandbox)
        await run_alone(sandbox, tmp_path, changes=changes, start=show(start), end=show(start + DAY))
        sandbox.reset_counts()
        with held(tmp_path):
            summary = await join(sandbox, tmp_path)
        assert sum(sandbox.counts.values()) == 0
    said = check(summary.to_dict())
    assert (said["exit_code"], said["bundles"]["failed"], said["bundles"]["already"]) == (3, 1, 3)
    assert "next_try" in said["problems"][0]


async def test_a_holder_that_seems_gone_is_joined_all_the_same(tmp_path):
    """The lock counts: in a container the process of the other run may be invisible."""
    async with serving(SERVICE) as sandbox:
        await backfill(sandbox, tmp_path, days=1)
        with held(tmp_path):
            os.truncate(tmp_path / ".asyncexport" / "lock", 0)
            summary = await join(sandbox, tmp_path)
    assert (summary.exit_code, summary.tally.stored_before, summary.joined) == (Exit.DONE, 4, None)


async def test_shortfalls_in_its_range_are_reported(tmp_path):
    """They are those of an ordinary run over the same range, and with `[sentinel] fail` they decide the exit code.

    That also holds for a wait that ends after `--max-duration`, with work left.
    """
    async with serving(replace(SERVICE, rows_per_hour=1e-9)) as sandbox:
        start = start_of(sandbox) - 40 * DAY
        alone = await run_alone(sandbox, tmp_path, changes=WIDTH, start=show(start), end=show(start + 8 * DAY))
        fail = {"sentinel": {"fail": True}}
        with held(tmp_path):
            codes = [
                (await join(sandbox, tmp_path, start=start, changes=changes, **more)).exit_code
                for more in ({"days": 8}, {"days": 9, "max_duration_seconds": 0.1})
                for changes in ({}, fail)
            ]
            summary = await join(sandbox, tmp_path, start=start, days=8)
    assert alone.tally.shortfalls
    assert summary.tally.shortfalls == alone.tally.shortfalls
    assert codes == [Exit.DONE, Exit.PARTIAL, Exit.TIME_UP, Exit.PARTIAL]


async def test_only_one_run_waits(tmp_path):
    """A second one ends immediately and reports both others."""
    async with serving(SERVICE) as sandbox:
        with held(tmp_path), hold_place(tmp_path, command="nightly"):
            summary = await join(sandbox, tmp_path)
    assert summary.exit_code is Exit.LOCKED
    assert str(summary.error).count("process") == 2
    assert "a second one already waits for it: nightly, process " in str(summary.error)


async def test_another_run_may_wait_for_a_run_that_has_joined(tmp_path):
    """A run that has taken over no longer counts as waiting."""
    async with serving(SERVICE) as sandbox:
        with held(tmp_path):
            viewer = Notebook()
            first = asyncio.create_task(join(sandbox, tmp_path, days=10, viewer=viewer))
            while not viewer.of("joining"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        while not viewer.of("stored"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        second = await join(sandbox, tmp_path, days=0.5)
        assert (second.exit_code, second.joined is not None) == (Exit.DONE, True)
        assert (await first).exit_code is Exit.DONE


async def test_status_and_metrics_know_of_a_joined_run(tmp_path):
    """It counts as the last run while the other one continues; if that one was then killed, that counts."""
    async with serving(SERVICE) as sandbox:
        start, clock = start_of(sandbox), clock_of(sandbox)
        await backfill(sandbox, tmp_path, days=1)
        settings = settings_for(sandbox, tmp_path, {**WIDTH, "nightly": {"since": show(start)}})
        ledger = await Ledger.open(tmp_path)
        ledger.begin_run(begun_run("backfill", at=sandbox.now))
        await ledger.close()
        with held(tmp_path):
            await join(sandbox, tmp_path, host_clock=clock)
            running = status_of(settings)
        killed = status_of(settings)
    assert [(run.command, run.exit_code, run.running) for run in running.runs[-2:]] == [
        ("nightly", 0, False),
        ("backfill", None, True),
    ]
    joined = running.runs[-2]
    assert joined.joined is not None
    assert (joined.joined.command, joined.joined.pid) == ("backfill", os.getpid())
    assert joined.counts["bundles"]["already"] == 4
    assert "the last run (nightly) ended well" in running.verdict.reason
    assert "the last run (backfill) started at" in killed.verdict.reason
    text = metrics_text(MetricsFacts("d", sandbox.now, report=running)).decode()
    (success,) = re.findall(r'last_success_timestamp_seconds\{command="nightly",directory="d"\} (\S+)', text)
    assert float(success) == joined.ended


async def test_a_waiting_run_is_in_progress_and_a_killed_one_is_not(tmp_path):
    """A run that takes over has its row in the ledger, and no other record."""
    async with serving(SERVICE) as sandbox:
        start = start_of(sandbox)
        await backfill(sandbox, tmp_path, days=0.5)
        settings = settings_for(sandbox, tmp_path, {**WIDTH, "nightly": {"since": show(start)}})
        with held(tmp_path):
            viewer = Notebook()
            killed = asyncio.create_task(join(sandbox, tmp_path, viewer=viewer))
            while not viewer.of("joining"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            waiting = status_of(settings).runs[-1]
            # A cancelled task leaves what a killed process leaves.
            killed.cancel()
            await asyncio.wait([killed])
            left = status_of(settings)
            viewer = Notebook()
            joiner = asyncio.create_task(join(sandbox, tmp_path, viewer=viewer))
            while not viewer.of("joining"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert (await joiner).exit_code is Exit.DONE
    assert (waiting.command, waiting.ended, waiting.running) == ("nightly", None, True)
    assert not left.runs[-1].running
    assert "the last run (nightly) started at" in left.verdict.reason
    assert [one.ended for one in joined_runs(tmp_path)] == [None]
    assert [(run.joined is None, run.exit_code) for run in status_of(settings).runs] == [
        (True, Exit.DONE),
        (False, None),
        (True, Exit.DONE),
    ]


async def test_a_run_joins_a_rebuild_of_the_ledger(tmp_path):
    """As long as the rebuild holds the lock, the missing ledger is no error; if it was killed, it is one."""
    async with serving(SERVICE) as sandbox:
        await backfill(sandbox, tmp_path, days=1)
        for path in (tmp_path / ".asyncexport").glob("ledger*"):
            path.unlink()
        with hold(tmp_path, command="verify --rebuild"):
            viewer = Notebook()
            joiner = asyncio.create_task(join(sandbox, tmp_path, viewer=viewer))
            while not viewer.of("joining"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert not joiner.done()
        summary = await joiner
    assert (summary.exit_code, summary.joined is None) == (Exit.LEDGER, False)
    assert "contains archives but no ledger" in str(summary.error)


async def test_max_duration_ends_the_wait(tmp_path):
    """The exit code says that work is left, and the summary how much."""
    async with serving(SERVICE) as sandbox:
        await backfill(sandbox, tmp_path, days=0.5)
        with held(tmp_path):
            summary = await join(sandbox, tmp_path, max_duration_seconds=0.1)
    assert (summary.exit_code, summary.error) == (Exit.TIME_UP, None)
    assert (summary.tally.stored_before, summary.tally.unfinished) == (2, 2)


async def test_without_max_duration_the_wait_ends_after_a_day(tmp_path):
    """It ends as if it had not waited, and says how long it did."""
    async with serving(SERVICE) as sandbox:
        with held(tmp_path):
            summary = await join(sandbox, tmp_path, times=replace(QUICK, longest=0.1))
    assert summary.exit_code is Exit.LOCKED
    assert str(summary.error).startswith(f"waited 100 ms for {tmp_path}, which another run still holds: backfill")
    assert JoinTimes().longest == DAY


@pytest.mark.parametrize("reason", [Exit.INTERRUPTED, Exit.TERMINATED])
async def test_a_signal_ends_the_wait_immediately(tmp_path, reason):
    """Even if the next check is far away."""
    stop = Stop()
    async with serving(SERVICE) as sandbox:
        with held(tmp_path):
            viewer = Notebook()
            joiner = asyncio.create_task(join(sandbox, tmp_path, times=JoinTimes(60, 60, 60), stop=stop, viewer=viewer))
            while not viewer.of("joining"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            stop.ask(reason)
            async with asyncio.timeout(5):
                summary = await joiner
    assert summary.exit_code is reason


async def test_another_definition_ends_the_wait(tmp_path):
    """It is reported immediately, and not only when the lock is free."""
    async with serving(SERVICE) as sandbox:
        await backfill(sandbox, tmp_path, days=0.5)
        with held(tmp_path):
            summary = await join(sandbox, tmp_path, changes={"export": [{"bundle": "6h", "format": "csv"}]})
    assert summary.exit_code is Exit.LEDGER


async def test_without_the_time_of_the_service_only_the_lock_counts(tmp_path):
    """A clock that was not compared for a day could be wrong, and the range end too early."""
    async with serving(SERVICE) as sandbox:
        start = start_of(sandbox)
        await backfill(sandbox, tmp_path, days=1)
        sandbox.skip(2 * DAY)
        viewer = Notebook()
        with held(tmp_path):
            more: dict[str, Any] = {"start": start, "host_clock": clock_of(sandbox), "viewer": viewer}
            joiner = asyncio.create_task(join(sandbox, tmp_path, **more))
            while len(viewer.of("joining")) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not joiner.done()
        assert (await joiner).exit_code is Exit.DONE
    assert {event["planned"] for event in viewer.of("joining")} == {None}


async def test_a_program_can_choose_not_to_join(tmp_path):
    """`join=False` ends with the exit code for a directory in use."""
    async with serving(SERVICE) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        with held(tmp_path):
            summary = await asyncexport.nightly(settings, key=sandbox.key, join=False)
            waited = await asyncexport.nightly(settings, key=sandbox.key, max_duration=0.05)
    assert (summary.exit_code, waited.exit_code) == (Exit.LOCKED, Exit.TIME_UP)
    assert (summary.joined, waited.joined is None) == (None, False)
