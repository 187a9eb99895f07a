"""The workers of a load: processes on this machine, or those of a Dask scheduler (`load --scheduler`)."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec

from asyncexport.config import Settings
from asyncexport.errors import ConfigError, Problem
from asyncexport.run.load_place import LoadPlace, workers_of
from asyncexport.warehouse.day_maker import Workers
from asyncexport.warehouse.worker_pool import WorkerPool

ADDRESS = re.compile(r"(tcp|tls)://[^/\s]+:\d+")


def check_scheduler(address: str | None) -> None:
    """Check the address of a scheduler; None if there is none.

    Raises:
        ConfigError: it is no address, or a library is missing.
    """
    if address is None:
        return
    if not ADDRESS.fullmatch(address):
        raise ConfigError([Problem("--scheduler", f"must be an address such as tcp://127.0.0.1:8786, not {address!r}")])
    if find_spec("distributed") is None:
        problem = Problem("--scheduler", "needs a library that is not installed: distributed")
        raise ConfigError([problem], hint="pip install 'asyncexport[load,dask]'")


@asynccontextmanager
async def workers_for(settings: Settings, place: LoadPlace, scheduler: str | None) -> AsyncIterator[Workers]:
    """Have workers, which are given up at the end.

    Args:
        settings: The settings.
        place: The load directory.
        scheduler: The address of a Dask scheduler; None for processes on this machine.

    Raises:
        DayError: the scheduler cannot be reached, or has no workers.
        ConfigError: a worker of it has another version.
    """
    directory = settings.load.directory
    if scheduler is None:
        async with WorkerPool(workers_of(settings), directory=directory, umask=place.umask) as pool:
            yield Workers(pool.size, pool.make)
    else:
        # The library may not be installed, and importing it takes long.
        dask = await asyncio.to_thread(import_module, "asyncexport.warehouse.dask_pool")
        async with dask.dask_pool(scheduler, directory=directory, file_mode=place.access.file_mode) as pool:
            yield Workers(pool.size, pool.make)
