"""Decides whether an export may have another definition than in the ledger."""

import sqlite3
from collections.abc import Iterable, Mapping

from asyncexport.core.exports import Definition, Export
from asyncexport.errors import LedgerError
from asyncexport.ledger.rows import KnownExport


def check_definitions(
    connection: sqlite3.Connection, known_exports: Mapping[str, KnownExport], exports: Iterable[Export]
) -> None:
    """Make sure that each export is new, has its recorded definition, or has no data of that definition yet.

    Raises:
        LedgerError: an export is recorded with another definition and has data, here or at the service.
    """
    for export in exports:
        known = known_exports.get(export.name)
        if known is not None and known.definition != export.definition and _has_data(connection, known):
            raise _another_definition(export.name, known.definition, export.definition)


def _has_data(connection: sqlite3.Connection, known: KnownExport) -> bool:
    """Whether there is data of a definition. A definition that was always refused has none and may be corrected."""
    found = connection.execute(
        "SELECT 1 FROM bundle JOIN state ON state.seq = bundle.latest WHERE bundle.export = ?"
        " AND (bundle.stored IS NOT NULL OR state.state NOT IN ('planned', 'creating', 'failed', 'split')) LIMIT 1",
        (known.number,),
    )
    return found.fetchone() is not None


def _another_definition(name: str, known: Definition, asked: Definition) -> LedgerError:
    before, after = known.to_dict(), asked.to_dict()
    differences = ", ".join(
        f"{key} was {before[key]!r} and is now {after[key]!r}" for key in before if before[key] != after[key]
    )
    return LedgerError(
        f"this directory has data of the export {name!r} with another definition: {differences}",
        hint="rename the export, choose another [output] directory, or change its definition back",
    )
