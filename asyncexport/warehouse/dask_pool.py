"""The workers of a Dask scheduler, used in place of the load's own processes.

1. A worker only makes files, in the folder that the load gives it. The load takes them, counts their rows and publishes
   them, as it does with its own workers.
2. A worker that dies loses its day, which Dask gives to another one. A day that several workers died of fails.
3. If no worker is left, or the scheduler cannot be reached any more, the days that are being made fail.
4. Workers of another version are refused before anything is made, and again by each task, since workers come and go.
"""

import asyncio
import logging
import os
import pickle
import shutil
import stat
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed

from asyncexport.errors import ConfigError, DayError, ExportError, Problem
from asyncexport.warehouse.dask_task import SAME_VERSIONS, attempt, difference, files_of, versions
from asyncexport.warehouse.day_maker import DayMade, DayRequest
from asyncexport.warehouse.faults import storage_error

RETRIES = 2
"""How often Dask runs a task again that raised an error."""

LOGGERS = ("distributed", "distributed.client")
"""The loggers of Dask that have a level of their own. What they would print is in our own messages."""

START_WORKERS = "start workers: `dask worker {address} --nthreads 1`"


@dataclass(frozen=True, slots=True)
class DaskWaits:
    """How long to wait for what, in seconds.

    Attributes:
        connect: For an answer of the scheduler.
        check: Between two checks whether there are workers.
        patience: Without any worker, before a day fails: time for one that died to be started again.
    """

    connect: float = 15.0
    check: float = 5.0
    patience: float = 60.0


class DaskPool:
    """The workers of a scheduler; made by `dask_pool`.

    Args:
        client: The connection to the scheduler, a `distributed.Client`.
        address: The address of the scheduler, for messages.
        size: The days that the workers can make at the same time.
        directory: The load directory, for messages.
        file_mode: The mode of new files, before the umask of this process.
        waits: How long to wait for what.

    Attributes:
        size: The days that the workers can make at the same time.
    """

    def __init__(
        self,
        client: Any,
        address: str,
        *,
        size: int,
        directory: Path,
        file_mode: int,
        waits: DaskWaits,
    ) -> None:
        self.size = size
        self._client = client
        self._address = address
        self._directory = directory
        self._file_mode = file_mode
        self._waits = waits

    async def make(self, request: DayRequest) -> DayMade:
        """Make a day, once a worker is free.

        Raises:
            ExportError: what the worker raised, or that there is none.
        """
        answer: tuple[Path, DayMade | ExportError] = pickle.loads(await self._attempted(request))  # noqa: S301 - our task
        folder, made = answer
        if isinstance(made, ExportError):
            raise made
        await asyncio.to_thread(self._take, request, folder)
        return made

    async def _attempted(self, request: DayRequest) -> bytes:
        """Let a worker run a task; return its answer.

        Raises:
            DayError: it was run in vain, or there is no worker, or no scheduler.
        """
        try:
            future = self._client.submit(
                attempt,
                *(pickle.dumps(request), versions(), self._directory),
                key=f"asyncexport-day-{uuid.uuid4().hex}",
                pure=False,
                retries=RETRIES,
            )
        except Exception as error:
            raise self._lost(error) from error
        answering = asyncio.ensure_future(future.result())
        try:
            await self._until_done(answering)
            return self._answer(answering)
        finally:
            answering.cancel()
            await asyncio.wait([answering])
            with suppress(Exception):
                future.release()

    def _answer(self, answering: "asyncio.Future[bytes]") -> bytes:
        """Return the answer of a task that has ended.

        Raises:
            DayError: it has none.
        """
        if answering.cancelled():
            raise self._lost()
        match answering.exception():
            case None:
                return answering.result()
            case ExportError() as error:
                raise error
            case distributed.KilledWorker() as error:
                raise DayError(
                    "several workers died while they made the day; they may have run out of memory",
                    hint="set [load] memory lower, or start workers with --nthreads 1 and --memory-limit 0",
                ) from error
            case distributed.CancelledError() | distributed.comm.CommClosedError() | TimeoutError():
                raise self._lost()
            case error:
                raise DayError(
                    f"the Dask worker failed with {type(error).__name__}",
                    hint=f"the log of the workers says more; if it is about imports, {SAME_VERSIONS}",
                ) from error

    async def _until_done(self, answering: "asyncio.Future[Any]") -> None:
        """Wait for an answer.

        Raises:
            DayError: there has been no worker for too long, or there is no scheduler.
        """
        without = 0.0
        while not (await asyncio.wait([answering], timeout=self._waits.check))[0]:
            try:
                workers = await asyncio.wait_for(self._client.nthreads(), self._waits.connect)
            except Exception as error:
                raise self._lost(error) from error
            without = 0.0 if workers else without + self._waits.check
            if without >= self._waits.patience:
                raise DayError(
                    f"the Dask scheduler at {self._address} has had no workers for {without:.0f} s",
                    hint=START_WORKERS.format(address=self._address),
                )

    def _take(self, request: DayRequest, folder: Path) -> None:
        """Move the files of an attempt to where the load expects them, with the access that new files have.

        Raises:
            StorageError: this failed.
        """
        try:
            mode = _mode_of_new_files(request.scratch, self._file_mode)
            for file in files_of(request):
                part = folder / file.name
                if part.exists():
                    part.chmod(mode)
                    part.replace(file)
        except OSError as error:
            raise storage_error(error, self._directory) from error
        shutil.rmtree(folder, ignore_errors=True)

    def _lost(self, error: Exception | None = None) -> DayError:
        detail = "" if error is None else f" ({type(error).__name__})"
        return DayError(
            f"the connection to the Dask scheduler at {self._address} was lost{detail}",
            hint="run the same command again once the scheduler is back",
        )


def _mode_of_new_files(folder: Path, file_mode: int) -> int:
    """Return the mode that a new file of this process gets. The umask itself can only be read by changing it."""
    probe = folder / f"mode-{uuid.uuid4().hex}"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file_mode)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        probe.unlink()


@asynccontextmanager
async def dask_pool(
    address: str, *, directory: Path, file_mode: int, waits: DaskWaits = DaskWaits()
) -> AsyncIterator[DaskPool]:
    """Connect to a scheduler, and check its workers.

    Args:
        address: Its address, such as `tcp://127.0.0.1:8786`.
        directory: The load directory, for messages.
        file_mode: The mode of new files, before the umask of this process.
        waits: How long to wait for what.

    Raises:
        DayError: the scheduler cannot be reached, or has no workers.
        ConfigError: a worker has another version.
    """
    client = await _connected(address, waits)
    try:
        workers = await client.nthreads()
        if not workers:
            raise DayError(
                f"the Dask scheduler at {address} has no workers", hint=START_WORKERS.format(address=address)
            )
        _check_versions(await client.run(versions, on_error="return"))
        size = sum(workers.values())
        yield DaskPool(client, address, size=size, directory=directory, file_mode=file_mode, waits=waits)
    finally:
        with suppress(Exception):
            await client.close()


async def _connected(address: str, waits: DaskWaits) -> Any:
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return await distributed.Client(
            address, asynchronous=True, set_as_default=False, timeout=waits.connect, name="asyncexport-load"
        )
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise DayError(
            f"could not connect to the Dask scheduler at {address}: {lines[0] if lines else type(error).__name__}",
            hint="start it with `dask scheduler`, or leave --scheduler out to use processes on this machine",
        ) from error


def _check_versions(found: dict[str, Any]) -> None:
    """Refuse workers of other versions (rule 4).

    Raises:
        ConfigError: there are some.
    """
    problems = []
    for worker, versions_there in sorted(found.items()):
        if isinstance(versions_there, dict):
            problem = difference(versions(), versions_there)
        else:
            problem = "no asyncexport that fits this one"
        if problem:
            problems.append(Problem("--scheduler", f"the worker {worker} has {problem}"))
    if problems:
        raise ConfigError(problems, hint=SAME_VERSIONS)
