"""The content of the rows, and how damage to them is detected.

1. Each row has a checksum of all its values, including its key, which reveals a changed value and a row in the place of
   another.
2. A pointer row (`bundle`) has no checksum. The head holds the sums over all pointer rows of an export, which also
   reveal missing and duplicate rows. One changed bit changes one sum.
3. The head is a single row that each commit rewrites, so no part of it can go missing.
"""

import math
import sqlite3
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import orjson

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Definition
from asyncexport.core.states import BundleRecord, State, Stored, from_row, to_row
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.schema import VERSION


def digest_of(*values: object) -> int:
    """Return the checksum of a row's values; texts are given as bytes."""
    return zlib.crc32(repr(values).encode())


def verified(row: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """Verify a row and return it without its checksum, which is the last value.

    Raises:
        LedgerCorruptError: the checksum does not match.
    """
    if row[-1] != digest_of(*row[:-1]):
        raise LedgerCorruptError(f"the ledger is damaged: the checksum of {what} does not match")
    return row[:-1]


class NewStateRow(NamedTuple):
    """A row of `state` without its number and its export's number, which are only known when it is written."""

    bundle: Bundle
    revision: int
    state: State
    kind: str
    fields: str
    written_at: float
    has_archive: bool

    @classmethod
    def of(cls, record: BundleRecord, *, at: float) -> Self:
        """Make the row for a bundle's newest state."""
        kind, fields = to_row(record.state)
        text = orjson.dumps(fields).decode()
        has_archive = record.stored is not None or isinstance(record.state, Stored)
        return cls(record.bundle, record.revision, record.state, kind, text, float(at), has_archive)

    def values(self, seq: int, export: int) -> tuple[Any, ...]:
        """Return the complete row."""
        span = self.bundle.range
        key = (seq, export, span.start, span.end, self.revision)
        digest = digest_of(*key, self.kind.encode(), self.fields.encode(), self.written_at)
        return (*key, self.kind, self.fields, self.written_at, digest)


class StateRow(NamedTuple):
    """A row of `state`, read and verified."""

    seq: int
    export: int
    start: int
    stop: int
    revision: int
    state: State
    written_at: float

    @classmethod
    def read(cls, row: tuple[Any, ...]) -> Self:
        """Verify and read a row.

        Raises:
            LedgerCorruptError: the row is not as it was written.
        """
        seq, export, start, stop, revision, kind, fields, written_at = verified(row, f"row {row[0]}")
        return cls(seq, export, start, stop, revision, from_row(kind.decode(), orjson.loads(fields)), written_at)


class BundleRow(NamedTuple):
    """A row of `bundle` without its export: pointers to the newest state, and to the newest archive if there is one."""

    start: int
    stop: int
    latest: int
    stored: int | None
    rows: int
    bytes: int
    exported: int

    @classmethod
    def after(cls, before: Self | None, row: NewStateRow, *, seq: int) -> Self:
        """Return the pointers of the bundle after the row is written with this number."""
        span = row.bundle.range
        if isinstance(row.state, Stored):
            archive = row.state
            return cls(span.start, span.end, seq, seq, archive.rows, archive.bytes, math.floor(archive.exported_at))
        if before is None:
            return cls(span.start, span.end, seq, None, 0, 0, 0)
        return before._replace(latest=seq)


@dataclass(slots=True)
class BundleSums:
    """The sums over all pointer rows of an export."""

    bundles: int = 0
    archives: int = 0
    start: int = 0
    stop: int = 0
    latest: int = 0
    stored: int = 0
    rows: int = 0
    bytes: int = 0
    exported: int = 0

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> list[tuple[int, Self]]:
        """Compute the sums of each export, by its number.

        The query scans the table, because a search would not read the key of each row. A row with a value that is not a
        number is not counted: the `max` of its values is null or above the limit.
        """
        found = connection.execute(
            "SELECT export, count(*) FILTER (WHERE max(start, stop, latest, coalesce(stored, 0), rows, bytes, exported)"
            " <= 9223372036854775807), count(stored), coalesce(sum(start), 0), coalesce(sum(stop), 0),"
            " coalesce(sum(latest), 0), coalesce(sum(stored), 0), coalesce(sum(rows), 0), coalesce(sum(bytes), 0),"
            " coalesce(sum(exported), 0) FROM bundle GROUP BY export ORDER BY export"
        )
        return [(number, cls(*sums)) for number, *sums in found]

    def add(self, pointers: BundleRow, *, times: int = 1) -> None:
        """Add a row to the sums, or subtract it with `times=-1`."""
        self.bundles += times
        self.archives += times * (pointers.stored is not None)
        self.start += times * pointers.start
        self.stop += times * pointers.stop
        self.latest += times * pointers.latest
        self.stored += times * (pointers.stored or 0)
        self.rows += times * pointers.rows
        self.bytes += times * pointers.bytes
        self.exported += times * pointers.exported

    def to_list(self) -> list[int]:
        """Return the sums in the order of the fields."""
        return [
            self.bundles,
            self.archives,
            self.start,
            self.stop,
            self.latest,
            self.stored,
            self.rows,
            self.bytes,
            self.exported,
        ]


@dataclass(slots=True)
class ServiceIdSums:
    """The sums over all rows of `service_id`: the number of rows, and the sums of the hashes and of the row numbers."""

    rows: int = 0
    hash: int = 0
    state: int = 0

    def add(self, hashed: int, state: int) -> None:
        """Add a row to the sums."""
        self.rows += 1
        self.hash += hashed
        self.state += state


@dataclass(slots=True)
class KnownExport:
    """A recorded export: its number in the tables, its definition, the sums over its bundles."""

    number: int
    definition: Definition
    sums: BundleSums = field(default_factory=BundleSums)


@dataclass(slots=True)
class LedgerHead:
    """The single row for everything small: the format, counts and sums over the tables, the exports, and the notes.

    Attributes:
        version: The version of the format.
        created_at: When the ledger was created.
        commits: The number of commits since then.
        last_state, last_request, last_duration, last_run: The number of the newest row of each table.
        requests, durations, runs, accepted: The number of rows of each table.
        first_request_at: When the first request was sent; 0 if its row has been deleted.
        hours: The number of rows of `hour`.
        hour_requests: The sum of the requests in `hour`.
        service_ids: The sums over the index of service ids.
        exports: The exports, by name.
        remarks: The notes that are kept from run to run, by key.
    """

    version: int = VERSION
    created_at: float = 0.0
    commits: int = 0
    last_state: int = 0
    last_request: int = 0
    last_duration: int = 0
    requests: int = 0
    durations: int = 0
    first_request_at: float | None = None
    last_run: int = 0
    runs: int = 0
    hours: int = 0
    hour_requests: int = 0
    accepted: int = 0
    service_ids: ServiceIdSums = field(default_factory=ServiceIdSums)
    exports: dict[str, KnownExport] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Self:
        """Read and verify the head.

        Raises:
            LedgerCorruptError: the head is not as it was written.
        """
        row = connection.execute("SELECT one, text, digest FROM head").fetchone()
        if row is None:
            raise LedgerCorruptError("the ledger is damaged: it has no head")
        _, text = verified(row, "the head")
        data = orjson.loads(text)
        if data["version"] > VERSION:
            return cls(version=data["version"])
        exports = {
            name: KnownExport(known["number"], Definition.from_dict(known["definition"]), BundleSums(*known["sums"]))
            for name, known in data.pop("exports").items()
        }
        service_ids = ServiceIdSums(*data.pop("service_ids", ()))
        return cls(**data, service_ids=service_ids, exports=exports)

    def to_text(self) -> str:
        """Return the head as JSON, as it is stored."""
        data = {name: getattr(self, name) for name in self.__slots__ if name not in ("exports", "service_ids")}
        ids = self.service_ids
        data["service_ids"] = [ids.rows, ids.hash, ids.state]
        data["exports"] = {
            name: {
                "number": known.number,
                "definition": known.definition.to_dict(),
                "sums": known.sums.to_list(),
            }
            for name, known in self.exports.items()
        }
        return orjson.dumps(data).decode()


def read_record(
    bundle: Bundle, number: int, *, latest: tuple[Any, ...], stored: tuple[Any, ...] | None
) -> BundleRecord:
    """Read a bundle's record from the rows that its pointers lead to; `stored` is None if it has no archive.

    Raises:
        LedgerCorruptError: a row is missing, damaged, or belongs to another bundle.
    """
    newest = _read_of(bundle, number, latest)
    if stored is None:
        return BundleRecord(bundle, newest.revision, newest.state)
    archive = newest if stored[0] == newest.seq else _read_of(bundle, number, stored)
    if not isinstance(archive.state, Stored):
        raise LedgerCorruptError(f"the ledger is damaged: row {archive.seq} is not an archive of {bundle}")
    if archive is newest:
        return BundleRecord(bundle, newest.revision, newest.state, archive.state)
    return BundleRecord(bundle, newest.revision, newest.state, archive.state.written_in(archive.revision))


def _read_of(bundle: Bundle, number: int, row: tuple[Any, ...]) -> StateRow:
    if row[0] is None:
        raise LedgerCorruptError(f"the ledger is damaged: a row of {bundle} is missing")
    written = StateRow.read(row)
    if (written.export, Range(written.start, written.stop)) != (number, bundle.range):
        raise LedgerCorruptError(f"the ledger is damaged: row {written.seq} does not belong to {bundle}")
    return written
