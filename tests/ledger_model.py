"""What a ledger should answer, from a plain dict."""

import math
from collections import Counter

from asyncexport.core.bucket import SentRequest
from asyncexport.core.bundles import Bundle, Range, gaps, merged
from asyncexport.core.coverage import RecordedRange
from asyncexport.core.parking import PAUSABLE, ParkedTimes
from asyncexport.core.states import BundleRecord, Created, Planned, Ready, Split, State, Stored


class Model:
    """Where each bundle stands, and what else was written."""

    def __init__(self) -> None:
        self.records: dict[Bundle, BundleRecord] = {}
        self.last_at: dict[str, float] = {}
        self.requests: list[SentRequest] = []
        self.durations: list[float] = []
        self.remarks: dict[str, str] = {}
        self.parked: dict[Bundle, ParkedTimes] = {}
        self.ids: dict[tuple[type[State], str], list[Bundle]] = {}

    def hours(self) -> Counter[tuple[int, str, int]]:
        """How many requests there were, by the hour they were sent in, their kind and status."""
        return Counter((int(one.at // 3600) * 3600, one.kind, one.status) for one in self.requests)

    def note_parked(self, record: BundleRecord, at: float) -> None:
        """Whether it was parked once more, or is stored."""
        if isinstance(record.state, PAUSABLE):
            known = self.parked.get(record.bundle)
            self.parked[record.bundle] = ParkedTimes(known.times + 1 if known else 1, at)
        elif isinstance(record.state, Stored):
            self.parked.pop(record.bundle, None)

    def _rests(self, one: BundleRecord) -> bool:
        return isinstance(one.state, PAUSABLE) and one.bundle in self.parked

    def note_id(self, record: BundleRecord) -> None:
        """An operation or an export of the service, by its id."""
        match record.state:
            case Created(operation_id=service_id) | Ready(export_id=service_id):
                bundles = self.ids.setdefault((type(record.state), service_id), [])
                if record.bundle not in bundles:
                    bundles.append(record.bundle)

    def within(self, export: str, span: Range) -> list[BundleRecord]:
        """In order of their range."""
        found = [one for one in self.records.values() if one.bundle.export == export]
        overlapping = (one for one in found if one.bundle.range.start < span.end and span.start < one.bundle.range.end)
        return sorted(overlapping, key=lambda one: one.bundle)

    def stored(self, export: str, span: Range, within: float = math.inf) -> list[BundleRecord]:
        """With an archive, exported so soon."""
        return [
            one
            for one in self.within(export, span)
            if one.stored and math.floor(one.stored.exported_at) - one.bundle.range.end < within
        ]

    def recorded_range(self, export: str, span: Range) -> RecordedRange:
        """What a run has to know."""
        stored = self.stored(export, span)
        covered = tuple(merged((one.bundle.range.start, one.bundle.range.end) for one in stored))
        unfinished = tuple(
            one
            for one in self.within(export, span)
            if not isinstance(one.state, Stored | Split)
            and not (isinstance(one.state, Planned) and not one.stored and not list(gaps(one.bundle.range, covered)))
        )
        done = sum(isinstance(one.state, Stored) or one.kept for one in stored)
        parked = {one.bundle: self.parked[one.bundle] for one in unfinished if self._rests(one)}
        split = tuple(one for one in self.within(export, span) if isinstance(one.state, Split))
        return RecordedRange(unfinished, covered, done, parked=parked, split=split)
