"""`plan`: what a backfill or a nightly run would do, and what it would cost.

1. Only the ledger is read: a plan costs no request, needs no key, and works during a run.
2. It is not documented which requests the service's limit counts, so each figure is given for every reading of it.
3. Figures come from a formula, or from a simulation (`simulating`) if one is requested.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncexport.cli.options import DATES, Asked, Directory, End, Names, Sets, read_asked
from asyncexport.cli.session import Session
from asyncexport.cli.simulating import (
    Duration,
    Growth,
    Look,
    Options,
    Seeds,
    Sigma,
    Simulate,
    Vary,
    check,
    read_variants,
    show_simulation,
)
from asyncexport.core.admission import BudgetScope, is_still_learned
from asyncexport.core.bundles import DAY, show
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Export, Type
from asyncexport.core.forecast import (
    ALL_WITH_LIST,
    ALL_WITHOUT_LIST,
    CREATES_ONLY,
    REQUEST_COSTS,
    Pace,
    RequestCost,
    seconds_to_end,
)
from asyncexport.core.states import Created, Ready
from asyncexport.core.summary import Summary, Tally
from asyncexport.core.text import show_duration
from asyncexport.display import count_of, fitted_table, show_count, show_minute
from asyncexport.errors import Problem

if TYPE_CHECKING:
    from asyncexport.config import Settings
    from asyncexport.core.coverage import ExportPlan
    from asyncexport.run.survey import Survey

PlanStart = Annotated[
    str | None, typer.Option("--start", metavar="DATE", help=f"Start of the range: {DATES}.", show_default=False)
]
Tonight = Annotated[
    bool, typer.Option("--nightly", help="Estimate a nightly run that starts now instead of a backfill.")
]

WIDTHS = {"30m": 1800, "1h": 3600, "6h": 21_600, "24h": DAY}

NAMES = {CREATES_ONLY: "only creates", ALL_WITH_LIST: "every request", ALL_WITHOUT_LIST: "every request, no list"}
"""Each reading of the limit in words."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a run under one reading of the limit."""

    reading: RequestCost
    bundles: int
    creates: int
    requests: int
    seconds: float
    second_looks: int


def plan(
    ctx: typer.Context,
    *,
    start: PlanStart = None,
    end: End = None,
    nightly: Tonight = False,
    export: Names = None,
    directory: Directory = None,
    sets: Sets = None,
    simulate: Simulate = False,
    vary: Vary = None,
    duration: Duration = None,
    sigma: Sigma = None,
    growth: Growth = None,
    seeds: Seeds = None,
) -> Summary:
    """Show what a backfill or a nightly run would cost.

    Sends no request and needs no key. Fullstory does not document which requests its rate limit counts, so there are
    three finish times: if only creates count; if every request counts; if every request counts and operations must be
    polled one by one because the list is unusable. A second table shows other values of [[export]] bundle.

    --nightly estimates a nightly run that starts now: what is new since [nightly] since, the refreshes that are due,
    and bundles of earlier runs that are unfinished or due for a retry.

    --simulate runs the real scheduler on a virtual clock instead of using a formula: it takes seconds and sends no
    request. --vary also simulates other settings for comparison. The assumptions about the service are printed below
    the table.
    """
    session: Session = ctx.obj
    options = Options(simulate, tuple(vary or ()), duration, sigma, growth, seeds)
    check(options)
    faults = list(_faults_of_range(nightly=nightly, start=start, end=end))
    asked = read_asked(session, directory=directory, sets=sets, names=export, start=start, end=end, faults=faults)
    variants = read_variants(asked, options) if options.wanted else []
    now = _now(asked)
    look = partial(_survey, nightly=nightly, now=now)
    found = look(asked, asked.exports)
    for message in found.notes:
        session.record("note", message=message)
        session.lines.report("note", message)
    _show_bundles(session, found)
    if variants:
        show_simulation(session, asked, options, variants, look=look, now=now)
    else:
        _show_cost(session, asked, found, other_widths=None if nightly else look, now=now)
    return session.summary(Exit.DONE, tally=_tally(found))


def _now(asked: Asked) -> float:
    from asyncexport.run.survey import time_at_service

    return time_at_service(asked.settings)


def _faults_of_range(*, nightly: bool, start: str | None, end: str | None) -> Iterator[Problem]:
    """Check that the command line gives either dates or `--nightly`."""
    if not nightly and start is None:
        yield Problem("--start", "is missing; give a date, or --nightly")
    for option, date in (("--start", start), ("--end", end)):
        if nightly and date is not None:
            yield Problem(option, "does not go with --nightly")


def _survey(asked: Asked, exports: tuple[Export, ...], *, nightly: bool, now: float) -> "Survey":
    from asyncexport.run.spec import Backfill, Nightly, nightly_sample
    from asyncexport.run.survey import survey

    settings = asked.settings
    if nightly:
        audit = nightly_sample(settings.nightly.audit)
        spec = Nightly(exports, refresh_ages=settings.nightly.refresh_seconds, audit=audit)
        return survey(settings, spec, now=now)
    return survey(settings, Backfill(exports, start=asked.start, end=asked.end), now=now)


def _tally(found: "Survey") -> Tally:
    stored_before = sum(work.stored_before for work in found.plans) - len(found.audit)
    to_do = sum(work.count for work in found.plans) + len(found.audit)
    return Tally(planned=stored_before + to_do, stored_before=stored_before)


def _estimates(settings: "Settings", found: "Survey") -> Iterator[Estimate]:
    bundles = found.bundles
    created = sum(_created(work) for work in found.plans)
    second_looks = found.second_looks.expected(bundles)
    for reading in REQUEST_COSTS:
        pace = Pace(
            tokens=found.tokens_for_creates if reading is CREATES_ONLY else found.tokens,
            requests_per_minute=settings.budget.requests_per_minute,
            in_flight=settings.concurrency.operations,
            operation_seconds=found.median_seconds,
        )
        yield Estimate(
            reading,
            bundles,
            creates=bundles - created,
            requests=reading.requests(bundles, created=created, second_looks=second_looks),
            seconds=seconds_to_end(
                reading,
                pace,
                bundles=bundles,
                created=created,
                remaining_seconds=found.median_seconds if created else 0.0,
                second_looks=second_looks,
                second_look_seconds=settings.download.second_look_seconds,
            ),
            second_looks=second_looks,
        )


def _created(work: "ExportPlan") -> int:
    """Count the bundles whose create has been sent and answered."""
    return sum(isinstance(one.state, Created | Ready) for one in work.in_progress)


def _show_bundles(session: Session, found: "Survey") -> None:
    for work in found.plans:
        audits = sum(bundle.export == work.export.name for bundle in found.audit)
        session.record("plan", **_facts_of_work(work), audits=audits)
        parts = {
            "in progress": len(work.in_progress),
            "parked by earlier runs": len(work.parked),
            "to refresh": work.refreshes,
        }
        named = ", ".join(f"{show_count(count)} {what}" for what, count in parts.items() if count)
        session.say_fitted(f"{work.export.name}: {work.span}, in bundles of {_width(work.export.bundle_seconds)}")
        session.say_fitted(
            f"  {count_of(work.count, 'bundle', 'bundles')} to do{f' ({named})' if named else ''}, "
            f"{show_count(work.stored_before)} already stored"
        )
        if resting := len(work.paused):
            session.say_fitted(
                f"  {count_of(resting, 'parked bundle waits', 'parked bundles wait')} for a later nightly run"
            )
        if audits:
            session.say_fitted(f"  {count_of(audits, 'stored bundle', 'stored bundles')} to audit after that")


def _show_cost(session: Session, asked: Asked, found: "Survey", *, other_widths: Look | None, now: float) -> None:
    """Show the cost of the work, and what it would be with other bundle widths."""
    if not found.bundles:
        session.say("nothing to do: the run would send no request")
        return
    _show_estimates(session, asked.settings, found, list(_estimates(asked.settings, found)), now=now)
    if other_widths is not None:
        _show_widths(session, asked, look=other_widths, now=now)


def _show_estimates(
    session: Session, settings: "Settings", found: "Survey", estimates: list[Estimate], *, now: float
) -> None:
    for one in estimates:
        session.record("estimate", width_seconds=None, **_facts_of_estimate(one, now))
    session.say(f"{count_of(estimates[0].creates, 'create', 'creates')} to send")
    rows = [("if the limit counts", "requests", "free now", "done in", "done at")]
    for one in estimates:
        available = found.tokens_for_creates if one.reading is CREATES_ONLY else found.tokens
        ends = show_minute(now + one.seconds)
        done_in = show_duration(one.seconds)
        rows.append((NAMES[one.reading], show_count(one.requests), f"{available:.0f}", done_in, ends))
    _say_table(session, rows, right=frozenset({1, 2}))
    session.say()
    session.say_fitted(_assumed_reading(settings, found, now=now))
    source = (
        f"the median of {show_count(found.operations_seen)} so far" if found.operations_seen else "[polling] expected"
    )
    session.say_fitted(f"assumes that an operation takes {show_duration(found.median_seconds)} ({source})")
    if looks := estimates[0].second_looks:
        files = count_of(looks, "empty file", "empty files")
        session.say_fitted(
            f"assumes that {files} will be downloaded twice to confirm it, at one more results call each"
        )


def _show_widths(session: Session, asked: Asked, *, look: Look, now: float) -> None:
    """Show the times for other bundle widths; exports of individuals have only one width."""
    rows = [("bundles of", "to do", *(f"{NAMES[reading]}" for reading in REQUEST_COSTS))]
    for name, seconds in WIDTHS.items():
        exports = tuple(_widened(export, seconds) for export in asked.exports)
        if not any(export.bundle_seconds == seconds for export in exports):
            continue
        found = look(asked, exports)
        estimates = list(_estimates(asked.settings, found))
        for one in estimates:
            session.record("estimate", width_seconds=seconds, **_facts_of_estimate(one, now))
        rows.append((name, show_count(estimates[0].bundles), *(show_duration(one.seconds) for one in estimates)))
    if len(rows) > 2:
        _say_table(session, rows, right=frozenset({1}))


def _widened(export: Export, seconds: int) -> Export:
    """Change the width, unless the export is of individuals: their rows are totals of a day."""
    return export if export.definition.type is Type.INDIVIDUAL else replace(export, bundle_seconds=seconds)


def _assumed_reading(settings: "Settings", found: "Survey", *, now: float) -> str:
    """Say which reading of the limit the next run will assume."""
    learned = found.all_counted_since
    match settings.budget.scope:
        case BudgetScope.CREATE:
            return "a run assumes the first line, as set by [budget] scope"
        case BudgetScope.ALL:
            return "a run assumes the second line, as set by [budget] scope, or the third if the list is unusable"
        case _ if learned is not None and is_still_learned(learned, now=now):
            return f"a run assumes the second line: it learned at {show(learned)} that every request counts"
        case _:
            return "a run assumes the first line until the service's answers show that another one applies"


def _facts_of_work(work: "ExportPlan") -> dict[str, Any]:
    return {
        "export": work.export.name,
        "start": show(work.span.start),
        "end": show(work.span.end),
        "width_seconds": work.export.bundle_seconds,
        "to_do": work.count,
        "already": work.stored_before,
        "under_way": len(work.in_progress),
        "parked": len(work.parked),
        "refreshes": work.refreshes,
        "resting": len(work.paused),
    }


def _facts_of_estimate(one: Estimate, now: float) -> dict[str, Any]:
    return {
        "reading": one.reading.name,
        "bundles": one.bundles,
        "creates": one.creates,
        "requests": one.requests,
        "second_looks": one.second_looks,
        "seconds": round(one.seconds, 1),
        "ends_at": show(now + one.seconds),
    }


def _say_table(session: Session, rows: Sequence[tuple[str, ...]], *, right: frozenset[int]) -> None:
    session.say()
    for line in fitted_table(rows, right=right, columns=session.results.columns()):
        session.say(line)


def _width(seconds: int) -> str:
    return next((name for name, width in WIDTHS.items() if width == seconds), show_duration(seconds))
