"""Checks the rows of each export's files during a run.

The rules are in `core.archive.expected_rows` and `core.row_rejections`; this module applies them for each export.
"""

import logging
from collections.abc import Callable

from asyncexport.core.archive.expected_rows import ExpectedRows, RowCheck
from asyncexport.core.bundles import Bundle
from asyncexport.core.events import Listener, Note, RowsOutside
from asyncexport.core.exports import Definition
from asyncexport.core.row_rejections import RULE_IS_OFF, Repeated, RowRejections
from asyncexport.errors import ExportError, NoExportError

log = logging.getLogger(__name__)


class RowChecks:
    """The row checks of a run.

    Args:
        emit: Called with each event.
        span_seconds: Least time over which files that are no export must keep coming to be believed.
        now: Returns the time in seconds on the monotonic clock.

    Attributes:
        untimed: The exports whose rows are not checked by their time, as decided by their latest files.
        remember: Called with the new value when `untimed` has changed.
    """

    def __init__(self, emit: Listener, *, span_seconds: float, now: Callable[[], float]) -> None:
        self._emit = emit
        self._span_seconds = span_seconds
        self._now = now
        self._refusals: dict[str, RowRejections] = {}
        self.untimed: frozenset[str] = frozenset()
        self.remember: Callable[[frozenset[str]], None] = lambda _: None

    def new_check(self, bundle: Bundle, definition: Definition) -> RowCheck:
        """Make the row check for a new file of the bundle."""
        return RowCheck(ExpectedRows.of(definition, bundle.range, checks_range=self._of(bundle).checks_range))

    def stored(self, bundle: Bundle, row_check: RowCheck | None) -> None:
        """Note that a file was stored whose rows were checked."""
        if row_check is None:
            return
        refusals = self._of(bundle)
        refusals.note_accepted(row_check)
        if refusals.checks_range and row_check.timed and bundle.export in self.untimed:
            log.info("%s: checking the time of its rows again", bundle.export)
            self._remember(self.untimed - {bundle.export})
        if row_check.outside:
            self._emit(RowsOutside(bundle, outside=row_check.outside, timed=row_check.timed))

    def rejects_range(self, bundle: Bundle) -> bool:
        """Note a file with rows of another range; return whether it is rejected, i.e. whether that rule is still on."""
        refusals = self._of(bundle)
        was_checked = refusals.checks_range
        is_rejected = refusals.note_foreign(bundle)
        if was_checked and not is_rejected:
            self._emit(Note(f"{bundle.export}: {RULE_IS_OFF}"))
            self._remember(self.untimed | {bundle.export})
        return is_rejected

    def repeated(self, bundle: Bundle, error: ExportError) -> Repeated:
        """Note a file if it is no export; return whether such files keep coming."""
        if not isinstance(error, NoExportError):
            return Repeated.NO
        return self._of(bundle).note_unknown(bundle, now=self._now(), proved=error.is_as_stored)

    def _remember(self, untimed: frozenset[str]) -> None:
        if untimed != self.untimed:
            self.untimed = untimed
            self.remember(untimed)

    def _of(self, bundle: Bundle) -> RowRejections:
        was_off = bundle.export in self.untimed
        return self._refusals.setdefault(bundle.export, RowRejections(self._span_seconds, was_off=was_off))
