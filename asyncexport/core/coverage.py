"""What a run has to do: from the range and the ledger to bundles in the order they are taken up.

1. Bundles in progress come first: their tokens are spent, and their exports may expire.
2. Then, in order of time: the gaps that are neither stored nor in progress, cut at the grid lines of the present width,
   and the parked bundles, each in its own width. A parked bundle that waits for its time keeps its range and is not to
   do; one that gives way to narrower ones leaves a gap (`core.parking`).
3. A stored bundle is exported again, in a new revision and in its own width, if it was exported before its data was
   settled, if it is to be refreshed, or if its archive is broken. While such a revision is in progress or parked, that
   one is resumed instead. A revision that was refused because it has far fewer rows is resumed only if `refresh` names
   its bundle; otherwise the bundle is done.
4. Of the gaps, a retry or a repair exports only what an earlier run began and neither finished nor parked.
5. Bundles are made lazily, as they are asked for.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle, Range, count_cut, cut, gaps
from asyncexport.core.exports import Export
from asyncexport.core.parking import ParkedTimes, is_split
from asyncexport.core.refreshing import acting_ages, needs_refresh
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.core.states import IN_PROGRESS, BundleRecord, Planned


@dataclass(frozen=True, slots=True)
class RecordedRange:
    """What the ledger knows of one export in the range of a run.

    Attributes:
        unfinished: Bundles whose newest revision has not ended as stored, but has begun; in order.
        covered: The time that archives cover, merged, in order.
        stored_before: How many bundles are stored there. One whose newest revision is unfinished does not count, unless
            that revision was refused because it has far fewer rows.
        accepted: Bundles in `unfinished` whose newest revision was refused for that reason and then resumed: the user
            has accepted fewer rows, whichever run goes on with it.
        parked: How often and when those in `unfinished` were parked that nights let rest.
        split: Bundles that gave way to narrower ones.
    """

    unfinished: tuple[BundleRecord, ...] = ()
    covered: tuple[Range, ...] = ()
    stored_before: int = 0
    accepted: frozenset[Bundle] = frozenset()
    parked: Mapping[Bundle, ParkedTimes] = field(default_factory=dict)
    split: tuple[BundleRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What one export has to do in a range, cut off at what is settled.

    Attributes:
        export: Which.
        span: The range.
        stock: What the ledger knows of it.
        refresh: Stored bundles that are to be exported once more (rule 3).
        fills_gaps: Whether what nobody has begun is to do as well (rule 4).
        waiting: Stored bundles that were exported before they were settled, and are not settled yet.
        rests_until: Parked bundles that are not to do yet, and from when on they are, in seconds since 1970.
    """

    export: Export
    span: Range
    stock: RecordedRange
    refresh: tuple[BundleRecord, ...] = ()
    fills_gaps: bool = True
    waiting: tuple[BundleRecord, ...] = ()
    rests_until: Mapping[Bundle, float] = field(default_factory=dict)

    @property
    def in_progress(self) -> list[BundleRecord]:
        """Bundles that the service works on, or whose file waits there."""
        return [one for one in self.stock.unfinished if isinstance(one.state, IN_PROGRESS)]

    @property
    def parked(self) -> list[BundleRecord]:
        """Bundles that an earlier run gave up, to be taken up as they are; what kept its archive is not to do."""
        return [one for one in self._given_up() if not self._is_split(one)]

    @property
    def splits(self) -> list[BundleRecord]:
        """Bundles that an earlier run gave up, and that give way to narrower ones."""
        return [one for one in self._given_up() if self._is_split(one)]

    @property
    def resting(self) -> list[BundleRecord]:
        """Bundles that an earlier run gave up, and that wait for their time."""
        return [one for one in self.stock.unfinished if one.bundle in self.rests_until]

    @property
    def stored_before(self) -> int:
        """How many bundles are done; what is stored is no concern of a retry or a repair."""
        return max(0, self.stock.stored_before - len(self._refreshed())) if self.fills_gaps else 0

    @property
    def count(self) -> int:
        """How many bundles there are to do."""
        pieces = sum(count_cut(gap, self.export.bundle_seconds) for gap in self._gaps())
        return pieces + len(self.in_progress) + len(self.parked) + len(self._reopened()) + len(self._refreshed())

    @property
    def refreshes(self) -> int:
        """How many of these have an archive already, and are exported once more from the beginning."""
        return len(self._refreshed())

    def holds(self, bundle: Bundle) -> bool:
        """Whether a bundle is one of this export, and shares time with the range."""
        within = bundle.range.start < self.span.end and self.span.start < bundle.range.end
        return within and bundle.export == self.export.name

    def unclaimed(self) -> Iterator[BundleRecord]:
        """What is not claimed, in order of time."""
        rest: Iterable[Iterable[BundleRecord]] = (
            self._parked_again(),
            self._pieces(),
            self._reopened(),
            self._refreshed(),
        )
        yield from heapq.merge(*rest, key=lambda one: one.bundle.range)

    def _is_split(self, record: BundleRecord) -> bool:
        return is_split(record, self.export, self.span, self.stock.covered)

    def _given_up(self) -> Iterator[BundleRecord]:
        return (
            one for one in self.stock.unfinished if one.parked and not one.kept and one.bundle not in self.rests_until
        )

    def _gaps(self) -> Iterator[Range]:
        splits = {one.bundle for one in self.splits}
        taken = [
            one.bundle.range
            for one in self.stock.unfinished
            if isinstance(one.state, IN_PROGRESS) or (one.parked and one.bundle not in splits)
        ]
        taken += self.stock.covered
        if not self.fills_gaps:
            begun = (one.bundle.range for one in (*self._begun(), *self.splits))
            taken += gaps(self.span, sorted(begun))
        return gaps(self.span, sorted(taken))

    def _pieces(self) -> Iterator[BundleRecord]:
        """The gaps, cut; a piece that an earlier run began keeps its attempt, and one that was split is opened anew."""
        begun = {one.bundle.range: one.next_revision() for one in self.stock.split}
        begun |= {one.bundle.range: one for one in self._begun()}
        for gap in self._gaps():
            for piece in cut(gap, self.export.bundle_seconds):
                yield begun.get(piece) or BundleRecord(Bundle(self.export.name, piece))

    def _begun(self) -> Iterator[BundleRecord]:
        """First takes that an earlier run left between attempts."""
        return (one for one in self.stock.unfinished if isinstance(one.state, Planned) and one.stored is None)

    def _parked_again(self) -> list[BundleRecord]:
        return sorted(self.parked, key=lambda one: one.bundle.range)

    def _reopened(self) -> list[BundleRecord]:
        """New takes of stored bundles that were begun and interrupted between attempts: no gap shows them."""
        again = [one for one in self.stock.unfinished if isinstance(one.state, Planned) and one.stored is not None]
        return sorted(again, key=lambda one: one.bundle.range)

    def _refreshed(self) -> list[BundleRecord]:
        kept = {one.bundle: one for one in self.stock.unfinished if one.kept}
        begun = {one.bundle for one in self.stock.unfinished if not one.kept}
        again = {
            one.bundle: kept.get(one.bundle) or one.next_revision() for one in self.refresh if one.bundle not in begun
        }
        return [again[bundle] for bundle in sorted(again)]


def in_order(works: Sequence[ExportPlan]) -> Iterator[BundleRecord]:
    """The bundles of several exports: what is claimed first, then in order of time, the exports side by side."""
    for work in works:
        yield from work.in_progress
    yield from heapq.merge(*(work.unclaimed() for work in works), key=lambda one: one.bundle.range)


def was_settled(record: BundleRecord) -> bool:
    """Whether a bundle's archive holds settled data: it was exported when its end lay back by the settle time.

    It is the settle time that was in force then, so that a longer one makes no work later; 0 where that is not on
    record (rule 9 of `core.states`). Five minutes are allowed for, which is what clocks may be apart. A bundle without
    an archive has none that was exported too soon.
    """
    archive, end = record.stored, record.bundle.range.end
    return archive is None or archive.exported_at >= end + archive.settle_seconds - CLOCKS_APART_SECONDS


def settles_at(record: BundleRecord, *, settle_seconds: float) -> float:
    """When a bundle that was exported too soon is exported anew, in seconds since 1970.

    Args:
        record: Where the bundle stands.
        settle_seconds: The settle time in force. By the longer one of both, its new archive holds settled data, too.
    """
    then = 0.0 if record.stored is None else record.stored.settle_seconds
    return record.bundle.range.end + max(then, settle_seconds)


def is_exported_anew(record: BundleRecord, *, settle_seconds: float, ages: Sequence[float], now: float) -> bool:
    """Whether a stored bundle is to be exported once more by this run.

    That is so where it was exported before it was settled, and is settled now; or where a refresh is due
    (`core.refreshing`). A bundle whose archive was kept, since far fewer rows came, is left alone. The ledger merely
    narrows the candidates.

    Args:
        record: Where the bundle stands.
        settle_seconds: The settle time in force.
        ages: The ages at which bundles are refreshed, in seconds; those up to the settle time never act.
        now: Seconds since 1970, by the service's clock.
    """
    if record.stored is None or record.kept:
        return False
    if not was_settled(record) and settles_at(record, settle_seconds=settle_seconds) <= now:
        return True
    return needs_refresh(record, ages=acting_ages(ages, settle_seconds=settle_seconds), now=now)
