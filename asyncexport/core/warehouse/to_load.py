"""Which days a load has to do: what the ledger has, compared with the receipts of the destinations.

1. A destination lacks a day of a table unless it has exactly the receipt that the day's archives lead to.
2. A day that a destination has, but of which no archive is left, is to be emptied. Its receipt is then that of a day
   without archives, so that it is emptied once.
3. The Parquet files come first: the other destinations are loaded from them. So a day whose Parquet file is not up to
   date is made, whichever destinations were asked for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from asyncexport.core.bundles import DAY, Range, merged, read_moment
from asyncexport.core.exports import Format
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.days import DaySource

Have = Mapping[str, Mapping[str, Mapping[str, str]]]
"""The receipts that the destinations have: by destination, by table, by date."""


@dataclass(frozen=True, slots=True)
class DayTask:
    """One day to load.

    Attributes:
        source: The archives; none if the day is to be emptied.
        receipts: What each table's receipt has to be, by table.
        lacking: The tables that each destination lacks, by destination. Destinations that lack nothing are left out.
    """

    source: DaySource
    receipts: Mapping[str, str]
    lacking: Mapping[str, tuple[str, ...]]

    @property
    def must_be_made(self) -> bool:
        """Whether its Parquet files are to be made."""
        return SinkName.PARQUET in self.lacking


def day_task(
    source: DaySource, receipts: Mapping[str, str], have: Have, *, chosen: Sequence[str], again: bool
) -> DayTask | None:
    """Return what there is to do for a day; None if every destination has it.

    Args:
        source: The day's archives.
        receipts: What each table's receipt has to be.
        have: What the destinations have.
        chosen: The destinations to load.
        again: Whether the chosen destinations are loaded even if they have the day.
    """
    lacking = {}
    for sink in dict.fromkeys((SinkName.PARQUET.value, *chosen)):
        tables = tuple(
            table
            for table, receipt in receipts.items()
            if have.get(sink, {}).get(table, {}).get(source.date) != receipt or (again and sink in chosen)
        )
        if tables:
            lacking[sink] = tables
    needed = {sink: tables for sink, tables in lacking.items() if sink in chosen}
    return DayTask(source, receipts, lacking) if needed else None


def emptied(
    export: str, format_: Format, *, wanted: Iterable[str], have: Have, tables: Sequence[str], span: Range
) -> Iterator[DaySource]:
    """Yield the days of a range that a destination has and that have no archives any more (rule 2).

    Args:
        export: The name of the export.
        format_: Its format.
        wanted: The dates that have archives.
        have: What the destinations have.
        tables: The export's tables.
        span: The range.
    """
    dates = {date for of_sink in have.values() for table in tables for date in of_sink.get(table, {})}
    for date in sorted(dates.difference(wanted)):
        start = read_moment(date, now=0)
        if span.start < start + DAY and start < span.end:
            yield DaySource(export, start, format_, ())


def whole_days(span: Range) -> Range:
    """Return a range in whole days that contains the range: a day is loaded as a whole."""
    return Range(span.start // DAY * DAY, -(-span.end // DAY) * DAY)


def with_writers(source: DaySource, exported_at: Mapping[tuple[Range, int], float]) -> DaySource:
    """Return a day with the time at which each archive's bytes were exported, by the range and that revision.

    If a refresh brought the same rows, the newest row of the ledger has a later time, but the archive is as it was.
    """
    archives = tuple(
        replace(one, exported_at=exported_at.get((one.range, one.revision), one.exported_at), was_confirmed=False)
        for one in source.archives
    )
    return replace(source, archives=archives)


def complete_until(days: Sequence[DaySource], *, lacking: Iterable[int]) -> float | None:
    """Return up to when a table has everything from its first day on, in seconds since 1970.

    None if not even the first day is complete.

    Args:
        days: The days that have archives, in order.
        lacking: The starts of the days that the table lacks.
    """
    covered = merged((one.range.start, one.range.end) for day in days for one in day.archives)
    first = next(covered, None)
    if first is None:
        return None
    end = min((first.end, *lacking))
    return float(end) if end >= days[0].start + DAY else None
