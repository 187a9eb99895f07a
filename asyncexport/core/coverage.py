"""Decides what a run has to do: from the range and the ledger to bundles in the order in which they are started.

1. Bundles in progress come first: their tokens are spent, and their exports may expire.
2. Then, in order of time: the gaps that are neither stored nor in progress, cut at the grid lines of the current width,
   and the parked bundles, each in its own width. A parked bundle whose pause has not ended keeps its range and is not
   started; one that is split into narrower ones leaves a gap (`core.parking`).
   Pieces of a split bundle that no run has finished are to do as well, in their own width unless it is wider than the
   current one.
3. A stored bundle is exported again, in a new revision and in its own width, if it was exported before its data was
   settled, if it is to be refreshed, or if its archive is broken. If such a revision is already in progress or parked,
   that one is resumed instead. A bundle that kept its archive is done unless `refresh` contains it. It then gets a new
   revision, too, except if the user accepts fewer rows: that consent is recorded by resuming the parked revision.
4. Of the gaps, a retry or a repair exports only what an earlier run began and neither finished nor parked.
5. Bundles are made lazily, as they are asked for.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asyncexport.core.bundles import Bundle, Range, count_cut, cut, gaps
from asyncexport.core.exports import Export
from asyncexport.core.parking import ParkedTimes, is_split
from asyncexport.core.refreshing import acting_ages, needs_refresh
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.core.states import IN_PROGRESS, BundleRecord, Planned


@dataclass(frozen=True, slots=True)
class RecordedRange:
    """What the ledger knows about one export in the range of a run.

    Attributes:
        unfinished: Bundles whose newest revision has begun but has not ended as stored, in order.
        covered: The time that archives cover, merged, in order.
        stored_before: How many bundles are stored. One whose newest revision is unfinished does not count, unless that
            revision was parked because it has far fewer rows.
        accepted: Bundles in `unfinished` whose newest revision was parked for that reason and then resumed: the user
            has accepted fewer rows, whichever run resumes it.
        kept_before: Bundles in `unfinished` whose archive an earlier run kept and reported: they still keep it, or
            their newest revision follows the one that was parked for that reason.
        parked: For the bundles in `unfinished` that nightly runs pause: how often and when they were parked.
        split: Bundles that were split into narrower ones.
    """

    unfinished: tuple[BundleRecord, ...] = ()
    covered: tuple[Range, ...] = ()
    stored_before: int = 0
    accepted: frozenset[Bundle] = frozenset()
    kept_before: frozenset[Bundle] = frozenset()
    parked: Mapping[Bundle, ParkedTimes] = field(default_factory=dict)
    split: tuple[BundleRecord, ...] = ()

    @property
    def kept(self) -> tuple[BundleRecord, ...]:
        """The bundles whose archive was kept because far fewer rows came."""
        return tuple(one for one in self.unfinished if one.kept)

    def in_progress_only(self) -> "RecordedRange":
        """Return the same without the unfinished bundles that have neither an operation nor a file to fetch."""
        return replace(self, unfinished=tuple(one for one in self.unfinished if isinstance(one.state, IN_PROGRESS)))


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What one export has to do in a range, up to what is settled.

    Attributes:
        export: The export.
        span: The range.
        recorded: What the ledger knows about it.
        refresh: Stored bundles to export once more (rule 3).
        fills_gaps: Whether gaps that no run has begun are exported as well (rule 4).
        waiting: Stored bundles that were exported before they were settled, and are not settled yet.
        paused_until: Parked bundles whose pause has not ended, and when it ends, in seconds since 1970.
        accepted_gaps: Parked bundles that the user has accepted as missing: they keep their range, are not retried, and
            are not counted.
        accepts_fewer: Whether the user accepts far fewer rows for the kept archives in `refresh`.
    """

    export: Export
    span: Range
    recorded: RecordedRange
    refresh: tuple[BundleRecord, ...] = ()
    fills_gaps: bool = True
    waiting: tuple[BundleRecord, ...] = ()
    paused_until: Mapping[Bundle, float] = field(default_factory=dict)
    accepted_gaps: frozenset[Bundle] = frozenset()
    accepts_fewer: bool = False

    @property
    def in_progress(self) -> list[BundleRecord]:
        """Bundles that have an operation, or a file to fetch."""
        return [one for one in self.recorded.unfinished if isinstance(one.state, IN_PROGRESS)]

    @property
    def parked(self) -> list[BundleRecord]:
        """Bundles that an earlier run parked and that are retried as they are; not those that kept their archive."""
        return [one for one in self._given_up() if not self._is_split(one)]

    @property
    def splits(self) -> list[BundleRecord]:
        """Bundles that an earlier run parked and that are split into narrower ones."""
        return [one for one in self._given_up() if self._is_split(one)]

    @property
    def paused(self) -> list[BundleRecord]:
        """Bundles that an earlier run parked and whose pause has not ended."""
        return [one for one in self.recorded.unfinished if one.bundle in self.paused_until]

    @property
    def stored_before(self) -> int:
        """How many bundles are done already; 0 for a retry or a repair, which do not count them."""
        return max(0, self.recorded.stored_before - len(self._refreshed())) if self.fills_gaps else 0

    @property
    def count(self) -> int:
        """How many bundles there are to do."""
        pieces = sum(count_cut(gap, self.export.bundle_seconds) for gap in self._gaps())
        return pieces + len(self.in_progress) + len(self.recorded_to_do())

    @property
    def refreshes(self) -> int:
        """How many of these have an archive already, and are exported once more from the beginning."""
        return len(self._refreshed())

    def holds(self, bundle: Bundle) -> bool:
        """Whether a bundle belongs to this export and overlaps the range."""
        within = bundle.range.start < self.span.end and self.span.start < bundle.range.end
        return within and bundle.export == self.export.name

    def unclaimed(self, *, newest_first: bool = False) -> Iterator[BundleRecord]:
        """Yield the bundles to do that are not in progress, in order of time or newest first."""
        recorded = sorted(self.recorded_to_do(), key=lambda one: one.bundle.range, reverse=newest_first)
        pieces = self.pieces(newest_first=newest_first)
        yield from heapq.merge(recorded, pieces, key=lambda one: one.bundle.range, reverse=newest_first)

    def recorded_to_do(self) -> list[BundleRecord]:
        """Return the bundles of `unclaimed` that the ledger knows as they are.

        They are parked, planned pieces of split bundles, reopened, or to be refreshed.
        """
        return [*self.parked, *self._split_pieces(), *self._reopened(), *self._refreshed()]

    def pieces(self, *, newest_first: bool = False) -> Iterator[BundleRecord]:
        """Yield the other bundles of `unclaimed`: the gaps, cut, in order of time or newest first.

        A piece that was begun keeps its attempt; one that was split gets a new revision.
        """
        begun = {one.bundle.range: one.next_revision() for one in self.recorded.split}
        begun |= {one.bundle.range: one for one in self._begun()}
        gaps_in_order: Iterable[Range] = reversed(list(self._gaps())) if newest_first else self._gaps()
        for gap in gaps_in_order:
            for piece in cut(gap, self.export.bundle_seconds, newest_first=newest_first):
                yield begun.get(piece) or BundleRecord(Bundle(self.export.name, piece))

    def _is_split(self, record: BundleRecord) -> bool:
        return is_split(record, self.export, self.span, self.recorded.covered)

    def _given_up(self) -> Iterator[BundleRecord]:
        return (
            one
            for one in self.recorded.unfinished
            if one.parked and not one.kept and one.bundle not in {*self.paused_until, *self.accepted_gaps}
        )

    def _taken(self) -> list[Range]:
        """Return the time that is stored, or that bundles in progress or parked ones keep."""
        splits = {one.bundle for one in self.splits}
        taken = [
            one.bundle.range
            for one in self.recorded.unfinished
            if isinstance(one.state, IN_PROGRESS) or (one.parked and one.bundle not in splits)
        ]
        return [*taken, *self.recorded.covered]

    def _split_pieces(self) -> list[BundleRecord]:
        """Return the planned pieces of split bundles that keep their width: they lie in gaps, within the range."""
        if not self.recorded.split:
            return []
        free = list(gaps(self.span, sorted(self._taken())))
        found: list[BundleRecord] = []
        for one in sorted(self._begun(), key=lambda one: one.bundle.range):
            own, at = one.bundle.range, found[-1].bundle.range.end if found else self.span.start
            is_piece = any(split.bundle.range.contains(own) for split in self.recorded.split)
            is_free = own.start >= at and any(gap.contains(own) for gap in free)
            if is_piece and is_free and own.seconds < self.export.bundle_seconds:
                found.append(one)
        return found

    def _gaps(self) -> Iterator[Range]:
        taken = [*self._taken(), *(one.bundle.range for one in self._split_pieces())]
        if not self.fills_gaps:
            begun = (one.bundle.range for one in (*self._begun(), *self.splits))
            taken += gaps(self.span, sorted(begun))
        return gaps(self.span, sorted(taken))

    def _begun(self) -> Iterator[BundleRecord]:
        """Yield first revisions that an earlier run left between attempts."""
        return (one for one in self.recorded.unfinished if isinstance(one.state, Planned) and one.stored is None)

    def _reopened(self) -> list[BundleRecord]:
        """Return later revisions of stored bundles that were interrupted between attempts: they leave no gap."""
        return [one for one in self.recorded.unfinished if isinstance(one.state, Planned) and one.stored is not None]

    def _refreshed(self) -> list[BundleRecord]:
        resumed = {one.bundle: one for one in self.recorded.kept} if self.accepts_fewer else {}
        begun = {one.bundle for one in self.recorded.unfinished if not one.kept}
        again = {
            one.bundle: resumed.get(one.bundle) or one.next_revision()
            for one in self.refresh
            if one.bundle not in begun
        }
        return list(again.values())


def in_order(works: Sequence[ExportPlan]) -> Iterator[BundleRecord]:
    """Yield the bundles of several exports: those in progress first, then all in order of time."""
    for work in works:
        yield from work.in_progress
    yield from heapq.merge(*(work.unclaimed() for work in works), key=lambda one: one.bundle.range)


def was_settled(record: BundleRecord) -> bool:
    """Whether a bundle's archive holds settled data: it was exported at least the settle time after its end.

    This is the settle time of that run, so that a longer one makes no work later; 0 if it is not recorded (rule 9 of
    `core.states`). Five minutes are allowed for clocks that differ. A bundle without an archive has none that was
    exported too early.
    """
    archive, end = record.stored, record.bundle.range.end
    return archive is None or archive.exported_at >= end + archive.settle_seconds - CLOCKS_APART_SECONDS


def settles_at(record: BundleRecord, *, settle_seconds: float) -> float:
    """Return when a bundle that was exported too early is exported again, in seconds since 1970.

    Args:
        record: The bundle as recorded.
        settle_seconds: The current settle time. The longer one of both counts, so that its new archive holds settled
            data, too.
    """
    then = 0.0 if record.stored is None else record.stored.settle_seconds
    return record.bundle.range.end + max(then, settle_seconds)


def is_exported_again(record: BundleRecord, *, settle_seconds: float, ages: Sequence[float], now: float) -> bool:
    """Whether this run exports a stored bundle once more.

    It does if the bundle was exported before it was settled, and is settled now; or if a refresh is due
    (`core.refreshing`, which also has the rule for bundles that kept their archive). The ledger only narrows the
    candidates.

    Args:
        record: The bundle as recorded.
        settle_seconds: The current settle time.
        ages: The ages at which bundles are refreshed, in seconds; those up to the settle time never act.
        now: Seconds since 1970, by the service's clock.
    """
    if record.stored is None or record.kept:
        return False
    if not was_settled(record) and settles_at(record, settle_seconds=settle_seconds) <= now:
        return True
    return needs_refresh(record, ages=acting_ages(ages, settle_seconds=settle_seconds), now=now)
