"""The first write fails, the second, the third …; and so does every exchange with the service: no run hangs or lies."""

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
    pytest.mark.skipif(sys.platform != "linux", reason="processes are held by handles that Linux alone has"),
]

DEADLINE_SECONDS = 120.0
"""A run takes the hundredth part of it, on a busy machine the tenth."""

WORDS = {True: ("ledger full", "ledger broken"), False: ("full", "broken")}
"""What the disk says in turn, of the ledger and of all else."""

ON_THE_WIRE = ("reset", "500", "garbage", "html", "cut-length", "broken-json", "429")


@pytest.fixture(scope="module")
def faults(tell) -> Iterator[Counter[str]]:
    injected: Counter[str] = Counter()
    yield injected
    tell(f"fault loop: {injected.total()} faults, {injected['disk']} of the disk and {injected['wire']} on the wire")


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Driver]]:
    """Two, for runs side by side: while one waits for the service, another may write."""
    with Driver() as one, Driver() as other:
        yield [one, other]


@pytest.mark.timeout(900)
async def test_whichever_write_fails_the_run_says_so_and_the_next_one_finishes(drivers, faults):
    """A disk that is full or broken ends the run with its exit code, and with a ledger that is true."""
    async with scene(drivers[0]) as one:
        writes = Writes(await one.run())

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            kind, number = write
            word = WORDS[kind.startswith("ledger")][number % 2]
            async with scene(driver) as one:
                outcome = await one.run(fail_at=write, fail_with=word, kill_after=DEADLINE_SECONDS)
                if not outcome.failed_at:
                    assert outcome.exit_code == Exit.DONE
                    writes.no_more(write)
                    continue
                assert outcome.exit_code == Exit.DISK, (write, word, outcome)
                await one.finish()
                assert one.findings == Findings(), (write, word)
                faults["disk"] += 1

    await asyncio.gather(*map(take_turns, drivers))


@pytest.mark.timeout(900)
async def test_whichever_exchange_fails_the_run_gets_over_it(drivers, faults):
    """A fault that befalls one request is one that the run itself recovers from, whichever request it is."""
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
