"""What the rows hold, and how damage to them shows.

1. Each row carries the checksum of all its values, its key included: a value that changed shows, and so does a row that
   stands where another should.
2. A pointer row (`bundle`) carries none: the head holds the sums over all of an export's, so that a row that is missing
   or there twice shows as well. One changed bit changes one sum.
3. The head is one row, and rewritten in each commit: nothing of it can go missing by itself.
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
    """The checksum of a row; text as bytes."""
    return zlib.crc32(repr(values).encode())


def verified(row: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """The row without its checksum, which is its last value.

    Raises:
        LedgerCorruptError: the two do not fit.
    """
    if row[-1] != digest_of(*row[:-1]):
        raise LedgerCorruptError(f"the ledger is damaged: {what} does not have the checksum it was written with")
    return row[:-1]


class NewStateRow(NamedTuple):
    """A row of `state`, but for its number and its export's, which are known when it is written."""

    bundle: Bundle
    revision: int
    state: State
    kind: str
    fields: str
    written_at: float
    has_archive: bool

    @classmethod
    def of(cls, record: BundleRecord, *, at: float) -> Self:
        """The newest state of a bundle."""
        kind, fields = to_row(record.state)
        text = orjson.dumps(fields).decode()
        has_archive = record.stored is not None or isinstance(record.state, Stored)
        return cls(record.bundle, record.revision, record.state, kind, text, float(at), has_archive)

    def values(self, seq: int, export: int) -> tuple[Any, ...]:
        """The whole row."""
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
        """Check it and read it.

        Raises:
            LedgerCorruptError: it is not as it was written.
        """
        seq, export, start, stop, revision, kind, fields, written_at = verified(row, f"row {row[0]}")
        return cls(seq, export, start, stop, revision, from_row(kind.decode(), orjson.loads(fields)), written_at)


class BundleRow(NamedTuple):
    """A row of `bundle` without its export: the newest state, and the newest archive, if there is one."""

    start: int
    stop: int
    latest: int
    stored: int | None
    rows: int
    bytes: int
    exported: int

    @classmethod
    def after(cls, before: Self | None, row: NewStateRow, *, seq: int) -> Self:
        """The pointers of the bundle once the row is written under this number."""
        span = row.bundle.range
        if isinstance(row.state, Stored):
            archive = row.state
            return cls(span.start, span.end, seq, seq, archive.rows, archive.bytes, math.floor(archive.exported_at))
        if before is None:
            return cls(span.start, span.end, seq, None, 0, 0, 0)
        return before._replace(latest=seq)


@dataclass(slots=True)
class BundleSums:
    """The sums over all pointers of an export."""

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
        """What the rows of each export add up to, by its number.

        Without a search, which would not look at the key of each row; and without a row one of whose values is no
        number: the largest of them is null then, or above the limit.
        """
        found = connection.execute(
            "SELECT export, count(*) FILTER (WHERE max(start, stop, latest, coalesce(stored, 0), rows, bytes, exported)"
            " <= 9223372036854775807), count(stored), coalesce(sum(start), 0), coalesce(sum(stop), 0),"
            " coalesce(sum(latest), 0), coalesce(sum(stored), 0), coalesce(sum(rows), 0), coalesce(sum(bytes), 0),"
            " coalesce(sum(exported), 0) FROM bundle GROUP BY export ORDER BY export"
        )
        return [(number, cls(*sums)) for number, *sums in found]

    def add(self, pointers: BundleRow, *, times: int = 1) -> None:
        """Count a row in, or with `times=-1` out."""
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
        """In the order of the fields."""
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
    """The sums over all rows of `service_id`: how many, of their hashes, and of the numbers they lead to."""

    rows: int = 0
    hash: int = 0
    state: int = 0

    def add(self, hashed: int, state: int) -> None:
        """Count a row in."""
        self.rows += 1
        self.hash += hashed
        self.state += state


@dataclass(slots=True)
class KnownExport:
    """An export that the ledger knows: its number in the tables, its definition, the sums over its bundles."""

    number: int
    definition: Definition
    sums: BundleSums = field(default_factory=BundleSums)


@dataclass(slots=True)
class LedgerHead:
    """The one row that holds all that is small: what the ledger knows of itself, its exports and remarks.

    Attributes:
        version: Of the format.
        created_at: When the ledger was made.
        commits: How many there have been since.
        last_state, last_request, last_duration, last_run: The number of the newest row.
        requests, durations, runs, accepted: How many rows there are.
        first_request_at: When the first request was sent; 0 once the record does not reach back to it.
        hours: How many rows of `hour` there are.
        hour_requests: The requests in all of them.
        service_ids: The sums over the look-up of ids.
        exports: By name.
        remarks: What is remembered from run to run.
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
        """Read and verify it.

        Raises:
            LedgerCorruptError: it is not as it was written.
        """
        row = connection.execute("SELECT one, text, digest FROM head").fetchone()
        if row is None:
            raise LedgerCorruptError("the ledger is damaged: it has no head")
        _, text = verified(row, "its head")
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
        """As it is written."""
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
    """Where a bundle stands, from the rows its pointers lead to; `stored` is None where there is no archive.

    Raises:
        LedgerCorruptError: a row is missing, damaged, or another bundle's.
    """
    newest = _read_of(bundle, number, latest)
    if stored is None:
        return BundleRecord(bundle, newest.revision, newest.state)
    archive = newest if stored[0] == newest.seq else _read_of(bundle, number, stored)
    if not isinstance(archive.state, Stored):
        raise LedgerCorruptError(f"the ledger is damaged: row {archive.seq} is no archive of {bundle}")
    if archive is newest:
        return BundleRecord(bundle, newest.revision, newest.state, archive.state)
    return BundleRecord(bundle, newest.revision, newest.state, archive.state.written_in(archive.revision))


def _read_of(bundle: Bundle, number: int, row: tuple[Any, ...]) -> StateRow:
    if row[0] is None:
        raise LedgerCorruptError(f"the ledger is damaged: a row of {bundle} is missing")
    written = StateRow.read(row)
    if (written.export, Range(written.start, written.stop)) != (number, bundle.range):
        raise LedgerCorruptError(f"the ledger is damaged: row {written.seq} is not of {bundle}")
    return written
