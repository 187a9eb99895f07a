"""Finds what becomes due while a run goes on, so that a long run with an open end follows the present.

1. Due are bundles that have settled since the run was planned, up to the requested end, and stored bundles whose
   refresh has become due.
2. Nothing is due twice: not what was planned before or given out, and not the time of a bundle that begins in the range
   planned so far and ends after it.
3. What becomes due is counted in the tally immediately. Parked bundles whose pause ends meanwhile, or that have to be
   split first, are left to the next run. So are bundles that kept their archive.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.coverage import ExportPlan, in_order, is_exported_again
from asyncexport.core.covered_range import CoveredRange
from asyncexport.core.exports import Export
from asyncexport.core.refreshing import acting_ages
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.ledger import LedgerQueries
from asyncexport.run.planner import Planner, RunPlan, plan_export
from asyncexport.run.ranges import settled_end
from asyncexport.run.spec import Instructions


class PresentFollower:
    """Finds what becomes due while a run goes on.

    Args:
        planner: The planner of the run.
        plan: The plan so far.
        is_given: Returns whether the run has started a bundle, or is about to.
    """

    def __init__(self, planner: Planner, plan: RunPlan, *, is_given: Callable[[Bundle], bool]) -> None:
        self._planner = planner
        self._is_given = is_given
        self._planned_again = {one.bundle for export in plan.exports for one in export.refresh}

    async def newly_due(self) -> list[BundleRecord]:
        """Return what has become due since the last call, fresh bundles first, and count it in the tally."""
        planner, now = self._planner, self._planner.clock.now()
        ranges = {export: planner.tally.ranges[export.name] for export in planner.exports}

        def look(queries: LedgerQueries) -> list[tuple[ExportPlan | None, list[BundleRecord]]]:
            return [
                (
                    newly_settled(queries, export, covered, planner.asked, now=now),
                    list(newly_refreshed(queries, export, covered, planner.asked, now=now)),
                )
                for export, covered in ranges.items()
            ]

        found = await planner.ledger.query(look)
        fresh, again = [], []
        for export, (plan, refreshes) in zip(planner.exports, found, strict=True):
            again += [one for one in refreshes if not self._is_known(one.bundle)]
            if plan is not None:
                fresh += self._count(export, plan, now=now)
        self._planned_again.update(one.bundle for one in again)
        planner.tally.stored_before -= len(again)
        return [*fresh, *again]

    def _is_known(self, bundle: Bundle) -> bool:
        return bundle in self._planned_again or bundle in self._planner.tally.audit or self._is_given(bundle)

    def _count(self, export: Export, plan: ExportPlan, *, now: float) -> list[BundleRecord]:
        tally = self._planner.tally
        tally.stored_before += plan.stored_before
        tally.planned += plan.stored_before + plan.count
        tally.accepted.update(plan.recorded.accepted)
        tally.kept_before.update(plan.recorded.kept_before)
        covered = tally.ranges[export.name]
        tally.ranges[export.name] = replace(covered, end=plan.span.end, settled_until=settled_end(export, now=now))
        return list(in_order([plan]))


def newly_settled(
    queries: LedgerQueries, export: Export, covered: CoveredRange, asked: Instructions, *, now: float
) -> ExportPlan | None:
    """Return the plan for what has settled since the end of the covered range. None if nothing has (rule 2)."""
    settled = settled_end(export, now=now)
    start, end = covered.end, settled if covered.asked_end is None else min(settled, covered.asked_end)
    if start >= end:
        return None
    recorded = queries.recorded_range(export.name, Range(start, end))
    known = [one.bundle.range for one in (*recorded.unfinished, *recorded.split)]
    start = max([start, *(one.end for one in (*known, *recorded.covered) if one.start < start)])
    if start >= end:
        return None
    plan = plan_export(queries, export, Range(start, end), replace(asked, refresh_ages=()), now=now)
    return None if plan.splits else plan


def newly_refreshed(
    queries: LedgerQueries, export: Export, covered: CoveredRange, asked: Instructions, *, now: float
) -> Iterator[BundleRecord]:
    """Yield the stored bundles of the covered range that are due to be exported again, each in a new revision."""
    if covered.start >= covered.end:
        return
    span, settle = Range(covered.start, covered.end), export.settle_seconds
    ages = acting_ages(asked.refresh_ages, settle_seconds=settle)
    candidates = queries.unsettled(export.name, span)
    if ages:
        candidates += queries.stored(export.name, span, exported_within=ages[-1])
    for one in sorted({one.bundle: one for one in candidates}.values(), key=lambda one: one.bundle.range):
        if isinstance(one.state, Stored) and is_exported_again(one, settle_seconds=settle, ages=ages, now=now):
            yield one.next_revision()
