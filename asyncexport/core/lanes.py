"""Decides in which order a run starts its bundles if its end is open, so that it can follow the present.

1. Bundles in progress come first: their tokens are spent, and their exports may expire.
2. Then fresh bundles: those that settled within 48 hours and have no settled archive. Then refreshes, which only
   improve what is there. Then everything that is old.
3. Fresh bundles and refreshes are started in order of time, so that none waits long. Old ones are started oldest first
   or newest first: oldest first reaches the data first that the service will delete first; newest first gives a run
   with limited time the data that is more likely to be used.
4. As time goes by, more bundles settle. They are started ahead of the others (`engine.scheduler`).
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import dropwhile, takewhile

from asyncexport.core.bundles import HOUR, Range
from asyncexport.core.coverage import ExportPlan, was_settled
from asyncexport.core.old_order import OldOrder
from asyncexport.core.states import IN_PROGRESS, BundleRecord

FRESH_SECONDS = 48 * HOUR
"""How long after it has settled a bundle is fresh: two days, so that a missed night is still fresh in the next."""


class Lane(IntEnum):
    """The groups in which bundles are started, one after the other."""

    IN_PROGRESS = 0
    FRESH = 1
    REFRESH = 2
    OLD = 3


@dataclass(frozen=True, slots=True)
class LaneOrder:
    """How bundles are put into lanes.

    Attributes:
        now: Seconds since 1970, by the service's clock.
        old: The order of old bundles.
    """

    now: float
    old: OldOrder = OldOrder.OLDEST


def lane_of(record: BundleRecord, *, settle_seconds: float, now: float) -> Lane:
    """Return the lane of a bundle to do, with the settle time of its export."""
    if isinstance(record.state, IN_PROGRESS):
        return Lane.IN_PROGRESS
    if record.stored is not None and was_settled(record):
        return Lane.REFRESH
    return Lane.FRESH if is_fresh(record.bundle.range, settle_seconds=settle_seconds, now=now) else Lane.OLD


def is_fresh(span: Range, *, settle_seconds: float, now: float) -> bool:
    """Whether the data of a range settled within the last 48 hours."""
    return span.end + settle_seconds > now - FRESH_SECONDS


def in_lanes(plans: Sequence[ExportPlan], order: LaneOrder) -> Iterator[BundleRecord]:
    """Yield the bundles of several exports, lane by lane."""
    for plan in plans:
        yield from plan.in_progress
    recorded: dict[Lane, list[BundleRecord]] = {lane: [] for lane in Lane}
    for plan in plans:
        for one in plan.recorded_to_do():
            recorded[lane_of(one, settle_seconds=plan.export.settle_seconds, now=order.now)].append(one)
    for found in recorded.values():
        found.sort(key=_time)
    fresh = (list(takewhile(_fresh_in(plan, order), plan.pieces(newest_first=True)))[::-1] for plan in plans)
    yield from heapq.merge(recorded[Lane.FRESH], *fresh, key=_time)
    yield from recorded[Lane.REFRESH]
    newest_first = order.old is OldOrder.NEWEST
    old = (_old_pieces(plan, order) for plan in plans)
    known = recorded[Lane.OLD][::-1] if newest_first else recorded[Lane.OLD]
    yield from heapq.merge(known, *old, key=_time, reverse=newest_first)


def _old_pieces(plan: ExportPlan, order: LaneOrder) -> Iterator[BundleRecord]:
    fresh = _fresh_in(plan, order)
    if order.old is OldOrder.NEWEST:
        return dropwhile(fresh, plan.pieces(newest_first=True))
    return takewhile(lambda one: not fresh(one), plan.pieces())


def _fresh_in(plan: ExportPlan, order: LaneOrder) -> Callable[[BundleRecord], bool]:
    settle_seconds = plan.export.settle_seconds
    return lambda one: is_fresh(one.bundle.range, settle_seconds=settle_seconds, now=order.now)


def _time(record: BundleRecord) -> Range:
    return record.bundle.range
