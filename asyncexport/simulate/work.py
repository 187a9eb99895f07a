"""The bundles of a simulated run: those that were planned, and those that settle while it goes on."""

from collections.abc import Collection, Iterator

from asyncexport.core.bundles import Bundle, Range, cut
from asyncexport.core.exports import Export
from asyncexport.core.lanes import FRESH_SECONDS
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.simulate.service import MemoryLedger

EXPORT = Export("simulated")

SETTLED_AFTER_SECONDS = 1.0
"""Bundles settle this long after a multiple of their width: just after the run has asked what is due."""


AUDITED_FROM = 10_000_000
"""The number of the first audited bundle, above those of all others."""


class SimulatedWork:
    """The bundles of a simulated run, each of which is given once.

    Args:
        count: Number of bundles of each export that are planned at the start.
        exports: The names of the exports.
        ledger: The ledger, which knows the states of bundles that an earlier run has begun.
        settles: Whether another bundle settles each time a bundle's width has passed.

    Attributes:
        settled_at: When each bundle settled that was not planned at the start, in seconds from the start of the run.
    """

    def __init__(self, count: int, exports: Collection[str], ledger: MemoryLedger, *, settles: bool) -> None:
        self._count = count
        self._exports = exports
        self._ledger = ledger
        self._settles = settles
        self._given: set[Bundle] = set()
        self.settled_at: dict[Bundle, float] = {}

    def planned(self) -> Iterator[BundleRecord]:
        """Yield the planned bundles; the fresh ones come first if more settle."""
        width = EXPORT.bundle_seconds
        old = max(0, self._count - FRESH_SECONDS // width) if self._settles else 0
        for first, last in ((old, self._count), (0, old)):
            for piece in cut(Range(first * width, last * width), width) if first < last else ():
                for name in self._exports:
                    bundle = Bundle(name, piece)
                    record = self._ledger.latest.get(bundle, BundleRecord(bundle))
                    if bundle not in self._given and not isinstance(record.state, Stored):
                        self._given.add(bundle)
                        yield record

    def audited(self, count: int) -> Iterator[BundleRecord]:
        """Yield this many stored bundles of each export, which cost as much as new ones."""
        width = EXPORT.bundle_seconds
        for number in range(AUDITED_FROM, AUDITED_FROM + count):
            for name in self._exports:
                yield BundleRecord(Bundle(name, Range(number * width, (number + 1) * width)))

    def newest(self, export: str) -> BundleRecord | None:
        """Give the newest bundle that was neither given nor begun; None if there is none."""
        width = EXPORT.bundle_seconds
        for number in range(self._count - 1, -1, -1):
            bundle = Bundle(export, Range(number * width, (number + 1) * width))
            if bundle not in self._given and bundle not in self._ledger.latest:
                self._given.add(bundle)
                return BundleRecord(bundle)
        return None

    def newly_due(self, now: float) -> list[BundleRecord]:
        """Give the bundles that have settled since the last call."""
        width = EXPORT.bundle_seconds
        known = len(self.settled_at) // len(self._exports)
        due = []
        for number in range(known, int((now - SETTLED_AFTER_SECONDS) // width)):
            start = (self._count + number) * width
            for name in self._exports:
                bundle = Bundle(name, Range(start, start + width))
                self.settled_at[bundle] = SETTLED_AFTER_SECONDS + (number + 1) * width
                due.append(BundleRecord(bundle))
        return due
