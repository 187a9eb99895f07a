"""An output directory for tests: archives under their final names, and a ledger with the records that a test needs."""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asyncexport.core.archive.proof import BodyProof
from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.exports import Definition, Export, Format
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.storage import Archives, archive_path

MIDNIGHT = 1_767_225_600
HOUR = 3600
EVENTS = Export("everyone-events")
PEOPLE = Export("people", Definition(segment="vip", format=Format.CSV))
LEDGER = Path(".asyncexport", "ledger.sqlite3")


def half_hour(number: int, export: Export = EVENTS) -> Bundle:
    """Return the n-th half-hour of the day."""
    return half_hours(number, number + 1, export)


def half_hours(first: int, end: int, export: Export = EVENTS) -> Bundle:
    """Return the bundle from one half-hour of the day up to another."""
    return Bundle(export.name, Range(MIDNIGHT + first * HOUR // 2, MIDNIGHT + end * HOUR // 2))


def rows(count: int, export: Export = EVENTS, *, text: str = "x") -> bytes:
    """Return `count` rows as a gzip file."""
    if export.definition.format is Format.CSV:
        return gzip.compress(b"EventType\n" + f"{text}\n".encode() * count, mtime=0)
    return gzip.compress(f'{{"EventType":"{text}"}}\n'.encode() * count, mtime=0)


@dataclass
class Place:
    """An output directory with archives and a ledger, which is open only while records are written."""

    directory: Path
    archives: Archives

    async def keep(self, bundle: Bundle, body: bytes, container: Format = Format.NDJSON) -> Stored:
        """Store an archive under its final name."""
        async with self.archives.new_part(bundle, container) as part:
            await part.write(body)
            archive = await part.commit(BodyProof(end_proved=True))
        return Stored.of(archive, exported_at=bundle.range.end + 90_000.0)

    async def fill(self, count: int, export: Export = EVENTS) -> list[BundleRecord]:
        """Store and record `count` bundles from midnight on; the n-th has n rows, counted from 0."""
        await self.archives.prepare([export])
        records = []
        for number in range(count):
            stored = await self.keep(half_hour(number, export), rows(number, export), export.definition.format)
            records.append(BundleRecord(half_hour(number, export), 0, stored, stored))
        await self.record(records, export)
        return records

    async def record(self, records: Iterable[BundleRecord], export: Export = EVENTS) -> None:
        """Write records to the ledger."""
        ledger = await Ledger.open(self.directory)
        try:
            await ledger.register([export])
            for record in records:
                await ledger.append(record, at=1.0)
        finally:
            await ledger.close()

    def path(self, bundle: Bundle, container: Format = Format.NDJSON) -> Path:
        """Return the path of an archive."""
        return self.directory / archive_path(bundle, container)

    def files(self) -> dict[str, bytes]:
        """Return the content of all files except the ledger's."""
        found = sorted(path for path in self.directory.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.directory)): path for path in found}
        return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".asyncexport")}

    def stored(self, export: Export = EVENTS) -> list[BundleRecord]:
        """Return the stored records of an export."""
        with LedgerReader(self.directory) as ledger:
            ledger.check()
            return list(ledger.stored(export.name, ALL_TIME))
