"""An output directory with made-up archives, loads of it, and what is in the tables afterwards."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from asyncexport.config import Settings
from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Export, Format
from asyncexport.core.health.beside import Beside, BesideKind
from asyncexport.core.states import Archive, BundleRecord, Ready, Stored
from asyncexport.core.summary import Summary
from asyncexport.core.warehouse.columns import STANDARD, ColumnKind
from asyncexport.core.warehouse.load_events import LoadEvent
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import Ledger, beside_path, own_load_path, read_beside
from asyncexport.run.load import LoadSpec, load
from asyncexport.storage import archive_path
from asyncexport.warehouse.failpoints import LOAD_FAILPOINT
from tests.day_making import MIDNIGHT, ndjson, rows_in

EVENTS = Export("everyone-events")

HOUR = 3600

TABLE = "everyone_events"

BROKEN = b'{"UserId": 1]\n'
"""A line that is no row. Runs store such an archive: they do not parse every row."""

Row = dict[str, Any]


def event(number: int, **more: Any) -> Row:
    """Return the n-th event; each one differs from all others."""
    at = f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    return {
        "UserId": 7_000_000_000_000_000_000 + number,
        "EventStart": at,
        "EventType": "click",
        "evt_n_int": number,
    } | more


def events(first: int, count: int) -> list[Row]:
    """Return `count` events from the n-th on."""
    return [event(first + number) for number in range(count)]


@dataclass
class Place:
    """An output directory and a load directory.

    Attributes:
        folder: The directory of both.
        truth: The rows of each archive, by export and range.
        archives: The newest archive of each bundle.
        changes: Settings, table by table, as in the configuration file.
    """

    folder: Path
    truth: dict[Bundle, list[Row]] = field(default_factory=dict)
    archives: dict[Bundle, Stored] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    exports: tuple[Export, ...] = (EVENTS,)

    @property
    def output(self) -> Path:
        """The output directory."""
        return self.folder / "exports"

    @property
    def warehouse(self) -> Path:
        """The load directory."""
        return self.folder / "warehouse"

    @property
    def settings(self) -> Settings:
        """The settings."""
        tables: dict[str, Any] = {
            "output": {"directory": str(self.output)},
            "load": {
                "directory": str(self.warehouse),
                "memory": "256MiB",
                "workers": 1,
                **self.changes.get("load", {}),
            },
            "export": [
                {"name": one.name, "type": one.definition.type.value, "format": one.definition.format.value}
                for one in self.exports
            ],
        }
        return Settings.from_layers({**tables, **{name: one for name, one in self.changes.items() if name != "load"}})

    def store(self, *stored: "Arrival") -> None:
        """Store archives, as a run would have."""
        asyncio.run(self.stored(*stored))

    async def stored(self, *stored: "Arrival") -> None:
        """Store archives, as a run would have."""
        ledger = await Ledger.open(self.output)
        try:
            await ledger.register(self.exports)
            known = {one.name: one.definition.format for one in self.exports}
            for one in stored:
                await self._store(ledger, one, known[one.export])
        finally:
            await ledger.close()

    async def _store(self, ledger: Ledger, one: "Arrival", form: Format) -> None:
        bundle = Bundle(one.export, one.range)
        path = archive_path(bundle, form)
        content = one.content if one.content is not None else contents(one.rows, form)
        data = gzip.compress(content, mtime=0)
        if not one.keeps_file:
            (self.output / path).parent.mkdir(parents=True, exist_ok=True)
            (self.output / path).write_bytes(data)
        rows = len(one.rows) if one.content is None else rows_in(content, form)
        archive = Archive(path, len(data), rows, sha256(data).hexdigest())
        state = Stored.of(
            archive, exported_at=one.exported_at, settle_seconds=one.settle_seconds, written_by=one.written_by
        )
        record = BundleRecord(bundle, one.revision, state, state)
        if not one.is_recorded:
            record = BundleRecord(bundle, one.revision, Ready(1, one.exported_at, "export"), self.archives.get(bundle))
        await ledger.append(record, at=one.exported_at)
        self.truth[bundle], self.archives[bundle] = list(one.rows), state

    def load(self, **asked: Any) -> Summary:
        """Load, and return the summary."""
        return asyncio.run(self.loaded(**asked))

    def count(self, key: str, **asked: Any) -> int:
        """Load, and return a count of the summary."""
        return int(self.load(**asked).to_dict()["load"][key])

    async def loaded(
        self,
        *,
        stop: Stop | None = None,
        on_event: Callable[[LoadEvent], None] = lambda _event: None,
        on_total: Callable[[int], None] = lambda _days: None,
        boundary: Callable[[str], None] = lambda _name: None,
        **asked: Any,
    ) -> Summary:
        """Load, and return the summary. `boundary` is called at each failpoint."""
        now, spec = MIDNIGHT + 30 * DAY, LoadSpec(**asked)
        with at_load_failpoints(boundary):
            return await load(self.settings, spec, now=now, stop=stop, on_event=on_event, on_total=on_total)

    def file(self, number: int = 0, table: str = TABLE) -> Path:
        """Return the Parquet file of the n-th day."""
        return self.warehouse / table / f"date={date(number)}" / "data.parquet"

    def in_parquet(self, table: str = TABLE) -> Counter[str]:
        """Return the multiset of rows in the Parquet files of a table."""
        files = sorted(map(str, (self.warehouse / table).glob("date=*/data.parquet")))
        return rows_of("read_parquet($files, hive_partitioning = false)", {"files": files}) if files else Counter()

    def ids_in_parquet(self, table: str = TABLE) -> list[str]:
        """Return the ids of the events in the Parquet files of a table, in order."""
        files = sorted(map(str, (self.warehouse / table).glob("date=*/data.parquet")))
        return _ids("read_parquet($files, hive_partitioning = false)", {"files": files}) if files else []

    def ids_in_duckdb(self, table: str = TABLE) -> list[str]:
        """Return the ids of the events in a table or view of the DuckDB file, in order."""
        return _ids(f'"{table}"', {}, database=self.warehouse / "warehouse.duckdb")

    def day_in_parquet(self, number: int) -> Counter[str]:
        """Return the multiset of rows in the file of the n-th day."""
        values = {"file": str(self.file(number))}
        return (
            rows_of("read_parquet($file, hive_partitioning = false)", values)
            if self.file(number).exists()
            else Counter()
        )

    def day_expected(self, number: int) -> Counter[str]:
        """Return the multiset of rows of the archives of the n-th day."""
        start = MIDNIGHT + number * DAY
        return Counter(
            canonical(row)
            for bundle, rows in self.truth.items()
            if start <= bundle.range.start < start + DAY
            for row in rows
        )

    def in_duckdb(self, table: str = TABLE) -> Counter[str]:
        """Return the multiset of rows in a table or view of the DuckDB file."""
        return rows_of(f'"{table}"', {}, database=self.warehouse / "warehouse.duckdb")

    def expected(self, export: str = EVENTS.name) -> Counter[str]:
        """Return the multiset of rows of all archives of an export."""
        return Counter(canonical(row) for bundle, rows in self.truth.items() if bundle.export == export for row in rows)

    def states(self) -> dict[str, tuple[int, int]]:
        """Return inode and time of change of each file in the load directory, but for those of the load itself."""
        own = (".lock", ".last-load.json")
        files = (one for one in self.warehouse.rglob("*") if one.is_file() and one.name not in own)
        return {str(one.relative_to(self.warehouse)): (one.stat().st_ino, one.stat().st_mtime_ns) for one in files}

    def last(self, kind: BesideKind = BesideKind.LOAD) -> Beside | None:
        """Return the record of the last load or mirror, wherever it is."""
        return read_beside(kind, beside_path(self.output, kind), own_load_path(self.warehouse))

    def leftovers(self) -> list[Path]:
        """Return what an unfinished load may leave: part files, and files for temporary data."""
        return [one for one in self.warehouse.rglob("*") if ".part" in one.name or ".spill" in one.parts]


@dataclass(frozen=True)
class Arrival:
    """An archive to store.

    Attributes:
        hours: Its range, in hours of 2026.
        rows: Its rows.
        content: Its content, if that is not these rows as the export's format has them.
        keeps_file: Whether the file that is there stays as it is.
        is_recorded: Whether the ledger names it; if not, the run is about to record it.
    """

    hours: tuple[int, int]
    rows: Sequence[Row] = ()
    export: str = EVENTS.name
    content: bytes | None = None
    revision: int = 0
    written_by: int | None = None
    keeps_file: bool = False
    is_recorded: bool = True
    settle_seconds: float = 0.0
    exported_after: float = 5 * DAY

    @property
    def range(self) -> Range:
        """The range of the bundle."""
        return Range(MIDNIGHT + self.hours[0] * HOUR, MIDNIGHT + self.hours[1] * HOUR)

    @property
    def exported_at(self) -> float:
        """When it was exported."""
        return self.range.end + self.exported_after


def loaded_and_changed(folder: Path, changes: dict[str, Any]) -> Place:
    """Return three days that were loaded, and archives that change each: one has other rows, one has none, one is new.

    The day with other rows had a line that was no row.
    """
    place = Place(folder, changes=changes)
    broken = Arrival((0, 1), events(0, 9), content=ndjson(*events(0, 9)) + BROKEN)
    place.store(broken, Arrival((24, 25), events(20, 5)), Arrival((48, 49), events(40, 5)))
    assert place.load().exit_code is Exit.PARTIAL
    place.store(
        Arrival((0, 1), events(100, 3), revision=1),
        Arrival((24, 25), [], revision=1),
        Arrival((72, 73), events(60, 5)),
    )
    return place


def date(number: int) -> str:
    """Return the n-th day of January 2026, from 0."""
    return f"2026-01-{number + 1:02}"


def contents(rows: Sequence[Row], form: Format) -> bytes:
    """Return rows in a format."""
    match form:
        case Format.NDJSON:
            return ndjson(*rows)
        case Format.JSON:
            return json.dumps(list(rows)).encode()
        case Format.CSV:
            names = list(dict.fromkeys(name for row in rows for name in row))
            lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
            return "".join(",".join(line) + "\n" for line in lines).encode() if rows else b""


def canonical(row: Mapping[str, Any]) -> str:
    """Return a row in a canonical spelling, in which all values are text."""
    return json.dumps(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}, sort_keys=True
    )


def _ids(source: str, values: dict[str, Any], *, database: Path | None = None) -> list[str]:
    with duckdb.connect(str(database or ":memory:"), read_only=database is not None) as duck:
        return [one for (one,) in duck.execute(f"SELECT event_id FROM {source} ORDER BY 1", values or None).fetchall()]


def rows_of(source: str, values: dict[str, Any], *, database: Path | None = None) -> Counter[str]:
    """Return the multiset of rows of a table, each as its archive had it: columns, `vars` and `_rescued` together."""
    with duckdb.connect(database or ":memory:", read_only=database is not None) as duck:
        duck.execute("SET TimeZone = 'UTC'")
        found = duck.execute(f"SELECT * FROM {source}", values)
        names = [one[0] for one in found.description or ()]
        return Counter(canonical(_row(dict(zip(names, row, strict=True)))) for row in found.fetchall())


def _row(found: Mapping[str, Any]) -> Row:
    row: Row = {}
    for name, value in found.items():
        if value is None:
            continue
        if name in ("vars", "_rescued"):
            row |= json.loads(value, parse_float=str)
        elif name in STANDARD:
            is_time = STANDARD[name].kind is ColumnKind.TIME
            row[name] = value.strftime("%Y-%m-%dT%H:%M:%SZ") if is_time else value
    return row


@contextmanager
def at_load_failpoints(listener: Callable[[str], None]) -> Iterator[None]:
    """Call the listener at every failpoint of loads within."""
    token = LOAD_FAILPOINT.set(listener)
    try:
        yield
    finally:
        LOAD_FAILPOINT.reset(token)
