"""Reads from the ledger of a running run how much of a joining run's share is done."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from asyncexport.client.clock import HostClock, checked_time
from asyncexport.config import Settings
from asyncexport.core.coverage import ExportPlan
from asyncexport.core.join_progress import ShareProgress
from asyncexport.core.joining import Share, progress_of
from asyncexport.core.sentinel.shortfalls import Shortfall
from asyncexport.errors import LedgerCorruptError, LedgerError
from asyncexport.ledger import LedgerQueries, LedgerReader, present
from asyncexport.run.planner import CLOCK_CHECK, RunPlan, plan_run
from asyncexport.run.sentinel import judge, shortfalls_in_range
from asyncexport.run.spec import RunSpec, instructions

log = logging.getLogger(__name__)

BUSY_SECONDS = 2.0
"""How long to wait for another program that has the ledger locked; the next reading is soon."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """What a run would have done when it began: the time at the service, the plan, and the share of each export."""

    at: float
    plan: RunPlan
    shares: Mapping[str, Share]


class ShareReader:
    """Reads how much of a run's share is done. Its methods block, and only one of them may run at a time.

    Args:
        settings: The settings.
        spec: What the run would do.
        host_clock: The clocks of this host.
    """

    def __init__(self, settings: Settings, spec: RunSpec, host_clock: HostClock) -> None:
        self._settings = settings
        self._spec = spec
        self._host_clock = host_clock
        # The audit of a nightly run is no part of its share.
        self._asked = replace(instructions(spec), audit=None)
        self._begun: _Begun | None = None

    @property
    def plan(self) -> RunPlan | None:
        """What the run would have had to do when it began; None as long as that is not known."""
        return None if self._begun is None else self._begun.plan

    def read(self, *, waited_seconds: float) -> ShareProgress | None:
        """Read the progress. None: the ledger does not exist, is in use, or does not contain the service's time.

        Args:
            waited_seconds: How long ago the run began.

        Raises:
            ConfigError: the dates of the run are wrong.
            LedgerError: an export is recorded with another definition.
            LedgerCorruptError: the ledger is damaged.
        """
        directory = self._settings.output.directory
        if not present(directory):
            return None
        try:
            ledger = LedgerReader(directory, busy_seconds=BUSY_SECONDS)
        except LedgerCorruptError:
            raise
        except LedgerError as error:
            log.debug("cannot read the ledger now: %s", error)
            return None
        with ledger:
            begun = self._begun = self._begun or self._begin(ledger, waited_seconds=waited_seconds)
            if begun is None:
                return None
            found = ShareProgress()
            for one in begun.plan.exports:
                found += progress_of(begun.shares[one.export.name], self._present(ledger, one, at=begun.at))
            return found

    def shortfalls(self) -> tuple[Shortfall, ...]:
        """Return the open shortfalls in the range of the run, which the other run reports when it ends.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if self._begun is None or not self._settings.sentinel.enabled:
            return ()
        with LedgerReader(self._settings.output.directory) as ledger:
            found = judge(ledger, [export.name for export in self._spec.exports])
            return shortfalls_in_range(found.memory, ledger.accepted(), self._spec, now=self._begun.at)

    def _begin(self, ledger: LedgerReader, *, waited_seconds: float) -> _Begun | None:
        ledger.check_definitions(self._spec.exports)
        now = checked_time(ledger.recall(CLOCK_CHECK), trust=self._settings.api.clock, host=self._host_clock)
        if now is None:
            return None
        at = now - waited_seconds
        plan = plan_run(self._settings, self._spec.exports, self._asked, ledger, now=at)
        plan.check_dates()
        return _Begun(at, plan, {one.export.name: Share.of(one) for one in plan.exports})

    def _present(self, ledger: LedgerQueries, begun: ExportPlan, *, at: float) -> ExportPlan:
        """Return the plan of an export by the ledger as it is now, over the same range and at the same time."""
        asked = replace(self._asked, start=begun.span.start, end=begun.span.end)
        (plan,) = plan_run(self._settings, (begun.export,), asked, ledger, now=at).exports
        return plan
