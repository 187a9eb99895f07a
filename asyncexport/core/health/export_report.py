"""What is known of one export: what is stored, what is missing, and what is wrong with it.

An export that is no longer configured has gaps but no commands that fill them, and nothing counts as wrong with it,
because no run exports it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import settled_until
from asyncexport.core.exports import Export
from asyncexport.core.health.gap_list import StartedTime, started_time
from asyncexport.core.health.missing import Again, Coverage, Due, Gap, Piece, gaps_of, timeline
from asyncexport.core.health.overview import Overview
from asyncexport.core.health.problems import delays, faults, few_rows, not_accepted, unsettled
from asyncexport.core.health.records import AcceptedGap, AlteredArchive
from asyncexport.core.health.weeks import Week, weeks_of
from asyncexport.core.sentinel.shortfalls import Shortfall
from asyncexport.core.states import BundleRecord


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """What the ledger, the disk and the configuration say of an export.

    Attributes:
        overview: What the ledger knows of it.
        export: Its configuration; None if it is no longer configured.
        altered: Archives that were deleted or changed, in order.
        accepted: The gaps of this export that the user has accepted.
        shortfalls: The open shortfalls: stored time with far fewer rows than usual.
        shortfalls_fail: Whether they count as a problem (`[sentinel] fail`).
    """

    overview: Overview
    export: Export | None
    altered: tuple[AlteredArchive, ...] = ()
    accepted: tuple[AcceptedGap, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    shortfalls_fail: bool = False


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The report on one export.

    Attributes:
        overview: What the ledger knows of it: its definition, bundles, rows and bytes.
        due: What nights ask of it; None if it is no longer configured.
        pieces: All time that was asked for, and what is there for it, in order.
        gaps: What is missing, with the reason and the command that fills it, in order.
        weeks: Coverage by week, in order.
        accepted: The gaps that the user has accepted.
        altered: Archives that were deleted or changed, in order.
        open_parked: The parked bundles that the user has not accepted, those that kept an archive included.
        problems: What is wrong with it, a sentence each; () if all is well.
        shortfalls: Stored time with far fewer rows than usual that the user has not accepted, in order.
        shortfalls_fail: Whether shortfalls are among the problems.
        started: The gaps that runs have started and not finished, as one entry; None if there are none.
    """

    overview: Overview
    due: Due | None
    pieces: tuple[Piece, ...]
    gaps: tuple[Gap, ...]
    weeks: tuple[Week, ...]
    accepted: tuple[AcceptedGap, ...]
    altered: tuple[AlteredArchive, ...]
    open_parked: tuple[BundleRecord, ...]
    problems: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...] = ()
    shortfalls_fail: bool = False
    started: StartedTime | None = None

    @property
    def complete_until(self) -> int | None:
        """The time up to which everything since the start of nights is stored or accepted; None if nothing is."""
        return self._reached(Coverage.STORED, Coverage.ACCEPTED)

    @property
    def asked_until(self) -> int | None:
        """As `complete_until`; if no night was ever asked for, time that no run has requested is left out."""
        asks = self.due is not None and self.due.since is not None
        return self.complete_until if asks else self._reached(Coverage.STORED, Coverage.ACCEPTED, Coverage.NEVER_ASKED)

    def _reached(self, *complete: Coverage) -> int | None:
        """Return the end of the pieces of these kinds, from the start of nights on; None if there are none."""
        since = self.due.since if self.due else None
        reached = None
        for span, coverage in self.pieces:
            if since is not None and span.end <= since:
                continue
            if coverage not in complete:
                break
            reached = span.end
        return reached


def export_report(
    facts: ExportFacts,
    *,
    since: int | None,
    now: float,
    max_behind: float,
    run_in_progress: bool,
    option: Sequence[str],
    again: Again,
) -> ExportReport:
    """Make the report on one export.

    Args:
        facts: The facts.
        since: Where nights begin, in seconds since 1970; None if no night was ever asked for.
        now: The time at the service, in seconds since 1970.
        max_behind: How long data may be settled and not stored, in seconds.
        run_in_progress: Whether a run is in progress.
        option: The option that selects this export, if a command needs it.
        again: Makes the command lines.
    """
    due = None if facts.export is None else _due(facts.export, since=since, now=now, max_behind=max_behind)
    pieces = timeline(
        facts.overview,
        altered=[one.record.bundle.range for one in facts.altered],
        accepted=[one.bundle.range for one in facts.accepted],
        due=due,
    )
    open_parked = not_accepted(facts.overview.parked, facts.accepted)
    gaps = tuple(gaps_of(pieces, due, run_in_progress=run_in_progress, option=option, again=again))
    return ExportReport(
        overview=facts.overview,
        due=due,
        pieces=pieces,
        gaps=gaps,
        weeks=tuple(weeks_of(pieces)),
        accepted=facts.accepted,
        altered=facts.altered,
        open_parked=open_parked,
        problems=tuple(_problems(facts, pieces, open_parked, due, run_in_progress=run_in_progress)),
        shortfalls=facts.shortfalls,
        shortfalls_fail=facts.shortfalls_fail,
        started=started_time(gaps, facts.overview, due, run_in_progress=run_in_progress, option=option, again=again),
    )


def _due(export: Export, *, since: int | None, now: float, max_behind: float) -> Due:
    settled = settled_until(now, settle_seconds=export.settle_seconds)
    return Due(since, settled, settled // export.bundle_seconds * export.bundle_seconds, max_behind, now)


def _problems(
    facts: ExportFacts,
    pieces: Sequence[Piece],
    parked: Sequence[BundleRecord],
    due: Due | None,
    *,
    run_in_progress: bool,
) -> Iterator[str]:
    if facts.export is None or due is None:
        return
    found = (
        *delays(facts.overview, pieces, due, run_in_progress=run_in_progress),
        *faults(facts.overview, parked, facts.altered),
        *unsettled(facts.overview, due, settle_seconds=facts.export.settle_seconds),
        *(few_rows(facts.shortfalls) if facts.shortfalls_fail else ()),
    )
    yield from (f"{facts.overview.name}: {one}" for one in found)
