"""Puts the runs of the ledger and the runs that only joined one of them into one order.

1. Runs of the ledger never overlap, because each holds the lock. They stay in the order of the ledger.
2. The order is that of the ends, because the last run to end shows how things are. A run that was killed ended before
   the next run of the ledger began. If there is none, it held the lock until after the runs that joined it had ended.
3. Runs in progress come last.
4. A joined run that was killed while it waited counts from when it began, since nothing tells when it was killed.
"""

import math
from collections.abc import Sequence

from asyncexport.core.health.records import RunRecord


def in_order(recorded: Sequence[RunRecord], joined: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return all runs in the order they ended.

    Args:
        recorded: The runs of the ledger, in its order.
        joined: The runs that only joined one of these.
    """
    ends, reached = list[float](), -math.inf
    for number, run in enumerate(recorded):
        following = recorded[number + 1].began if number + 1 < len(recorded) else math.inf
        end = following if run.ended is None else run.ended
        # A clock may have been set back between two runs.
        reached = max(reached, end)
        ends.append(reached)
    timed = [(end, run) for end, run in zip(ends, recorded, strict=True)]
    timed += [(_end_of_joined(run), run) for run in joined]
    return tuple(run for _, run in sorted(timed, key=lambda one: one[0]))


def _end_of_joined(run: RunRecord) -> float:
    if run.running:
        return math.inf
    return run.began if run.ended is None else run.ended
