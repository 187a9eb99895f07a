"""What lies below an export's folder.

1. It is walked level by level, not by recursion: nobody's folders are too deep.
2. A link is listed and not followed, but for a day's folder: days may lie on another disk. `verify` reads them there,
   so a rebuild finds them there, too.
3. A folder that cannot be read is an error: what lies in it would be taken for missing.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from asyncexport.storage.layout import ARCHIVE_NAME, DEFINITION_NAME

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
