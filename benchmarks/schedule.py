"""The schedule: makespan compared to a clairvoyant's, requests per bundle, first archive; and the same for peers.

1. Everything is simulated on a virtual clock, so the figures are the same on every machine. The scheduler, bundle
   runner, poller and budget are the real ones; the service is in memory and has a bucket of its own.
2. Durations are lognormal and drawn for each seed; the run knows nothing about them beforehand. The result is the
   median over the seeds, with the quartiles next to it.
3. The clairvoyant knows every duration, has the same bucket, limits and calls, and picks the best of many poll
   thresholds with hindsight. Each row also has its distance to a bound that no schedule can beat.
4. A backfill of 60 days follows the present: another bundle settles every half hour. Shown is how long it takes until
   that is stored, without the duration of its operation, and how much later the run ends than without the new bundles.
   Two figures explain that: how long the fewest requests for the new bundles take, which nothing can avoid, and how
   much later the run ends than one over the same bundles that were all due from the start: the cost of the order.
5. Peers get the same durations on the same service. They do not use the list; asyncexport is shown with and without it.
"""

import argparse
import json
import math
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import measuring
from clairvoyant import added_token_seconds, bound_seconds, clairvoyant_seconds, token_bound_seconds
from peers import PEERS

from asyncexport.core.admission import Prefer
from asyncexport.simulate.run import Result, Scenario, simulate

DAY, MONTH, YEAR = 48, 1_440, 8_760
"""Numbers of bundles: a day and a month of half-hours, a year of hours."""

MINUTES = (2, 10, 30)
SIGMAS = (0.5, 1.0)

OURS = "asyncexport"
FOLLOWING = "asyncexport, following the present"


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line options."""

    bundles: tuple[int, ...]
    seeds: int
    processes: int
    quick: bool
    only_following: bool


@dataclass(frozen=True, slots=True)
class Task:
    """One simulation of a peer, or the simulations of asyncexport with each `[polling] prefer`."""

    scenario: Scenario
    who: str = OURS


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of a task by `[polling] prefer`, with the clairvoyant's makespan and the bounds (0 for a peer)."""

    results: dict[Prefer, Result]
    clairvoyant: float = 0.0
    bound: float = 0.0
    tokens: float = 0.0


def main() -> None:
    """Run the benchmark."""
    asked = _asked()
    grid, peers = list(_grid(asked)), list(_peers(asked))
    tasks = sorted(
        (task for row in grid + peers for task in _seeds(row, asked)), key=lambda task: -task.scenario.bundles
    )
    done: dict[Task, Figures] = {}
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for row in _following(asked):
            _say(
                row,
                asked,
                list=row.scenario.lists,
                **_against_the_backlog(row.scenario, pool.map(_measure_following, _seeds(row, asked))),
            )
        for task, figures in pool.imap_unordered(_measure, () if asked.only_following else tasks):
            done[task] = figures
            if len(done) % 100 == 0:
                measuring.note(f"{len(done)} of {len(tasks)}")
            row = replace(task, scenario=replace(task.scenario, seed=0))
            these = [done[other] for other in _seeds(row, asked) if other in done]
            if row in grid and len(these) == asked.seeds:
                # Print each row as soon as it is complete: the benchmark may take hours and be interrupted.
                for prefer in Prefer:
                    _say(row, asked, prefer=prefer, **_against_the_clairvoyant(row, prefer, these))
    for row in () if asked.only_following else peers:
        _say(row, asked, **_against_ours(row, asked, done))


def _asked() -> Asked:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smoke run: a day of bundles and two seeds")
    parser.add_argument("--full", action="store_true", help="also simulate a year of bundles: two hours on two cores")
    parser.add_argument("--bundles", type=int, action="append", help="simulate only this number of bundles; repeatable")
    parser.add_argument("--seeds", type=int, default=0, help="number of seeds (default: 20, 2 with --quick)")
    parser.add_argument("--processes", type=int, default=0, help="number of processes (default: one per core)")
    parser.add_argument("--following", action="store_true", help="simulate only the backfill that follows the present")
    given = parser.parse_args()
    bundles = (DAY,) if given.quick else (DAY, MONTH, YEAR) if given.full else (DAY, MONTH)
    return Asked(
        tuple(given.bundles or bundles),
        given.seeds or (2 if given.quick else 20),
        given.processes or multiprocessing.cpu_count(),
        given.quick,
        given.following,
    )


def _grid(asked: Asked) -> Iterator[Task]:
    for bundles, counts_all, lists in product(asked.bundles, (True, False), (True, False)):
        for minutes, sigma in product(MINUTES, SIGMAS):
            yield Task(Scenario(bundles, minutes * 60.0, sigma, counts_all, lists, seed=0))


def _peers(asked: Asked) -> Iterator[Task]:
    """Yield the rows of the peers: operations of ten minutes, and no year, which would take as long as all the rest."""
    for bundles, counts_all in product((one for one in asked.bundles if one != YEAR), (True, False)):
        for who in PEERS:
            yield Task(Scenario(bundles, counts_all=counts_all, lists=False, seed=0), who)


def _following(asked: Asked) -> Iterator[Task]:
    """Yield the rows of a backfill that follows the present."""
    for counts_all, lists in product((False, True), (True, False)):
        bundles = DAY if asked.quick else 2 * MONTH
        yield Task(Scenario(bundles, counts_all=counts_all, lists=lists, settles=True, seed=0), FOLLOWING)


def _seeds(row: Task, asked: Asked) -> Iterator[Task]:
    """Yield the simulations of a row, one per seed."""
    for seed in range(1, asked.seeds + 1):
        yield replace(row, scenario=replace(row.scenario, seed=seed))


def _measure(task: Task) -> tuple[Task, Figures]:
    scenario = task.scenario
    if task.who != OURS:
        return task, Figures(dict.fromkeys(Prefer, PEERS[task.who](scenario)))
    results = {prefer: simulate(replace(scenario, prefer=prefer)) for prefer in Prefer}
    return task, Figures(results, clairvoyant_seconds(scenario), bound_seconds(scenario), token_bound_seconds(scenario))


def _measure_following(task: Task) -> tuple[Result, Result, Result]:
    """Return the results of a run that follows the present, of its planned bundles alone, and of all of them as old."""
    following = simulate(task.scenario)
    alone = replace(task.scenario, settles=False)
    return following, simulate(alone), simulate(replace(alone, bundles=following.stored))


def _against_the_backlog(scenario: Scenario, done: list[tuple[Result, Result, Result]]) -> dict[str, Any]:
    # A short run may be over before anything settles.
    waits = [
        sorted(one.settled_waits)[math.ceil(0.95 * len(one.settled_waits)) - 1] / 60 if one.settled_waits else 0.0
        for one, _, _ in done
    ]
    figures: dict[str, Any] = {
        "settled_during_the_run": measuring.spread([float(len(one.settled_waits)) for one, _, _ in done]),
        "settled_wait_minutes_95": measuring.spread(waits, digits=1),
        "x_planned_alone": _ratios([one.planned_makespan for one, _, _ in done], [one.makespan for _, one, _ in done]),
        "x_unavoidable": _ratios(
            [alone.makespan + added_token_seconds(scenario, one.stored) for one, alone, _ in done],
            [alone.makespan for _, alone, _ in done],
        ),
        "x_same_bundles": _ratios([one.makespan for one, _, _ in done], [one.makespan for _, _, one in done]),
    }
    goals = {"settled_wait_minutes_95": 60.0, "x_same_bundles": 1.03}
    return {
        **figures,
        "goals": {name: {"at_most": most, "met": figures[name]["median"] <= most} for name, most in goals.items()},
    }


def _against_the_clairvoyant(row: Task, prefer: Prefer, done: list[Figures]) -> dict[str, Any]:
    scenario = row.scenario
    results = [one.results[prefer] for one in done]
    makespans = [one.makespan for one in results]
    figures = {
        "makespan_hours": measuring.spread([seconds / 3600 for seconds in makespans], digits=2),
        "x_clairvoyant": _ratios(makespans, [one.clairvoyant for one in done]),
        "clairvoyant_x_bound": _ratios([one.clairvoyant for one in done], [one.bound for one in done]),
        "x_bound": _ratios(makespans, [one.bound for one in done]),
        "requests_a_bundle": measuring.spread([one.all_requests / scenario.bundles for one in results]),
        "first_archive_minutes": measuring.spread([one.first_archive / 60 for one in results], digits=1),
        "longest_wait_hours": measuring.spread([one.longest_wait / 3600 for one in results], digits=1),
    }
    if scenario.counts_all:
        figures["x_tokens"] = _ratios(makespans, [one.tokens for one in done])
    goals = {name: {"at_most": most, "met": figures[name]["median"] <= most} for name, most in _goals(scenario, prefer)}
    return {**figures, "refused": sum(one.refused for one in results), "goals": goals}


def _ratios(these: list[float], those: list[float]) -> dict[str, Any]:
    return measuring.spread([one / other for one, other in zip(these, those, strict=True)])


def _goals(scenario: Scenario, prefer: Prefer) -> Iterator[tuple[str, float]]:
    """Yield the goals for the medians of a row."""
    latency = prefer is Prefer.LATENCY
    yield "x_clairvoyant", 1.08 if scenario.bundles == DAY else 1.07 if latency else 1.03
    if scenario.bundles == MONTH and scenario.counts_all and scenario.median_seconds == 600 and scenario.sigma == 0.5:
        yield "requests_a_bundle", 2.08 if scenario.lists else 3.06
        if latency:
            yield "first_archive_minutes", 15.0 if scenario.lists else 30.0


def _against_ours(row: Task, asked: Asked, done: dict[Task, Figures]) -> dict[str, Any]:
    """Return the figures of a peer, and its makespan over asyncexport's with the same durations."""
    theirs = [done[task].results[Prefer.THROUGHPUT] for task in _seeds(row, asked)]
    makespans = [one.makespan for one in theirs]
    figures: dict[str, Any] = {
        "makespan_hours": measuring.spread([seconds / 3600 for seconds in makespans], digits=2),
        "requests_a_bundle": measuring.spread([one.all_requests / row.scenario.bundles for one in theirs]),
        "first_archive_minutes": measuring.spread([one.first_archive / 60 for one in theirs], digits=1),
    }
    for lists, prefer in product((True, False), Prefer):
        tasks = _seeds(Task(replace(row.scenario, lists=lists)), asked)
        ours = [done[task].results[prefer].makespan for task in tasks]
        figures[f"x_ours_{prefer.value}" + ("" if lists else "_no_list")] = _ratios(makespans, ours)
    return figures


def _say(row: Task, asked: Asked, *, prefer: Prefer | None = None, **figures: Any) -> None:
    scenario = row.scenario
    what = {
        "scope": "all" if scenario.counts_all else "create",
        "bundles": scenario.bundles,
        "median_minutes": scenario.median_seconds / 60,
        "sigma": scenario.sigma,
    }
    if prefer is not None:
        what |= {"list": scenario.lists, "prefer": prefer.value}
    line = {"benchmark": "schedule", "quick": asked.quick, "seeds": asked.seeds, "who": row.who, **what, **figures}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
