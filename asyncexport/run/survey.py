"""What a run would find, from the ledger alone: nothing is asked of the service, nothing is written."""

from dataclasses import dataclass, field

from asyncexport.config import Settings
from asyncexport.core.admission import BudgetScope
from asyncexport.core.bundles import Range
from asyncexport.core.coverage import ExportPlan, RecordedRange, needs_refresh
from asyncexport.core.durations import Durations
from asyncexport.core.exports import Export
from asyncexport.core.second_looks import SECOND_LOOKS, SecondLooks
from asyncexport.ledger import LedgerReader, present
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.planner import export_plan
from asyncexport.run.ranges import NIGHTLY_SINCE, ExportRanges, export_ranges, where_nights_begin
from asyncexport.run.spec import Instructions, RunSpec, instructions
from asyncexport.run.wiring import quota_of


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run would find.

    Attributes:
        plans: What there is to do, by export. Exports with nothing settled in the range are left out.
        notes: A sentence about each range that was cut back or left out.
        tokens: Requests that may be sent at once, if every request counts.
        tokens_for_creates: The same, if only creates count.
        median_seconds: How long an operation is expected to take.
        operations_seen: How many operations that was learned from. 0: it is `[polling] expected`.
        all_counted_since: When a run learned that every request counts, in seconds since 1970. None: no run did.
        second_looks: How many files took a second look so far.
    """

    plans: tuple[ExportPlan, ...]
    notes: tuple[str, ...]
    tokens: float
    tokens_for_creates: float
    median_seconds: float
    operations_seen: int = 0
    all_counted_since: float | None = None
    second_looks: SecondLooks = field(default_factory=SecondLooks)


def survey(settings: Settings, spec: RunSpec, *, now: float) -> Survey:
    """What a run would find at a moment, in seconds since 1970.

    Raises:
        LedgerError: the ledger cannot be read, or is missing beside archives.
    """
    directory = settings.output.directory
    if present(directory):
        with LedgerReader(directory) as ledger:
            return _survey_ledger(settings, spec, ledger, now=now)
    check_ledger_not_lost(directory)
    asked = instructions(spec)
    ranges = _ranges(settings, spec, asked, None, now=now)
    plans = tuple(export_plan(export, span, RecordedRange(), asked, []) for export, span in ranges.spans)
    burst = quota_of(settings).usable_burst
    return Survey(plans, ranges.notes, burst, burst, settings.polling.expected_seconds)


def _survey_ledger(settings: Settings, spec: RunSpec, ledger: LedgerReader, *, now: float) -> Survey:
    asked = instructions(spec)
    ranges = _ranges(settings, spec, asked, ledger.recall(NIGHTLY_SINCE), now=now)
    plans = tuple(_plan_export(ledger, export, span, asked, now=now) for export, span in ranges.spans)
    durations = Durations(expected_seconds=settings.polling.expected_seconds, known=ledger.durations())
    history, quota = ledger.request_history(now=now), quota_of(settings)

    def tokens(scope: BudgetScope) -> float:
        return max(0.0, quota.usable_burst - history.tokens_used(quota, scope, now=now))

    return Survey(
        plans,
        ranges.notes,
        tokens=tokens(BudgetScope.ALL),
        tokens_for_creates=tokens(BudgetScope.CREATE),
        median_seconds=durations.median_seconds,
        operations_seen=durations.known,
        all_counted_since=history.all_counted_since,
        second_looks=SecondLooks.read(ledger.recall(SECOND_LOOKS)),
    )


def _ranges(
    settings: Settings, spec: RunSpec, asked: Instructions, remembered: str | None, *, now: float
) -> ExportRanges:
    night_start = where_nights_begin(settings.nightly.since_at(now), remembered, now=now)
    return export_ranges(spec.exports, asked, now=now, night_start=night_start)


def _plan_export(ledger: LedgerReader, export: Export, span: Range, asked: Instructions, *, now: float) -> ExportPlan:
    seconds = asked.refresh_seconds
    refresh = []
    if seconds > 0:
        candidates = ledger.stored(export.name, span, exported_within=seconds)
        refresh = [one for one in candidates if needs_refresh(one, refresh_seconds=seconds, now=now)]
    return export_plan(export, span, ledger.stock(export.name, span), asked, refresh)
