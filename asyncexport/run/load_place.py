"""The load directory: its lock, who may read what is in it, and the place for unfinished files.

1. Unfinished files are in `.spill`, in a folder of each load. What earlier loads left there is removed under the lock.
   A worker of a Dask scheduler may go on after its load has ended, so a folder is renamed before it is removed: nothing
   new gets into it.
2. New files and folders get the access that archives have (`core.access`).
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from asyncexport.config import Settings
from asyncexport.core.access import ACCESS_NOTE, Access, access_of
from asyncexport.core.warehouse.places import SPILL
from asyncexport.core.warehouse.worker_count import worker_count
from asyncexport.errors import StorageError
from asyncexport.ledger import LedgerReader, hold_load
from asyncexport.storage import has_open_archives

NO_LOCKS = (
    "the file system of {directory} has no working locks: make sure that only one load at a time uses the directory"
)

OVER = ".over"
"""The end of the name of a folder that is being removed."""


@dataclass(frozen=True, slots=True)
class LoadPlace:
    """The load directory of a load that holds its lock.

    Attributes:
        directory: The load directory.
        scratch: The folder for the unfinished files of this load.
        access: Who may read new files.
        notes: Warnings about the file system.
    """

    directory: Path
    scratch: Path
    access: Access
    notes: tuple[str, ...] = ()

    @property
    def umask(self) -> int | None:
        """The umask for processes that make files here; None for that of this process."""
        return 0o077 if self.access is Access.PRIVATE else None


@contextmanager
def load_place(settings: Settings, ledger: LedgerReader) -> Iterator[LoadPlace]:
    """Hold the lock of the load directory, and make a folder for unfinished files, which is removed at the end.

    Raises:
        LedgerLockedError: another load holds the directory.
        StorageError: the directory cannot be created or written.
    """
    directory, access = settings.load.directory, _access(settings, ledger)
    with ExitStack() as stack:
        works = stack.enter_context(hold_load(directory, directory_mode=access.folder_mode))
        scratch = directory.absolute() / SPILL / f"{socket.gethostname()}-{os.getpid()}"
        try:
            scratch.parent.mkdir(mode=0o700, exist_ok=True)
            for left in list(scratch.parent.iterdir()) if works else [scratch]:
                remove_used(left)
            scratch.mkdir(mode=0o700)
        except OSError as error:
            raise StorageError(
                f"cannot use {scratch}: {error.strerror or error}",
                hint="check the owner and the permissions of the load directory",
            ) from error
        try:
            yield LoadPlace(directory, scratch, access, () if works else (NO_LOCKS.format(directory=directory),))
        finally:
            remove_used(scratch)
            with suppress(OSError):
                scratch.parent.rmdir()


def remove_used(folder: Path) -> None:
    """Remove a folder in which somebody may still be making files (rule 1), or a file."""
    aside = folder.with_name(f"{folder.name}{OVER}")
    with suppress(OSError):
        folder = folder.replace(aside)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.unlink()


def _access(settings: Settings, ledger: LedgerReader) -> Access:
    output, remembered = settings.output, ledger.recall(ACCESS_NOTE)
    is_open = remembered is None and has_open_archives(output.directory)
    return access_of(chosen=output.chosen_access, remembered=remembered, is_open=is_open)


def workers_of(settings: Settings) -> int:
    """Return the number of workers for this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = settings.load
    return worker_count(load.workers, cores=cores, available=_available_memory(), memory=load.memory)


def _available_memory() -> int | None:
    """Return the memory that programs may still use, in bytes; None if it cannot be found out.

    It is what the machine has left, or what the limit of the container (cgroup) leaves, whichever is less.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    with suppress(OSError, ValueError):
        most = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        found.append(most - int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")))
    return min(found, default=None)
