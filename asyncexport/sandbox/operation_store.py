"""All operations of the sandbox: makes them, sets their durations, and finds them by id.

1. The duration of an operation is drawn when it is made. Its state follows from that and from the time of the request;
   nothing runs in the background.
2. Ids differ between processes, so an id from an earlier process is unknown and never that of another operation.
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
    """Decides when operations start and end; `seed` determines their durations."""

    def __init__(self, seed: int) -> None:
        self._durations = random.Random(seed)
        self._slots: list[float] = []

    def next(self, behaviour: SandboxBehaviour, now: float, *, what: str, queues: bool) -> tuple[float, float]:
        """Return when an operation made now starts and ends.

        `what` is its fault or "", `queues` says whether it waits for a slot.
        """
        seconds = behaviour.operation_seconds * self._durations.lognormvariate(0.0, behaviour.operation_sigma)
        seconds = behaviour.shortened(seconds * (10 if what == "slow" else 1))
        started_at = now
        if behaviour.slots is not None and queues:
            while len(self._slots) >= behaviour.slots:
                started_at = max(now, heapq.heappop(self._slots))
            heapq.heappush(self._slots, started_at + seconds)
        return started_at, started_at + seconds


class SandboxOperationStore:
    """Makes operations and keeps them in the order of their creation.

    Args:
        seed: The seed of the durations.

    Attributes:
        made: The number of operations made by creates; the others belong to other clients.
        made_last: The newest operation made by a create.
        listing: The list of all operations, page by page.
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
        """Return the number of operations, including those of other clients."""
        return len(self._operations)

    def __iter__(self) -> Iterator[SandboxOperation]:
        """Iterate over all operations, the oldest first."""
        return iter(self._operations)

    def __getitem__(self, number: int) -> SandboxOperation:
        """Return an operation by its number."""
        return self._operations[number]

    @property
    def running(self) -> int:
        """How many operations made by creates were running at the last create, including its own."""
        return len(self._running)

    def find(self, operation_id: str) -> SandboxOperation | None:
        """Return the operation with this id, or None."""
        return self._by_id.get(operation_id)

    def find_export(self, export_id: str) -> SandboxOperation | None:
        """Return the operation with this export id in any state, or None."""
        return self._by_export.get(export_id)

    def create(
        self,
        request: SandboxExportRequest,
        span: tuple[float, float],
        behaviour: SandboxBehaviour,
        *,
        now: float,
        fault: SandboxFault | None,
        idempotency_key: str,
    ) -> SandboxOperation:
        """Return the operation that answers a create: a new one or an existing one.

        `span` is the range of its rows, `fault` the fault of a new one.

        Raises:
            SandboxRefusal: Too many operations are running.
        """
        known = self._known(request, behaviour, now, idempotency_key)
        if known is not None:
            return known
        made = self._make(request, span, behaviour, now, fault.what if fault else "")
        if fault is not None:
            _apply_fault(made, fault, before=self.made_last)
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
        """Make the operations of other clients from the week before the first request. Later calls do nothing."""
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
        """Return an existing operation that answers a create, or None if the create makes a new one."""
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


def _apply_fault(made: SandboxOperation, fault: SandboxFault, *, before: SandboxOperation | None) -> None:
    """Change a new operation as its fault says; `before` is the operation made before it."""
    match fault.what:
        case "fewer-rows":
            made.most_rows = fault.rows
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
