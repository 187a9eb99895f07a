"""Records a nightly run that has joined another run, in the log of joined runs (`ledger.joined_log`).

If the log cannot be written, that is one warning: the wait goes on, and its exit code says how it ended.
"""

import logging
from dataclasses import replace
from pathlib import Path

from asyncexport.client.clock import HostClock
from asyncexport.core.health.records import RunRecord
from asyncexport.core.join_progress import JoinedRun
from asyncexport.core.summary import Summary
from asyncexport.errors import StorageError
from asyncexport.ledger import begun_joined, forget_joined, record_joined
from asyncexport.run.logging_runs import COUNTS

log = logging.getLogger(__name__)


class JoinedRecord:
    """The record of one run. Its methods block.

    Args:
        directory: The output directory.
        command: The command of the run.
        host_clock: The clocks of this host.
    """

    def __init__(self, directory: Path, command: str, host_clock: HostClock) -> None:
        self._directory, self._command, self._clock = directory, command, host_clock
        self._begun: RunRecord | None = None

    def begin(self, joined: JoinedRun | None) -> None:
        """Record that the run begins to wait for another one, which may not be known."""
        self._begun = begun_joined(self._command, at=self._clock.read().wall, joined=joined)
        self._write(self._begun)

    def end(self, summary: Summary) -> None:
        """Record how the run ended without having taken over."""
        if self._begun is None:
            return
        known = summary.to_dict()
        ended = replace(
            self._begun,
            ended=self._clock.read().wall,
            exit_code=int(summary.exit_code),
            error="" if summary.error is None else str(summary.error),
            counts={name: known[name] for name in COUNTS if name in known},
            joined=summary.joined or self._begun.joined,
        )
        self._write(ended)

    def forget(self) -> None:
        """Remove the record, because the run has taken over and is recorded in the ledger."""
        begun, self._begun = self._begun, None
        if begun is not None:
            try:
                forget_joined(self._directory, begun)
            except StorageError as error:
                log.warning("the log of joined runs still says that this run waits: %s", error)

    def _write(self, run: RunRecord) -> None:
        try:
            record_joined(self._directory, run)
        except StorageError as error:
            log.warning("`status` will not show this run: the log of joined runs cannot be written: %s", error)
