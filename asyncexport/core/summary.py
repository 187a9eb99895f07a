"""The results of a run: the tally kept while it goes on, and the summary at its end.

Users script against the summary's keys (README): keys may be added, never changed. planned = already + stored + failed
+ unfinished; `empty` is part of stored; `bytes` are of archives. A bundle that kept its archive is part of failed in
the run that kept it first, and of already in later ones, even if they have exported it in vain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncexport.core.auditing import AuditResult
from asyncexport.core.bundles import Bundle, show
from asyncexport.core.covered_range import CoveredRange
from asyncexport.core.events import (
    BundleAudited,
    BundleMoved,
    BundleParked,
    BundleSplit,
    BundleStored,
    Event,
    ExportStopped,
    PossibleDuplicate,
    RowsOutside,
)
from asyncexport.core.exits import MEANINGS, Exit, exit_of
from asyncexport.core.join_progress import JoinedRun
from asyncexport.core.refreshed import Refreshed
from asyncexport.core.replacement_guard import is_far_fewer
from asyncexport.core.sentinel.shortfalls import Shortfall
from asyncexport.core.states import FewerRows, Stored
from asyncexport.errors import ExportError

if TYPE_CHECKING:
    from asyncexport.core.health.report import Verdict
    from asyncexport.core.mirror.tally import MirrorTally
    from asyncexport.core.warehouse.load_tally import LoadTally

MOST_PROBLEMS = 5
"""Open problems that are kept for the live view."""


class PausedBundle(NamedTuple):
    """A parked bundle that this run does not retry. `next_try`: when it will be, in seconds since 1970."""

    bundle: Bundle
    reason: str
    next_try: float


@dataclass(slots=True)
class Tally:
    """Counts what happens to the bundles of a run.

    Attributes:
        planned: All bundles of the range, including those stored before the run.
        stored_before: Bundles of the range that were stored before the run began.
        stored: Bundles stored in this run.
        empty: Bundles of these without rows.
        rows, bytes: Rows and archive bytes stored in this run.
        possible_duplicates: Creates that were sent and never answered.
        rows_outside: Sampled rows that lie outside their bundle's range.
        parked: The parked bundles, each with the reason.
        next_tries: Bundles of these that this run does not retry, each with the time of its next try.
        fewer: Bundles whose new export has far fewer rows than their archive, without the user having accepted that.
            Those that are parked have kept their archive. The others had no intact archive any more, and are stored.
        refreshed: The results for bundles that had an archive already.
        audit: The sample of bundles that are audited, and the results for them.
        accepted: Bundles whose archive is replaced however few rows the new export has.
        kept_before: Bundles whose archive an earlier run kept: no new problem if this run keeps it, too.
        stored_of: Exports of which a bundle was stored in this run.
        shortfalls: The open shortfalls in the range of the run: stored time with far fewer rows than usual.
        shortfalls_fail: Whether they fail the run (`[sentinel] fail`).
        refusals: The stopped exports, each with the error that stopped it.
        never_stored: Stopped exports of which nothing was ever stored.
        key_blamed: Stopped exports for which the key may be the cause.
        ranges: The range of each export, by its name. Empty until the work is planned.
    """

    planned: int = 0
    stored_before: int = 0
    stored: int = 0
    empty: int = 0
    rows: int = 0
    bytes: int = 0
    possible_duplicates: int = 0
    rows_outside: int = 0
    parked: dict[Bundle, str] = field(default_factory=dict)
    next_tries: dict[Bundle, float] = field(default_factory=dict)
    fewer: dict[Bundle, FewerRows] = field(default_factory=dict)
    refreshed: Refreshed = field(default_factory=Refreshed)
    audit: AuditResult = field(default_factory=AuditResult)
    accepted: set[Bundle] = field(default_factory=set)
    kept_before: set[Bundle] = field(default_factory=set)
    refusals: dict[str, ExportError] = field(default_factory=dict)
    never_stored: set[str] = field(default_factory=set)
    key_blamed: set[str] = field(default_factory=set)
    stored_of: set[str] = field(default_factory=set)
    ranges: dict[str, CoveredRange] = field(default_factory=dict)
    shortfalls: tuple[Shortfall, ...] = ()
    shortfalls_fail: bool = False

    @property
    def failed(self) -> int:
        """Bundles that are parked."""
        return len(self.parked)

    @property
    def unfinished(self) -> int:
        """Bundles that are neither stored nor parked."""
        return max(0, self.planned - self.stored_before - self.stored - self.failed)

    @property
    def is_cut_back(self) -> bool:
        """Whether a range ends earlier than asked for, because its end is not settled yet."""
        return any(one.is_cut_back for one in self.ranges.values())

    @property
    def losses(self) -> dict[Bundle, FewerRows]:
        """Bundles stored with far fewer rows than before, since there was no intact archive to keep."""
        return {bundle: fewer for bundle, fewer in self.fewer.items() if bundle not in self.parked}

    @property
    def fails_by_shortfalls(self) -> bool:
        """Whether the run fails because rows seem to be missing."""
        return self.shortfalls_fail and bool(self.shortfalls)

    @property
    def has_failures(self) -> bool:
        """Whether anything is not as it should be, apart from work that is left."""
        return bool(self.failed or self.losses or self.audit.damaged or self.fails_by_shortfalls)

    def count_paused(self, paused: Sequence[PausedBundle]) -> None:
        """Count parked bundles that this run does not retry, instead of those of an earlier plan."""
        for bundle in self.next_tries:
            self.parked.pop(bundle, None)
        self.parked |= {one.bundle: one.reason for one in paused}
        self.next_tries = {one.bundle: one.next_try for one in paused}

    def record(self, event: Event) -> None:
        """Count an event. A bundle that is retried is no longer parked."""
        if isinstance(event, BundleStored | BundleParked | BundleSplit):
            self._forget(event.bundle)
        match event:
            case BundleStored(bundle=bundle, archive=archive, replaced=replaced):
                self.stored_of.add(bundle.export)
                self.stored += 1
                self.empty += archive.rows == 0
                self.rows += archive.rows
                self.bytes += archive.bytes
                if replaced is not None:
                    self._stored_again(bundle, replaced, archive)
            case BundleParked(bundle=bundle, state=FewerRows()) if bundle in self.kept_before:
                self.stored_before += 1
                self.refreshed.count_kept()
            case BundleParked(bundle=bundle, state=state):
                self.parked[bundle] = event.reason
                if isinstance(state, FewerRows):
                    self.fewer[bundle] = state
                    if bundle not in self.audit:
                        self.refreshed.count_kept()
            case BundleAudited(comparison=comparison):
                self.audit.comparisons.append(comparison)
            case BundleSplit(pieces=pieces):
                self.planned += len(pieces) - 1
            case BundleMoved(before=before):
                self._forget(before.bundle)
            case PossibleDuplicate():
                self.possible_duplicates += 1
            case RowsOutside(outside=outside):
                self.rows_outside += outside
            case ExportStopped(export=export, error=error):
                self.refusals[export] = error
                self.never_stored |= set() if event.ever_stored else {export}
                self.key_blamed |= {export} if event.blames_key else set()

    def _forget(self, bundle: Bundle) -> None:
        """Forget that a bundle was parked."""
        self.parked.pop(bundle, None)
        self.fewer.pop(bundle, None)

    def _stored_again(self, bundle: Bundle, before: Stored, after: Stored) -> None:
        if bundle not in self.audit:
            self.refreshed.stored(before, after)
        if bundle not in self.accepted and is_far_fewer(after.rows, rows_before=before.rows):
            self.fewer[bundle] = FewerRows(rows_before=before.rows, rows_found=after.rows)

    def problems(self) -> list[dict[str, Any]]:
        """Return one object for each parked bundle, and for each that lost rows with its archive."""
        lost = {bundle: lost_reason(fewer) for bundle, fewer in self.losses.items()}
        found, fewer, tries = sorted({**self.parked, **lost}.items()), self.fewer, self.next_tries
        return [_problem_of(one, reason, fewer.get(one), next_try=tries.get(one)) for one, reason in found]

    def exit_code(self) -> Exit:
        """Return the exit code of a run that was not interrupted."""
        if refused := self.never_stored - self.stored_of:
            return Exit.KEY_REFUSED if refused <= self.key_blamed else Exit.USAGE
        return Exit.PARTIAL if self.unfinished or self.has_failures else Exit.DONE


def _problem_of(bundle: Bundle, reason: str, fewer: FewerRows | None, *, next_try: float | None) -> dict[str, Any]:
    return {
        "export": bundle.export,
        "start": show(bundle.range.start),
        "end": show(bundle.range.end),
        "reason": reason,
        **counts_of(fewer),
        **({} if next_try is None else {"next_try": show(next_try)}),
    }


def lost_reason(fewer: FewerRows) -> str:
    """Return the problem of a bundle that is stored with far fewer rows than before."""
    return (
        f"there was no intact archive to keep, and the new export has far fewer rows: {fewer.rows_found} instead of "
        f"{fewer.rows_before}"
    )


def counts_of(fewer: object) -> dict[str, int]:
    """Return both counts under the keys of `--json`; empty unless they are known."""
    if not isinstance(fewer, FewerRows):
        return {}
    return {"rows_before": fewer.rows_before, "rows_found": fewer.rows_found}


class OpenProblem(NamedTuple):
    """A problem, and when it occurred, in seconds from the start of the run."""

    text: str
    at: float


@dataclass(slots=True)
class OpenProblems:
    """The latest problems that are not over.

    1. A bundle's problem is over when the bundle is stored. Each bundle has one, its newest.
    2. A problem of all bundles, an outage or a 429, is kept once, and is over when the service answers again.
    """

    of_bundles: dict[Bundle | str, OpenProblem] = field(default_factory=dict)
    of_all: OpenProblem | None = None

    def note(self, where: Bundle | str, why: str, *, at: float) -> None:
        """Note a problem of a bundle, or of an export as a whole."""
        self.over(where)
        name = where if isinstance(where, str) else f"{where.export} {show(where.range.start)}"
        self.of_bundles[where] = OpenProblem(f"{name}: {why}", at)
        if len(self.of_bundles) > MOST_PROBLEMS:
            del self.of_bundles[next(iter(self.of_bundles))]

    def note_for_all(self, why: str, *, at: float) -> None:
        """Note a problem of the service."""
        self.of_all = OpenProblem(f"the service: {why}", at)

    def over(self, where: Bundle | str) -> None:
        """Note that a bundle's problem is over."""
        self.of_bundles.pop(where, None)

    def open(self, *, service_is_well: bool) -> list[OpenProblem]:
        """Return the problems that are not over, newest last."""
        if service_is_well:
            self.of_all = None
        shared = [self.of_all] if self.of_all else []
        return sorted([*self.of_bundles.values(), *shared], key=lambda problem: problem.at)


@dataclass(frozen=True, slots=True)
class Summary:
    """The last line of every command's `--json`; its keys do not change.

    `joined`: the run that was waited for. `checked`: findings of `verify`, by kind. `load`, `mirror`: what these did.
    """

    command: str
    exit_code: Exit
    seconds: float
    tally: Tally
    requests: dict[str, int]
    refused: int
    directory: str
    error: ExportError | None = None
    notes: tuple[str, ...] = ()
    verdict: "Verdict | None" = None
    joined: JoinedRun | None = None
    checked: Mapping[str, int] | None = None
    load: "LoadTally | None" = None
    mirror: "MirrorTally | None" = None

    @property
    def ends_unsettled(self) -> bool:
        """Whether everything that is settled is done, and only the requested end is not settled yet."""
        return self.exit_code is Exit.TIME_UP and self.tally.is_cut_back and not self.tally.unfinished

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as it is printed."""
        tally = self.tally
        summary: dict[str, Any] = {
            "type": "summary",
            "command": self.command,
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 1),
            "bundles": {
                "planned": tally.planned,
                "already": tally.stored_before,
                "stored": tally.stored,
                "empty": tally.empty,
                "failed": tally.failed,
                "unfinished": tally.unfinished,
            },
            "refreshed": tally.refreshed.to_dict(),
            "rows": tally.rows,
            "bytes": tally.bytes,
            "requests": self.requests,
            "refused": self.refused,
            "possible_duplicates": tally.possible_duplicates,
            "rows_outside": tally.rows_outside,
            "shortfalls": [one.to_dict() for one in tally.shortfalls],
            "directory": self.directory,
            "ranges": {name: one.to_dict() for name, one in tally.ranges.items()},
            "problems": tally.problems(),
        }
        summary |= {} if self.joined is None else {"joined": self.joined.to_dict()}
        summary |= {"audited": tally.audit.to_dict()} if tally.audit.sample or tally.audit.damaged else {}
        summary |= {} if self.checked is None else {"checked": dict(self.checked)}
        summary |= {} if self.load is None else {"load": self.load.to_dict()}
        summary |= {} if self.mirror is None else {"mirror": self.mirror.to_dict()}
        summary |= {} if self.error is None else {"error": str(self.error)}
        if self.verdict is not None:
            summary |= {"healthy": self.verdict.healthy, "reason": self.verdict.reason}
        return summary


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The current state of a run, for the live view.

    Attributes:
        seconds: How long it has been running.
        done: Bundles stored in this run.
        stored_before: Bundles stored before it.
        planned: All bundles of the range.
        running: Operations in flight, including creates in flight.
        queued: Bundles that were started but have no operation yet: they wait for a request to be sent.
        fetching: Finished operations whose file is being fetched, or waits for that.
        downloading: Files of these that are being fetched now.
        received: Bytes received of files that are not complete yet.
        parked: Bundles parked in this run.
        tokens: Requests that could be sent now.
        burst: Tokens in a full bucket.
        scope: Which requests are counted: `create` or `all`; `create?` for `auto` while it is not known. "" if the
            service has never answered, so that nothing can be said.
        next_request_seconds: Seconds until the next counted request may be sent.
        paused_seconds: Seconds for which a 429 still pauses all requests.
        down_seconds: How long the service has been out of reach. None if it can be reached.
        rows: Rows stored in this run.
        bytes: Archive bytes stored in this run.
        expected_seconds: How long the run will still take. None if that is not known yet.
        problems: The latest problems that are not over, newest last.
        problem_ages: How long ago each of them occurred, in seconds.
        covered: The range of the run if its end is where settled data ends. None if the end was asked for.
    """

    seconds: float
    done: int
    stored_before: int
    planned: int
    running: int
    queued: int
    fetching: int
    downloading: int
    received: int
    parked: int
    tokens: int
    burst: int
    scope: str
    next_request_seconds: float
    paused_seconds: float
    down_seconds: float | None
    rows: int
    bytes: int
    expected_seconds: float | None
    problems: tuple[str, ...] = ()
    problem_ages: tuple[float, ...] = ()
    covered: CoveredRange | None = None

    @property
    def have(self) -> int:
        """Bundles that are stored."""
        return self.stored_before + self.done

    @property
    def waiting(self) -> int:
        """Bundles that were not started yet."""
        return max(0, self.planned - self.have - self.running - self.queued - self.fetching - self.parked)


__all__ = ["MEANINGS", "Exit", "OpenProblem", "OpenProblems", "Snapshot", "Summary", "Tally", "exit_of"]
