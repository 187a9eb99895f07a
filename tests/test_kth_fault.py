"""Each write and each request of a run fails once, one after the other: no run hangs or leaves wrong data."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from asyncexport.core.summary import Exit
from asyncexport.sandbox import SandboxFault
from tests.crash_rig import BEHAVIOUR, Driver, Findings, Writes, scene

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the test processes need features of Linux"),
]

DEADLINE_SECONDS = 120.0
"""Limit for a run, which usually takes a hundredth of it and a tenth on a busy machine."""

DISK_FAULTS = {True: ("ledger full", "ledger broken"), False: ("full", "broken")}
"""Alternating disk faults: of the ledger (True) and of all other files."""

ON_THE_WIRE = ("reset", "500", "garbage", "html", "cut-length", "broken-json", "429")


@pytest.fixture(scope="module")
def faults(summary_line) -> Iterator[Counter[str]]:
    injected: Counter[str] = Counter()
    yield injected
    summary_line(
        f"fault loop: {injected.total()} faults, {injected['disk']} of the disk and {injected['wire']} on the wire"
    )


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Driver]]:
    """Two drivers, so that one run can write while the other waits for the service."""
    with Driver() as one, Driver() as other:
        yield [one, other]


@pytest.mark.timeout(900)
async def test_a_failed_write_ends_the_run_and_the_next_one_finishes(drivers, faults):
    """A full or broken disk ends the run with its exit code, and the ledger stays correct."""
    async with scene(drivers[0]) as one:
        writes = Writes(await one.run())

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            kind, number = write
            disk_fault = DISK_FAULTS[kind.startswith("ledger")][number % 2]
            async with scene(driver) as one:
                outcome = await one.run(fail_at=write, fail_with=disk_fault, kill_after=DEADLINE_SECONDS)
                if not outcome.failed_at:
                    assert outcome.exit_code == Exit.DONE
                    writes.exhausted(write)
                    continue
                assert outcome.exit_code == Exit.DISK, (write, disk_fault, outcome)
                await one.finish()
                assert one.findings == Findings(), (write, disk_fault)
                faults["disk"] += 1

    await asyncio.gather(*map(take_turns, drivers))


@pytest.mark.timeout(900)
async def test_a_run_recovers_from_a_failure_of_any_single_request(drivers, faults):
    """Whichever request fails, the run completes by itself."""
    numbers = dict.fromkeys(ON_THE_WIRE, 1)

    async def take_turns(driver: Driver) -> None:
        while numbers:
            what, number = next(iter(numbers.items()))
            numbers[what] += 1
            fault = SandboxFault(where="any", what=what, nth=number, retry_after="zero" if what == "429" else "")
            async with scene(driver, fault) as one:
                outcome = await one.run(kill_after=DEADLINE_SECONDS)
                assert outcome.exit_code == Exit.DONE, (fault, outcome)
                if sum(one.sandbox.counts.values()) < number:
                    numbers.pop(what, None)
                    continue
                one.sandbox.behave(BEHAVIOUR)
                one.sandbox.reset_counts()
                await one.finish()
                assert not any(one.sandbox.counts.values()), fault
                assert one.findings == Findings(), fault
                faults["wire"] += 1

    await asyncio.gather(*map(take_turns, drivers))
