"""Counts the findings of a check of the archives, and prepares the run that repairs them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncexport.config import Settings
from asyncexport.core.bundles import Bundle
from asyncexport.core.exports import Export
from asyncexport.core.states import BundleRecord
from asyncexport.core.summary import Tally
from asyncexport.ledger import LedgerReader
from asyncexport.run.findings import (
    Adopted,
    Broken,
    Damaged,
    Finding,
    Intact,
    Missing,
    Overlapping,
    UnknownExport,
    Unrecorded,
)
from asyncexport.run.spec import Repair

KINDS = ("intact", "missing", "broken", "damaged", "outside", "overlapping", "adopted", "unknown", "foreign")

NO_FILE = "the file does not exist"


@dataclass(slots=True)
class CheckResult:
    """The counts of a check.

    Attributes:
        tally: The archives as bundles: intact ones count as stored before, the others as parked.
        counts: The number of findings of each kind.
        faulty: Bundles whose archive is missing or broken.
        kinds: The kind of finding for each bundle without an intact archive.
    """

    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)
    faulty: list[BundleRecord] = field(default_factory=list)
    kinds: dict[Bundle, str] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        """Whether no finding needs an action."""
        return not self.tally.failed and not any(self.counts[kind] for kind in ("overlapping", "unknown", "unrecorded"))

    @property
    def checked(self) -> dict[str, int]:
        """The counts under the keys of `--json`, which are the types of the lines about findings."""
        return {kind: self.counts[kind] for kind in KINDS}

    def count(self, finding: Finding) -> None:
        """Count one finding."""
        match finding:
            case Intact(_, rows, size) | Adopted(_, rows, size):
                self.counts["adopted"] += isinstance(finding, Adopted)
                self.counts["intact"] += 1
                self.tally.planned += 1
                self.tally.stored_before += 1
                self.tally.rows += rows
                self.tally.bytes += size
                if isinstance(finding, Intact) and finding.outside:
                    self.tally.rows_outside += finding.outside
                    self.counts["outside"] += 1
            case Missing(_, record):
                self.faulty.append(record)
                self._count_faulty("missing", record.bundle, NO_FILE)
            case Broken(_, record, reason):
                self.faulty.append(record)
                self._count_faulty("broken", record.bundle, reason)
            case Damaged(_, bundle, reason):
                self._count_faulty("damaged", bundle, moved_aside(reason))
            case Overlapping():
                self.counts["overlapping"] += 1
            case UnknownExport():
                self.counts["unknown"] += 1
            case Unrecorded(_, is_archive):
                self.counts["foreign"] += 1
                self.counts["unrecorded"] += is_archive

    def _count_faulty(self, kind: str, bundle: Bundle, reason: str) -> None:
        self.counts[kind] += 1
        self.tally.planned += 1
        self.tally.parked[bundle] = f"{kind}: {reason}"
        self.kinds[bundle] = kind


def moved_aside(reason: str) -> str:
    """Describe a damaged archive that `--rebuild` or `--adopt` moves aside."""
    return f"{reason}; moved aside"


def repair_of(settings: Settings, faulty: Sequence[BundleRecord]) -> Repair:
    """Return the run that exports missing and broken archives again.

    Exports that the settings no longer name are taken from the ledger.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    names = sorted({one.bundle.export for one in faulty})
    named = {one.name: one for one in settings.exports}
    with LedgerReader(settings.output.directory) as ledger:
        known = ledger.exports()
    exports = tuple(named.get(name) or Export(name, known[name]) for name in names)
    return Repair(exports, tuple(faulty), command="verify")


__all__ = ["NO_FILE", "CheckResult", "moved_aside", "repair_of"]
