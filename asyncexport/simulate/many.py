"""Runs many simulations on all cores.

1. A few small simulations run in this process, since starting another one would take longer.
2. A worker process holds nothing but its end of a pipe. If this process dies, the pipe is closed and the worker ends;
   if a worker dies, this process notices it in the same way.
"""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from asyncexport.simulate.run import Result, Scenario, simulate

FEW_BUNDLES = 2_000
"""Number of bundles that take about two seconds to simulate in this process."""


def simulate_all(scenarios: Sequence[Scenario], *, processes: int | None = None) -> list[Result]:
    """Simulate all scenarios, equal ones only once, and return their results in the same order.

    Args:
        scenarios: The scenarios.
        processes: Number of processes; None for as many as there are cores, if that saves time.

    Raises:
        RuntimeError: a worker process has died.
    """
    different = sorted(dict.fromkeys(scenarios), key=lambda one: -one.bundles)
    if processes is None:
        pays = len(different) > 1 and sum(one.bundles for one in different) > FEW_BUNDLES
        processes = min(os.cpu_count() or 1, len(different)) if pays else 1
    results = _spread(different, processes) if processes > 1 else [simulate(one) for one in different]
    found = dict(zip(different, results, strict=True))
    return [found[one] for one in scenarios]


def _spread(scenarios: Sequence[Scenario], processes: int) -> list[Result]:
    """Distribute the scenarios: each process gets the next one when it has finished the last."""
    context = multiprocessing.get_context("spawn")
    results: dict[int, Result] = {}
    waiting = list(enumerate(scenarios))[::-1]
    workers = {}
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            workers[ours] = process
            _give(ours, waiting)
        while len(results) < len(scenarios):
            ready = wait(list(workers))
            for ours in (one for one in workers if one in ready):
                _take(ours, results)
                _give(ours, waiting)
    finally:
        for ours, process in workers.items():
            ours.close()
            process.terminate()
            process.join()
    return [results[at] for at in range(len(scenarios))]


def _give(worker: Connection, waiting: list[tuple[int, Scenario]]) -> None:
    if waiting:
        worker.send(waiting.pop())


def _take(worker: Connection, results: dict[int, Result]) -> None:
    try:
        at, result = worker.recv()
    except (EOFError, OSError):
        raise RuntimeError("a simulation process has died") from None
    results[at] = result


def _work(pipe: Connection) -> None:
    """Simulate the scenarios that arrive on the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            at, scenario = pipe.recv()
            pipe.send((at, simulate(scenario)))
    except (EOFError, OSError):
        return
