"""A model of the ledger that computes the expected answers from plain dicts."""

import math
from collections import Counter

from asyncexport.core.bucket import SentRequest
from asyncexport.core.bundles import Bundle, Range, gaps, merged
from asyncexport.core.coverage import RecordedRange
from asyncexport.core.parking import PAUSABLE, ParkedTimes
from asyncexport.core.states import BundleRecord, Created, FewerRows, Planned, Ready, Split, State, Stored


class Model:
    """The state of each bundle, and everything else that was written."""

    def __init__(self) -> None:
        self.records: dict[Bundle, BundleRecord] = {}
        self.last_at: dict[str, float] = {}
        self.requests: list[SentRequest] = []
        self.durations: list[float] = []
        self.remarks: dict[str, str] = {}
        self.parked: dict[Bundle, ParkedTimes] = {}
        self.fewer: dict[Bundle, list[tuple[int, float]]] = {}
        self.ids: dict[tuple[type[State], str], list[Bundle]] = {}

    def hours(self) -> Counter[tuple[int, str, int]]:
        """Return the number of requests by hour, kind and status."""
        return Counter((int(one.at // 3600) * 3600, one.kind, one.status) for one in self.requests)

    def note_parked(self, record: BundleRecord, at: float) -> None:
        """Count that a bundle was parked, or forget that once it is stored."""
        if isinstance(record.state, PAUSABLE):
            known = self.parked.get(record.bundle)
            self.parked[record.bundle] = ParkedTimes(known.times + 1 if known else 1, at)
        elif isinstance(record.state, FewerRows):
            self.fewer.setdefault(record.bundle, []).append((record.revision, at))
        elif isinstance(record.state, Stored):
            self.parked.pop(record.bundle, None)
            self.fewer.pop(record.bundle, None)

    def _times(self, one: BundleRecord) -> ParkedTimes | None:
        """Return how often and when a bundle was parked, if nightly runs retry it after a pause."""
        fewer = self.fewer.get(one.bundle)
        if one.kept and fewer:
            return ParkedTimes(len(fewer), fewer[-1][1])
        return self.parked.get(one.bundle) if isinstance(one.state, PAUSABLE) else None

    def _refused(self, one: BundleRecord) -> set[int]:
        """Return the revisions that had far fewer rows than the archive, which is the newest one."""
        return {revision for revision, _ in self.fewer.get(one.bundle, ())} if one.stored is not None else set()

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
        parked = {one.bundle: times for one in unfinished if (times := self._times(one))}
        accepted = {one.bundle for one in unfinished if not one.kept and one.revision in self._refused(one)}
        kept_before = {one.bundle for one in unfinished if one.kept or self._refused(one) - {one.revision}}
        split = tuple(one for one in self.within(export, span) if isinstance(one.state, Split))
        return RecordedRange(
            unfinished,
            covered,
            done,
            accepted=frozenset(accepted),
            kept_before=frozenset(kept_before),
            parked=parked,
            split=split,
        )
