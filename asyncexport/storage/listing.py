"""Lists what is below an export's folder.

1. The folders are walked with a list, not by recursion, so no folder is too deep.
2. A link is listed but not followed, except for a day's folder: days may be on another disk, where `verify` and a
   rebuild read them.
3. A folder that cannot be read is an error: otherwise its archives would count as missing.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from asyncexport.core.bundles import Range, day, read_moment
from asyncexport.core.directory_diff import DayTally, day_tally
from asyncexport.core.exports import Export
from asyncexport.storage.layout import ARCHIVE_NAME, DEFINITION_NAME, archive_bundle

DAY_PREFIX = "date="
"""The prefix of the name of a day's folder."""


def files_below(directory: Path, export: str) -> list[str]:
    """Return all files below an export's folder, in order, relative to the output directory.

    Links, special files and folders with an archive's name are included. Part files and the definition are not.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    folders = [export]
    while folders:
        folder = folders.pop()
        for entry in _entries(directory / folder):
            path = f"{folder}/{entry.name}"
            if _is_folder(entry, top=folder == export):
                folders.append(path)
            elif entry.name != DEFINITION_NAME and not entry.name.endswith(".part"):
                found.append(path)
    return sorted(found)


class ExportFolder(NamedTuple):
    """What a run reads from the folders of an export's days before its first request.

    Attributes:
        days: The tally of the archives of each day, by the day's first second.
        parts: The part files, relative to the output directory.
    """

    days: dict[int, DayTally]
    parts: list[str]


def scan_folder(directory: Path, export: Export) -> ExportFolder:
    """List each day's folder of an export once.

    Raises:
        OSError: a folder cannot be read.
    """
    days: dict[int, DayTally] = {}
    parts: list[str] = []
    for entry in _entries(directory / export.name):
        folder = f"{export.name}/{entry.name}"
        if _is_part(entry.name):
            parts.append(folder)
        elif entry.name.startswith(DAY_PREFIX) and _is_folder(entry, top=True):
            names = os.listdir(directory / folder)  # noqa: PTH208 - there may be a hundred thousand names
            parts += [f"{folder}/{name}" for name in names if name[0] == "." and _is_part(name)]
            if (day := _day_of(entry.name)) is not None:
                days[day] = day_tally(names, export.definition.format)
    return ExportFolder(days, parts)


def archives_of(directory: Path, export: Export, days: Iterable[int]) -> list[Range]:
    """Return the ranges of the archives in the folders of these days; a day is given by its first second.

    Raises:
        OSError: a folder cannot be read.
    """
    found = []
    for start in days:
        folder = f"{export.name}/{DAY_PREFIX}{day(start)}"
        for entry in _entries(directory / folder):
            bundle = archive_bundle(export.name, f"{folder}/{entry.name}", export.definition.format)
            if bundle is not None:
                found.append(bundle.range)
    return found


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def _day_of(name: str) -> int | None:
    """Return the first second of a day from its folder's name; None if the name is not a day's."""
    try:
        start = read_moment(name.removeprefix(DAY_PREFIX), now=0)
    except ValueError:
        return None
    return start if name == f"{DAY_PREFIX}{day(start)}" else None


def _is_folder(entry: "os.DirEntry[str]", *, top: bool) -> bool:
    """Whether to list the entry's content; `top` if the entry is directly in the export's folder."""
    try:
        if entry.is_symlink():
            return top and entry.name.startswith(DAY_PREFIX) and entry.is_dir()
        return entry.is_dir() and not ARCHIVE_NAME.fullmatch(entry.name)
    except OSError:
        # A broken link, or a loop of links.
        return False


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
    except OSError as error:
        # Too deep for an archive of ours.
        if error.errno != errno.ENAMETOOLONG:
            raise
