"""A ledger on the rack: bundles to write, a boundary that holds or fails, and all that can be asked in one value."""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.coverage import RecordedRange
from asyncexport.core.exports import Export
from asyncexport.core.states import BundleRecord, Created, Creating, Ready, State, Stored
from asyncexport.ledger import AcceptedGap, Ledger, LedgerReader, RunRecord
from asyncexport.ledger.queries import LedgerQueries
from tests.failpoints import telling

EXPORTS = (Export("events"), Export("people"))
NOBODY = 65534
"""A user without rights, for tests that run as root."""

WAL = ".asyncexport/ledger.sqlite3-wal"


def bundle(number: int, export: str = "events") -> Bundle:
    """The n-th half hour."""
    return Bundle(export, Range(number * 1800, number * 1800 + 1800))


def creating(number: int, export: str = "events") -> BundleRecord:
    """The n-th bundle, asked for."""
    return BundleRecord(bundle(number, export), 0, Creating(1, float(number)))


def archive(number: int) -> Stored:
    """Of the n-th bundle; every third is empty."""
    return Stored(f"events/{number}.gz", 20_000 + number, number % 3, f"{number:064x}", exported_at=1.7e9 + number / 4)


async def stock_of(ledger: Ledger, export: str) -> RecordedRange:
    """What an open ledger has of all time."""
    return await ledger.query(lambda queries: queries.recorded_range(export, ALL_TIME))


async def stored_of(ledger: Ledger, export: str, span: Range, **asked: float) -> list[BundleRecord]:
    """What an open ledger has as stored."""
    return await ledger.query(lambda queries: list(queries.stored(export, span, **asked)))


def stored(number: int, export: str = "events") -> BundleRecord:
    """The n-th bundle, done."""
    return BundleRecord(bundle(number, export), 0, archive(number), archive(number))


def road(number: int) -> list[State]:
    """What a bundle goes through."""
    at, name = 1.7e9 + number, f"operation-{number}"
    return [Creating(1, at), Created(1, at + 1, name), Ready(1, at, name), archive(number)]


@dataclass
class Boundary:
    """Remembers what it was told; fails at a name, or holds the ledger's thread there until let go."""

    fails: dict[str, Exception] = field(default_factory=dict)
    holds: str = ""
    names: list[str] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, name: str) -> None:
        """A point at which a crash would be of interest."""
        self.names.append(name)
        if name == self.holds:
            self.reached.set()
            assert self.let_go.wait(60)
        if name in self.fails:
            raise self.fails[name]

    @property
    def commits(self) -> int:
        """How many there have been."""
        return self.names.count("ledger.commit:after")


async def fill(ledger: Ledger, count: int = 12) -> None:
    """Some of everything: bundles in every state of the main road, requests, durations, runs, a remark."""
    await ledger.register(EXPORTS)
    for number in range(count):
        export = EXPORTS[number % 2].name
        steps = 1 + number % 4 if number >= count * 2 // 3 else 4
        for state in road(number)[:steps]:
            archived = state if isinstance(state, Stored) else None
            await ledger.append(BundleRecord(bundle(number, export), 0, state, archived), at=1.7e9 + number)
        ledger.answered(await ledger.send("create", at=1.7e9 + number), status=200)
        ledger.learn(finished_at=1.7e9 + number, seconds=60.5)
    ledger.begin_run(RunRecord("backfill", 1.7e9, "here"))
    ledger.begin_run(RunRecord("nightly", 1.7e9 + 9))
    ledger.end_run(RunRecord("nightly", 1.7e9 + 9, "here", 1.7e9 + 12, 3, "an error", {"rows": 7}), drops_old=False)
    await ledger.accept(AcceptedGap(bundle(0), "the segment was new then", 1.7e9))
    ledger.remember("nightly_since", "1700000000")
    assert await ledger.recall("nightly_since") == "1700000000"


def answers(queries: LedgerQueries) -> list[Any]:
    """All that can be asked."""
    return [
        queries.exports(),
        queries.requests_since(0.0),
        queries.first_request_at(),
        queries.durations(),
        queries.recall("nightly_since"),
        queries.overviews(),
        *(
            [
                queries.recorded_range(name, ALL_TIME),
                queries.covered(name, ALL_TIME),
                list(queries.stored(name, ALL_TIME)),
            ]
            for name in queries.exports()
        ),
        queries.runs(),
        queries.hours(),
        queries.accepted(),
        [queries.bundles_of_operation(f"operation-{number}") for number in range(12)],
        [queries.bundles_of_export(f"operation-{number}") for number in range(12)],
    ]


def read(directory: Path) -> list[Any]:
    """All that can be asked, by somebody who only reads."""
    with LedgerReader(directory) as ledger:
        return answers(ledger)


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user to whom the modes of files mean something; for root another one."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def given_away(directory: Path) -> None:
    """To whom `without_rights` is; nothing where that is us anyway."""
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def loses_locks(directory: Path) -> Callable[[str], None]:
    """Told of failpoints, it lets go of the directory's lock at once, as some shares do."""
    lock = str(directory / ".asyncexport" / "lock")

    def let_go(name: str) -> None:
        for link in Path("/proc/self/fd").iterdir() if name == "lock:before" else ():
            if link.exists() and str(link.readlink()) == lock:
                fcntl.flock(int(link.name), fcntl.LOCK_UN)

    return let_go


@contextmanager
def locks_that_do_nothing(directory: Path) -> Iterator[None]:
    """Whoever has the lock loses it."""
    with telling(loses_locks(directory)):
        yield
