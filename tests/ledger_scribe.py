"""A process that writes to a ledger until it is killed, and prints what was acknowledged as written.

`python -m tests.ledger_scribe DIRECTORY FIRST PAGES` writes bundles in order from number FIRST, `BUNDLES_AT_ONCE` at a
time, and prints the number of each as soon as it is acknowledged. The log is checkpointed every PAGES pages. `Scribe`
starts the process, reads its output and kills it.
"""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from asyncexport.ledger import Ledger
from tests.ledger_rig import EXPORTS, stored

BUNDLES_AT_ONCE = 20

ROOT = Path(__file__).parents[1]


class Scribe:
    """The process and what it has printed so far; a context manager that kills it at the end."""

    def __init__(self, directory: Path, *, first: int = 0, pages: int = 1000) -> None:
        command = [sys.executable, "-m", "tests.ledger_scribe", str(directory), str(first), str(pages)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        self._heard = threading.Condition()
        self._listening = threading.Thread(target=self._listen)
        self.acknowledged: set[int] = set()

    def __enter__(self) -> Self:
        self._listening.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_for(self, count: int) -> None:
        """Wait until `count` bundles are acknowledged."""
        with self._heard:
            assert self._heard.wait_for(lambda: len(self.acknowledged) >= count, timeout=60)

    def kill(self) -> None:
        """Kill the process and read the rest of its output."""
        self._process.kill()
        self._process.wait()
        self._listening.join()

    def _listen(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                with self._heard:
                    self.acknowledged.add(int(line))
                    self._heard.notify_all()


async def write(directory: Path, first: int, pages: int) -> None:
    """Write bundles until the process is killed."""
    ledger = await Ledger.open(directory)
    await ledger._read(lambda queries: queries._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}"))
    await ledger.register(EXPORTS)

    async def one(number: int) -> None:
        await ledger.append(stored(number), at=float(number))
        os.write(1, f"{number}\n".encode())

    while True:
        await asyncio.gather(ledger.send("create", at=float(first)), *map(one, range(first, first + BUNDLES_AT_ONCE)))
        ledger.learn(finished_at=float(first), seconds=1.0)
        first += BUNDLES_AT_ONCE


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
