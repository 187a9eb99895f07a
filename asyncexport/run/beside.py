"""A run together with what works beside it and goes on for a while when the run has ended: a load, a mirror."""

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

from asyncexport.core.summary import Summary
from asyncexport.engine.scheduler import Stop

if TYPE_CHECKING:
    from asyncexport.run.load_lane import LoadLane
    from asyncexport.run.mirror_lane import MirrorLane


def with_all(work: Awaitable[Summary], stop: Stop, all_beside: "Iterable[LoadLane | MirrorLane]") -> Awaitable[Summary]:
    """Return a run together with all that is beside it; what comes first ends first."""
    for one in all_beside:
        work = one.beside(work, stop)
    return work
