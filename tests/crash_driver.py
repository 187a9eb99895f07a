"""Runs of the exporter in processes that can be killed, forked from one that has everything loaded.

1. A run is a process of its own, for as long as it lasts; what it told the outside world stands in a file, line by
   line, in the order it was told, and outlives it.
2. It kills itself at a failpoint, if it is told to, in the thread that is about to write; or it is killed from outside.
3. What a careless run leaves out is replaced in its process alone. It is there to show that a check would see it.

`python -m tests.crash_driver FD` serves orders that come over a Unix socket; `crash_rig.Driver` is who sends them.
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
import asyncexport.client.storage_host  # noqa: F401 - a run loads both when it needs them; here it is done once for all
from asyncexport.config import ApiKey, Settings
from asyncexport.core.bundles import Range
from asyncexport.core.events import Event
from asyncexport.display.event_records import event_record
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import LedgerReader
from asyncexport.run.rebuild import rebuild
from asyncexport.run.run import export
from asyncexport.run.spec import Backfill, Repair, RunSpec
from tests.failpoints import telling
from tests.power_cut_fs import mount_privately

LARGEST_MESSAGE = 64 << 10

ERRORS: dict[str, Exception] = {
    "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "broken": OSError(errno.EIO, os.strerror(errno.EIO)),
    "ledger full": sqlite3.OperationalError("database or disk is full"),
    "ledger broken": sqlite3.OperationalError("disk I/O error"),
}
"""What a disk says, to the system and through SQLite."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process is to do.

    Attributes:
        settings: As they would stand in the file.
        key: The API key.
        start, end: The range, in seconds since 1970.
        told: The file that outlives it.
        repair: Export once more what is stored, in place of what is not.
        rebuild: Make the ledger anew, and export nothing.
        kill_at: Kill itself at a failpoint of this name ("": of any), the so manieth, the first being 1.
        fail_at: Raise `fail_with`, a name in `ERRORS`, at a failpoint, which is named likewise.
        kill_after: Be killed after so many seconds.
        mount: Mount the device that came with the order here.
        careless: What is left out: the flush of `files`, of `folders`, of `archives' folders` alone, of the `ledger`.
    """

    settings: dict[str, Any]
    key: str
    start: int
    end: int
    told: str
    repair: bool = False
    rebuild: bool = False
    kill_at: tuple[str, int] | None = None
    fail_at: tuple[str, int] | None = None
    fail_with: str = ""
    kill_after: float | None = None
    mount: str = ""
    careless: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        return cls(**json.loads(data))


@dataclass(slots=True)
class Teller:
    """Tells the outside world, in a file, of events and of failpoints."""

    file: int
    run: Run
    names: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_event(self, event: Event) -> None:
        """Something happened."""
        record = event_record(event)
        if record is not None:
            self.tell(record)

    def boundary(self, name: str) -> None:
        """A write to the disk is about to happen, or has happened."""
        with self._lock:
            self.names.append(name)
            if self._is_reached(self.run.kill_at, name):
                self.tell({"type": "killed", "at": name})
                os.kill(os.getpid(), signal.SIGKILL)
            if self._is_reached(self.run.fail_at, name):
                self.tell({"type": "failed", "at": name})
                raise ERRORS[self.run.fail_with]

    def _is_reached(self, place: tuple[str, int] | None, name: str) -> bool:
        if place is None or place[0] not in ("", name):
            return False
        return place[1] == (self.names.count(name) if place[0] else len(self.names))

    def tell(self, record: dict[str, Any]) -> None:
        """Write it down."""
        os.write(self.file, json.dumps(record).encode() + b"\n")


def serve(orders: socket.socket) -> None:
    """Carry out runs, one after another, until nobody sends any."""
    # What is loaded stays shared with the children, instead of being copied when they collect garbage.
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
            _carry_out(run, devices, on_ready, go)
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


def _carry_out(run: Run, devices: list[int], on_ready: int, go: int) -> None:
    """In the child: never returns."""
    code = 99
    try:
        if run.mount:
            mount_privately(devices[0], run.mount)
            os.close(devices[0])
        for what in run.careless:
            _CARELESS[what]()
        os.write(on_ready, b"!")
        os.read(go, 1)
        file = os.open(run.told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        teller = Teller(file, run)
        with telling(teller.boundary):
            code = asyncio.run(_export(run, teller))
    except BaseException:  # noqa: BLE001 - there is nobody above
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _export(run: Run, teller: Teller) -> int:
    settings = Settings.from_layers(run.settings)
    directory = Path(settings.output.directory)
    if run.rebuild:
        async for _ in rebuild(directory, force=True):
            pass
        return 0
    spec: RunSpec = Backfill(settings.exports, start=run.start, end=run.end)
    if run.repair:
        with LedgerReader(directory) as ledger:
            stored = [
                one for export in settings.exports for one in ledger.stored(export.name, Range(run.start, run.end))
            ]
        spec = Repair(settings.exports, tuple(stored))
    summary = await export(settings, spec, key=ApiKey(run.key), stop=Stop(), listeners=(teller.on_event,))
    teller.tell({"type": "boundaries", "names": teller.names})
    teller.tell(summary.to_dict())
    return int(summary.exit_code)


def _without_fsync_of(is_meant: Callable[[Path], bool]) -> None:
    real = os.fsync

    def fsync(file: int) -> None:
        if not is_meant(Path(f"/proc/self/fd/{file}").resolve()):
            real(file)

    os.fsync = fsync  # type: ignore[assignment]


def _without_fsync_of_the_ledger() -> None:
    real = sqlite3.connect

    class Careless(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous = FULL", "synchronous = OFF"), *arguments)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return real(*arguments, factory=Careless, **options)

    sqlite3.connect = connect  # type: ignore[assignment]


_CARELESS: dict[str, Callable[[], None]] = {
    "files": lambda: _without_fsync_of(Path.is_file),
    "folders": lambda: _without_fsync_of(Path.is_dir),
    "archives' folders": lambda: _without_fsync_of(lambda path: path.name.startswith("date=")),
    "ledger": _without_fsync_of_the_ledger,
}


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        serve(orders)
