"""Small files beside the ledger that are read as a whole, and replaced in one rename."""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from asyncexport.ledger.faults import translated
from asyncexport.ledger.folder import sync_folder


def read_small(path: Path, *, longest: int) -> bytes | None:
    """Return the content of a file, up to so many bytes; None if it is missing or cannot be read."""
    try:
        # O_NONBLOCK: if the path is a pipe, do not wait for it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(longest)
    except OSError:
        return None


def replace_small(path: Path, content: bytes) -> None:
    """Replace a file, which only the owner may read, or create it; its folder must exist.

    Raises:
        StorageError: the file cannot be written.
    """
    # Several processes may do this at the same time, such as two mirrors that end together.
    aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    with translated(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        with suppress(FileNotFoundError):
            # Of a process of the same number that was killed.
            aside.unlink()
        try:
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            with suppress(FileNotFoundError):
                aside.unlink()
        sync_folder(path.parent)
