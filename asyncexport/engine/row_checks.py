"""What is known, in a run, of the rows in each export's files, and what is told of them.

The rules are `core.archive.expected_rows` and `core.row_refusals`; here are the exports that they are about.
"""

import logging
from collections.abc import Callable

from asyncexport.core.archive.expected_rows import ExpectedRows, RowLook
from asyncexport.core.bundles import Bundle
from asyncexport.core.events import Listener, Note, RowsOutside
from asyncexport.core.exports import Definition
from asyncexport.core.row_refusals import MOST_IN_A_ROW, RULE_IS_OFF, RowRefusals
from asyncexport.errors import NoExportError

log = logging.getLogger(__name__)


class RowChecks:
    """The looks at rows of a run.

    Args:
        tell: Called with each event.
        span_seconds: Over how long files that are no export must come until that is believed.
        now: The time, in seconds on the monotonic clock.

    Attributes:
        untimed: The exports for which the rule about the rows' time is off, by the last files of theirs.
        remember: Called with these when they have changed.
    """

    def __init__(self, tell: Listener, *, span_seconds: float, now: Callable[[], float]) -> None:
        self._tell = tell
        self._span_seconds = span_seconds
        self._now = now
        self._refusals: dict[str, RowRefusals] = {}
        self.untimed: frozenset[str] = frozenset()
        self.remember: Callable[[frozenset[str]], None] = lambda _: None

    def look(self, bundle: Bundle, definition: Definition) -> RowLook:
        """What is to look at the rows of a file that begins to come."""
        return RowLook(ExpectedRows.of(definition, bundle.range, checks_range=self._of(bundle).checks_range))

    def taken(self, bundle: Bundle, look: RowLook | None) -> None:
        """The file was stored after that look."""
        if look is None:
            return
        refusals = self._of(bundle)
        refusals.note_taken(look)
        if refusals.checks_range and look.timed and bundle.export in self.untimed:
            log.info("%s: the time of its rows is looked at again", bundle.export)
            self._remember(self.untimed - {bundle.export})
        if look.outside:
            self._tell(RowsOutside(bundle, outside=look.outside, timed=look.timed))

    def refuses_range(self, bundle: Bundle) -> bool:
        """A file has the rows of another range: whether it is refused; False where that is no rule any more."""
        refusals = self._of(bundle)
        was_rule = refusals.checks_range
        is_refused = refusals.note_foreign()
        if was_rule and not is_refused:
            self._tell(Note(f"{bundle.export}: {RULE_IS_OFF}"))
            self._remember(self.untimed | {bundle.export})
        return is_refused

    def is_no_accident(self, bundle: Bundle, error: NoExportError) -> bool:
        """A file is no export: whether so many in a row are none that it is what the service sends, or we are wrong."""
        return self._of(bundle).note_unknown(now=self._now(), proved=error.is_as_stored)

    def _remember(self, untimed: frozenset[str]) -> None:
        if untimed != self.untimed:
            self.untimed = untimed
            self.remember(untimed)

    def _of(self, bundle: Bundle) -> RowRefusals:
        foreign = MOST_IN_A_ROW - 1 if bundle.export in self.untimed else 0
        return self._refusals.setdefault(bundle.export, RowRefusals(self._span_seconds, foreign=foreign))
