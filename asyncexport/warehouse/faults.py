"""Translates errors of DuckDB and of the operating system into the package's own."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from asyncexport.core.file_faults import file_fault
from asyncexport.errors import DayError, PlaceError, SinkError, StorageError

NO_SPACE = "No space left on device"
"""What DuckDB's errors contain if the disk is full."""


OF_ONE_PLACE = {
    errno.EISDIR: "",
    errno.ELOOP: "",
    errno.ENOTDIR: "",
    errno.EACCES: "check its owner and permissions and those of its folder, then run the same command again",
    errno.EPERM: "check its owner and attributes (`lsattr`) and those of its folder, then run the same command again",
    errno.ENOTEMPTY: "move away what is there, and run the same command again",
    errno.EXDEV: "the folders of tables and .spill must be on one disk: move the whole load directory instead",
}
"""Errors of one file or folder, while others may be fine; with what to do, unless `core.file_faults` says it."""


def storage_error(error: OSError, directory: Path) -> StorageError:
    """Return our error for an error of the operating system in the load directory.

    A rename has two names, and the second one is that of the place that cannot be used.
    """
    place, number = str(error.filename2 or error.filename or directory), error.errno or 0
    kind = PlaceError if number in OF_ONE_PLACE and place != str(directory) else StorageError
    fault = file_fault(number, place=place, directory=str(directory))
    if fault is not None:
        return kind(fault.message, hint=fault.hint)
    return kind(
        f"{place}: {error.strerror or error}",
        hint=OF_ONE_PLACE.get(number, "check the disk, then run the same command again"),
    )


def disk_full(directory: Path) -> StorageError:
    """Return the error for a full disk."""
    return storage_error(OSError(errno.ENOSPC, NO_SPACE), directory)


@contextmanager
def translated(directory: Path) -> Iterator[None]:
    """Translate the errors of making a day; `directory` is the load directory.

    Raises:
        StorageError: the disk is full or failed.
        DayError: DuckDB could not do it.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, directory) from error
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        raise DayError(
            "there was not enough memory to make the day",
            hint="set [load] memory higher, or [load] workers lower",
        ) from error
    except duckdb.Error as error:
        if NO_SPACE in str(error):
            raise disk_full(directory) from error
        raise DayError(f"DuckDB could not make the day: {_first_line(error)}") from error


def unread_file(path: Path, error: duckdb.Error, *, sink: str, scratch: Path | None = None) -> SinkError | StorageError:
    """Return the error for the file of a day that DuckDB could not read for a destination.

    Args:
        path: The file.
        error: What DuckDB said.
        sink: The destination.
        scratch: Where DuckDB wrote, if it did.
    """
    if scratch is not None and NO_SPACE in str(error):
        return disk_full(scratch)
    if isinstance(error, duckdb.OutOfMemoryException):
        return SinkError(f"could not read {path}: not enough memory", sink=sink, hint="set [load] memory higher")
    hint = "delete the file; the next load makes it again"
    return SinkError(f"could not read {path}: {_first_line(error)}", sink=sink, hint=hint)


def unfit_record(name: str, column: str, *, sink: str, title: str) -> SinkError:
    """Return the error for one of our own tables that lacks a column, as one of another version may.

    Args:
        name: The table.
        column: What it lacks.
        sink: The destination, as in `[load] to`.
        title: The destination, as messages name it.
    """
    return SinkError(
        f"could not load into {title}: the table {name} lacks the column {column}",
        sink=sink,
        hint=f"rename the table {name}; asyncexport then makes its own, and loads all days again",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
