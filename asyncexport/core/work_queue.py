"""The bundles of a run, in the order in which they are started.

Bundles are made lazily, as they are asked for. The newest of an export may be started ahead of its turn.
"""

from collections.abc import Iterator, Sequence

from asyncexport.core.bundles import Bundle
from asyncexport.core.coverage import ExportPlan, in_order
from asyncexport.core.lanes import LaneOrder, in_lanes
from asyncexport.core.states import BundleRecord


class WorkQueue:
    """The bundles to do of several exports. Iterates over them as recorded in the ledger, each once.

    Args:
        plans: What each export has to do.
        lanes: How bundles are put into lanes. None if they are started in order of time (`core.coverage`).
    """

    def __init__(self, plans: Sequence[ExportPlan], lanes: LaneOrder | None = None) -> None:
        self._plans = {plan.export.name: plan for plan in plans}
        self._in_order = in_order(plans) if lanes is None else in_lanes(plans, lanes)
        self._given: set[Bundle] = set()

    def __iter__(self) -> Iterator[BundleRecord]:
        """Iterate over the bundles that were not given out yet."""
        for record in self._in_order:
            if record.bundle not in self._given:
                self._given.add(record.bundle)
                yield record

    def newest(self, export: str) -> BundleRecord | None:
        """Give out the newest bundle of an export that is neither given out nor in progress. None if none is left."""
        plan = self._plans.get(export)
        left = plan.unclaimed(newest_first=True) if plan else iter(())
        found = next((one for one in left if one.bundle not in self._given), None)
        if found is not None:
            self._given.add(found.bundle)
        return found

    def has_given(self, bundle: Bundle) -> bool:
        """Whether a bundle was given out."""
        return bundle in self._given
