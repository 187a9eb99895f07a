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
        stored: The number of bundles that have an archive; `empty` of these archives have no rows.
        rows, bytes: The sums over these archives.
        unfinished: Bundles whose newest revision has begun and not ended as stored, in order.
        covered: The time that archives cover, merged, in order.
        unsettled: Bundles whose archive was exported before its data was settled, in order.
        overlaps: Pairs of an archive and a later one that begins before it has ended.
        parked_times: How often and when bundles in `unfinished` were parked, if nightly runs retry them after a pause.
        last_at: When the export's last row was written, in seconds since 1970; None if it has none.
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
        """The number of bundles with an operation in progress, or with a file to download."""
        return sum(isinstance(one.state, IN_PROGRESS) for one in self.unfinished)

    @property
    def failed(self) -> int:
        """The number of bundles that failed or were refused."""
        return sum(isinstance(one.state, Failed | Refused) for one in self.unfinished)

    @property
    def overdue(self) -> int:
        """The number of bundles whose operation was still running at its deadline."""
        return sum(isinstance(one.state, Overdue) for one in self.unfinished)

    @property
    def parked(self) -> tuple[BundleRecord, ...]:
        """The bundles that are parked (failed, refused, overdue or kept), in order: the open problems."""
        return tuple(one for one in self.unfinished if one.parked)

    def next_try(self, record: BundleRecord) -> float | None:
        """Return when a pause ends after which nightly runs retry a parked bundle, in seconds since 1970, if any."""
        parked = self.parked_times.get(record.bundle)
        return None if parked is None else next_try(record, parked)

    @property
    def kept(self) -> tuple[BundleRecord, ...]:
        """The parked bundles whose archive was kept because the new export has far fewer rows."""
        return tuple(one for one in self.unfinished if one.kept)

    @property
    def gaps(self) -> tuple[Range, ...]:
        """The time between the first and the last archive that no archive covers."""
        if not self.covered:
            return ()
        return tuple(gaps(Range(self.covered[0].start, self.covered[-1].end), self.covered))
