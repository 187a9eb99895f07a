"""The exports to load: which tables each one has, and which days of them the ledger knows.

1. The exports are those of the settings, as far as the ledger knows them. An export that is no longer in the settings
   is loaded if it is named; its tables stay as they are otherwise.
2. An export of events also has a table in the shape of Data Direct, unless the settings say otherwise or its rows lack
   what the ids of events are made from.
3. The ledger may grow meanwhile, and is only read. It is used from one thread at a time.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME, DAY, Range
from asyncexport.core.exports import Definition, Type, unknown_names
from asyncexport.core.states import IN_PROGRESS
from asyncexport.core.warehouse.columns import Column, Layout, missing_key_fields
from asyncexport.core.warehouse.data_direct.columns import COLUMNS as DATA_DIRECT_COLUMNS
from asyncexport.core.warehouse.data_direct.columns import DataDirectRecipe, refusal, unmet_identify
from asyncexport.core.warehouse.days import DaySource, day_sources
from asyncexport.core.warehouse.places import place_problems
from asyncexport.core.warehouse.tables import DATA_DIRECT, clashes, table_name
from asyncexport.core.warehouse.to_load import with_writers
from asyncexport.errors import ConfigError
from asyncexport.ledger import LedgerReader

T = TypeVar("T")

CLASH = (
    "give one of them another name if it has no archives yet; otherwise load each with a configuration and "
    "destinations of its own"
)
"""What to do about two exports whose tables would have one name: under another name, everything is exported again."""


@dataclass(frozen=True, slots=True)
class ExportTables:
    """The tables of one export.

    Attributes:
        export: The name of the export.
        definition: Its definition.
        layout: The columns of its flat table.
        max_row: The longest row that is loaded, in bytes.
        recipe: The settings of its table in the shape of Data Direct; None if it has none.
    """

    export: str
    definition: Definition
    layout: Layout
    max_row: int
    recipe: DataDirectRecipe | None = None

    @property
    def flat(self) -> str:
        """The name of the flat table."""
        return table_name(self.export)

    @property
    def data_direct(self) -> str:
        """The name of the table in the shape of Data Direct."""
        return f"{self.flat}{DATA_DIRECT}"

    @property
    def tables(self) -> Mapping[str, Sequence[Column]]:
        """The columns of each table, by its name."""
        flat = {self.flat: self.layout.columns}
        return flat if self.recipe is None else {**flat, self.data_direct: DATA_DIRECT_COLUMNS}

    def receipts(self, source: DaySource) -> dict[str, str]:
        """Return the receipt of each table for a day."""
        flat = source.receipt(self.layout, max_row=self.max_row)
        if self.recipe is None:
            return {self.flat: flat}
        return {self.flat: flat, self.data_direct: self.recipe.receipt(flat)}


def exports_to_load(
    settings: Settings, ledger: LedgerReader, names: Sequence[str], *, place: str = "--export"
) -> list[ExportTables]:
    """Return the exports to load.

    Args:
        settings: The settings.
        ledger: The ledger.
        names: The names of the exports; all of the settings if there are none.
        place: Where the names come from, for messages.

    Raises:
        ConfigError: a name is unknown, or two exports would have a table of the same name.
    """
    known, configured = ledger.exports(), [one.name for one in settings.exports]
    every = list(dict.fromkeys((*configured, *known)))
    problems = [*unknown_names(names, every, place=place), *clashes(dict.fromkeys((*configured, *names)))]
    if problems:
        hint = CLASH if any(not one.place for one in problems) else ""
        raise ConfigError(problems, hint=hint)
    load = settings.load
    return [
        ExportTables(name, one, Layout(one.type, load.columns), load.max_row, _recipe(settings, one))
        for name in every
        if (one := known.get(name)) and (name in names if names else name in configured)
    ]


def _recipe(settings: Settings, definition: Definition) -> DataDirectRecipe | None:
    chosen = settings.load.datadirect
    if not chosen.enabled or definition.type is not Type.EVENT or missing_key_fields(definition.fields):
        return None
    return DataDirectRecipe(chosen.identify, chosen.suffixes)


def refusals(settings: Settings, exports: Sequence[ExportTables]) -> list[str]:
    """Return what is not made of the tables in the shape of Data Direct although the settings ask for it, and why."""
    chosen = settings.load.datadirect
    events = [one for one in exports if one.layout.type is Type.EVENT and chosen.enabled]
    asked = [(one.data_direct, one.definition.fields) for one in events]
    return [text for one in asked if (text := refusal(*one) or unmet_identify(*one, chosen.identify))]


def left_alone(settings: Settings, ledger: LedgerReader) -> list[str]:
    """Return which exports have archives and are not in the settings, in one sentence; for a load of nothing."""
    configured = {one.name for one in settings.exports}
    others = [name for name in ledger.exports() if name not in configured]
    if not others:
        return []
    return [f"not in the settings, and therefore not loaded: {', '.join(others)}; `--export {others[0]}` loads it"]


def check_load_settings(settings: Settings) -> None:
    """Check what can be checked before the ledger is read.

    Raises:
        ConfigError: the load directory or the DuckDB file is where other files are; or two exports would have a table
            of the same name.
    """
    names = [one.name for one in settings.exports]
    problems = list(clashes(names))
    if problems:
        raise ConfigError(problems, hint=CLASH)
    output, load = (one.absolute().resolve() for one in (settings.output.directory, settings.load.directory))
    problems = list(place_problems(output.parts, load.parts, (load / settings.load.duckdb.path).resolve().parts, names))
    if problems:
        raise ConfigError(problems, hint="choose a place of its own for it")


class DayLookup:
    """Looks up days in the ledger, from the event loop.

    Args:
        ledger: The ledger.
    """

    def __init__(self, ledger: LedgerReader) -> None:
        self._ledger = ledger
        self._one_at_a_time = asyncio.Lock()

    async def days(self, tables: ExportTables, span: Range) -> list[DaySource]:
        """Return the days of a range that have archives."""
        return await self._read(lambda ledger: list(_days(ledger, tables, span)))

    async def day(self, tables: ExportTables, start: int) -> tuple[DaySource, bool]:
        """Return one day, without archives if it has none, and whether a run is exporting a part of it again."""
        return await self._read(lambda ledger: _day(ledger, tables, start))

    async def writers(self, export: str, days: Sequence[DaySource]) -> dict[tuple[Range, int], float]:
        """Return when the bytes of the archives of these days were exported, where a later revision confirmed them."""
        confirmed = [one.range for day in days for one in day.archives if one.was_confirmed]
        if not confirmed:
            return {}
        span = Range(min(one.start for one in confirmed), max(one.end for one in confirmed))
        return await self._read(lambda ledger: ledger.exported_times(export, span))

    async def covered(self, export: str) -> list[Range]:
        """Return the time that archives cover, merged, in order."""
        return await self._read(lambda ledger: ledger.covered(export, ALL_TIME))

    async def recall(self, key: str) -> str | None:
        """Return a note."""
        return await self._read(lambda ledger: ledger.recall(key))

    async def _read(self, query: Callable[[LedgerReader], T]) -> T:
        async with self._one_at_a_time:
            reading = asyncio.ensure_future(asyncio.to_thread(query, self._ledger))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                # The ledger must not be closed while a thread reads it.
                await asyncio.wait([reading])
                raise


def _days(ledger: LedgerReader, tables: ExportTables, span: Range) -> Iterator[DaySource]:
    return day_sources(tables.export, tables.definition.format, ledger.stored(tables.export, span))


def _day(ledger: LedgerReader, tables: ExportTables, start: int) -> tuple[DaySource, bool]:
    span = Range(start, start + DAY)
    source = next(_days(ledger, tables, span), DaySource(tables.export, start, tables.definition.format, ()))
    if any(one.was_confirmed for one in source.archives):
        source = with_writers(source, ledger.exported_times(tables.export, span))
    return source, any(isinstance(one.state, IN_PROGRESS) for one in ledger.unfinished(tables.export, span))
