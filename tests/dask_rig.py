"""A Dask scheduler and workers as processes of their own, on the loopback interface."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]

SCHEDULER = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-jupyter")

WORKER = ("distributed.cli.dask_worker", "--no-nanny", "--no-dashboard", "--nthreads", "1", "--memory-limit", "0")


def why_not() -> str:
    """Return why there can be no scheduler here; empty if there can."""
    return "" if find_spec("distributed") else "distributed is not installed (pip install 'asyncexport[dask]')"


class Cluster:
    """A scheduler and its workers; made by `cluster`.

    Attributes:
        scheduler: The process of the scheduler.
        address: The address of the scheduler.
        workers: The processes of the workers.
    """

    def __init__(self, stack: ExitStack, folder: Path, environ: dict[str, str]) -> None:
        self._stack = stack
        self._folder = folder
        self.workers: list[subprocess.Popen[str]] = []
        self.scheduler = self._started(*SCHEDULER, **environ)
        self.address = self._line(self.scheduler, "Scheduler at:").split()[-1]
        self._drain(self.scheduler)

    def add_worker(self, **environ: str) -> subprocess.Popen[str]:
        """Start a worker, with variables of its own, and wait until the scheduler knows it."""
        worker = self._started(*WORKER, "--local-directory", str(self._folder), self.address, **environ)
        self._line(worker, "Registered to:")
        self.workers.append(worker)
        self._drain(worker)
        return worker

    def ends_with(self, process: "subprocess.Popen[str]") -> None:
        """Kill another process at the end, if it still runs."""
        self._stack.callback(_ended, process)

    def _started(self, *command: str, **environ: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s", **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(_closed, process)
        self._stack.callback(_ended, process)
        return process

    def _line(self, process: "subprocess.Popen[str]", part: str) -> str:
        """Read what a process says up to a line that contains `part`, and return that line."""
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            if part in line:
                return line
            said.append(line)
        raise RuntimeError(f"the process did not start: {''.join(said)}")

    def _drain(self, process: "subprocess.Popen[str]") -> None:
        """Read on, so that the pipe is never full."""
        assert process.stderr is not None
        reading = threading.Thread(target=process.stderr.read)
        reading.start()
        self._stack.callback(reading.join)
        self._stack.callback(_ended, process)


def _ended(process: "subprocess.Popen[str]") -> None:
    """End a process, once or twice."""
    process.kill()
    process.wait()


def _closed(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    process.stderr.close()


@contextmanager
def cluster(folder: Path, *, workers: int, **environ: str) -> Iterator[Cluster]:
    """Run a scheduler and workers, which are killed at the end.

    Args:
        folder: For files of the workers.
        workers: How many to start.
        environ: Variables of the scheduler.
    """
    with ExitStack() as stack:
        made = Cluster(stack, folder, environ)
        for _ in range(workers):
            made.add_worker()
        yield made
