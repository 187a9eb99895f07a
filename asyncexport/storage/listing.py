"""What lies below an export's folder.

1. It is walked level by level, not by recursion: nobody's folders are too deep.
2. A link is listed and not followed, but for a day's folder: days may lie on another disk. `verify` reads them there,
   so a rebuild finds them there, too.
3. A folder that cannot be read is an error: what lies in it would be taken for missing.
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
"""What the name of a day's folder begins with."""


def files_below(directory: Path, export: str) -> list[str]:
    """All files below an export's folder, in order, relative to the output directory.

    Links, what is no file, and folders with an archive's name are among them. Part files and the definition are not.

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
    """What lies in the folders of an export's days, as far as a run looks before its first request.

    Attributes:
        days: What the archives of each day come to, by the second that the day begins with.
        parts: The part files, relative to the output directory.
    """

    days: dict[int, DayTally]
    parts: list[str]


def look_into(directory: Path, export: Export) -> ExportFolder:
    """Look once into each day's folder.

    Raises:
        OSError: one cannot be read.
    """
    days: dict[int, DayTally] = {}
    parts: list[str] = []
    for entry in _entries(directory / export.name):
        folder = f"{export.name}/{entry.name}"
        if _is_part(entry.name):
            parts.append(folder)
        elif entry.name.startswith(DAY_PREFIX) and _is_folder(entry, top=True):
            names = os.listdir(directory / folder)  # noqa: PTH208 - bare names, a hundred thousand of them
            parts += [f"{folder}/{name}" for name in names if name[0] == "." and _is_part(name)]
            if (day := _day_of(entry.name)) is not None:
                days[day] = day_tally(names, export.definition.format)
    return ExportFolder(days, parts)


def archives_of(directory: Path, export: Export, days: Iterable[int]) -> list[Range]:
    """The ranges of the archives in the folders of these days, each by the second that it begins with.

    Raises:
        OSError: a folder cannot be read.
    """
    found = []
    for moment in days:
        folder = f"{export.name}/{DAY_PREFIX}{day(moment)}"
        for entry in _entries(directory / folder):
            bundle = archive_bundle(export.name, f"{folder}/{entry.name}", export.definition.format)
            if bundle is not None:
                found.append(bundle.range)
    return found


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def _day_of(name: str) -> int | None:
    """The second that a day begins with, by its folder's name; None where it names none."""
    try:
        moment = read_moment(name.removeprefix(DAY_PREFIX), now=0)
    except ValueError:
        return None
    return moment if name == f"{DAY_PREFIX}{day(moment)}" else None


def _is_folder(entry: "os.DirEntry[str]", *, top: bool) -> bool:
    """Whether to look into it; `top`: it lies right in the export's folder."""
    try:
        if entry.is_symlink():
            return top and entry.name.startswith(DAY_PREFIX) and entry.is_dir()
        return entry.is_dir() and not ARCHIVE_NAME.fullmatch(entry.name)
    except OSError:
        # A link that leads nowhere, or in a circle.
        return False


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
    except OSError as error:
        # So deep that no archive of ours can lie there.
        if error.errno != errno.ENAMETOOLONG:
            raise
