"""The schedule: makespan over a clairvoyant's, requests a bundle, the first archive; and the same for its peers.

1. Everything is simulated, on a clock that jumps: the figures are the same on every machine. What is run is the real
   scheduler, carrier, watcher and budget; the service is in memory, and keeps a bucket of its own.
2. Durations are lognormal and drawn anew for each seed; nothing is known of them beforehand. What counts is the median
   over the seeds, with the quartiles beside it.
3. The clairvoyant knows every duration, has the same bucket, room and calls, and the best of many patiences with
   hindsight. Its own distance to what no schedule can beat stands in the row.
4. Peers meet the same durations on the same service. They know no list; ours is shown with it and without.
"""

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import measuring

from asyncexport.core.pacing import Prefer
from asyncexport.simulate.clairvoyant import bound_seconds, clairvoyant_seconds, token_bound_seconds
from asyncexport.simulate.peers import PEERS
from asyncexport.simulate.run import Result, Scenario, simulate

DAY, MONTH, YEAR = 48, 1_440, 8_760
"""Bundles: a day and a month of half hours, a year of hours."""

MINUTES = (2, 10, 30)
SIGMAS = (0.5, 1.0)

OURS = "asyncexport"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    bundles: tuple[int, ...]
    seeds: int
    processes: int
    quick: bool


@dataclass(frozen=True, slots=True)
class Task:
    """One simulation: of ours, or of a peer."""

    scenario: Scenario
    who: str = OURS


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of one; the clairvoyant's makespan and the bounds are in seconds, and 0 beside a peer."""

    result: Result
    clairvoyant: float = 0.0
    bound: float = 0.0
    tokens: float = 0.0


def main() -> None:
    """Measure."""
    asked = _asked()
    grid, peers = list(_grid(asked)), list(_peers(asked))
    tasks = sorted(
        (task for row in grid + peers for task in _seeds(row, asked)), key=lambda task: -task.scenario.bundles
    )
    done: dict[Task, Figures] = {}
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for task, figures in pool.imap_unordered(_measure, tasks):
            done[task] = figures
            if len(done) % 100 == 0:
                measuring.note(f"{len(done)} of {len(tasks)}")
    for row in grid:
        _say(row, asked, **_against_the_clairvoyant(row, [done[task] for task in _seeds(row, asked)]))
    for row in peers:
        _say(row, asked, **_against_ours(row, asked, done))


def _asked() -> Asked:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a day of bundles and two seeds; no figures to keep")
    parser.add_argument("--full", action="store_true", help="a year of bundles as well: half an hour on two cores")
    parser.add_argument("--seeds", type=int, default=0, help="how many (default: 20, 2 with --quick)")
    parser.add_argument("--processes", type=int, default=0, help="how many (default: one a core)")
    given = parser.parse_args()
    bundles = (DAY,) if given.quick else (DAY, MONTH, YEAR) if given.full else (DAY, MONTH)
    return Asked(
        bundles,
        given.seeds or (2 if given.quick else 20),
        given.processes or multiprocessing.cpu_count(),
        given.quick,
    )


def _grid(asked: Asked) -> Iterator[Task]:
    for bundles, counts_all, lists, prefer in product(asked.bundles, (True, False), (True, False), Prefer):
        for minutes, sigma in product(MINUTES, SIGMAS):
            yield Task(Scenario(bundles, minutes * 60.0, sigma, counts_all, lists, prefer, seed=0))


def _peers(asked: Asked) -> Iterator[Task]:
    """At ten minutes; of a year, a peer would take as long as all the rest."""
    for bundles, counts_all in product((one for one in asked.bundles if one != YEAR), (True, False)):
        for who in PEERS:
            yield Task(Scenario(bundles, counts_all=counts_all, lists=False, seed=0), who)


def _seeds(row: Task, asked: Asked) -> Iterator[Task]:
    """The simulations of a row."""
    for seed in range(1, asked.seeds + 1):
        yield replace(row, scenario=replace(row.scenario, seed=seed))


def _measure(task: Task) -> tuple[Task, Figures]:
    scenario = task.scenario
    if task.who != OURS:
        return task, Figures(PEERS[task.who](scenario))
    return task, Figures(
        simulate(scenario), clairvoyant_seconds(scenario), bound_seconds(scenario), token_bound_seconds(scenario)
    )


def _against_the_clairvoyant(row: Task, done: list[Figures]) -> dict[str, Any]:
    scenario = row.scenario
    figures = {
        "makespan_hours": measuring.spread([one.result.makespan / 3600 for one in done], digits=2),
        "x_clairvoyant": measuring.spread([one.result.makespan / one.clairvoyant for one in done]),
        "clairvoyant_x_bound": measuring.spread([one.clairvoyant / one.bound for one in done]),
        "x_bound": measuring.spread([one.result.makespan / one.bound for one in done]),
        "requests_a_bundle": measuring.spread([one.result.all_requests / scenario.bundles for one in done]),
        "first_archive_minutes": measuring.spread([one.result.first_archive / 60 for one in done], digits=1),
        "longest_wait_hours": measuring.spread([one.result.longest_wait / 3600 for one in done], digits=1),
    }
    if scenario.counts_all:
        figures["x_tokens"] = measuring.spread([one.result.makespan / one.tokens for one in done])
    goals = {name: {"at_most": most, "met": figures[name]["median"] <= most} for name, most in _goals(scenario)}
    return {**figures, "refused": sum(one.result.refused for one in done), "goals": goals}


def _goals(scenario: Scenario) -> Iterator[tuple[str, float]]:
    """What was set out to be reached, by medians."""
    latency = scenario.prefer is Prefer.LATENCY
    yield "x_clairvoyant", 1.08 if scenario.bundles == DAY else 1.07 if latency else 1.03
    if scenario.bundles == MONTH and scenario.counts_all and scenario.median_seconds == 600 and scenario.sigma == 0.5:
        yield "requests_a_bundle", 2.08 if scenario.lists else 3.06
        if latency:
            yield "first_archive_minutes", 15.0 if scenario.lists else 30.0


def _against_ours(row: Task, asked: Asked, done: dict[Task, Figures]) -> dict[str, Any]:
    """A peer, and how much longer it takes than we do for the same durations."""
    theirs = [done[task].result for task in _seeds(row, asked)]
    figures: dict[str, Any] = {
        "makespan_hours": measuring.spread([one.makespan / 3600 for one in theirs], digits=2),
        "requests_a_bundle": measuring.spread([one.all_requests / row.scenario.bundles for one in theirs]),
        "first_archive_minutes": measuring.spread([one.first_archive / 60 for one in theirs], digits=1),
    }
    for lists, prefer in product((True, False), Prefer):
        ours = [done[task].result for task in _seeds(Task(replace(row.scenario, lists=lists, prefer=prefer)), asked)]
        ratios = [them.makespan / us.makespan for them, us in zip(theirs, ours, strict=True)]
        figures[f"x_ours_{prefer.value}" + ("" if lists else "_no_list")] = measuring.spread(ratios, digits=2)
    return figures


def _say(row: Task, asked: Asked, **figures: Any) -> None:
    scenario = row.scenario
    what = {
        "scope": "all" if scenario.counts_all else "create",
        "bundles": scenario.bundles,
        "median_minutes": scenario.median_seconds / 60,
        "sigma": scenario.sigma,
    }
    if row.who == OURS:
        what |= {"list": scenario.lists, "prefer": scenario.prefer.value}
    line = {"benchmark": "schedule", "quick": asked.quick, "seeds": asked.seeds, "who": row.who, **what, **figures}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
