"""Counts bundles, open problems and requests during a run.

The summary and the exit code are computed from the counters. They are therefore updated before any listener gets an
event, and no listener can interfere with them.
"""

import time
from dataclasses import dataclass, field

from asyncexport.core.events import (
    BundleMoved,
    BundleParked,
    BundleSplit,
    BundleStored,
    Event,
    ExportStopped,
    Joining,
    Retried,
)
from asyncexport.core.join_progress import JoinedRun
from asyncexport.core.service.requests import Kind
from asyncexport.core.summary import Exit, OpenProblems, Summary, Tally, exit_of
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ExportError
from asyncexport.run.spec import RunSpec


@dataclass(slots=True)
class RunCounters:
    """The counters of one run.

    Attributes:
        tally: The results of the bundles.
        problems: The current problems.
        requests: Requests sent, by kind.
        refused: Requests answered with 429.
        began: When the run started, on the monotonic clock.
        requires_end: Whether work is left while the requested end is not settled.
        requires_comparison: Whether nothing was achieved unless an audit has compared a bundle.
        joined: The last run that this one has waited for.
        has_begun: Whether the run holds the lock. Until then it only waits.
    """

    tally: Tally = field(default_factory=Tally)
    problems: OpenProblems = field(default_factory=OpenProblems)
    requests: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    refused: int = 0
    began: float = field(default_factory=time.monotonic)
    requires_end: bool = False
    requires_comparison: bool = False
    joined: JoinedRun | None = None
    has_begun: bool = False

    @property
    def seconds(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.began

    def record(self, event: Event) -> None:
        """Count an event."""
        self.tally.record(event)
        problems, now = self.problems, self.seconds
        match event:
            case BundleStored(bundle=bundle) | BundleSplit(bundle=bundle):
                problems.over(bundle)
            case BundleParked(bundle=bundle, reason=reason):
                problems.note(bundle, f"parked: {reason}", at=now)
            case BundleMoved(before=before) if before.parked:
                problems.over(before.bundle)
            case Retried(reason=reason, concerns_all=True):
                problems.note_for_all(reason, at=now)
            case Retried(bundle=bundle, reason=reason):
                problems.note(bundle, reason, at=now)
            case Joining(run=run):
                self.joined = run or self.joined
            case ExportStopped(export=export, error=error):
                problems.note(export, str(error), at=now)

    def exit_code(self, error: Exception | None, stop: Stop) -> Exit:
        """Return the exit code of a run that ends now; `error` is the exception that ended it, if any."""
        tally = self.tally
        if error is not None:
            return exit_of(error, stored=tally.stored)
        if stop.reason is not None and not self.has_begun:
            return stop.reason
        if stop.reason is not None and tally.unfinished:
            return self.code_of_stop(stop.reason)
        code = tally.exit_code()
        is_cut_back = self.requires_end and tally.is_cut_back
        compared_nothing = self.requires_comparison and not tally.audit.comparisons
        return Exit.TIME_UP if code is Exit.DONE and (is_cut_back or compared_nothing) else code

    def code_of_stop(self, reason: Exit) -> Exit:
        """Return the exit code of a run that was stopped before it was done: 9 says that nothing failed."""
        return Exit.PARTIAL if reason is Exit.TIME_UP and self.tally.has_failures else reason

    def cause(self, error: Exception | None) -> Exception | None:
        """Return the error to report: the exception that ended the run, else the first refusal of an export."""
        return error or next(iter(self.tally.refusals.values()), None)

    def summary(self, spec: RunSpec, *, directory: str, error: ExportError | None, stop: Stop) -> Summary:
        """Return the summary of a run that ends now; `error` is the exception that ended it, if any."""
        cause = self.cause(error)
        return Summary(
            command=spec.command,
            exit_code=self.exit_code(error, stop),
            seconds=self.seconds,
            tally=self.tally,
            requests={kind.value: count for kind, count in self.requests.items()},
            refused=self.refused,
            directory=directory,
            error=cause if isinstance(cause, ExportError) else None,
            joined=self.joined,
        )
