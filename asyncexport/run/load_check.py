"""Compares what the destinations have with what the archives lead to; changes nothing (`load --check`)."""

import gzip
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from asyncexport.config import Settings
from asyncexport.core.access import Access
from asyncexport.core.bundles import ALL_TIME, Range
from asyncexport.core.warehouse.days import DaySource, day_sources
from asyncexport.core.warehouse.differences import Difference, ExpectedDay, differences
from asyncexport.core.warehouse.places import SPILL
from asyncexport.errors import SinkError
from asyncexport.ledger import LedgerReader
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.load import LoadSpec
from asyncexport.run.load_exports import ExportTables, check_load_settings, exports_to_load
from asyncexport.run.load_sinks import LoadSinks, chosen_sinks
from asyncexport.warehouse.sinks.sink import Sink

T = TypeVar("T")


def check_load(
    settings: Settings, spec: LoadSpec, *, now: float, on_failure: Callable[[SinkError], None]
) -> Iterator[Difference]:
    """Yield the days on which a destination differs from the archives. Blocks; nothing is changed.

    Args:
        settings: The settings.
        spec: The range, the exports and the destinations.
        now: The time at the service, in seconds since 1970, for relative dates.
        on_failure: Called for each destination that cannot be read.

    Raises:
        ConfigError: the settings or the names cannot be used.
        LedgerError: the ledger is missing or damaged.
    """
    check_load_settings(settings)
    names, directory = chosen_sinks(settings, spec.to), settings.output.directory
    check_ledger_not_lost(directory)
    # Nothing is written, so it does not matter who could read it.
    sinks = LoadSinks.make(
        settings, names, access=Access.PRIVATE, scratch=settings.load.directory / SPILL, report=_ignore
    )
    with LedgerReader(directory) as ledger:
        exports = exports_to_load(settings, ledger, spec.exports)
        days = {one.export: list(_days(ledger, one, spec.span(now))) for one in exports}
    for thread in sinks.chosen:
        try:
            for tables in exports:
                yield from _differences(thread.sink, sinks, tables, days[tables.export], span=spec.span(now))
        except SinkError as error:
            on_failure(error)
        finally:
            thread.sink.close()


def _ignore(_message: str) -> None:
    """Do nothing: a check replaces no values."""


def _days(ledger: LedgerReader, tables: ExportTables, span: Range) -> Iterator[DaySource]:
    every = day_sources(tables.export, tables.definition.format, ledger.stored(tables.export, ALL_TIME))
    return (one for one in every if span.start <= one.start < span.end)


def _differences(
    sink: Sink, sinks: LoadSinks, tables: ExportTables, days: list[DaySource], *, span: Range
) -> Iterator[Difference]:
    within = {one.date for one in days}
    for table in tables.tables:
        expected = dict(_expected(sinks, tables, table, days))
        receipts, counts = sink.receipts(table), sink.row_counts(table)
        if span != ALL_TIME:
            receipts, counts = _only(receipts, within), _only(counts, within)
        yield from differences(sink.name, table, expected, {sink.name: {table: receipts}}, counts)


def _expected(
    sinks: LoadSinks, tables: ExportTables, table: str, days: list[DaySource]
) -> Iterator[tuple[str, ExpectedDay]]:
    """Yield what each day of a table should be.

    The flat table has the rows of the archives without the quarantined lines; any other table is made from its rows, so
    that only its Parquet file knows how many there are.
    """
    counts = {} if table == tables.flat else sinks.files.row_counts(table)
    for one in days:
        rows = counts.get(one.date)
        if table == tables.flat:
            rows = one.rows - _lines(sinks.files.quarantine_path(table, one.date))
        yield one.date, ExpectedDay(tables.receipts(one)[table], rows)


def _lines(file: Path) -> int:
    """Return the lines of a quarantine file; 0 if there is none."""
    try:
        with gzip.open(file) as lines:
            return sum(1 for _ in lines)
    except (OSError, EOFError):
        return 0


def _only(values: Mapping[str, T], dates: set[str]) -> dict[str, T]:
    return {date: value for date, value in values.items() if date in dates}
