"""Makes the Parquet file of one day from its archives, with DuckDB.

1. The archives are decompressed, checked and scanned first, one after the other. What DuckDB would not read exactly,
   and every CSV and JSON archive, is read row by row and written in canonical form.
2. One statement reads the other archives and the canonical files, casts, sorts and writes all rows. If it fails, each
   archive is tried alone, and it is run once more without those that cannot be read.
3. DuckDB has one thread and the time zone UTC, so that equal archives make equal bytes. It spills into `scratch` beyond
   its memory limit.
4. At the end the rows in the file are counted by archive. If an archive does not have as many as the ledger says, the
   file is not to be published.
5. The Data Direct table's file of the day is made from the finished flat file.
"""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import duckdb

from asyncexport.core.exports import Format
from asyncexport.core.warehouse.columns import missing_key_fields
from asyncexport.core.warehouse.day_statement import counts_statement, day_statement
from asyncexport.core.warehouse.days import SourceArchive
from asyncexport.core.warehouse.reading import texts_of_archives, texts_of_canonical
from asyncexport.errors import DayCountError
from asyncexport.warehouse.canonical_files import CanonicalFiles
from asyncexport.warehouse.data_direct import make_data_direct
from asyncexport.warehouse.day_maker import DataDirectMade, DayMade, DayRequest
from asyncexport.warehouse.duck import connected
from asyncexport.warehouse.inflated_files import InflatedFiles
from asyncexport.warehouse.scan import Scanner, refused


def make_day(request: DayRequest) -> DayMade:
    """Make the files of a day.

    Raises:
        ChangedArchiveError: an archive is not what the ledger says.
        DayCountError: an archive does not have as many rows as the ledger says.
        duckdb.Error: DuckDB failed: too little memory, a full disk.
        OSError: a file cannot be read or written.
    """
    with ExitStack() as stack:
        inflated = stack.enter_context(InflatedFiles(request.output, request.scratch))
        duck = stack.enter_context(connected(request.scratch, memory=request.memory))
        has_key = not missing_key_fields(request.fields)
        canonical = stack.enter_context(CanonicalFiles(request, has_key=has_key))
        made = _Making(request, duck, inflated, canonical, has_key=has_key).make()
    for archive in request.source.archives:
        found = made.rows[archive.path] + made.quarantined.get(archive.path, 0)
        if found != archive.rows:
            raise DayCountError(f"{archive.path}: {found} rows were read, but the ledger says {archive.rows}")
    return replace(made, data_direct=_data_direct(request, has_rows=any(made.rows.values())))


def _data_direct(request: DayRequest, *, has_rows: bool) -> DataDirectMade | None:
    """Make the file of the Data Direct table, if it was asked for."""
    if request.data_direct is None:
        return None
    if not has_rows:
        return DataDirectMade()
    return make_data_direct(request.flat, request.data_direct, memory=request.memory, scratch=request.scratch)


@dataclass(slots=True)
class _Making:
    """The making of one day. `exact` are the reasons of the archives that are read row by row."""

    request: DayRequest
    duck: duckdb.DuckDBPyConnection
    inflated: InflatedFiles
    canonical: CanonicalFiles
    has_key: bool = field(kw_only=True)
    exact: dict[str, str] = field(default_factory=dict)

    def make(self) -> DayMade:
        good, names = self._scan()
        rows = {one.path: 0 for one in self.request.source.archives}
        counts: list[tuple[str, int, int]] = []
        if good or self.canonical.files:
            self._write_what_can_be_read(good, names)
            counts = self.duck.execute(counts_statement(str(self.request.flat))).fetchall()
        return DayMade(
            rows | {path: count for path, count, _ in counts},
            self.canonical.quarantined,
            sum(count for *_, count in counts),
            self.exact,
        )

    def _scan(self) -> tuple[dict[str, SourceArchive], Collection[str]]:
        """Scan the archives, and read those row by row that need it; return the others by file, and their names.

        The largest archive is the first, since the first of names that differ only in case is chosen.
        """
        request = self.request
        archives = [one for one in request.source.archives if one.rows]
        for archive in request.source.archives:
            if not archive.rows:
                self.inflated.check(archive)
        if request.source.format is not Format.NDJSON:
            for archive in archives:
                self._read_exactly(archive, f"{request.source.format.value} is always read row by row")
            return {}, ()
        scanner = Scanner(self.duck, request.layout, max_row=request.max_row)
        files = {archive.path: self.inflated.add(archive) for archive in archives}
        reasons: dict[str, str | None] = {}
        for archive in sorted(archives, key=lambda one: -one.rows):
            reasons[archive.path] = scanner.reason(files[archive.path], rows=archive.rows)
        good: dict[str, SourceArchive] = {}
        for archive in archives:
            if reason := reasons[archive.path]:
                self._read_exactly(archive, reason)
            else:
                good[files[archive.path]] = archive
        return good, scanner.names.found

    def _read_exactly(self, archive: SourceArchive, reason: str) -> None:
        self.exact[archive.path] = reason
        self.canonical.add(archive)

    def _write_what_can_be_read(self, good: dict[str, SourceArchive], names: Collection[str]) -> None:
        """Write the file; if that fails, read those archives row by row that DuckDB refuses when they are read alone.

        Raises:
            duckdb.Error: it refuses none, so that it failed for another reason.
        """
        try:
            self._write(good, names)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            reasons = refused(self.duck, [(file, self._check(file, names)) for file in good])
            if not reasons:
                raise
            for file, reason in reasons.items():
                self._read_exactly(good[file], reason)
            self._write({file: archive for file, archive in good.items() if file not in reasons}, names)

    def _check(self, file: str, names: Collection[str]) -> str:
        return f"SELECT count(COLUMNS(*)) FROM ({self._texts([file], names)})"

    def _texts(self, files: Sequence[str], names: Collection[str]) -> str:
        folder = str(self.inflated.folder / "_").removesuffix("_")
        return texts_of_archives(files, self.request.layout, names, folder=folder, has_key=self.has_key)

    def _write(self, good: dict[str, SourceArchive], names: Collection[str]) -> None:
        request, canonical = self.request, self.canonical
        texts: list[str] = []
        if good:
            texts.append(self._texts(list(good), names))
        if canonical.files:
            files = [str(file) for file in canonical.files]
            texts.append(texts_of_canonical(files, request.layout, longest=canonical.longest))
        statement = day_statement(
            texts, request.layout, request.source, target=str(request.flat), receipt=request.receipt
        )
        self.duck.execute(statement)
