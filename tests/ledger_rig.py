"""Helpers for tests of the ledger: records to write, failpoints that fail or block, and the answers to all queries."""

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
from tests.failpoints import at_failpoints

EXPORTS = (Export("events"), Export("people"))
NOBODY = 65534
"""A user without permissions, for tests that run as root."""

WAL = ".asyncexport/ledger.sqlite3-wal"


def bundle(number: int, export: str = "events") -> Bundle:
    """Return the bundle of the n-th half-hour since 1970."""
    return Bundle(export, Range(number * 1800, number * 1800 + 1800))


def creating(number: int, export: str = "events") -> BundleRecord:
    """Return the record of the n-th bundle as Creating."""
    return BundleRecord(bundle(number, export), 0, Creating(1, float(number)))


def archive(number: int) -> Stored:
    """Return the Stored state of the n-th bundle; every third archive is empty."""
    return Stored(f"events/{number}.gz", 20_000 + number, number % 3, f"{number:064x}", exported_at=1.7e9 + number / 4)


async def stock_of(ledger: Ledger, export: str) -> RecordedRange:
    """Return what an open ledger has recorded of an export, for all time."""
    return await ledger.query(lambda queries: queries.recorded_range(export, ALL_TIME))


async def stored_of(ledger: Ledger, export: str, span: Range, **asked: float) -> list[BundleRecord]:
    """Return the stored records of an export in a range, from an open ledger."""
    return await ledger.query(lambda queries: list(queries.stored(export, span, **asked)))


def stored(number: int, export: str = "events") -> BundleRecord:
    """Return the record of the n-th bundle as Stored."""
    return BundleRecord(bundle(number, export), 0, archive(number), archive(number))


def usual_states(number: int) -> list[State]:
    """Return the states that the n-th bundle goes through."""
    at, name = 1.7e9 + number, f"operation-{number}"
    return [Creating(1, at), Created(1, at + 1, name), Ready(1, at, name), archive(number)]


@dataclass
class Boundary:
    """Records failpoints. It can raise at some of them, or block the ledger's thread at one until `let_go` is set."""

    fails: dict[str, Exception] = field(default_factory=dict)
    holds: str = ""
    names: list[str] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, name: str) -> None:
        """Record a failpoint, and block or raise if this is the place."""
        self.names.append(name)
        if name == self.holds:
            self.reached.set()
            assert self.let_go.wait(60)
        if name in self.fails:
            raise self.fails[name]

    @property
    def commits(self) -> int:
        """The number of commits so far."""
        return self.names.count("ledger.commit:after")


async def fill(ledger: Ledger, count: int = 12) -> None:
    """Write some of everything: bundles in all usual states, requests, durations, runs, an accepted gap, a note."""
    await ledger.register(EXPORTS)
    for number in range(count):
        export = EXPORTS[number % 2].name
        steps = 1 + number % 4 if number >= count * 2 // 3 else 4
        for state in usual_states(number)[:steps]:
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
    """Return the answers to all queries."""
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
    """Return the answers to all queries from a read-only connection."""
    with LedgerReader(directory) as ledger:
        return answers(ledger)


@contextmanager
def without_permissions() -> Iterator[None]:
    """Run as a user who is subject to file permissions: as root, change to another user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def give_to_other_user(directory: Path) -> None:
    """If running as root, give the directory to the user of `without_permissions`."""
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def releases_locks(directory: Path) -> Callable[[str], None]:
    """Return a failpoint listener that releases the directory's lock immediately, as on some network shares."""
    lock = str(directory / ".asyncexport" / "lock")

    def let_go(name: str) -> None:
        for link in Path("/proc/self/fd").iterdir() if name == "lock:before" else ():
            if link.exists() and str(link.readlink()) == lock:
                fcntl.flock(int(link.name), fcntl.LOCK_UN)

    return let_go


@contextmanager
def locks_that_do_nothing(directory: Path) -> Iterator[None]:
    """Release the directory's lock whenever a process takes it."""
    with at_failpoints(releases_locks(directory)):
        yield
