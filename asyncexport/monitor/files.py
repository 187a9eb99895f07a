"""Replaces a file atomically: a reader finds the old content or the new one, never a part."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from asyncexport.errors import StorageError

LONGEST_NAME_PART = 100
"""Characters of the file's name in its temporary name, which must not become too long for the file system."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in the same folder, and rename it.

    A new file gets the permissions of the umask, and an existing one keeps its own. A symbolic link stays, and the file
    that it leads to is replaced.

    Raises:
        StorageError: it cannot be written, or there is something else than a file.
    """
    try:
        target = path.resolve()
        mode = _mode_of_existing(path)
        part = target.with_name(f".{target.name[:LONGEST_NAME_PART]}-{secrets.token_hex(6)}")
        try:
            with part.open("xb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "its symbolic links form a loop"
        raise StorageError(f"{path} cannot be written: {reason.lower()}", hint="choose a writable location") from error


def _mode_of_existing(path: Path) -> int | None:
    """Return the permissions of a file; None if it does not exist.

    Raises:
        StorageError: it is not a file; renaming would replace a device, for instance.
    """
    try:
        found = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found):
        raise StorageError(f"{path} cannot be written: it is not a regular file", hint="choose another name")
    return stat.S_IMODE(found)
