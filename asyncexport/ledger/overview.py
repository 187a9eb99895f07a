"""What the ledger knows of one export, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle, Range, gaps
from asyncexport.core.exports import Definition
from asyncexport.core.parking import ParkedTimes, next_try
from asyncexport.core.states import IN_PROGRESS, BundleRecord, Failed, Overdue, Refused


@dataclass(frozen=True, slots=True)
class Overview:
    """What the ledger knows of one export, for `status`.

    Attributes:
        stored: How many bundles have an archive; `empty` of them have no rows in it.
        rows, bytes: In these archives, and of them.
        unfinished: Bundles whose newest revision has begun and not ended as stored, in order.
        covered: The time that archives cover, merged, in order.
        unsettled: Bundles whose archive was exported before it was settled, in order.
        overlaps: Archives that begin before an earlier one has ended, each after that one.
        parked_times: How often and when those in `unfinished` were parked that nights let rest.
        last_at: When its last row was written, in seconds since 1970; None where there is none.
    """

    name: str
    definition: Definition
    stored: int
    empty: int
    rows: int
    bytes: int
    unfinished: tuple[BundleRecord, ...]
    covered: tuple[Range, ...]
    last_at: float | None
    overlaps: tuple[tuple[Range, Range], ...] = ()
    unsettled: tuple[BundleRecord, ...] = ()
    parked_times: Mapping[Bundle, ParkedTimes] = field(default_factory=dict)

    @property
    def in_progress(self) -> int:
        """Bundles that the service works on, or whose file waits there."""
        return sum(isinstance(one.state, IN_PROGRESS) for one in self.unfinished)

    @property
    def failed(self) -> int:
        """Bundles given up."""
        return sum(isinstance(one.state, Failed | Refused) for one in self.unfinished)

    @property
    def overdue(self) -> int:
        """Bundles whose operation was still running at its deadline."""
        return sum(isinstance(one.state, Overdue) for one in self.unfinished)

    @property
    def parked(self) -> tuple[BundleRecord, ...]:
        """Bundles given up, overdue or kept, in order: the open problems."""
        return tuple(one for one in self.unfinished if one.parked)

    def next_try(self, record: BundleRecord) -> float | None:
        """From when on nights try a parked bundle again, in seconds since 1970; None: the next one does, or none."""
        parked = self.parked_times.get(record.bundle)
        return None if parked is None else next_try(parked)

    @property
    def kept(self) -> tuple[BundleRecord, ...]:
        """Of these, bundles whose archive was kept because a new export has far fewer rows."""
        return tuple(one for one in self.unfinished if one.kept)

    @property
    def gaps(self) -> tuple[Range, ...]:
        """What no archive covers between the first and the last."""
        if not self.covered:
            return ()
        return tuple(gaps(Range(self.covered[0].start, self.covered[-1].end), self.covered))
