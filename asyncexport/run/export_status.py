"""How an export stands: what the ledger knows of it, beside what nights ask for and what lies on the disk.

1. Nothing is changed, and no archive is read: whether a file is there, and how large it is, is all that is looked at.
2. A run that goes on meanwhile replaces files and then says so in the ledger. What seems altered is therefore looked
   up once more, and bundles that a run works on are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME, DAY, Range, gaps, settled_until
from asyncexport.core.exports import Export
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.ledger import LedgerReader, Overview
from asyncexport.run.ranges import NIGHTLY_SINCE, is_past

ONE_NIGHT_SECONDS = DAY
"""So much after the last archive is what the next night is for; more is a gap."""


@dataclass(frozen=True, slots=True)
class AlteredArchive:
    """An archive that is gone, or has another size than the ledger says: somebody deleted or cut it.

    Attributes:
        record: Its bundle, as the ledger has it.
        reason: What is wrong, as a person reads it.
    """

    record: BundleRecord
    reason: str


@dataclass(frozen=True, slots=True)
class ExportStatus:
    """How an export stands.

    Attributes:
        overview: What the ledger knows of it.
        settled: Up to when its data is settled, in seconds since 1970. None: it is not configured.
        since: Where nights begin. None: no night was ever asked for, or it is not configured.
        altered: Archives that somebody deleted or cut, in order.
    """

    overview: Overview
    settled: int | None
    since: int | None
    altered: tuple[AlteredArchive, ...]

    @property
    def gaps(self) -> tuple[Range, ...]:
        """What no archive covers: between the first and the last, and of what nights ask for."""
        covered, since, settled = self.overview.covered, self.since, self.settled
        starts = [*([covered[0].start] if covered else []), *([] if since is None else [since])]
        if not starts:
            return ()
        start = min(starts)
        end = covered[-1].end if covered else start
        if since is not None and settled is not None and settled - end > ONE_NIGHT_SECONDS:
            end = settled
        return tuple(gaps(Range(start, end), covered)) if start < end else ()


def export_statuses(
    settings: Settings, ledger: LedgerReader, *, names: Sequence[str], now: float
) -> list[ExportStatus]:
    """How each export of the ledger stands; `names`: only these, where there are any."""
    configured = {export.name: export for export in settings.exports}
    since = _since(settings, ledger, now=now)
    found = []
    for overview in ledger.overviews():
        if names and overview.name not in names:
            continue
        export = configured.get(overview.name)
        altered = tuple(_altered(settings.output.directory, ledger, overview))
        settled = None if export is None else _settled(export, now=now)
        found.append(ExportStatus(overview, settled, None if export is None else since, altered))
    return found


def _since(settings: Settings, ledger: LedgerReader, *, now: float) -> int | None:
    chosen = settings.nightly.since_at(now)
    if chosen is not None:
        return chosen
    remembered = ledger.recall(NIGHTLY_SINCE)
    return int(remembered) if remembered and is_past(remembered, now=now) else None


def _settled(export: Export, *, now: float) -> int:
    return settled_until(now, settle_seconds=export.settle_seconds)


def _altered(directory: Path, ledger: LedgerReader, overview: Overview) -> Iterator[AlteredArchive]:
    """Rule 2."""
    moving = {one.bundle for one in overview.unfinished if not one.parked}
    for record in ledger.stored(overview.name, ALL_TIME):
        if record.bundle in moving or not _fault(directory, record.stored):
            continue
        for again in ledger.stored(overview.name, record.bundle.range):
            if again.bundle == record.bundle and (fault := _fault(directory, again.stored)):
                yield AlteredArchive(again, fault)


def _fault(directory: Path, archive: Stored | None) -> str:
    """What is wrong with an archive's file; "" where nothing is."""
    if archive is None:
        return ""
    try:
        size = (directory / archive.path).stat().st_size
    except FileNotFoundError:
        return "the file does not exist"
    except OSError as error:
        return f"the file cannot be accessed: {(error.strerror or 'no reason given').lower()}"
    return "" if size == archive.bytes else f"the file has {size:,} bytes instead of {archive.bytes:,}"
