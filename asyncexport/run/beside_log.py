"""Records how the last load and the last mirror went, for `status`.

1. Only those of everything are recorded: one of a part says nothing about the rest.
2. If the record cannot be written, that is one warning: the load or the mirror goes on.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asyncexport.config import Settings
from asyncexport.config.presence import is_directory
from asyncexport.core.exits import Exit
from asyncexport.core.health.beside import BesideEnd, BesideKind
from asyncexport.core.mirror.tally import MirrorTally
from asyncexport.core.warehouse.load_tally import LoadTally
from asyncexport.errors import ExportError, StorageError
from asyncexport.ledger import begun_here, beside_path, own_load_path, record_begun, record_ended

log = logging.getLogger(__name__)


class BesideLog:
    """The record of one load or mirror. Its methods block.

    Args:
        kind: Which of the two.
        path: The file; None if nothing is to be recorded.
        command: The command that it belongs to.

    Attributes:
        has_begun: Whether `begin` was called.
    """

    def __init__(self, kind: BesideKind, path: Path | None, command: str) -> None:
        self._kind, self._path, self._command = kind, path, command
        self._began = time.time()
        self.has_begun = False

    @classmethod
    def of_load(cls, settings: Settings, names: Iterable[str], *, command: str, is_run: bool) -> "BesideLog":
        """Return the record of a load of these exports, in all of history, into all destinations."""
        directory, load = settings.output.directory, settings.load.directory
        path = beside_path(directory, BesideKind.LOAD) if is_run else own_load_path(load)
        is_whole = {one.name for one in settings.exports} <= set(names)
        return cls(BesideKind.LOAD, path if is_whole else None, command)

    @classmethod
    def of_mirror(cls, directory: Path, *, command: str) -> "BesideLog":
        """Return the record of a mirror."""
        return cls(BesideKind.MIRROR, beside_path(directory, BesideKind.MIRROR), command)

    def begin(self) -> None:
        """Record that it begins."""
        self.has_begun = True
        self._began = time.time()
        begun = begun_here(self._command, at=self._began, pid=os.getpid())
        self._attempt(lambda path: record_begun(self._kind, path, begun))

    def end_load(
        self, tally: LoadTally, code: Exit, *, is_stopped: bool = False, error: ExportError | None = None
    ) -> None:
        """Record how a load has ended; `error` ended it."""
        errors = (error, tally.error, *(one.error for one in tally.failures), *tally.unfinished_sinks.values())
        self._end(code, errors, tally.to_dict(), is_complete=tally.is_complete and not is_stopped)

    def end_mirror(self, tally: MirrorTally, code: Exit) -> None:
        """Record how a mirror has ended."""
        errors = (tally.error, *(one.error for one in tally.failures))
        self._end(code, errors, tally.to_dict(), is_complete=tally.is_complete)

    def _end(
        self, code: Exit, errors: Iterable[ExportError | None], counts: dict[str, Any], *, is_complete: bool
    ) -> None:
        error = next((str(one) for one in errors if one is not None), "")
        ended = BesideEnd(self._command, self._began, time.time(), int(code), error, counts, is_complete)
        self._attempt(lambda path: record_ended(self._kind, path, ended))

    def _attempt(self, write: Callable[[Path], None]) -> None:
        # Where there is no folder yet, nothing was ever stored.
        if self._path is None or not is_directory(self._path.parent):
            return
        try:
            write(self._path)
        except StorageError as error:
            log.warning("`status` will not show this %s: %s", self._kind, error)
