"""Which days a warehouse should hold, and the receipt of each: the digest of exactly the archives it is made from.

1. A day of an export is loaded as one piece, from the archives that the ledger names. A bundle never crosses midnight
   UTC, so a new revision of a bundle changes exactly one day.
2. A receipt depends on everything that decides the rows: the version of the layout, the settings that change rows, and
   each archive's path, hash and number of rows. Two equal receipts mean equal rows; only `_exported_at` and
   `_revision` may differ, if an archive was exported again with the same bytes.
3. An archive that was not settled when it was exported counts as missing: it will be replaced.
4. A day with overlapping archives is not loaded, since it would hold the same rows twice.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from itertools import groupby

from asyncexport.core.bundles import DAY, Range, day
from asyncexport.core.coverage import was_settled
from asyncexport.core.exports import Format
from asyncexport.core.states import BundleRecord
from asyncexport.core.warehouse.columns import LAYOUT_VERSION, Layout


@dataclass(frozen=True, slots=True)
class SourceArchive:
    """One archive that a day is made from.

    Attributes:
        path: Its path, relative to the output directory.
        sha256: The SHA-256 of its bytes, in hex.
        rows: The number of its rows.
        range: The range of its bundle.
        exported_at: When the service made the export, in seconds since 1970.
        revision: The revision of the bundle that wrote the archive's bytes.
        was_confirmed: Whether `exported_at` may be that of a later revision, which brought the same rows.
    """

    path: str
    sha256: str
    rows: int
    range: Range
    exported_at: float
    revision: int
    was_confirmed: bool = False


@dataclass(frozen=True, slots=True)
class DaySource:
    """The archives of one UTC day of an export, in order of time. `start` is its midnight, in seconds since 1970."""

    export: str
    start: int
    format: Format
    archives: tuple[SourceArchive, ...]

    @property
    def date(self) -> str:
        """The day, such as `2026-01-01`."""
        return day(self.start)

    @property
    def rows(self) -> int:
        """The rows of all archives."""
        return sum(one.rows for one in self.archives)

    @property
    def is_complete(self) -> bool:
        """Whether the archives cover the whole day, once."""
        return sum(one.range.seconds for one in self.archives) == DAY and not self.overlaps

    @property
    def overlaps(self) -> tuple[tuple[str, str], ...]:
        """The paths of each archive and the next one where the two share time."""
        pairs = zip(self.archives, self.archives[1:], strict=False)
        return tuple((one.path, next_.path) for one, next_ in pairs if one.range.overlaps(next_.range))

    def receipt(self, layout: Layout, *, max_row: int) -> str:
        """Return the receipt, in hex.

        Args:
            layout: The columns of the table.
            max_row: The longest row that is loaded, in bytes.
        """
        settings = {"type": layout.type.value, "custom": list(layout.custom), "max_row": max_row}
        archives = sorted([one.path, one.sha256, one.rows] for one in self.archives)
        text = json.dumps([LAYOUT_VERSION, settings, archives], sort_keys=True)
        return sha256(text.encode()).hexdigest()


def source_archive(record: BundleRecord) -> SourceArchive | None:
    """Return the archive of a bundle as recorded; None if it has none that was settled."""
    stored = record.stored
    if stored is None or not was_settled(record):
        return None
    was_confirmed = stored.written_by not in (None, record.revision)
    revision = record.revision if stored.written_by is None else stored.written_by
    file = (stored.path, stored.sha256, stored.rows, record.bundle.range)
    return SourceArchive(*file, stored.exported_at, revision, was_confirmed)


def day_sources(export: str, format_: Format, records: Iterable[BundleRecord]) -> Iterator[DaySource]:
    """Yield the days that have archives, in order; `records` of one export, in order of time."""
    archives = (archive for record in records if (archive := source_archive(record)) is not None)
    for start, found in groupby(archives, key=lambda one: one.range.start // DAY * DAY):
        yield DaySource(export, start, format_, tuple(found))


def is_date(text: str) -> bool:
    """Return whether a text is a date in the form that names of folders have: `2026-01-01`."""
    if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is None:
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
