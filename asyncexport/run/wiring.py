"""Builds the engine of a run from the settings: budget, client, poller, bundle runner and scheduler."""

import os
import random
from collections.abc import AsyncIterator, Callable, Container, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from asyncexport.client.clock import ServiceClock
from asyncexport.client.key_log import check_key_log
from asyncexport.config import ApiKey, Settings
from asyncexport.core.admission import Priority, Quota
from asyncexport.core.bucket import RequestHistory
from asyncexport.core.bundles import Bundle
from asyncexport.core.connectivity import Backoff
from asyncexport.core.coverage import ExportPlan
from asyncexport.core.durations import Durations
from asyncexport.core.events import Listener
from asyncexport.core.exports import Export
from asyncexport.core.operation_limit import OperationLimit
from asyncexport.core.polling import PollingRules
from asyncexport.core.row_rejections import UNTIMED, read_untimed, write_untimed
from asyncexport.core.second_looks import SECOND_LOOKS, SecondLooks
from asyncexport.core.service.refusals import ALL_EXPORTS
from asyncexport.core.service.retrying import Call
from asyncexport.core.splitting import AttemptRules
from asyncexport.engine.budget import Budget, Journal
from asyncexport.engine.bundle_runner import BundleRunner
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.download import ArchiveDownloads
from asyncexport.engine.export_state import ExportState
from asyncexport.engine.key_check import CheckedCalls
from asyncexport.engine.poller import OperationPoller
from asyncexport.engine.scheduler import Scheduler, Stop
from asyncexport.ledger import Ledger
from asyncexport.storage import Archives

if TYPE_CHECKING:
    from asyncexport.client.api import ApiClient
    from asyncexport.client.session import ConnectionSettings
    from asyncexport.client.storage_host import StorageHost


@dataclass(frozen=True, slots=True)
class RunEngine:
    """The parts that a run needs for its requests."""

    service: "ApiClient"
    budget: Budget
    durations: Durations
    poller: OperationPoller
    runner: BundleRunner
    scheduler: Scheduler


@asynccontextmanager
async def open_engine(
    settings: Settings,
    *,
    key: ApiKey,
    clock: ServiceClock,
    ledger: Ledger,
    archives: Archives,
    export_states: dict[str, ExportState],
    accepted: Container[Bundle],
    emit: Listener,
    stop: Stop,
    key_is_new: bool = False,
    retries_once: bool = False,
) -> AsyncIterator[RunEngine]:
    """Build the engine of a run and open its budget and connections; see `BundleRunner` for the arguments."""
    durations = Durations(expected_seconds=settings.polling.expected_seconds, known=await ledger.durations())
    budget, history = make_budget(settings, ledger, clock.now), await ledger.request_history(now=clock.now())
    await budget.open(history)
    try:
        async with make_api_client(settings, key, budget, clock) as client, _storage_host(settings) as storage_host:
            calls = CheckedCalls(client, budget)
            call_turns = _call_turns(settings, calls, emit, history=history, is_new=key_is_new, exports=export_states)
            poller = OperationPoller(
                calls,
                budget=budget,
                durations=durations,
                more_to_create=lambda: scheduler.more_to_create or budget.waiting(Priority.CREATE) > 0,
                learned=lambda at, seconds: ledger.learn(finished_at=at, seconds=seconds),
                call_turns=call_turns,
                **_polling(settings, clock),
            )
            runner = BundleRunner(
                gate=budget,
                service=calls,
                poller=poller,
                downloads=ArchiveDownloads(storage_host, archives),
                ledger=ledger,
                export_states=export_states,
                emit=emit,
                call_turns=call_turns,
                accepted=accepted,
                definitions=await ledger.exports(),
                **_times_and_limits(settings, clock, retries_once=retries_once),
            )
            scheduler = _scheduler(settings, runner, poller, budget=budget, durations=durations, stop=stop)
            async with _remembering(ledger, runner):
                yield RunEngine(client, budget, durations, poller, runner, scheduler)
    finally:
        await budget.close()


class _TimesAndLimits(TypedDict):
    """The clocks and the limits for a bundle, as arguments of `BundleRunner`."""

    clock: Callable[[], float]
    earliest: Callable[[], float]
    rules: AttemptRules
    download_slots: int
    second_look_seconds: float


def _times_and_limits(settings: Settings, clock: ServiceClock, *, retries_once: bool) -> _TimesAndLimits:
    return {
        "clock": clock.now,
        "earliest": clock.earliest,
        "rules": AttemptRules(
            settings.retry.attempts,
            settings.retry.before_split,
            settings.retry.split_to_seconds,
            retries_once=retries_once,
        ),
        "download_slots": settings.concurrency.downloads,
        "second_look_seconds": settings.download.second_look_seconds,
    }


@asynccontextmanager
async def _remembering(ledger: Ledger, runner: BundleRunner) -> AsyncIterator[None]:
    """Record in the ledger what later runs and other commands need.

    Exports whose rows are not checked for their time are recorded immediately, because `verify` uses that, too. The
    number of files that needed a second check is recorded at the end, for `plan`.
    """
    rows = runner.fetching.rows
    rows.untimed = read_untimed(await ledger.recall(UNTIMED))
    rows.remember = lambda exports: ledger.remember(UNTIMED, write_untimed(exports))
    known = SecondLooks.read(await ledger.recall(SECOND_LOOKS))
    try:
        yield
    finally:
        new = runner.fetching.second_looks
        if new.files:
            ledger.remember(SECOND_LOOKS, known.plus(new.files, new.looks).to_json())


async def export_states(
    ledger: Ledger, exports: Iterable[Export], plans: Iterable[ExportPlan]
) -> dict[str, ExportState]:
    """Return the state of each export: whether the service accepted a create of it before, and if data is stored."""
    in_progress = {plan.export.name for plan in plans if plan.in_progress}
    names = [export.name for export in exports]
    stored = await ledger.query(lambda queries: {name for name in names if queries.has_archives(name)})
    return {
        export.name: ExportState(
            export, accepted=export.name in in_progress | stored, ever_stored=export.name in stored
        )
        for export in exports
    }


def quota_of(settings: Settings) -> Quota:
    """Return the quota that the settings describe."""
    return Quota(settings.budget.requests_per_minute, settings.budget.burst, settings.budget.scope)


def make_budget(settings: Settings, journal: Journal, wall_clock: Callable[[], float]) -> Budget:
    """Return a budget with the configured limits; it is not open yet."""
    return Budget(
        quota_of(settings),
        prefer=settings.polling.prefer,
        backoff=_backoff(settings),
        journal=journal,
        wall_clock=wall_clock,
        jitter=random.random,
    )


def make_api_client(settings: Settings, key: ApiKey, budget: Budget, clock: ServiceClock) -> "ApiClient":
    """Return a client that respects the budget and passes the dates of answers to the clock; it is not open yet."""
    check_key_log(os.environ)
    # Importing aiohttp takes most of the start-up time, and `plan` sends no requests.
    from asyncexport.client.api import ApiClient  # noqa: PLC0415

    return ApiClient(
        base_url=key.base_url(settings.api.base_url),
        key=key.reveal(),
        gate=budget,
        connection=connection_settings(settings),
        headers=settings.api.headers,
        on_date=clock.hear,
        wall_clock=clock.now,
    )


def _storage_host(settings: Settings) -> "StorageHost":
    """Return the client of the storage host, which has neither the key nor the configured headers."""
    from asyncexport.client.storage_host import StorageHost  # noqa: PLC0415 - see `make_api_client`

    return StorageHost(connection_settings(settings), min_rate=settings.download.min_rate)


def connection_settings(settings: Settings) -> "ConnectionSettings":
    """Return the timeouts, the proxy and the certificates that the settings describe."""
    from asyncexport.client.session import ConnectionSettings  # noqa: PLC0415 - see `make_api_client`

    api = settings.api
    return ConnectionSettings(
        connect_timeout_seconds=api.connect_timeout_seconds,
        read_timeout_seconds=api.read_timeout_seconds,
        proxy=api.proxy,
        ca_file=api.ca_file,
    )


def _scheduler(
    settings: Settings,
    runner: BundleRunner,
    poller: OperationPoller,
    *,
    budget: Budget,
    durations: Durations,
    stop: Stop,
) -> Scheduler:
    limit = OperationLimit(
        cap=settings.concurrency.operations,
        burst=settings.budget.burst,
        requests_per_minute=settings.budget.requests_per_minute,
        prefer=settings.polling.prefer,
    )
    return Scheduler(
        runner,
        poller,
        allowed=lambda: limit.allowed(durations, polls_cost=budget.polls_cost),
        most=settings.concurrency.operations,
        most_waiting=settings.concurrency.operations,
        stop=stop,
        grace_seconds=settings.output.grace_seconds,
    )


def _backoff(settings: Settings) -> Backoff:
    retry = settings.retry
    return Backoff(
        retry.backoff_initial_seconds, retry.backoff_max_seconds, retry.outage_seconds, retry.first_contact_seconds
    )


def _call_turns(
    settings: Settings,
    calls: CheckedCalls,
    emit: Listener,
    *,
    history: RequestHistory,
    is_new: bool,
    exports: dict[str, ExportState],
) -> CallTurns:
    """Return the state that all bundles share; `is_new` says that earlier runs in the directory used another key."""
    call_turns = CallTurns(
        _backoff(settings),
        jitter=random.random,
        key=calls.key,
        emit=emit,
        key_has_worked=history.has_success and not is_new,
    )
    if any(one.ever_stored for one in exports.values()):
        call_turns.refusals.successes.recall(ALL_EXPORTS, Call.POLL)
    return call_turns


class _Polling(TypedDict):
    """The polling rules and the clocks, as arguments of `OperationPoller`."""

    polling: PollingRules
    clock: Callable[[], float]
    service_time: Callable[[], float]


def _polling(settings: Settings, clock: ServiceClock) -> _Polling:
    return {"polling": _polling_rules(settings), "clock": clock.steady, "service_time": clock.now}


def _polling_rules(settings: Settings) -> PollingRules:
    quota = quota_of(settings)
    return PollingRules(
        min_interval_seconds=settings.polling.min_interval_seconds,
        deadline_seconds=settings.polling.operation_deadline_seconds,
        prefer=settings.polling.prefer,
        burst=quota.usable_burst,
        refill_seconds=quota.refill_seconds,
    )
