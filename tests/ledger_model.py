"""A model of the ledger that computes the expected answers from plain dicts."""

import math
from collections import Counter

from asyncexport.core.bucket import SentRequest
from asyncexport.core.bundles import Bundle, Range, gaps, merged
from asyncexport.core.coverage import RecordedRange
from asyncexport.core.parking import PAUSABLE, ParkedTimes
from asyncexport.core.states import BundleRecord, Created, Planned, Ready, Split, State, Stored


class Model:
    """The state of each bundle, and everything else that was written."""

    def __init__(self) -> None:
        self.records: dict[Bundle, BundleRecord] = {}
        self.last_at: dict[str, float] = {}
        self.requests: list[SentRequest] = []
        self.durations: list[float] = []
        self.remarks: dict[str, str] = {}
        self.parked: dict[Bundle, ParkedTimes] = {}
        self.ids: dict[tuple[type[State], str], list[Bundle]] = {}

    def hours(self) -> Counter[tuple[int, str, int]]:
        """Return the number of requests by hour, kind and status."""
        return Counter((int(one.at // 3600) * 3600, one.kind, one.status) for one in self.requests)

    def note_parked(self, record: BundleRecord, at: float) -> None:
        """Count that a bundle was parked, or forget that once it is stored."""
        if isinstance(record.state, PAUSABLE):
            known = self.parked.get(record.bundle)
            self.parked[record.bundle] = ParkedTimes(known.times + 1 if known else 1, at)
        elif isinstance(record.state, Stored):
            self.parked.pop(record.bundle, None)

    def _waits(self, one: BundleRecord) -> bool:
        return isinstance(one.state, PAUSABLE) and one.bundle in self.parked

    def note_id(self, record: BundleRecord) -> None:
        """Remember the bundle of an operation or export by the service's id."""
        match record.state:
            case Created(operation_id=service_id) | Ready(export_id=service_id):
                bundles = self.ids.setdefault((type(record.state), service_id), [])
                if record.bundle not in bundles:
                    bundles.append(record.bundle)

    def within(self, export: str, span: Range) -> list[BundleRecord]:
        """Return the bundles of an export that overlap the span, in order of their ranges."""
        found = [one for one in self.records.values() if one.bundle.export == export]
        overlapping = (one for one in found if one.bundle.range.start < span.end and span.start < one.bundle.range.end)
        return sorted(overlapping, key=lambda one: one.bundle)

    def stored(self, export: str, span: Range, within: float = math.inf) -> list[BundleRecord]:
        """Return the bundles with an archive that was exported less than `within` seconds after their end."""
        return [
            one
            for one in self.within(export, span)
            if one.stored and math.floor(one.stored.exported_at) - one.bundle.range.end < within
        ]

    def recorded_range(self, export: str, span: Range) -> RecordedRange:
        """Return what a run needs to know about the span."""
        stored = self.stored(export, span)
        covered = tuple(merged((one.bundle.range.start, one.bundle.range.end) for one in stored))
        unfinished = tuple(
            one
            for one in self.within(export, span)
            if not isinstance(one.state, Stored | Split)
            and not (isinstance(one.state, Planned) and not one.stored and not list(gaps(one.bundle.range, covered)))
        )
        done = sum(isinstance(one.state, Stored) or one.kept for one in stored)
        parked = {one.bundle: self.parked[one.bundle] for one in unfinished if self._waits(one)}
        split = tuple(one for one in self.within(export, span) if isinstance(one.state, Split))
        return RecordedRange(unfinished, covered, done, parked=parked, split=split)
