"""Runs the exporter in processes that can be killed, forked from a process that has loaded everything.

1. Each run has its own process. It reports events to a file, line by line, which survives the process.
2. If asked to, the process kills itself at a failpoint, in the thread that is about to write. It can also be killed
   from outside.
3. A run can be made to skip certain flushes, only in its own process. This shows that the checks notice what is lost.

`python -m tests.crash_driver FD` carries out runs that `crash_rig.Driver` sends over a Unix socket.
"""

import asyncio
import errno
import gc
import json
import os
import select
import signal
import socket
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncexport.client.api
import asyncexport.client.storage_host  # noqa: F401 - otherwise each run would load both again
from asyncexport.config import ApiKey, Settings
from asyncexport.core.bundles import Range
from asyncexport.core.events import Event
from asyncexport.display.event_records import event_record
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import LedgerReader
from asyncexport.run.rebuild import rebuild
from asyncexport.run.run import export
from asyncexport.run.spec import Backfill, Nightly, Repair, RunSpec
from tests.exporting import OffClock
from tests.failpoints import at_failpoints
from tests.power_cut_fs import mount_privately

LARGEST_MESSAGE = 64 << 10

ERRORS: dict[str, Exception] = {
    "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "broken": OSError(errno.EIO, os.strerror(errno.EIO)),
    "ledger full": sqlite3.OperationalError("database or disk is full"),
    "ledger broken": sqlite3.OperationalError("disk I/O error"),
}
"""Errors of a disk, as the system and as SQLite report them."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process must do.

    Attributes:
        settings: The settings, as in the configuration file.
        key: The API key.
        start, end: The range, in seconds since 1970.
        report: The path of the file for its report.
        repair: Whether to export the stored bundles again instead of the missing ones.
        nightly: Whether to carry out a nightly run instead of a backfill.
        ahead: How many seconds the clocks of the host are ahead.
        rebuild: Whether to rebuild the ledger and export nothing.
        kill_at: The failpoint at which the process kills itself: its name ("" means any) and which one of these,
            counted from 1.
        fail_at: The failpoint at which `fail_with`, a name in `ERRORS`, is raised, given like `kill_at`.
        kill_after: The number of seconds after which the process is killed from outside.
        mount: The folder at which to mount the device that is sent along.
        unflushed: What is not flushed: `files`, `folders`, only the `archives' folders`, or the `ledger`.
    """

    settings: dict[str, Any]
    key: str
    start: int
    end: int
    report: str
    repair: bool = False
    nightly: bool = False
    ahead: float = 0.0
    rebuild: bool = False
    kill_at: tuple[str, int] | None = None
    fail_at: tuple[str, int] | None = None
    fail_with: str = ""
    kill_after: float | None = None
    mount: str = ""
    unflushed: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the run as it is sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        return cls(**json.loads(data))


@dataclass(slots=True)
class Reporter:
    """Writes events and failpoints to the report file."""

    file: int
    run: Run
    names: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_event(self, event: Event) -> None:
        """Report an event."""
        record = event_record(event)
        if record is not None:
            self.write(record)

    def boundary(self, name: str) -> None:
        """Count a failpoint, before or after a write to disk, and kill the process or fail if this is the place."""
        with self._lock:
            self.names.append(name)
            if self._is_reached(self.run.kill_at, name):
                self.write({"type": "killed", "at": name})
                os.kill(os.getpid(), signal.SIGKILL)
            if self._is_reached(self.run.fail_at, name):
                self.write({"type": "failed", "at": name})
                raise ERRORS[self.run.fail_with]

    def _is_reached(self, place: tuple[str, int] | None, name: str) -> bool:
        if place is None or place[0] not in ("", name):
            return False
        return place[1] == (self.names.count(name) if place[0] else len(self.names))

    def write(self, record: dict[str, Any]) -> None:
        """Append a record to the file."""
        os.write(self.file, json.dumps(record).encode() + b"\n")


def serve(orders: socket.socket) -> None:
    """Carry out runs one after another, until the socket is closed."""
    # Loaded objects stay shared with the children, instead of being copied by their garbage collection.
    gc.freeze()
    while True:
        message, devices, _, _ = socket.recv_fds(orders, LARGEST_MESSAGE, 1)
        if not message:
            return
        run = Run.from_bytes(message)
        ready, on_ready = os.pipe()
        go, on_go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(on_go)
            os.close(ready)
            _run_in_child(run, devices, on_ready, go)
        for file in (*devices, on_ready, go):
            os.close(file)
        os.read(ready, 1)
        orders.send(json.dumps(child).encode())
        orders.recv(1)
        os.write(on_go, b"!")
        status = _wait_for(child, run.kill_after)
        for file in (ready, on_go):
            os.close(file)
        orders.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())


def _wait_for(child: int, kill_after: float | None) -> int:
    if kill_after is not None:
        handle = os.pidfd_open(child)
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(kill_after * 1000):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
    _, status = os.waitpid(child, 0)
    return status


def _run_in_child(run: Run, devices: list[int], on_ready: int, go: int) -> None:
    """Carry out a run in the child process; never returns."""
    code = 99
    try:
        if run.mount:
            mount_privately(devices[0], run.mount)
            os.close(devices[0])
        for what in run.unflushed:
            LEAVE_OUT[what]()
        os.write(on_ready, b"!")
        os.read(go, 1)
        file = os.open(run.report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        reporter = Reporter(file, run)
        with at_failpoints(reporter.boundary):
            code = asyncio.run(_export(run, reporter))
    except BaseException:  # noqa: BLE001 - nothing else would report it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _export(run: Run, reporter: Reporter) -> int:
    settings = Settings.from_layers(run.settings)
    directory = Path(settings.output.directory)
    if run.rebuild:
        async for _ in rebuild(directory, force=True):
            pass
        return 0
    spec: RunSpec = Backfill(settings.exports, start=run.start, end=run.end)
    if run.nightly:
        spec = Nightly(settings.exports, end=run.end)
    if run.repair:
        with LedgerReader(directory) as ledger:
            stored = [
                one for export in settings.exports for one in ledger.stored(export.name, Range(run.start, run.end))
            ]
        spec = Repair(settings.exports, tuple(stored))
    clock = OffClock(run.ahead, up=run.ahead)
    listeners = (reporter.on_event,)
    summary = await export(settings, spec, key=ApiKey(run.key), stop=Stop(), listeners=listeners, host_clock=clock)
    reporter.write({"type": "boundaries", "names": reporter.names})
    reporter.write(summary.to_dict())
    return int(summary.exit_code)


def _without_fsync_of(is_left_out: Callable[[Path], bool]) -> None:
    real = os.fsync

    def fsync(file: int) -> None:
        if not is_left_out(Path(f"/proc/self/fd/{file}").resolve()):
            real(file)

    os.fsync = fsync  # type: ignore[assignment]


def _without_fsync_of_the_ledger() -> None:
    real = sqlite3.connect

    class Unsynced(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous = FULL", "synchronous = OFF"), *arguments)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return real(*arguments, factory=Unsynced, **options)

    sqlite3.connect = connect  # type: ignore[assignment]


LEAVE_OUT: dict[str, Callable[[], None]] = {
    "files": lambda: _without_fsync_of(Path.is_file),
    "folders": lambda: _without_fsync_of(Path.is_dir),
    "archives' folders": lambda: _without_fsync_of(lambda path: path.name.startswith("date=")),
    "ledger": _without_fsync_of_the_ledger,
}


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        serve(orders)
