"""What became of bundles during a run, for pages that are open: a bounded record without duplicates.

1. Of each bundle only the latest change is kept, so that many changes within a second are one.
2. Changes are numbered. A page has the number of the last change that it shows, and gets those after it; nothing is
   kept per page. If the changes it needs were dropped because too many bundles changed, it gets a new page.
3. A change is `[export, start, end, kind, rows, flags, text]`; the kinds and flags are those of `page_data`.
"""

from collections.abc import Callable
from typing import Any

from asyncexport.core.bundles import Bundle
from asyncexport.core.events import BundleMoved, BundleParked, BundleStored, Event
from asyncexport.core.health.missing import Coverage
from asyncexport.core.states import FewerRows
from asyncexport.monitor.page_data import CHANGED, EMPTY, REFRESHED

MOST_CHANGES = 5_000
"""Bundles whose changes are kept; about 500 kB."""

KEPT_ARCHIVE = "kept"
"""The kind of a bundle that keeps its archive because a new export has far fewer rows."""

LiveChange = list[Any]
"""A change as it is sent (rule 3)."""


class LiveChanges:
    """Records changes.

    Args:
        clean: Makes foreign text printable and hides secrets in it.
        most: How many bundles are kept.

    Attributes:
        number: The number of the last change; 0 if there was none.
    """

    def __init__(self, *, clean: Callable[[str], str], most: int = MOST_CHANGES) -> None:
        self.number = 0
        self._clean = clean
        self._most = most
        self._changes: dict[Bundle, tuple[int, LiveChange]] = {}
        self._dropped = 0

    def on_event(self, event: Event) -> None:
        """Record what an event changes on the page; most kinds of events change nothing."""
        match event:
            case BundleStored(bundle, archive, replaced):
                flags = EMPTY * (archive.rows == 0)
                if replaced is not None:
                    flags |= REFRESHED | CHANGED * (replaced.sha256 != archive.sha256)
                self._record(bundle, Coverage.STORED, rows=archive.rows, flags=flags)
            case BundleParked(bundle, FewerRows()):
                self._record(bundle, KEPT_ARCHIVE)
            case BundleParked(bundle):
                self._record(bundle, Coverage.PARKED, text=self._clean(event.reason))
            case BundleMoved(_, after) if after.stored is None:
                self._record(after.bundle, Coverage.IN_PROGRESS)

    def after(self, number: int) -> list[LiveChange] | None:
        """Return the changes after this one, in order; None if some of them were dropped."""
        if not self._dropped <= number <= self.number:
            return None
        found = []
        for at, change in reversed(self._changes.values()):
            if at <= number:
                break
            found.append(change)
        return found[::-1]

    def _record(self, bundle: Bundle, kind: str, *, rows: int = 0, flags: int = 0, text: str = "") -> None:
        self._changes.pop(bundle, None)
        self.number += 1
        start, end = bundle.range.start, bundle.range.end
        self._changes[bundle] = self.number, [self._clean(bundle.export), start, end, kind, rows, flags, text]
        if len(self._changes) > self._most:
            self._dropped, _ = self._changes.pop(next(iter(self._changes)))
