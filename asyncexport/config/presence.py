"""Whether a path that a user names exists.

Methods of `Path` raise `PermissionError` if a folder on the way may not be entered. Here, nothing exists that this
process cannot reach, as for a shell's `test`; what is done with the path next reports the reason.
"""

import os.path
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether there is a file or a folder."""
    return os.path.exists(path)  # noqa: PTH110 - see above


def is_file(path: Path) -> bool:
    """Whether there is a regular file, or a link to one."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def is_directory(path: Path) -> bool:
    """Whether there is a folder, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def existing_place(path: Path) -> Path:
    """Return the path, or else the nearest folder above it that exists."""
    return next((one for one in (path, *path.parents) if exists(one)), Path(path.anchor))
