"""Makes the Parquet file of one day from its archives, with DuckDB.

1. Two passes over the archives: the first finds the names of the fields, the second is one statement that reads, casts,
   sorts and writes all rows (`core.warehouse.reading`, `core.warehouse.day_statement`).
2. DuckDB has one thread and the time zone UTC, so that equal archives make equal bytes. It spills into `scratch` beyond
   its memory limit.
3. At the end the rows in the file are counted by archive. If an archive does not have as many as the ledger says, the
   file is not to be published.
4. The Data Direct table's file of the day is made from the finished flat file.
"""

from collections.abc import Sequence
from dataclasses import replace

import duckdb

from asyncexport.core.warehouse.columns import missing_key_fields
from asyncexport.core.warehouse.day_statement import counts_statement, day_statement
from asyncexport.core.warehouse.days import SourceArchive
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.core.warehouse.reading import Names, field_names, texts_of_archives
from asyncexport.errors import DayCountError
from asyncexport.warehouse.checked_files import unchanged
from asyncexport.warehouse.data_direct import make_data_direct
from asyncexport.warehouse.day_maker import DataDirectMade, DayMade, DayRequest


def make_day(request: DayRequest) -> DayMade:
    """Make the files of a day.

    Raises:
        ChangedArchiveError: an archive is not what the ledger says.
        DayCountError: an archive does not have as many rows as the ledger says.
    """
    archives = request.source.archives
    with unchanged(request.output, archives):
        full = [(str(request.output / one.path), one) for one in archives if one.rows]
        if not full:
            return DayMade({one.path: 0 for one in archives}, data_direct=_data_direct(request, has_rows=False))
        with _connected(request) as duck:
            made = _made(request, duck, full)
    _check_counts(archives, made)
    return replace(made, data_direct=_data_direct(request, has_rows=any(made.rows.values())))


def _data_direct(request: DayRequest, *, has_rows: bool) -> DataDirectMade | None:
    """Make the file of the Data Direct table, if it was asked for."""
    if request.data_direct is None:
        return None
    if not has_rows:
        return DataDirectMade()
    return make_data_direct(request.flat, request.data_direct, memory=request.memory, scratch=request.scratch)


def _made(request: DayRequest, duck: duckdb.DuckDBPyConnection, full: Sequence[tuple[str, SourceArchive]]) -> DayMade:
    files = [file for file, _ in full]
    has_key = not missing_key_fields(request.fields)
    names = Names.of(duck.execute(field_names(files)).fetchall(), request.layout)
    for file, name in names.odd.items():
        raise DayCountError(f"{file} has a field {name!r}, which cannot be read")
    texts = texts_of_archives(files, request.layout, names, has_key=has_key)
    duck.execute(day_statement([texts], request.layout, full, target=str(request.flat), receipt=request.receipt))
    counts = duck.execute(counts_statement(str(request.flat))).fetchall()
    rows = {one.path: 0 for one in request.source.archives}
    return DayMade(rows | {path: count for path, count, _ in counts}, rescued=sum(count for *_, count in counts))


def _connected(request: DayRequest) -> duckdb.DuckDBPyConnection:
    duck = duckdb.connect(config={"threads": 1})
    duck.execute(
        f"SET TimeZone = 'UTC'; SET memory_limit = '{request.memory}B'; "
        f"SET temp_directory = {literal(str(request.scratch))}; SET preserve_insertion_order = true"
    )
    return duck


def _check_counts(archives: Sequence[SourceArchive], made: DayMade) -> None:
    for archive in archives:
        found = made.rows[archive.path] + made.quarantined.get(archive.path, 0)
        if found != archive.rows:
            raise DayCountError(f"{archive.path} has {archive.rows} rows by the ledger, but {found} were read")
