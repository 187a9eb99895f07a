"""Works out what a run would have to do from the ledger alone: no request is sent and nothing is written."""

from dataclasses import dataclass, field

from asyncexport.client.clock import time_by
from asyncexport.config import Settings
from asyncexport.core.admission import BudgetScope
from asyncexport.core.bundles import Bundle
from asyncexport.core.coverage import ExportPlan
from asyncexport.core.durations import Durations
from asyncexport.core.second_looks import SECOND_LOOKS, SecondLooks
from asyncexport.ledger import LedgerReader, present
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.planner import CLOCK_CHECK, plan_run
from asyncexport.run.spec import RunSpec, instructions
from asyncexport.run.unrecorded import check_recorded_in
from asyncexport.run.wiring import quota_of


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run would have to do.

    Attributes:
        plans: The plan of each export. Exports with nothing settled in the range are left out.
        notes: A message about each range that was cut back or left out.
        tokens: Requests that may be sent immediately if every request counts.
        tokens_for_creates: Creates that may be sent immediately if only creates count.
        median_seconds: The expected duration of an operation.
        operations_seen: The number of operations it was learned from. 0 if it is `[polling] expected`.
        all_counted_since: When a run learned that every request counts, in seconds since 1970. None if no run did.
        second_looks: How many files needed a second check so far.
        audit: The stored bundles to audit; a run chooses others.
    """

    plans: tuple[ExportPlan, ...]
    notes: tuple[str, ...]
    tokens: float
    tokens_for_creates: float
    median_seconds: float
    operations_seen: int = 0
    all_counted_since: float | None = None
    second_looks: SecondLooks = field(default_factory=SecondLooks)
    audit: tuple[Bundle, ...] = ()

    @property
    def bundles(self) -> int:
        """The number of bundles to export."""
        return sum(work.count for work in self.plans) + len(self.audit)


def time_at_service(settings: Settings) -> float:
    """Return the service's time in seconds since 1970, from this host's clock and its comparison by the newest run.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    directory, check = settings.output.directory, None
    if present(directory):
        with LedgerReader(directory) as ledger:
            check = ledger.recall(CLOCK_CHECK)
    return time_by(check, trust=settings.api.clock)


def survey(settings: Settings, spec: RunSpec, *, now: float) -> Survey:
    """Return what a run would have to do at the time `now`, in seconds since 1970.

    Raises:
        ConfigError: a date makes no sense.
        LedgerError: the ledger cannot be read, belongs to another export definition, or is missing although archives
            exist.
    """
    directory = settings.output.directory
    if present(directory):
        with LedgerReader(directory) as ledger:
            ledger.check_definitions(spec.exports)
            check_recorded_in(directory, spec.exports, ledger)
            return _survey_ledger(settings, spec, ledger, now=now)
    check_ledger_not_lost(directory)
    plan = plan_run(settings, spec.exports, instructions(spec), None, now=now)
    plan.check_dates()
    burst = quota_of(settings).usable_burst
    return Survey(plan.exports, plan.notes, burst, burst, settings.polling.expected_seconds)


def _survey_ledger(settings: Settings, spec: RunSpec, ledger: LedgerReader, *, now: float) -> Survey:
    plan = plan_run(settings, spec.exports, instructions(spec), ledger, now=now)
    plan.check_dates()
    durations = Durations(expected_seconds=settings.polling.expected_seconds, known=ledger.durations())
    history, quota = ledger.request_history(now=now), quota_of(settings)

    def tokens(scope: BudgetScope) -> float:
        return max(0.0, quota.usable_burst - history.tokens_used(quota, scope, now=now))

    return Survey(
        plan.exports,
        plan.notes,
        tokens=tokens(BudgetScope.ALL),
        tokens_for_creates=tokens(BudgetScope.CREATE),
        median_seconds=durations.median_seconds,
        operations_seen=durations.known,
        all_counted_since=history.all_counted_since,
        second_looks=SecondLooks.read(ledger.recall(SECOND_LOOKS)),
        audit=tuple(one.bundle for one in plan.audit),
    )
