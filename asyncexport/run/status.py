"""Reads what `status` reports: from the ledger, the settings and the disk.

1. Nothing is changed, and no archive is read: only its presence and size are compared with the ledger.
2. A nightly run that only joined another run is in a log of its own; both logs are shown as one.
3. A run that is in progress replaces files and records that afterwards. An archive that seems altered is therefore
   looked up a second time, and bundles that a run works on are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME
from asyncexport.core.exports import Export
from asyncexport.core.health.beside import Beside, BesideKind
from asyncexport.core.health.export_report import ExportFacts
from asyncexport.core.health.missing import MAX_BEHIND_SECONDS, Again
from asyncexport.core.health.overview import Overview
from asyncexport.core.health.records import AlteredArchive, RunRecord
from asyncexport.core.health.report import DirectoryFacts, StatusReport, status_report
from asyncexport.core.health.run_order import in_order
from asyncexport.core.states import Stored
from asyncexport.ledger import (
    Holder,
    LedgerReader,
    beside_path,
    holder,
    joined_runs,
    own_load_path,
    read_beside,
    waiting_run,
)
from asyncexport.run.ranges import NIGHTLY_SINCE, is_past
from asyncexport.run.sentinel import open_shortfalls, read_memory


def read_status(
    settings: Settings,
    ledger: LedgerReader,
    *,
    names: Sequence[str],
    now: float,
    again: Again,
    max_behind: float = MAX_BEHIND_SECONDS,
    looks_up_files: bool = True,
) -> StatusReport:
    """Report on the exports of an output directory.

    Args:
        settings: The settings, with the directory.
        ledger: Its ledger.
        names: The exports to report on; all if there are none.
        now: The time at the service, in seconds since 1970.
        again: Makes a command line from a command and its arguments, for the same configuration and directory.
        max_behind: How long data may be settled and not stored, in seconds.
        looks_up_files: Whether to look up each archive's file, which takes long for many archives.
    """
    configured = {export.name: export for export in settings.exports}
    known = {overview.name: overview for overview in ledger.overviews()}
    chosen = [name for name in dict.fromkeys((*known, *configured)) if not names or name in names]
    accepted, memory, where = ledger.accepted(), read_memory(ledger), settings.output.directory
    recorded, joined = _marked(ledger.runs(), holder(where)), _marked(joined_runs(where), waiting_run(where))
    looked_up = set(known) if looks_up_files else set()
    exports = [
        ExportFacts(
            known[name] if name in known else nothing_of(configured[name]),
            configured.get(name),
            altered=tuple(_altered(settings.output.directory, ledger, known[name])) if name in looked_up else (),
            accepted=tuple(one for one in accepted if one.bundle.export == name),
            shortfalls=tuple(open_shortfalls(memory, accepted, name)),
            shortfalls_fail=settings.sentinel.fail,
        )
        for name in chosen
    ]
    facts = DirectoryFacts(
        tuple(exports),
        since=_since(settings, ledger, now=now),
        runs=in_order(recorded, joined),
        hours=tuple(ledger.hours()),
        in_progress=bool(recorded) and recorded[-1].running,
        beside=tuple(_beside(settings)),
    )
    return status_report(facts, now=now, again=again, max_behind=max_behind)


def _beside(settings: Settings) -> Iterator[Beside]:
    """Yield the records of the last load and the last mirror; none of a mirror that is no longer set."""
    where = settings.output.directory
    load = read_beside(BesideKind.LOAD, beside_path(where, BesideKind.LOAD), own_load_path(settings.load.directory))
    mirror = read_beside(BesideKind.MIRROR, beside_path(where, BesideKind.MIRROR)) if settings.output.mirror else None
    yield from (one for one in (load, mirror) if one is not None)


def _marked(runs: Sequence[RunRecord], running: Holder | None) -> list[RunRecord]:
    """Return the runs; the newest is marked if it holds a lock, which other commands may also do for a moment."""
    if not runs:
        return []
    newest = runs[-1]
    is_running = running is not None and newest.ended is None and newest.command == running.command
    return [*runs[:-1], replace(newest, running=is_running)]


def nothing_of(export: Export) -> Overview:
    """Return the overview of an export that is not in the ledger yet."""
    return Overview(
        export.name, export.definition, stored=0, empty=0, rows=0, bytes=0, unfinished=(), covered=(), last_at=None
    )


def _since(settings: Settings, ledger: LedgerReader, *, now: float) -> int | None:
    """Return the start of nightly runs, or None if there never was one."""
    chosen = settings.nightly.since_at(now)
    if chosen is not None:
        return chosen
    remembered = ledger.recall(NIGHTLY_SINCE)
    return int(remembered) if remembered and is_past(remembered, now=now) else None


def _altered(directory: Path, ledger: LedgerReader, overview: Overview) -> Iterator[AlteredArchive]:
    """Yield the archives that were deleted or changed in size (rule 3)."""
    in_progress = {one.bundle for one in overview.unfinished if not one.parked}
    for record in ledger.stored(overview.name, ALL_TIME):
        if record.bundle in in_progress or not _fault(directory, record.stored):
            continue
        for again in ledger.stored(overview.name, record.bundle.range):
            if again.bundle == record.bundle and (fault := _fault(directory, again.stored)):
                yield AlteredArchive(again, fault)


def _fault(directory: Path, archive: Stored | None) -> str:
    """Return what is wrong with an archive's file; "" if nothing is."""
    if archive is None:
        return ""
    try:
        size = (directory / archive.path).stat().st_size
    except FileNotFoundError:
        return "the file does not exist"
    except OSError as error:
        return f"the file cannot be accessed: {(error.strerror or 'no reason given').lower()}"
    return "" if size == archive.bytes else f"the file has {size:,} bytes instead of {archive.bytes:,}"
