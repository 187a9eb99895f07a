"""The service: operations, their states and ages, and what it answers, as values. No wait, and the clock comes in.

1. An operation is made by a create; how long it takes is drawn then, and everything it will ever say follows from that
   and from the time it is asked. Nothing runs in the background.
2. An export holds what had reached the service when its operation was made: the same window exported later may hold
   more.
3. Three ages end apart from each other: the operation's, the export's, and the link's (see `storage`).
4. Where a create leaves `segmentTimeRange` out, the segment covers its last days only, and older rows are missing
   without a word.
"""

import base64
import hashlib
import heapq
import random
import secrets
from collections.abc import Mapping
from typing import Any

from asyncexport.core.exports import Type
from asyncexport.sandbox.answers import SandboxAnswer, reply
from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.formats import EVENT_FIELDS, INDIVIDUAL_FIELDS, WILDCARDS
from asyncexport.sandbox.listing import SandboxOperationList
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.reading import SandboxExportRequest, SandboxRefusal
from asyncexport.sandbox.segments import segments

SINCE_EVER_SECONDS = 365 * 86_400.0
"""How far back an open start reaches where nothing else says so: rows from the seed have no beginning."""


class SandboxService:
    """Everything behind the API.

    Args:
        behaviour: How it behaves; may be exchanged at any time.
    """

    def __init__(self, behaviour: SandboxBehaviour) -> None:
        self.behaviour = behaviour
        self.operations: list[SandboxOperation] = []
        self._listing = SandboxOperationList()
        self._by_id: dict[str, SandboxOperation] = {}
        self._by_export: dict[str, SandboxOperation] = {}
        self._idempotent: dict[str, SandboxOperation] = {}
        self.made = 0
        self._running: list[tuple[float, int]] = []
        self._durations = random.Random(behaviour.seed)
        self._slots: list[float] = []
        # Ids differ between two processes, so that an old one is unknown and never somebody else's.
        self._salt = secrets.token_bytes(16)
        self._old_ones_made = False

    @property
    def running(self) -> int:
        """How many operations made by creates ran when the last one was asked for, itself among them."""
        return len(self._running)

    def create(
        self, order: SandboxExportRequest, *, now: float, fate: SandboxFault | None = None, idempotency_key: str = ""
    ) -> SandboxAnswer:
        """Start an export; `fate` is the fault that its operation is born with.

        Raises:
            Refusal: not this one.
        """
        self._make_old_ones(now)
        self._check(order, now)
        known = self._known(order, now, idempotency_key)
        return reply({"operationId": (known or self._begin(order, now, fate, idempotency_key)).id})

    def poll(self, operation_id: str, *, now: float) -> SandboxAnswer:
        """How one operation stands.

        Raises:
            Refusal: it is unknown, or no longer kept.
        """
        self._make_old_ones(now)
        one = self.find(operation_id)
        if one is None or now >= one.created_at + self.behaviour.shortened(self.behaviour.operation_life_seconds):
            raise SandboxRefusal(self.behaviour.gone, "resource_not_found", "no such operation")
        one.polled += 1
        if (one.what == "unknown-first" and one.polled == 1) or (one.what == "forgotten" and one.polled > 1):
            raise SandboxRefusal(self.behaviour.gone, "resource_not_found", "no such operation")
        return reply(self._shown(one, now))

    def list(self, query: Mapping[str, str], *, now: float) -> SandboxAnswer:
        """A page of operations.

        Raises:
            Refusal: the query cannot be read.
        """
        self._make_old_ones(now)
        kept_since = now - self.behaviour.shortened(self.behaviour.operation_life_seconds)
        page, token = self._listing.page(query, self.behaviour, now=now, kept_since=kept_since)
        data: dict[str, Any] = {"operations": [self._shown(one, now) for one in page]}
        if not self.behaviour.list_ids:
            for shown in data["operations"]:
                del shown["id"]
        return reply({**data, "nextPaginationToken": token} if token else data)

    def exported(self, export_id: str, *, now: float) -> SandboxOperation:
        """The operation whose export is asked for.

        Raises:
            Refusal: it is unknown, not ready, or has expired.
        """
        one = self._by_export.get(export_id)
        if one is None or one.order is None or one.what in ("export-gone", "no-export-id"):
            raise SandboxRefusal(self.behaviour.gone, "resource_not_found", "no such export")
        if one.state(now) != "COMPLETED":
            raise SandboxRefusal(self.behaviour.not_ready, "resource_not_found", "the export is not ready")
        if now >= self.expires_at(one):
            raise SandboxRefusal(self.behaviour.gone, "resource_not_found", "the export has expired")
        return one

    def find(self, operation_id: str) -> SandboxOperation | None:
        """An operation by its id."""
        return self._by_id.get(operation_id)

    def find_export(self, export_id: str) -> SandboxOperation | None:
        """An operation by the id of its export, whatever its state."""
        return self._by_export.get(export_id)

    def expires_at(self, one: SandboxOperation) -> float:
        """When its export is no longer kept."""
        return one.created_at + self.behaviour.shortened(self.behaviour.export_life_seconds)

    def span(self, order: SandboxExportRequest, now: float) -> tuple[float, float]:
        """The rows that an order is about: its range within the segment's, and within what is kept."""
        behaviour, segment = self.behaviour, order.segment_span
        start, end = self._bounds(order, now)
        if segment is None:
            start, end = max(start, now - behaviour.everyone_seconds), min(end, now)
        else:
            start = start if segment.start is None else max(start, segment.start)
            end = end if segment.end is None else min(end, segment.end)
        if behaviour.retention_seconds is not None:
            start = max(start, now - behaviour.retention_seconds)
        return start, max(start, end)

    def _bounds(self, order: SandboxExportRequest, now: float) -> tuple[float, float]:
        kept = self.behaviour.retention_seconds
        ever = now - (SINCE_EVER_SECONDS if kept is None else kept)
        return (ever if order.span.start is None else order.span.start), (
            now if order.span.end is None else order.span.end
        )

    def _check(self, order: SandboxExportRequest, now: float) -> None:
        behaviour = self.behaviour
        start, end = self._bounds(order, now)
        if behaviour.longest_range_seconds is not None and end - start > behaviour.longest_range_seconds:
            raise SandboxRefusal(400, "bad_request", "timeRange is too wide")
        if order.segment not in segments(behaviour.segments):
            raise SandboxRefusal(behaviour.unknown_segment, "bad_request", "no such segment")
        if behaviour.unknown_field == "refused":
            known = EVENT_FIELDS if order.type is Type.EVENT else INDIVIDUAL_FIELDS
            for name in order.fields:
                if name not in known and name not in WILDCARDS and not name.startswith(("user_", "evt_", "page_")):
                    raise SandboxRefusal(400, "bad_request", f"there is no field {name}")

    def _known(self, order: SandboxExportRequest, now: float, idempotency_key: str) -> SandboxOperation | None:
        """The operation that answers a create that is none of its own."""
        behaviour = self.behaviour
        if behaviour.honour_idempotency_key and idempotency_key in self._idempotent:
            return self._idempotent[idempotency_key]
        while self._running and self._running[0][0] <= now:
            heapq.heappop(self._running)
        if behaviour.merge_equal:
            running = (self.operations[number] for _, number in self._running)
            twin = next((one for one in running if one.order == order), None)
            if twin is not None:
                return twin
        if behaviour.most_running is not None and len(self._running) >= behaviour.most_running:
            raise SandboxRefusal(429, "too_many_requests", "too many exports are running")
        return None

    def _begin(
        self, order: SandboxExportRequest, now: float, fate: SandboxFault | None, idempotency_key: str
    ) -> SandboxOperation:
        made = self._make(order, self.span(order, now), now, fate.what if fate else "")
        if fate is not None and fate.what == "fewer-rows":
            made.most_rows = fate.rows
        self.made += 1
        heapq.heappush(self._running, (made.ends_at, made.number))
        if idempotency_key:
            self._idempotent[idempotency_key] = made
        for _ in range(self.behaviour.foreign_per_operation):
            self._make_foreign(now)
        return made

    def _make(
        self, order: SandboxExportRequest | None, span: tuple[float, float], now: float, what: str
    ) -> SandboxOperation:
        behaviour = self.behaviour
        seconds = behaviour.operation_seconds * self._durations.lognormvariate(0.0, behaviour.operation_sigma)
        seconds = behaviour.shortened(seconds * (10 if what == "slow" else 1))
        started_at = now
        if behaviour.slots is not None and order is not None:
            while len(self._slots) >= behaviour.slots:
                started_at = max(now, heapq.heappop(self._slots))
            heapq.heappush(self._slots, started_at + seconds)
        return self._add(order, span, now, started_at, started_at + seconds, what=what)

    def _make_foreign(self, now: float) -> None:
        one = self._make(None, (now, now), now, "")
        one.type = ("SEARCH_EXPORT", "SEARCH_EXPORT", "DELETE_USER", "DELETE_SESSION")[one.number % 4]

    def _make_old_ones(self, now: float) -> None:
        """What others did in the week before anybody asked."""
        if self._old_ones_made:
            return
        self._old_ones_made = True
        count = self.behaviour.old_operations
        for number in range(count):
            created_at = now - 7 * 86_400 * (count - number) / count
            what = "FAILED" if number % 10 == 9 else ""
            self._add(None, (now, now), created_at, created_at, min(created_at + 300, now), what=what)

    def _add(
        self,
        order: SandboxExportRequest | None,
        span: tuple[float, float],
        created_at: float,
        started_at: float,
        ends_at: float,
        *,
        what: str,
    ) -> SandboxOperation:
        number = len(self.operations)
        digest = hashlib.sha512(self._salt + number.to_bytes(8, "big")).digest()
        export_id = base64.urlsafe_b64encode(digest[:32]).rstrip(b"=").decode()
        one = SandboxOperation(
            number, self._id(digest[32:48]), export_id, order, span, created_at, started_at, ends_at, what=what
        )
        self.operations.append(one)
        self._by_id[one.id] = self._by_export[one.export_id] = one
        self._listing.add(one)
        return one

    def _shown(self, one: SandboxOperation, now: float) -> dict[str, Any]:
        early = self.behaviour.finished_at_early
        return one.shown(now, expires_at=self.expires_at(one), finished_at_early=early)

    def _id(self, digest: bytes) -> str:
        return digest.hex() if self.behaviour.ids == "plain" else base64.b64encode(digest).decode()
