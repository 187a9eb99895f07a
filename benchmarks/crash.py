"""Crashes: kills the exporter a thousand times, at every kind of write and at random times, and counts what is lost.

A scene is one output directory and one service. In each scene one or more runs are killed, the last run is not, and
then all rows are compared with the truth. Every third service has faults as well. Where a file system can be mounted,
power cuts are simulated too: data that was not flushed is lost or torn.

The runs and checks are those of `tests/test_crash.py` and `tests/test_power_cut.py`, only more of them.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

import measuring

sys.path.insert(0, str(Path(__file__).parents[1]))

from asyncexport.sandbox import SandboxFault
from tests.crash_rig import Driver, Findings, Scene, scene
from tests.power_cut_disk import Disk
from tests.power_cut_fs import unavailable_reason

KILLS, KILLS_QUICK = 1_000, 20
CUTS, CUTS_QUICK = 300, 6
TROUBLE = (SandboxFault("api", "503", chance=0.1), SandboxFault("download", "cut-length", chance=0.3))
"""The faults of every third service."""

WORKERS = 2
PROGRESS_EVERY = 100
SEED = 1


@dataclass(slots=True)
class Totals:
    """The totals over all scenes."""

    kills: int = 0
    at: Counter[str] = field(default_factory=Counter)
    scenes: int = 0
    in_flight: int = 0
    extra_exports: int = 0
    found: Counter[str] = field(default_factory=Counter)

    def take(self, one: Scene) -> None:
        """Add a finished scene."""
        self.kills += one.kills
        self.scenes += 1
        self.in_flight += one.in_flight
        self.extra_exports += one.extra_exports
        if self.scenes % PROGRESS_EVERY == 0:
            measuring.note(f"{self.kills} kills or power cuts so far")
        for name in (one.name for one in fields(Findings)):
            found = getattr(one.findings, name)
            self.found[name] += len(found) if isinstance(found, list) else found

    def to_dict(self) -> dict[str, int]:
        """Return the totals as they are printed."""
        return {
            "count": self.kills,
            "at_writes": self.at.total(),
            "kinds_of_write": len(self.at),
            "scenes": self.scenes,
            "creates_in_flight": self.in_flight,
            "extra_exports": self.extra_exports,
            **{name: self.found[name] for name in (one.name for one in fields(Findings))},
        }


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The measurements of a run without kills: its duration, its writes and its changes of the disk."""

    seconds: float
    writes: int
    changes: int


def main() -> None:
    """Kill, cut the power, and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smoke run with a few kills and power cuts")
    parser.add_argument("--kills", type=int, help=f"least number of kills (default: {KILLS})")
    parser.add_argument("--cuts", type=int, help=f"least number of power cuts (default: {CUTS})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of the random numbers (default: {SEED})")
    asked = parser.parse_args()
    kills = asked.kills if asked.kills is not None else KILLS_QUICK if asked.quick else KILLS
    cuts = asked.cuts if asked.cuts is not None else CUTS_QUICK if asked.quick else CUTS
    began = time.monotonic()
    killed, cut = asyncio.run(kill_and_cut(kills, 0 if unavailable_reason() else cuts, asked.seed))
    result = {
        "benchmark": "crash",
        "quick": asked.quick,
        "seed": asked.seed,
        "kills": killed.to_dict(),
        "power_cuts": cut.to_dict() if cut.kills else unavailable_reason(),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))
    if killed.found.total() or cut.found.total():
        sys.exit("a promise was broken: see `kills` and `power_cuts` in the output")


async def kill_and_cut(kills: int, cuts: int, seed: int) -> tuple[Totals, Totals]:
    """Run all scenes in two workers; return the totals of the kills and of the power cuts."""
    killed, cut = Totals(), Totals()

    async def work(number: int) -> None:
        chance = random.Random(seed * WORKERS + number)
        with Driver() as driver:
            undisturbed = await undisturbed_run(driver, is_on_disk=cuts > 0)
            while killed.kills < kills:
                await kill_some(driver, undisturbed, chance, killed)
            while cut.kills < cuts:
                await cut_some(driver, undisturbed, chance, cut)

    async with asyncio.TaskGroup() as workers:
        for number in range(WORKERS):
            workers.create_task(work(number))
    return killed, cut


async def undisturbed_run(driver: Driver, *, is_on_disk: bool) -> Undisturbed:
    """Measure how long a run takes, and how many writes and changes of the disk it makes."""
    async with scene(driver) as one:
        await one.run()
    async with scene(driver) as one:
        began = time.monotonic()
        outcome = await one.run()
        seconds = time.monotonic() - began
    changes = 0
    if is_on_disk:
        async with scene(driver) as one:
            _, changes = await one.run_on(Disk())
    return Undisturbed(seconds, len(outcome.boundaries), changes)


async def kill_some(driver: Driver, undisturbed: Undisturbed, chance: random.Random, totals: Totals) -> None:
    """Kill one to three runs in a row, half of them right at a write."""
    async with scene(driver, *(TROUBLE if chance.random() < 1 / 3 else ())) as one:
        for _ in range(chance.choice((1, 1, 2, 3))):
            if chance.random() < 0.5:
                outcome = await one.run(kill_at=("", chance.randrange(1, undisturbed.writes)))
                totals.at.update([outcome.killed_at] if outcome.killed_at else [])
            else:
                await one.run(kill_after=chance.uniform(0.0, undisturbed.seconds))
        await one.finish()
        totals.take(one)


async def cut_some(driver: Driver, undisturbed: Undisturbed, chance: random.Random, totals: Totals) -> None:
    """Cut the power in one to three runs in a row; some or none of the data that was not flushed survives."""
    async with scene(driver) as one:
        disk = Disk()
        for _ in range(chance.choice((1, 1, 2, 3))):
            await one.run_on(disk, cut_before=chance.randrange(1, undisturbed.changes))
            tree = disk.after_power_cut(chance if chance.random() < 0.7 else None)
            await one.restore(tree)
            disk = Disk(tree)
        await one.finish()
        totals.take(one)


if __name__ == "__main__":
    main()
