"""What runs on a Dask worker: the making of one day.

1. Dask may run a day twice: a worker that the scheduler has lost sight of may go on while another one begins. So each
   attempt writes into a folder of its own, and the load takes the files of the attempt whose answer it got.
2. A worker of another version of asyncexport or DuckDB makes nothing, because its files could differ.
3. A running task cannot be ended from outside. If its load is over, the folder is gone, and what it writes is lost.
"""

import os
import pickle
import socket
import uuid
from dataclasses import replace
from pathlib import Path

import duckdb

import asyncexport
from asyncexport.errors import DayError, ExportError
from asyncexport.warehouse.day_maker import DayMade, DayRequest
from asyncexport.warehouse.worker import answer

SAME_DISK = "every worker needs the archives and the load directory, under the same paths and as the same user"

SAME_VERSIONS = "install the same versions on every worker"


def versions() -> dict[str, str]:
    """Return the versions that decide the bytes of a file."""
    return {"asyncexport": asyncexport.__version__, "duckdb": duckdb.__version__}


def difference(wanted: dict[str, str], found: dict[str, str]) -> str:
    """Return how a worker's versions differ from those of the load; empty if they do not."""
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    return ", ".join(f"{name} {found.get(name)} instead of {wanted[name]}" for name in differing)


def attempt(request: bytes, wanted: dict[str, str], directory: Path) -> bytes:
    """Make a day; return the folder of this attempt, and what was made or the error, pickled.

    Args:
        request: A `DayRequest`, pickled, so that it is not read before the versions are compared.
        wanted: The versions that the load has.
        directory: The load directory, for messages.

    Raises:
        DayError: this worker cannot be used. Dask tries the day again, perhaps with another worker.
    """
    worker = f"the worker process {os.getpid()} on {socket.gethostname()}"
    if differs := difference(wanted, versions()):
        raise DayError(f"{worker} has {differs}", hint=SAME_VERSIONS)
    asked: DayRequest = pickle.loads(request)  # noqa: S301 - from the load; Dask itself pickles as well
    if not asked.output.is_dir():
        raise DayError(f"{worker} does not see {asked.output}", hint=SAME_DISK)
    folder = asked.scratch / f"attempt-{uuid.uuid4().hex}"
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise DayError(f"{worker} cannot create {folder}: {error.strerror or error}", hint=SAME_DISK) from error
    made: DayMade | ExportError = answer(within(asked, folder), directory)
    return pickle.dumps((folder, made))


def within(request: DayRequest, folder: Path) -> DayRequest:
    """Return a request whose files are all in a folder, under the same names."""
    direct = request.data_direct
    return replace(
        request,
        flat=folder / request.flat.name,
        quarantine=folder / request.quarantine.name,
        scratch=folder,
        data_direct=None if direct is None else replace(direct, file=folder / direct.file.name),
    )


def files_of(request: DayRequest) -> list[Path]:
    """Return the files that are made for a request, whether or not it has rows for them."""
    direct = [] if request.data_direct is None else [request.data_direct.file]
    return [request.flat, request.quarantine, *direct]
