"""The report: each export, the last runs, requests per hour, and the verdict on all of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import show, show_day_or_time
from asyncexport.core.exits import Exit
from asyncexport.core.health.beside import Beside, fault_of_beside
from asyncexport.core.health.export_report import ExportFacts, ExportReport, export_report
from asyncexport.core.health.gap_list import is_optional
from asyncexport.core.health.last_run import fault_of_last_run, finished_runs, how_it_ended
from asyncexport.core.health.missing import MAX_BEHIND_SECONDS, Again
from asyncexport.core.health.records import HourCount, RunRecord

MOST_PROBLEMS_NAMED = 3
"""Problems in the reason of a verdict; it is one line."""


@dataclass(frozen=True, slots=True)
class DirectoryFacts:
    """What the ledger, the disk and the configuration say of an output directory.

    Attributes:
        exports: The facts on each export, those that are configured and not in the ledger included.
        since: Where nights begin, in seconds since 1970; None if no night was ever asked for.
        runs: The runs on record, in the order they ended (`core.health.run_order`).
        hours: The requests on record by hour, in order.
        in_progress: Whether a run is in progress.
        beside: The last load and the last mirror, if there was one.
    """

    exports: tuple[ExportFacts, ...]
    since: int | None = None
    runs: tuple[RunRecord, ...] = ()
    hours: tuple[HourCount, ...] = ()
    in_progress: bool = False
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all is well.

    Attributes:
        healthy: Whether the last run, load and mirror ended well, and nothing is missing for longer than allowed.
        reason: Why, in one line.
    """

    healthy: bool
    reason: str


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What `status` and its page show.

    Attributes:
        verdict: Whether all is well.
        exports: The report on each export.
        since: Where nights begin, in seconds since 1970; None if no night was ever asked for.
        runs: The runs on record, in the order they ended; the last ones may be in progress.
        hours: The requests on record by hour, in order.
        in_progress: Whether a run is in progress.
        now: The time at the service, in seconds since 1970.
        beside: The last load and the last mirror, if there was one.
    """

    verdict: Verdict
    exports: tuple[ExportReport, ...]
    since: int | None
    runs: tuple[RunRecord, ...]
    hours: tuple[HourCount, ...]
    in_progress: bool
    now: float
    beside: tuple[Beside, ...] = ()


def status_report(
    facts: DirectoryFacts, *, now: float, again: Again, max_behind: float = MAX_BEHIND_SECONDS
) -> StatusReport:
    """Make the report.

    Args:
        facts: The facts.
        now: The time at the service, in seconds since 1970.
        again: Makes a command line from a command and its arguments, for the same configuration and directory.
        max_behind: How long data may be settled and not stored, in seconds.
    """
    several = sum(one.export is not None for one in facts.exports) > 1
    reports = tuple(
        export_report(
            one,
            since=facts.since,
            now=now,
            max_behind=max_behind,
            run_in_progress=facts.in_progress,
            option=("--export", one.overview.name) if several else (),
            again=again,
        )
        for one in facts.exports
    )
    verdict, running = _verdict(facts, reports), facts.in_progress
    return StatusReport(verdict, reports, facts.since, facts.runs, facts.hours, running, now, facts.beside)


def _verdict(facts: DirectoryFacts, reports: Sequence[ExportReport]) -> Verdict:
    judged = [one for one in reports if one.due is not None]
    fault = fault_of_last_run(
        facts.runs,
        in_progress=facts.in_progress,
        has_parked=any(one.open_parked for one in judged),
        accepted=[gap for one in judged for gap in one.accepted],
    )
    beside = map(fault_of_beside, facts.beside)
    problems = [one for one in (fault, *beside, *(problem for one in judged for problem in one.problems)) if one]
    if not problems:
        return Verdict(healthy=True, reason=_all_well(facts, judged))
    more = len(problems) - MOST_PROBLEMS_NAMED
    named = [
        *problems[:MOST_PROBLEMS_NAMED],
        *([f"{more} more problems" if more > 1 else "1 more problem"] if more > 0 else []),
    ]
    return Verdict(healthy=False, reason="; ".join(named))


def _all_well(facts: DirectoryFacts, judged: Sequence[ExportReport]) -> str:
    finished = finished_runs(facts.runs)
    return "; ".join(
        filter(
            None,
            (
                "a run is in progress" if facts.in_progress else "",
                _ended_well(finished[-1]) if finished else "",
                _complete(facts.since, judged, in_progress=facts.in_progress),
                _optional_gaps(facts.since, judged),
            ),
        )
    )


def _ended_well(run: RunRecord) -> str:
    if run.exit_code == Exit.TIME_UP:
        return f"the last run ({run.command}) {how_it_ended(run)}"
    return f"the last run ({run.command}) ended well at {show(run.ended or 0)}"


def _complete(since: int | None, judged: Sequence[ExportReport], *, in_progress: bool) -> str:
    ends = [one.asked_until for one in judged if one.asked_until is not None]
    if not ends:
        # If no night was ever asked for, it is the run in progress that says what is wanted.
        return "" if since is None and in_progress else "nothing is due"
    what = "everything requested" if since is None else f"everything since {show_day_or_time(since)}"
    return f"{what} is stored up to {show(min(ends))}"


def _optional_gaps(since: int | None, judged: Sequence[ExportReport]) -> str:
    """Count the gaps that are no fault: those before the start of nights; return "" if there are none."""
    if since is None:
        count = sum(is_optional(gap, one.due) for one in judged for gap in one.gaps)
        what = "gap never asked for" if count == 1 else "gaps never asked for"
    else:
        count = sum(gap.range.end <= since for one in judged for gap in one.gaps)
        what = "older gap" if count == 1 else "older gaps"
    return f"{count:,} {what}" if count else ""
