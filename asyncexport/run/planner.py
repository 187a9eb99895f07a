"""What a run has to do, worked out from its specification, the ledger and the clock.

1. It is worked out before the service is asked for anything: a finished range costs no request.
2. The exception is where only this host's clock says that there is nothing to do: on the first night, and where the
   clock is behind what the service said in an earlier run, or no run has heard from the service yet. Then the service
   is asked for its time, and the work is planned once more.
3. What depends on a clock that was never compared with the service's is not remembered: where nights begin is fixed
   once the service has told its time.
"""

from dataclasses import dataclass

from asyncexport.client.clock import ServiceClock
from asyncexport.config import Settings
from asyncexport.core.bundles import Range
from asyncexport.core.coverage import ExportPlan, RecordedRange, needs_refresh
from asyncexport.core.exports import Export
from asyncexport.core.states import BundleRecord
from asyncexport.core.summary import Tally
from asyncexport.ledger import Ledger
from asyncexport.run.ranges import NIGHTLY_SINCE, TIME_AT_SERVICE, export_ranges, is_past, where_nights_begin
from asyncexport.run.spec import Instructions, RunSpec, instructions


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run has to do.

    Attributes:
        exports: The plan of each export.
        notes: What the user should know about it, a sentence each.
    """

    exports: tuple[ExportPlan, ...]
    notes: tuple[str, ...]

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return any(export.count for export in self.exports)


class Planner:
    """Works out what there is to do.

    Args:
        settings: The settings.
        spec: What was asked for.
        ledger: The ledger of the output directory.
        clock: What time it is at the service, as far as that is known.
        tally: Where the planned bundles are counted.
    """

    def __init__(self, settings: Settings, spec: RunSpec, *, ledger: Ledger, clock: ServiceClock, tally: Tally) -> None:
        self._nightly = settings.nightly
        self._exports = spec.exports
        self._asked = instructions(spec)
        self._ledger = ledger
        self._clock = clock
        self._tally = tally

    async def plan(self) -> RunPlan:
        """What there is to do at this moment; it is counted in the tally."""
        now, asked = self._clock.now(), self._asked
        remembered = await self._ledger.recall(NIGHTLY_SINCE)
        night_start = where_nights_begin(self._nightly.since_at(now), remembered, now=now)
        if self._clock.is_known:
            self._ledger.remember(TIME_AT_SERVICE, str(now))
            if asked.start is None:
                self._ledger.remember(NIGHTLY_SINCE, str(night_start))
        ranges = export_ranges(self._exports, asked, now=now, night_start=night_start)
        plans = [await self._plan_export(export, span, now=now) for export, span in ranges.spans]
        notes = ranges.notes
        if asked.reports_kept:
            notes += tuple(_note_on_kept(plan) for plan in plans if kept_bundles(plan.stock))
        self._count(plans)
        return RunPlan(tuple(plans), notes)

    async def needs_service_time(self, plan: RunPlan) -> bool:
        """Whether the service must be asked for its time before it is said that there is nothing to do (rule 2).

        The clock has no part in a range whose end was not cut back. Otherwise a slow clock hides work. A fast clock
        only makes some up, and the first request puts that right.
        """
        now = self._clock.now()
        is_night = self._asked.start is None and not self._nightly.since
        if is_night and not is_past(await self._ledger.recall(NIGHTLY_SINCE), now=now):
            return True
        depends_on_clock = self._asked.end is None or bool(plan.notes)
        return depends_on_clock and not is_past(await self._ledger.recall(TIME_AT_SERVICE), now=now)

    async def _plan_export(self, export: Export, span: Range, *, now: float) -> ExportPlan:
        seconds = self._asked.refresh_seconds
        stock = await self._ledger.stock(export.name, span)
        refresh = []
        if seconds > 0:
            candidates = self._ledger.stored(export.name, span, exported_within=seconds)
            refresh = [one async for one in candidates if needs_refresh(one, refresh_seconds=seconds, now=now)]
        return export_plan(export, span, stock, self._asked, refresh)

    def _count(self, plans: list[ExportPlan]) -> None:
        for plan in plans:
            self._tally.accepted.update(plan.stock.accepted)
            if self._asked.accepts_fewer:
                self._tally.accepted.update(one.bundle for one in kept_bundles(plan.stock))
        self._tally.stored_before = sum(plan.stored_before for plan in plans)
        self._tally.planned = self._tally.stored_before + sum(plan.count for plan in plans)


def export_plan(
    export: Export, span: Range, stock: RecordedRange, asked: Instructions, refresh: list[BundleRecord]
) -> ExportPlan:
    """What one export has to do; `refresh`: stored bundles that need a refresh."""
    again = [one for one in asked.repairs if one.bundle.export == export.name]
    if asked.accepts_fewer:
        again += kept_bundles(stock)
    return ExportPlan(export, span, stock, (*again, *refresh), fills_gaps=asked.fills_gaps)


def kept_bundles(stock: RecordedRange) -> list[BundleRecord]:
    """The bundles whose archive was kept, since far fewer rows came."""
    return [one for one in stock.unfinished if one.kept]


def _note_on_kept(plan: ExportPlan) -> str:
    """What is said of bundles that a plain retry leaves as they are."""
    count = len(kept_bundles(plan.stock))
    bundles = "1 bundle keeps its archive" if count == 1 else f"{count:,} bundles keep their archives"
    return (
        f"{plan.export.name}: {bundles}, since far fewer rows came; `retry --accept-fewer` exports anew, and takes "
        "what comes"
    )
