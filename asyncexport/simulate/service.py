"""The service, the storage host, the disk and the ledger in memory.

The service has its own token bucket and refuses requests beyond it, which shows when the budget sends too many.
"""

import asyncio
import heapq
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from asyncexport.client.gate import Gate, RequestPermit
from asyncexport.core.admission import Priority
from asyncexport.core.archive.expected_rows import RowCheck
from asyncexport.core.archive.proof import BodyForm, BodyProof
from asyncexport.core.archive.wire_hash import WireHashes
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Definition, Format
from asyncexport.core.polling import LIST_SIZE
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import Completed, DownloadLink, Me, Operation, OperationsPage, Running
from asyncexport.core.states import Archive, BundleRecord, Split
from asyncexport.errors import RateLimitedError, RefusedError, UnavailableError, UnprovedEmptyError

LATENCY_SECONDS = 0.2
"""How long a call takes; short compared to the half minute after which a token is refilled."""


@dataclass(frozen=True, slots=True)
class SimulatedBehaviour:
    """How the service in memory behaves.

    Attributes:
        take_seconds: Returns the duration of the next operation.
        counts_all: Whether its rate limit counts all calls, or creates only.
        lists: Whether List Operations is available.
        requests_per_minute, burst: Its rate limit.
        level: The level of its bucket at the start; None if it is full.
        slots: Number of operations that run at the same time while others queue; None for no limit.
        outage: Start and end of an outage, in seconds from the start of the run.
    """

    take_seconds: Callable[[], float]
    counts_all: bool = True
    lists: bool = True
    requests_per_minute: float = 2.0
    burst: int = 50
    level: float | None = None
    slots: int | None = None
    outage: tuple[float, float] | None = None


@dataclass(slots=True)
class SimulatedTokenBucket:
    """The token bucket of the service in memory.

    It deliberately shares no code with the exporter's own bucket, because it must notice when that one lets too many
    requests pass. An error in shared arithmetic would go unnoticed.
    """

    burst: float
    per_second: float
    level: float
    at: float = 0.0

    def take(self, now: float) -> bool:
        """Take a token; return whether there was one."""
        self.level = min(self.burst, self.level + (now - self.at) * self.per_second)
        self.at = now
        if self.level < 1 - 1e-9:
            return False
        self.level -= 1
        return True


@dataclass(slots=True)
class _SimulatedOperation:
    """An operation, with the answers while it runs and after it has completed."""

    finished_at: float
    running: Operation
    completed: Operation


class MemoryService:
    """Answers calls as the service does (API reference, section 3); each call passes the gate, as in the client.

    Attributes:
        gate: The budget that every request passes; must be set before the first call.
    """

    gate: Gate

    def __init__(self, behaviour: SimulatedBehaviour, *, clock: Callable[[], float]) -> None:
        self._behaviour = behaviour
        self._clock = clock
        self._runs: list[_SimulatedOperation] = []
        self._busy_until: list[float] = []
        level = behaviour.burst if behaviour.level is None else behaviour.level
        self._bucket = SimulatedTokenBucket(behaviour.burst, behaviour.requests_per_minute / 60, level)

    @property
    def made(self) -> int:
        """Number of operations ever created; their ids count from 0."""
        return len(self._runs)

    def finished_at(self, export_id: str) -> float:
        """Return when an export was completed."""
        return self._runs[int(export_id)].finished_at

    def seconds_taken(self, export_id: str) -> float:
        """Return the duration of the operation of an export."""
        run = self._runs[int(export_id)]
        return run.finished_at - (run.running.created_at or 0.0)

    async def create(self, definition: Definition, span: Range, *, permit: RequestPermit) -> str:
        """Start an operation."""
        await self._send(Kind.CREATE, permit)
        now = self._clock()
        number = str(len(self._runs))
        done = self._start(now, self._behaviour.take_seconds())
        self._runs.append(
            _SimulatedOperation(
                done,
                Operation(number, Running("PENDING"), created_at=now),
                Operation(number, Completed(number), created_at=now, finished_at=done),
            )
        )
        return number

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """Get one operation."""
        await self._call(Kind.POLL, priority)
        return self._show(self._runs[int(operation_id)], self._clock())

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """Get one page of the list, newest first."""
        await self._call(Kind.LIST, priority)
        if not self._behaviour.lists:
            raise RefusedError("the simulated service has no list of operations", status=400)
        now = self._clock()
        end = len(self._runs) - int(token or 0)
        start = max(0, end - LIST_SIZE)
        shown = [self._show(run, now) for run in reversed(self._runs[start:end])]
        return OperationsPage(tuple(shown), str(len(self._runs) - start) if start else "")

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """Get a signed URL."""
        await self._call(Kind.RESULTS, priority)
        return DownloadLink(f"https://storage.invalid/{export_id}", self._clock() + 300)

    async def me(self, *, priority: Priority) -> Me:
        """Ask whose key it is."""
        await self._call(Kind.OTHER, priority)
        return Me("owner@example.com", "ORG", "ADMIN")

    def _start(self, now: float, seconds: float) -> float:
        """Return when an operation created now will be done; it queues while all slots are taken."""
        slots = self._behaviour.slots
        if slots is None:
            return now + seconds
        begin = now if len(self._busy_until) < slots else max(now, heapq.heappop(self._busy_until))
        heapq.heappush(self._busy_until, begin + seconds)
        return begin + seconds

    def _is_down(self) -> bool:
        outage = self._behaviour.outage
        return outage is not None and outage[0] <= self._clock() < outage[1]

    def _show(self, run: _SimulatedOperation, now: float) -> Operation:
        return run.running if now < run.finished_at else run.completed

    async def _call(self, kind: Kind, priority: Priority) -> None:
        async with self.gate.permit(kind, priority) as permit:
            await self._send(kind, permit)

    async def _send(self, kind: Kind, permit: RequestPermit) -> None:
        await permit.recorded()
        await asyncio.sleep(LATENCY_SECONDS)
        if self._is_down():
            permit.answered(None)
            raise UnavailableError("no route")
        counted = self._behaviour.counts_all or kind is Kind.CREATE
        if counted and not self._bucket.take(self._clock()):
            permit.answered(429, retry_after=30.0)
            raise RateLimitedError("too many requests", retry_after=30.0)
        permit.answered(200)


@dataclass(slots=True)
class MemoryStorageHost:
    """A storage host with empty files; `take_seconds` returns how long each download takes."""

    take_seconds: Callable[[], float]

    @asynccontextmanager
    async def open(self, location: DownloadLink, *, offset: int = 0, etag: str = "") -> AsyncIterator["MemoryDownload"]:
        """Start a download."""
        yield MemoryDownload(self.take_seconds)


@dataclass(slots=True)
class MemoryDownload:
    """A download in progress."""

    take_seconds: Callable[[], float]
    offset: int = 0
    etag: str = ""
    goog_hash: tuple[str, ...] = ()
    form: BodyForm = BodyForm.STORED
    end_proved: bool = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """Wait for the duration of the download, then yield its only chunk, which is empty."""
        await asyncio.sleep(self.take_seconds())
        yield b""


class MemoryPartFiles:
    """A disk that stores nothing.

    Args:
        unproved_share: The share of files that are empty and need a second check.
    """

    def __init__(self, unproved_share: float = 0.0) -> None:
        self._share = unproved_share

    def new_part(
        self, bundle: Bundle, container: Format, *, wire_hashes: WireHashes | None, rules: RowCheck | None
    ) -> "MemoryPartFile":
        """Create a part file."""
        number = bundle.range.start // bundle.range.seconds
        is_unproved = int((number + 1) * self._share) > int(number * self._share)
        return MemoryPartFile(str(bundle.range.start), is_unproved=is_unproved)


@dataclass(slots=True)
class MemoryPartFile:
    """A part file without content."""

    path: str
    received: int = 0
    is_unproved: bool = False

    async def write(self, chunk: bytes) -> None:
        """Discard the chunk."""

    async def commit(self, proof: BodyProof, *, least_rows: int | None) -> Archive:
        """Return an empty archive, or ask for a second check."""
        if self.is_unproved and not proof.empty_before:
            raise UnprovedEmptyError
        return Archive(self.path, 0, 0, "")

    async def discard(self) -> None:
        """Do nothing: there is no file to remove."""


@dataclass(slots=True)
class MemoryLedger:
    """A ledger and journal in memory."""

    latest: dict[Bundle, BundleRecord] = field(default_factory=dict)
    highest_attempt: int = 1
    requests: int = 0
    learned: dict[str, str] = field(default_factory=dict)

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Record a bundle's new state."""
        self.latest[record.bundle] = record
        self.highest_attempt = max(self.highest_attempt, getattr(record.state, "attempt", 1))

    async def split(self, record: BundleRecord, pieces: Sequence[Range], *, at: float) -> tuple[BundleRecord, ...]:
        """Replace a bundle by narrower ones."""
        self.latest[record.bundle] = replace(record, state=Split())
        found = tuple(BundleRecord(Bundle(record.bundle.export, piece)) for piece in pieces)
        self.latest |= {one.bundle: one for one in found}
        return found

    async def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """Return nothing: no two bundles share an operation here."""
        return ()

    async def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """Return nothing: no two bundles share an export here."""
        return ()

    def send(self, kind: str, *, at: float) -> "asyncio.Future[int]":
        """Record a request."""
        self.requests += 1
        recorded: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        recorded.set_result(self.requests)
        return recorded

    def answered(self, request_id: int, *, status: int) -> None:
        """Ignore the status."""

    def remember(self, key: str, value: str) -> None:
        """Store a learned value."""
        self.learned[key] = value


def lognormal_seconds(median_seconds: float, sigma: float, seed: int) -> Callable[[], float]:
    """Return a function that draws lognormal durations; the same seed gives the same sequence."""
    draw = random.Random(seed)
    return lambda: median_seconds * draw.lognormvariate(0.0, sigma)
