"""The workers of a load, each a process of its own that makes one day at a time.

1. A worker that dies, because the system ran out of memory or a library crashed, fails the day that it was making. The
   next day gets a new worker.
2. A cancelled request kills its worker and waits for its end, so that nothing is written afterwards.
3. Workers do not get the signals of the terminal: the load decides when they end. They get no secret.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncexport.errors import DayError, ExportError
from asyncexport.warehouse.day_maker import DayMade, DayRequest
from asyncexport.warehouse.frames import frame, receive_frame

START = (
    "import json, sys; umask, directory, sys.path[:] = json.loads(sys.argv[1]);"
    " from asyncexport.warehouse.worker import main; main(umask, directory)"
)

SECRET_PREFIXES = ("ASYNCEXPORT_", "FULLSTORY_")
"""The beginnings of the names of variables that a worker does not get."""

MOST_STDERR = 64 << 10
"""Bytes of a worker's standard error that are kept."""


class WorkerPool:
    """A number of workers, which are started when they are needed; a context manager that ends them.

    Args:
        size: The most workers.
        directory: The load directory, for messages.
        umask: The umask of the workers, which decides who may read their files. None: that of this process.

    Attributes:
        size: The most workers.
    """

    def __init__(self, size: int, *, directory: Path, umask: int | None) -> None:
        self.size = size
        self._free = asyncio.Semaphore(size)
        self._start = json.dumps([umask, str(directory), sys.path])
        self._idle: list[_Worker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for worker in self._idle:
            await worker.end()
        self._idle.clear()

    async def make(self, request: DayRequest) -> DayMade:
        """Make a day, once a worker is free.

        Raises:
            ExportError: what the worker raised, or that it died.
        """
        async with self._free:
            worker = self._idle.pop() if self._idle else await _Worker.start(self._start)
            try:
                answer = await worker.ask(request)
            except BaseException:
                await worker.end()
                raise
            self._idle.append(worker)
        if isinstance(answer, ExportError):
            raise answer
        return answer


class _Worker:
    """One process; made by `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        requests: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        messages: asyncio.StreamReader,
    ) -> None:
        """Take the process and the pipes to its standard input, output and error."""
        self._process = process
        self._requests = requests
        self._answers = answers
        self._messages = messages
        self._last_words = b""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, arguments: str) -> "_Worker":
        environ = {name: value for name, value in os.environ.items() if not name.startswith(SECRET_PREFIXES)}
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", START, arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            raise DayError(
                f"could not start a process that makes the day: {error.strerror or error}",
                hint="set [load] workers lower, or close other programs",
            ) from error
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("a worker was started without pipes")
        return cls(process, process.stdin, process.stdout, process.stderr)

    async def ask(self, request: DayRequest) -> DayMade | ExportError:
        """Send a request and wait for its answer.

        Raises:
            DayError: the worker died.
        """
        try:
            self._requests.write(frame(request))
            await self._requests.drain()
            answer: DayMade | ExportError = await receive_frame(self._answers)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._death() from None
        return answer

    async def end(self) -> None:
        """Kill the process if it still runs, and wait for its end, even if cancelled."""
        with suppress(ProcessLookupError):
            self._process.kill()
        ending = asyncio.ensure_future(self._process.wait())
        cancelled = False
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                cancelled = True
        await asyncio.wait([self._listening])
        if cancelled:
            raise asyncio.CancelledError

    async def _listen(self) -> None:
        """Keep the end of what the process prints, which may say why it died."""
        while piece := await self._messages.read(MOST_STDERR):
            self._last_words = (self._last_words + piece)[-MOST_STDERR:]

    async def _death(self) -> DayError:
        code = await self._process.wait()
        await asyncio.wait([self._listening])
        if code == -signal.SIGKILL:
            return DayError(
                "the process that made the day was killed; the system may have run out of memory",
                hint="set [load] memory or [load] workers lower",
            )
        lines = self._last_words.decode(errors="replace").strip().splitlines()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return DayError(f"the process that made the day ended {how}" + (f": {lines[-1]}" if lines else ""))
