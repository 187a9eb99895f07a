"""What a run has to do, worked out from its specification, the ledger and the clock.

1. It is worked out before the service is asked for anything: a range that is stored up to its end costs no request,
   whatever a clock says.
2. Where the answer hangs on the clock, the service is asked for its time before it is believed that there is nothing to
   do; unless the clocks were compared within a day (`core.service_time`). Then the work is planned once more.
3. What depends on a clock that was never compared with the service's is not remembered: where nights begin is fixed
   once the service has told its time.
4. A run and `plan` work it out by the same function, `plan_run`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asyncexport.client.clock import ServiceClock
from asyncexport.config import Settings
from asyncexport.core.bundles import Bundle, Range, gaps, show
from asyncexport.core.coverage import ExportPlan, RecordedRange, is_exported_again, settles_at, was_settled
from asyncexport.core.events import BundleParked
from asyncexport.core.exports import Export
from asyncexport.core.parking import PAUSABLE, pause_end, pieces_of
from asyncexport.core.refreshing import acting_ages
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.core.states import BundleRecord
from asyncexport.core.summary import PausedBundle, Tally
from asyncexport.errors import ConfigError, Problem
from asyncexport.ledger import Ledger, LedgerQueries
from asyncexport.run.ranges import NIGHTLY_SINCE, export_ranges, faults_of_dates, is_past, where_nights_begin
from asyncexport.run.spec import Instructions, RunSpec, instructions

CLOCK_CHECK = "clock_check"
"""The ledger's key for both clocks as they were last compared."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run has to do.

    Attributes:
        exports: The plan of each export. One with nothing settled in the range is left out.
        notes: What the user should know about it, a sentence each.
        hangs_on_clock: Whether another time might have made it another plan.
        night_start: Where a night begins.
        faults: What is wrong with the dates that were asked for, unless the clock is.
    """

    exports: tuple[ExportPlan, ...]
    notes: tuple[str, ...]
    hangs_on_clock: bool
    night_start: int
    faults: tuple[Problem, ...] = ()

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return any(export.count for export in self.exports)

    def check_dates(self) -> None:
        """Refuse dates that cannot be meant; once the time is known.

        Raises:
            ConfigError: such as a start that lies in the future.
        """
        if self.faults:
            raise ConfigError(self.faults)


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
        self._settings = settings
        self._exports = spec.exports
        self._asked = instructions(spec)
        self._ledger = ledger
        self._clock = clock
        self._tally = tally
        self._zero, self._night_start = clock.zero, 0

    @property
    def went_by_another_time(self) -> bool:
        """Whether the time was put right since the work was planned."""
        return abs(self._clock.zero - self._zero) > CLOCKS_APART_SECONDS

    async def plan(self, *, begun: Sequence[BundleRecord] = ()) -> RunPlan:
        """What there is to do at this moment; it is counted in the tally.

        `begun`: the bundles that the run has carried to where they rest by now.
        """
        now = self._clock.now()
        plan = await self._ledger.query(
            lambda queries: plan_run(self._settings, self._exports, self._asked, queries, now=now)
        )
        self._zero, self._night_start = self._clock.zero, plan.night_start
        self.remember()
        self._count(plan.exports, begun)
        return plan

    def needs_service_time(self, plan: RunPlan) -> bool:
        """Whether the service must be asked for its time before it is said that there is nothing to do (rule 2)."""
        return plan.hangs_on_clock and not self._clock.was_checked

    def remember(self) -> None:
        """Keep for later runs what was found of the clock, and where nights begin (rule 3)."""
        if not self._clock.was_checked:
            return
        self._ledger.remember(CLOCK_CHECK, self._clock.check)
        if self._asked.start is None and not self.went_by_another_time:
            self._ledger.remember(NIGHTLY_SINCE, str(self._night_start))

    async def split(self, plan: RunPlan) -> tuple[str, ...]:
        """Have parked bundles give way to narrower ones, where the plan says so; what to tell of it."""
        notes = []
        for one in plan.exports:
            for record in one.splits:
                left = gaps(record.bundle.range, one.recorded.covered)
                pieces = [piece for gap in left for piece in pieces_of(gap, one.export, one.span)]
                await self._ledger.split(record, pieces, at=self._clock.now())
            if one.splits:
                notes.append(_note_on_splits(one))
        return tuple(notes)

    def _count(self, plans: Sequence[ExportPlan], begun: Sequence[BundleRecord]) -> None:
        tally, resting = self._tally, [one for plan in plans for one in _resting(plan)]
        tally.count_paused(resting)
        for plan in plans:
            tally.accepted.update(plan.recorded.accepted)
            if self._asked.accepts_fewer:
                tally.accepted.update(one.bundle for one in kept_bundles(plan.recorded))
        stored_now = sum(plan.holds(one.bundle) for plan in plans for one in begun) if tally.stored else 0
        tally.stored_before = sum(plan.stored_before for plan in plans) - stored_now
        tally.planned = tally.stored_before + tally.stored + sum(plan.count for plan in plans) + len(resting)


def plan_run(
    settings: Settings, exports: Sequence[Export], asked: Instructions, queries: LedgerQueries | None, *, now: float
) -> RunPlan:
    """What there is to do.

    Args:
        settings: The settings.
        exports: The exports of the run.
        asked: What it does.
        queries: Answers from the ledger; None: there is none yet.
        now: The present moment, by the service's clock as far as it is known.
    """
    nightly = settings.nightly
    remembered = None if queries is None else queries.recall(NIGHTLY_SINCE)
    since = nightly.since_at(now)
    night_start = where_nights_begin(since, remembered, now=now)
    is_first_night = asked.start is None and not nightly.since and not is_past(remembered, now=now)
    ranges = export_ranges(
        exports, asked, now=now, night_start=night_start, is_stored=lambda name, span: _is_stored(queries, name, span)
    )
    plans = tuple(_export_plan(queries, export, span, asked, now=now) for export, span in ranges.spans)
    # What is stored to its end was meant.
    faults = tuple(faults_of_dates(asked, now=now, nights_since=since)) if ranges.hang_on_clock else ()
    hangs_on_clock = ranges.hang_on_clock or is_first_night or any(plan.waiting for plan in plans)
    return RunPlan(plans, (*ranges.notes, *_notes(plans, asked)), hangs_on_clock, night_start, faults)


def _is_stored(queries: LedgerQueries | None, export: str, span: Range) -> bool:
    return queries is not None and next(gaps(span, queries.covered(export, span)), None) is None


def _export_plan(
    queries: LedgerQueries | None, export: Export, span: Range, asked: Instructions, *, now: float
) -> ExportPlan:
    """What one export has to do."""
    if queries is None:
        return ExportPlan(export, span, RecordedRange(), fills_gaps=asked.fills_gaps)
    recorded, settle = queries.recorded_range(export.name, span), export.settle_seconds
    again = {one.bundle: one for one in asked.repairs if one.bundle.export == export.name}
    if asked.accepts_fewer:
        again |= {one.bundle: one for one in kept_bundles(recorded)}
    candidates: list[BundleRecord] = []
    if asked.fills_gaps:
        candidates += queries.unsettled(export.name, span)
    if ages := acting_ages(asked.refresh_ages, settle_seconds=settle):
        candidates += queries.stored(export.name, span, exported_within=ages[-1])
    for one in candidates:
        if is_exported_again(one, settle_seconds=settle, ages=ages, now=now):
            again[one.bundle] = one
    begun = {one.bundle for one in recorded.unfinished}
    waiting = {one.bundle: one for one in candidates if not was_settled(one) and one.bundle not in begun}
    return ExportPlan(
        export,
        span,
        recorded,
        tuple(again.values()),
        fills_gaps=asked.fills_gaps,
        waiting=tuple(one for bundle, one in waiting.items() if bundle not in again),
        paused_until=dict(_rests_until(recorded, now=now)) if asked.lets_parked_rest else {},
    )


def _rests_until(recorded: RecordedRange, *, now: float) -> Iterator[tuple[Bundle, float]]:
    """The parked bundles that wait for their time, and until when."""
    for one in recorded.unfinished:
        due = pause_end(one, recorded.parked.get(one.bundle), now=now)
        if due is not None:
            yield one.bundle, due


def _resting(plan: ExportPlan) -> Iterator[PausedBundle]:
    """The parked bundles of an export that wait for their time."""
    for one in plan.paused:
        if isinstance(one.state, PAUSABLE):
            reason = BundleParked(one.bundle, one.state).reason
            yield PausedBundle(one.bundle, reason, plan.paused_until[one.bundle])


def _note_on_splits(plan: ExportPlan) -> str:
    count = len(plan.splits)
    bundles = "1 parked bundle" if count == 1 else f"{count:,} parked bundles"
    return f"{plan.export.name}: {bundles} split into narrower ones, because nothing of it was ever stored"


def kept_bundles(recorded: RecordedRange) -> list[BundleRecord]:
    """The bundles whose archive was kept, since far fewer rows came."""
    return [one for one in recorded.unfinished if one.kept]


def _notes(plans: Sequence[ExportPlan], asked: Instructions) -> Iterator[str]:
    for plan in plans:
        if plan.waiting:
            yield _note_on_waiting(plan)
        if asked.reports_kept and kept_bundles(plan.recorded):
            yield _note_on_kept(plan)


def _note_on_waiting(plan: ExportPlan) -> str:
    """What is said of archives whose data was not settled when they were exported, and is not yet."""
    count = len(plan.waiting)
    bundles = "1 bundle was" if count == 1 else f"{count:,} bundles were"
    first = min(settles_at(one, settle_seconds=plan.export.settle_seconds) for one in plan.waiting)
    return (
        f"{plan.export.name}: {bundles} exported before the data was settled and will be exported again when it is, "
        f"from {show(first)} on"
    )


def _note_on_kept(plan: ExportPlan) -> str:
    """What is said of bundles that a plain retry leaves as they are."""
    count = len(kept_bundles(plan.recorded))
    bundles = "1 bundle keeps its archive" if count == 1 else f"{count:,} bundles keep their archives"
    return (
        f"{plan.export.name}: {bundles} because far fewer rows came; `retry --accept-fewer` replaces the archives with "
        "new exports"
    )
