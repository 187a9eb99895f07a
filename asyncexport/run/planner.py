"""Works out what a run has to do, from its specification, the ledger and the clock.

1. The plan is made before the first request: a range that is stored completely costs no request, whatever the clock
   says.
2. If the plan depends on the clock and has no work, the service is asked for its time first, unless the clocks were
   compared within the last day (`core.service_time`). Then the run is planned again.
3. Nothing that depends on a clock which was never compared with the service's is remembered. The start of nightly runs
   is therefore fixed only when the service has told its time.
4. A run and the `plan` command use the same function, `plan_run`.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asyncexport.client.clock import ServiceClock
from asyncexport.config import Settings
from asyncexport.core.bundles import Bundle, Range, gaps, show
from asyncexport.core.coverage import ExportPlan, RecordedRange, is_exported_again, settles_at, was_settled
from asyncexport.core.covered_range import CoveredRange
from asyncexport.core.events import BundleParked
from asyncexport.core.exports import Export
from asyncexport.core.health.problems import not_accepted
from asyncexport.core.parking import PAUSABLE, pause_end, pieces_of
from asyncexport.core.refreshing import acting_ages, kept_is_due
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.core.summary import PausedBundle, Tally
from asyncexport.errors import ConfigError, Problem
from asyncexport.ledger import Ledger, LedgerQueries
from asyncexport.run.ranges import NIGHTLY_SINCE, date_problems, export_ranges, is_past, nightly_start
from asyncexport.run.sampling import audit_records, is_damaged, note_on_damaged, notes_on_sample
from asyncexport.run.spec import Instructions, RunSpec, instructions

CLOCK_CHECK = "clock_check"
"""The ledger's key for the last comparison of both clocks."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run has to do.

    Attributes:
        exports: The plan of each export. Exports with nothing settled in the range are left out.
        notes: Messages for the user.
        audit: The stored bundles to audit after everything else, as recorded.
        depends_on_clock: Whether the plan could be different at another time.
        night_start: The start of the range of nightly runs.
        faults: Problems with the requested dates, provided that the clock is right.
        ranges: The range of every export, by its name.
    """

    exports: tuple[ExportPlan, ...]
    notes: tuple[str, ...]
    depends_on_clock: bool
    night_start: int
    audit: tuple[BundleRecord, ...] = ()
    faults: tuple[Problem, ...] = ()
    ranges: Mapping[str, CoveredRange] = field(default_factory=dict)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.audit) or any(export.count for export in self.exports)

    def check_dates(self) -> None:
        """Check the requested dates, once the time is known.

        Raises:
            ConfigError: a date makes no sense, such as a start in the future.
        """
        if self.faults:
            raise ConfigError(self.faults)


class Planner:
    """Plans a run.

    Args:
        settings: The settings.
        spec: The run.
        ledger: The ledger of the output directory.
        clock: The service's clock, as far as it is known.
        tally: The tally in which planned bundles are counted.
    """

    def __init__(self, settings: Settings, spec: RunSpec, *, ledger: Ledger, clock: ServiceClock, tally: Tally) -> None:
        self._settings = settings
        self.exports = spec.exports
        self.asked = instructions(spec)
        self.ledger = ledger
        self.clock = clock
        self.tally = tally
        self._zero, self._night_start = clock.zero, 0
        self._looked_at: dict[Stored, bool] = {}

    @property
    def has_open_end(self) -> bool:
        """Whether more of the range settles as time goes by."""
        return self.asked.end is None or self.tally.is_cut_back

    @property
    def clock_was_corrected(self) -> bool:
        """Whether the clock was corrected after the run was planned."""
        return abs(self.clock.zero - self._zero) > CLOCKS_APART_SECONDS

    async def plan(self, *, processed: Sequence[BundleRecord] = ()) -> RunPlan:
        """Return the plan for the current time, and count it in the tally.

        `processed` has the bundles that this run has processed already.
        """
        now = self.clock.now()
        plan = await self.ledger.query(
            lambda queries: plan_run(self._settings, self.exports, self.asked, queries, now=now)
        )
        plan = await self._without_damaged(plan)
        self._zero, self._night_start = self.clock.zero, plan.night_start
        self.remember()
        self.tally.ranges = dict(plan.ranges)
        self._count(plan, processed)
        return plan

    async def _without_damaged(self, plan: RunPlan) -> RunPlan:
        """Return the plan without audits of damaged archives, each with a message; they are counted in the tally."""
        damaged: dict[Bundle, Stored] = {}
        for one in plan.audit:
            archive = one.stored
            if archive is not None and archive not in self._looked_at:
                self._looked_at[archive] = await asyncio.to_thread(is_damaged, self._settings.output.directory, archive)
            if archive is not None and self._looked_at[archive]:
                damaged[one.bundle] = archive
        self.tally.audit.damaged = damaged
        sound = tuple(one for one in plan.audit if one.bundle not in damaged)
        return replace(plan, audit=sound, notes=(*plan.notes, *map(note_on_damaged, damaged.values())))

    def needs_service_time(self, plan: RunPlan) -> bool:
        """Return whether the service must be asked for its time before the run ends with nothing to do (rule 2)."""
        return plan.depends_on_clock and not self.clock.was_checked

    def remember(self) -> None:
        """Save the comparison of the clocks and the start of nightly runs for later runs (rule 3)."""
        if not self.clock.was_checked:
            return
        self.ledger.remember(CLOCK_CHECK, self.clock.check)
        if self.asked.start is None and not self.clock_was_corrected:
            self.ledger.remember(NIGHTLY_SINCE, str(self._night_start))

    async def split(self, plan: RunPlan) -> tuple[str, ...]:
        """Split parked bundles into narrower ones as planned, and return messages about that for the user."""
        notes = []
        for one in plan.exports:
            for record in one.splits:
                left = gaps(record.bundle.range, one.recorded.covered)
                pieces = [piece for gap in left for piece in pieces_of(gap, one.export, one.span)]
                await self.ledger.split(record, pieces, at=self.clock.now())
            if one.splits:
                notes.append(_note_on_splits(one))
        return tuple(notes)

    def leave_audits(self) -> None:
        """Count bundles that a nightly run could not audit as they were: an audit only uses time that is left over."""
        tally = self.tally
        if self.asked.fills_gaps:
            ended = {one.bundle for one in tally.audit.comparisons} | tally.parked.keys()
            tally.stored_before += len(tally.audit.sample.keys() - ended)

    def _count(self, whole: RunPlan, processed: Sequence[BundleRecord]) -> None:
        tally, plans = self.tally, whole.exports
        paused = [one for plan in plans for one in _paused(plan)]
        tally.count_paused(paused)
        for plan in plans:
            tally.accepted.update(plan.recorded.accepted)
            tally.kept_before.update(plan.recorded.kept_before)
            if self.asked.accepts_fewer:
                tally.accepted.update(plan.recorded.kept_before)
        stored_now = sum(plan.holds(one.bundle) for plan in plans for one in processed) if tally.stored else 0
        tally.audit.sample = {one.bundle: one.stored for one in whole.audit if one.stored is not None}
        tally.stored_before = sum(plan.stored_before for plan in plans) - stored_now
        if self.asked.fills_gaps:
            tally.stored_before -= len(whole.audit)
        to_do = sum(plan.count for plan in plans) + len(whole.audit)
        tally.planned = tally.stored_before + tally.stored + to_do + len(paused)


def plan_run(
    settings: Settings, exports: Sequence[Export], asked: Instructions, queries: LedgerQueries | None, *, now: float
) -> RunPlan:
    """Return what a run has to do.

    Args:
        settings: The settings.
        exports: The exports of the run.
        asked: The instructions of the run.
        queries: The queries of the ledger. None if there is no ledger yet.
        now: The current time, by the service's clock as far as it is known.
    """
    nightly = settings.nightly
    remembered = None if queries is None else queries.recall(NIGHTLY_SINCE)
    since = nightly.since_at(now)
    night_start = nightly_start(since, remembered, now=now)
    is_first_night = asked.start is None and not nightly.since and not is_past(remembered, now=now)
    ranges = export_ranges(
        exports, asked, now=now, night_start=night_start, is_stored=lambda name, span: _is_stored(queries, name, span)
    )
    plans = tuple(plan_export(queries, export, span, asked, now=now) for export, span in ranges.spans)
    # A range that is stored completely was not a mistake.
    faults = tuple(date_problems(asked, now=now, nights_since=since)) if ranges.depend_on_clock else ()
    depends_on_clock = ranges.depend_on_clock or is_first_night or any(plan.waiting for plan in plans)
    notes = (*ranges.notes, *_notes(plans, asked))
    whole = RunPlan(plans, notes, depends_on_clock, night_start, faults=faults, ranges=ranges.covered)
    if asked.audit is None or queries is None:
        return whole
    audit = audit_records(asked.audit, plans, queries, directory=settings.output.directory, now=now)
    if asked.ignores_parked:
        notes = tuple(notes_on_sample(asked.audit, exports, audit))
    return replace(whole, notes=notes, audit=audit)


def _is_stored(queries: LedgerQueries | None, export: str, span: Range) -> bool:
    return queries is not None and next(gaps(span, queries.covered(export, span)), None) is None


def plan_export(
    queries: LedgerQueries | None, export: Export, span: Range, asked: Instructions, *, now: float
) -> ExportPlan:
    """Return what there is to do for one export."""
    if queries is None:
        return ExportPlan(export, span, RecordedRange(), fills_gaps=asked.fills_gaps)
    recorded, settle = queries.recorded_range(export.name, span), export.settle_seconds
    if asked.ignores_parked:
        recorded = recorded.in_progress_only()
    accepted = frozenset[Bundle]() if asked.retries_accepted else _accepted(queries, recorded, export.name)
    again = {one.bundle: one for one in asked.repairs if one.bundle.export == export.name}
    if asked.accepts_fewer:
        again |= {one.bundle: one for one in recorded.kept}
    candidates: list[BundleRecord] = []
    if asked.fills_gaps:
        candidates += queries.unsettled(export.name, span)
    ages = acting_ages(asked.refresh_ages, settle_seconds=settle)
    if ages:
        candidates += queries.stored(export.name, span, exported_within=ages[-1])
    for one in candidates:
        if is_exported_again(one, settle_seconds=settle, ages=ages, now=now):
            again[one.bundle] = one
    if asked.retries_kept:
        again |= {one.bundle: one for one in _kept_due(recorded, ages, now=now)}
    begun = {one.bundle for one in recorded.unfinished}
    waiting = {one.bundle: one for one in candidates if not was_settled(one) and one.bundle not in begun}
    return ExportPlan(
        export,
        span,
        recorded,
        tuple(again.values()),
        fills_gaps=asked.fills_gaps,
        waiting=tuple(one for bundle, one in waiting.items() if bundle not in again),
        paused_until=dict(_pause_ends(recorded, accepted, now=now)) if asked.pauses_parked else {},
        accepted_gaps=accepted,
        accepts_fewer=asked.accepts_fewer,
    )


def _kept_due(recorded: RecordedRange, ages: Sequence[float], *, now: float) -> Iterator[BundleRecord]:
    """Yield the bundles that kept their archive and are due to be exported again."""
    for one in recorded.kept:
        if kept_is_due(one, recorded.parked[one.bundle], ages=ages, now=now):
            yield one


def _accepted(queries: LedgerQueries, recorded: RecordedRange, export: str) -> frozenset[Bundle]:
    """Return the parked bundles that the user has accepted as missing."""
    parked = [one for one in recorded.unfinished if one.parked and not one.kept]
    gaps_of_export = [one for one in queries.accepted() if one.bundle.export == export] if parked else []
    still_open = {one.bundle for one in not_accepted(parked, gaps_of_export)}
    return frozenset(one.bundle for one in parked if one.bundle not in still_open)


def _pause_ends(recorded: RecordedRange, accepted: frozenset[Bundle], *, now: float) -> Iterator[tuple[Bundle, float]]:
    """Yield the parked bundles that are paused and not accepted, each with the end of its pause."""
    for one in recorded.unfinished:
        if one.bundle in accepted:
            continue
        due = pause_end(one, recorded.parked.get(one.bundle), now=now)
        if due is not None:
            yield one.bundle, due


def _paused(plan: ExportPlan) -> Iterator[PausedBundle]:
    """Yield the parked bundles of an export that are paused."""
    for one in plan.paused:
        if isinstance(one.state, PAUSABLE):
            reason = BundleParked(one.bundle, one.state).reason
            yield PausedBundle(one.bundle, reason, plan.paused_until[one.bundle])


def _note_on_splits(plan: ExportPlan) -> str:
    count = len(plan.splits)
    bundles = "1 parked bundle" if count == 1 else f"{count:,} parked bundles"
    return f"{plan.export.name}: {bundles} split into narrower ones, because nothing of it was ever stored"


def _notes(plans: Sequence[ExportPlan], asked: Instructions) -> Iterator[str]:
    for plan in plans:
        if plan.waiting:
            yield _note_on_waiting(plan)
        if asked.reports_kept and plan.recorded.kept:
            yield _note_on_kept(plan)


def _note_on_waiting(plan: ExportPlan) -> str:
    """Return the message about archives whose data was not settled when they were exported, and still is not."""
    count = len(plan.waiting)
    bundles = "1 bundle was" if count == 1 else f"{count:,} bundles were"
    first = min(settles_at(one, settle_seconds=plan.export.settle_seconds) for one in plan.waiting)
    return (
        f"{plan.export.name}: {bundles} exported before the data was settled and will be exported again when it is, "
        f"from {show(first)} on"
    )


def _note_on_kept(plan: ExportPlan) -> str:
    """Return the message about bundles that `retry` without `--accept-fewer` leaves alone."""
    count = len(plan.recorded.kept)
    bundles = "1 bundle keeps its archive" if count == 1 else f"{count:,} bundles keep their archives"
    return (
        f"{plan.export.name}: {bundles} because far fewer rows came; `retry --accept-fewer` replaces the archives with "
        "new exports"
    )
