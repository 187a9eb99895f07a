"""The definitions of exports, one file in each export's folder, so that a lost ledger can be rebuilt.

The file is written before the first archive, and replaced in one rename if the definition changes.
"""

import os
from pathlib import Path

import orjson

from asyncexport.core.exports import Definition, Export
from asyncexport.errors import LedgerError, StorageError
from asyncexport.storage.disk import Disk
from asyncexport.storage.layout import DEFINITION_NAME, holds_archives
from asyncexport.storage.part_names import part_path


def write_definition(disk: Disk, export: Export) -> None:
    """Write an export's definition durably into its folder, unless it is already there.

    Raises:
        LedgerError: the folder holds archives of another definition.
        OSError: the definition cannot be written.
    """
    text = orjson.dumps({"name": export.name, **export.definition.to_dict()}, option=orjson.OPT_INDENT_2) + b"\n"
    folder = disk.directory / export.name
    path = folder / DEFINITION_NAME
    if path.exists() and path.read_bytes() == text:
        return
    if holds_archives(folder) and (known := _read(path)) not in (None, export.definition):
        raise LedgerError(
            f"{folder} holds archives that were exported with another definition of {export.name!r}: {known}",
            hint="rename the export, choose another [output] directory, or change its definition back",
        )
    aside = part_path(path)
    with disk.at("definition.write"), os.fdopen(disk.make_file(aside), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with disk.at("definition.rename"):
        aside.replace(path)
    disk.sync_folder(folder)


def read_definitions(directory: Path) -> list[Export]:
    """Return the exports whose definitions are in an output directory, in order of their names.

    Raises:
        StorageError: a file is not a valid definition.
        OSError: a file cannot be read.
    """
    found = []
    for path in sorted(directory.glob(f"*/{DEFINITION_NAME}")):
        try:
            data = orjson.loads(path.read_bytes())
            found.append(Export(path.parent.name, Definition.from_dict(data)))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"cannot read {path}: it is not a valid export definition") from error
    return found


def _read(path: Path) -> Definition | None:
    """Return the definition at this path; None if there is none or it is invalid."""
    try:
        return Definition.from_dict(orjson.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
