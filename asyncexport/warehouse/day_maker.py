"""What is asked of a worker that makes the files of one day, and what it answers.

1. A worker gets everything by value and writes only the files that it is told to, so it can run in a thread, in a
   process or on another machine that sees the same disk. It never publishes: the caller counts the rows, flushes the
   files and renames them.
2. Equal requests make equal bytes: one worker uses one thread, and nothing depends on its time zone, name or clock.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.data_direct.columns import DataDirectRecipe
from asyncexport.core.warehouse.days import DaySource


@dataclass(frozen=True, slots=True)
class DataDirectRequest:
    """The file of the Data Direct table to make from the flat file.

    Attributes:
        file: Where to write the Parquet file. Not written if no event has a row.
        receipt: Written to the metadata of the file.
        recipe: The settings that change rows.
    """

    file: Path
    receipt: str
    recipe: DataDirectRecipe


@dataclass(frozen=True, slots=True)
class DataDirectMade:
    """What was made of the events of a day.

    Attributes:
        rows: Rows in the file.
        left_out: Events without a row, by their type in the export.
        made_up: Rows for events that the export does not have (`identify = "per_session"`).
    """

    rows: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    made_up: int = 0


@dataclass(frozen=True, slots=True)
class DayRequest:
    """One day to make.

    Attributes:
        output: The output directory, which the paths of the archives are relative to.
        source: The archives.
        layout: The columns of the flat table.
        receipt: Written to the metadata of the flat file.
        flat: Where to write the flat Parquet file. Not written if the day has no rows.
        quarantine: Where to write the quarantined lines as gzip NDJSON. Not written if there are none.
        scratch: A directory for temporary files, which the caller deletes.
        memory: DuckDB's memory limit, in bytes.
        max_row: The longest row in bytes; a longer one is quarantined.
        fields: The fields that the export asks for, as in its definition. If they lack one of the key, there is no
            `event_id`.
        data_direct: The Data Direct table's file of the day; None if there is no such table.
    """

    output: Path
    source: DaySource
    layout: Layout
    receipt: str
    flat: Path
    quarantine: Path
    scratch: Path
    memory: int = 1 << 30
    max_row: int = 64 << 20
    fields: tuple[str, ...] = ()
    data_direct: DataDirectRequest | None = None


@dataclass(frozen=True, slots=True)
class DayMade:
    """What a worker made of a day.

    Attributes:
        rows: Rows in the flat file, by archive.
        quarantined: Quarantined lines, by archive; only archives that have some.
        rescued: Rows that have something in `_rescued`.
        exact: Archives that were read row by row, with the reason for each.
        data_direct: What was made of the events; None if nothing was asked for.
    """

    rows: dict[str, int]
    quarantined: dict[str, int] = field(default_factory=dict)
    rescued: int = 0
    exact: dict[str, str] = field(default_factory=dict)
    data_direct: DataDirectMade | None = None


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that make days, wherever they run.

    Attributes:
        size: The most days that are made at the same time.
        make: Makes a day once a worker is free; raises an `ExportError` if it could not.
    """

    size: int
    make: Callable[[DayRequest], Awaitable[DayMade]]
