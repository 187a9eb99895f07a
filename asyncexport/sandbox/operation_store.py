"""All operations of the sandbox: how they are made, how long they take, and where they are found.

1. How long an operation takes is drawn when it is made, and everything it will ever say follows from that and from the
   time at which it is asked. Nothing runs in the background.
2. Ids differ between two processes, so that an id from an earlier process is unknown and never another operation's.
"""

import base64
import hashlib
import heapq
import random
import secrets
from collections.abc import Iterator

from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.listing import SandboxOperationList
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.reading import SandboxExportRequest, SandboxRefusal


class SandboxSchedule:
    """Says when operations start and end; `seed` is that of their durations."""

    def __init__(self, seed: int) -> None:
        self._durations = random.Random(seed)
        self._slots: list[float] = []

    def next(self, behaviour: SandboxBehaviour, now: float, *, what: str, queues: bool) -> tuple[float, float]:
        """When an operation made now starts and ends; `what` is its fault, `queues` whether it waits for a slot."""
        seconds = behaviour.operation_seconds * self._durations.lognormvariate(0.0, behaviour.operation_sigma)
        seconds = behaviour.shortened(seconds * (10 if what == "slow" else 1))
        started_at = now
        if behaviour.slots is not None and queues:
            while len(self._slots) >= behaviour.slots:
                started_at = max(now, heapq.heappop(self._slots))
            heapq.heappush(self._slots, started_at + seconds)
        return started_at, started_at + seconds


class SandboxOperationStore:
    """Makes operations and keeps them, in the order in which they were made.

    Args:
        seed: Of the durations.

    Attributes:
        made: How many were made by creates; the others are somebody else's.
        made_last: The newest of these.
        listing: The list of them, page by page.
    """

    def __init__(self, seed: int) -> None:
        self.made = 0
        self.made_last: SandboxOperation | None = None
        self._operations: list[SandboxOperation] = []
        self.listing = SandboxOperationList()
        self._by_id: dict[str, SandboxOperation] = {}
        self._by_export: dict[str, SandboxOperation] = {}
        self._idempotent: dict[str, SandboxOperation] = {}
        self._running: list[tuple[float, int]] = []
        self._schedule = SandboxSchedule(seed)
        self._salt = secrets.token_bytes(16)
        self._old_ones_made = False

    def __len__(self) -> int:
        """How many there are, whoever made them."""
        return len(self._operations)

    def __iter__(self) -> Iterator[SandboxOperation]:
        """All of them, the oldest first."""
        return iter(self._operations)

    def __getitem__(self, number: int) -> SandboxOperation:
        """One by its number."""
        return self._operations[number]

    @property
    def running(self) -> int:
        """How many operations made by creates ran when the last one was asked for, itself among them."""
        return len(self._running)

    def find(self, operation_id: str) -> SandboxOperation | None:
        """An operation by its id."""
        return self._by_id.get(operation_id)

    def find_export(self, export_id: str) -> SandboxOperation | None:
        """An operation by the id of its export, whatever its state."""
        return self._by_export.get(export_id)

    def create(
        self,
        request: SandboxExportRequest,
        span: tuple[float, float],
        behaviour: SandboxBehaviour,
        *,
        now: float,
        fate: SandboxFault | None,
        idempotency_key: str,
    ) -> SandboxOperation:
        """The operation that answers a create: a new one, or one that is there already.

        `span` are the rows that it will hold, `fate` is the fault that a new one is born with.

        Raises:
            SandboxRefusal: too many are running.
        """
        known = self._known(request, behaviour, now, idempotency_key)
        if known is not None:
            return known
        made = self._make(request, span, behaviour, now, fate.what if fate else "")
        if fate is not None:
            _take_fate(made, fate, before=self.made_last)
        self.made += 1
        self.made_last = made
        heapq.heappush(self._running, (made.ends_at, made.number))
        if idempotency_key:
            self._idempotent[idempotency_key] = made
        for _ in range(behaviour.foreign_per_operation):
            foreign = self._make(None, (now, now), behaviour, now, "")
            foreign.type = ("SEARCH_EXPORT", "SEARCH_EXPORT", "DELETE_USER", "DELETE_SESSION")[foreign.number % 4]
        return made

    def make_old_ones(self, behaviour: SandboxBehaviour, now: float) -> None:
        """Make the operations of others in the week before the first request; does nothing the next time."""
        if self._old_ones_made:
            return
        self._old_ones_made = True
        count = behaviour.old_operations
        for number in range(count):
            created_at = now - 7 * 86_400 * (count - number) / count
            what = "FAILED" if number % 10 == 9 else ""
            self._add(
                None, (now, now), created_at, created_at, min(created_at + 300, now), what=what, behaviour=behaviour
            )

    def _known(
        self, request: SandboxExportRequest, behaviour: SandboxBehaviour, now: float, idempotency_key: str
    ) -> SandboxOperation | None:
        """The operation that answers a create which makes none of its own."""
        if behaviour.honour_idempotency_key and idempotency_key in self._idempotent:
            return self._idempotent[idempotency_key]
        while self._running and self._running[0][0] <= now:
            heapq.heappop(self._running)
        if behaviour.merge_equal:
            running = (self._operations[number] for _, number in self._running)
            twin = next((one for one in running if one.request == request), None)
            if twin is not None:
                return twin
        if behaviour.most_running is not None and len(self._running) >= behaviour.most_running:
            raise SandboxRefusal(429, "too_many_requests", "too many exports are running")
        return None

    def _make(
        self,
        request: SandboxExportRequest | None,
        span: tuple[float, float],
        behaviour: SandboxBehaviour,
        now: float,
        what: str,
    ) -> SandboxOperation:
        started_at, ends_at = self._schedule.next(behaviour, now, what=what, queues=request is not None)
        return self._add(request, span, now, started_at, ends_at, what=what, behaviour=behaviour)

    def _add(
        self,
        request: SandboxExportRequest | None,
        span: tuple[float, float],
        created_at: float,
        started_at: float,
        ends_at: float,
        *,
        what: str,
        behaviour: SandboxBehaviour,
    ) -> SandboxOperation:
        number = len(self._operations)
        digest = hashlib.sha512(self._salt + number.to_bytes(8, "big")).digest()
        export_id = _export_id(digest[:32], behaviour)
        operation_id = _operation_id(digest[32:48], behaviour)
        one = SandboxOperation(
            number, operation_id, export_id, request, span, created_at, started_at, ends_at, what=what
        )
        self._operations.append(one)
        self._by_id[one.id] = self._by_export[one.export_id] = one
        self.listing.add(one)
        return one


def _take_fate(made: SandboxOperation, fate: SandboxFault, *, before: SandboxOperation | None) -> None:
    """What a fault changes of an operation when it is made, after another one."""
    match fate.what:
        case "fewer-rows":
            made.most_rows = fate.rows
        case "other-rows":
            start, end = made.span
            made.span = start - (end - start), start
        case "other-export" if before is not None:
            made.export_id = before.export_id


def _operation_id(digest: bytes, behaviour: SandboxBehaviour) -> str:
    if behaviour.ids == "numbers":
        return str(int.from_bytes(digest[:8], "big"))
    return digest.hex() if behaviour.ids == "plain" else base64.b64encode(digest).decode()


def _export_id(digest: bytes, behaviour: SandboxBehaviour) -> str:
    if behaviour.ids == "numbers":
        return str(int.from_bytes(digest[:8], "big"))
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
