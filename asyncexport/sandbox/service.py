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
import bisect
import hashlib
import heapq
import random
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from asyncexport.core.exports import Type
from asyncexport.sandbox.answers import Answer, reply, stamp
from asyncexport.sandbox.behaviour import Behaviour
from asyncexport.sandbox.formats import EVENT_FIELDS, INDIVIDUAL_FIELDS, WILDCARDS
from asyncexport.sandbox.reading import Order, Refusal
from asyncexport.sandbox.segments import read_limit, segments

PAGE = 100
"""Operations on a page, at most (reference 3.3)."""

SINCE_EVER_SECONDS = 365 * 86_400.0
"""How far back an open start reaches where nothing else says so: rows from the seed have no beginning."""

ODD_STATE = "THROTTLED"


@dataclass(slots=True)
class Operation:
    """One job.

    Attributes:
        number: In the order of creation.
        id: Its own id.
        export_id: What its results name.
        order: What was asked for; None: an operation of somebody else's.
        span: The rows it holds, half-open, in seconds since 1970; empty where start == end.
        created_at: Seconds since 1970, as all moments here.
        started_at: When it had its slot.
        ends_at: When it ends.
        what: The fault that it was born with, or "".
        type: What kind of job it is.
        polled: How often it was asked for singly.
    """

    number: int
    id: str
    export_id: str
    order: Order | None
    span: tuple[float, float]
    created_at: float
    started_at: float
    ends_at: float
    what: str = ""
    type: str = "SEARCH_EXPORT"
    polled: int = 0

    def state(self, now: float) -> str:
        """As it is shown."""
        if now < self.ends_at or self.what in ("pending", "odd-for-ever"):
            return ODD_STATE if self.what in ("odd-state", "odd-for-ever") else "PENDING"
        return self.what if self.what in ("FAILED", "ERROR") else "COMPLETED"

    def percent(self, now: float) -> int:
        """An estimate, and not a good one: uneven, at times lower than before, and 100 before the end."""
        if self.state(now) == "COMPLETED":
            return 100
        share = (now - self.started_at) / max(self.ends_at - self.started_at, 1e-9)
        wobble = ((self.number * 7919 + int(share * 20) * 104_729) % 31) - 15
        return max(0, min(100, round(100 * min(max(share, 0.0), 1.0) ** 0.7) + wobble)) if share > 0 else 0


class Service:
    """Everything behind the API.

    Args:
        behaviour: How it behaves; may be exchanged at any time.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.operations: list[Operation] = []
        self._by_id: dict[str, Operation] = {}
        self._by_export: dict[str, Operation] = {}
        self._shuffled: list[tuple[bytes, int]] = []
        self._idempotent: dict[str, Operation] = {}
        self.made = 0
        self._running: list[Operation] = []
        self._durations = random.Random(behaviour.seed)
        self._slots: list[float] = []
        # Ids differ between two processes, so that an old one is unknown and never somebody else's.
        self._salt = secrets.token_bytes(16)
        self._old_ones_made = False

    @property
    def running(self) -> int:
        """How many operations made by creates were running when the last one was made, itself among them."""
        return len(self._running)

    def create(self, order: Order, *, now: float, fate: str = "", idempotency_key: str = "") -> Answer:
        """Start an export; `fate` is the fault that its operation is born with.

        Raises:
            Refusal: not this one.
        """
        self._make_old_ones(now)
        self._check(order, now)
        known = self._known(order, now, idempotency_key)
        return reply({"operationId": (known or self._begin(order, now, fate, idempotency_key)).id})

    def poll(self, operation_id: str, *, now: float) -> Answer:
        """How one operation stands.

        Raises:
            Refusal: it is unknown, or no longer kept.
        """
        self._make_old_ones(now)
        one = self.find(operation_id)
        if one is None or now >= one.created_at + self.behaviour.shortened(self.behaviour.operation_life_seconds):
            raise Refusal(self.behaviour.gone, "resource_not_found", "no such operation")
        one.polled += 1
        if (one.what == "unknown-first" and one.polled == 1) or (one.what == "forgotten" and one.polled > 1):
            raise Refusal(self.behaviour.gone, "resource_not_found", "no such operation")
        return reply(self._shown(one, now, with_id=True))

    def list(self, query: Mapping[str, str], *, now: float) -> Answer:
        """A page of operations.

        Raises:
            Refusal: the query cannot be read.
        """
        self._make_old_ones(now)
        limit = read_limit(query, default=PAGE, most=PAGE)
        wanted = {name: query.get(name, "") for name in ("type", "state")}
        start, skip = self._read_token(query.get("paginationToken", ""))
        found = (
            (place, one)
            for place, one in self._in_order(start)
            if (not wanted["type"] or one.type == wanted["type"])
            and (not wanted["state"] or one.state(now) == wanted["state"])
            and now < one.created_at + self.behaviour.shortened(self.behaviour.operation_life_seconds)
        )
        page = list(islice(found, skip, skip + limit + 1))
        shown = [self._shown(one, now, with_id=self.behaviour.list_ids) for _, one in page[:limit]]
        data: dict[str, Any] = {"operations": shown}
        if len(page) > limit:
            data["nextPaginationToken"] = f"n{skip + limit}" if self.behaviour.list_moves else f"p{page[limit][0]}"
        return reply(data)

    def exported(self, export_id: str, *, now: float) -> Operation:
        """The operation whose export is asked for.

        Raises:
            Refusal: it is unknown, not ready, or has expired.
        """
        one = self._by_export.get(export_id)
        if one is None or one.order is None or one.what in ("export-gone", "no-export-id"):
            raise Refusal(self.behaviour.gone, "resource_not_found", "no such export")
        if one.state(now) != "COMPLETED":
            raise Refusal(self.behaviour.not_ready, "resource_not_found", "the export is not ready")
        if now >= self.expires_at(one):
            raise Refusal(self.behaviour.gone, "resource_not_found", "the export has expired")
        return one

    def find(self, operation_id: str) -> Operation | None:
        """An operation by its id."""
        return self._by_id.get(operation_id)

    def find_export(self, export_id: str) -> Operation | None:
        """An operation by the id of its export, whatever its state."""
        return self._by_export.get(export_id)

    def expires_at(self, one: Operation) -> float:
        """When its export is no longer kept."""
        return one.created_at + self.behaviour.shortened(self.behaviour.export_life_seconds)

    def span(self, order: Order, now: float) -> tuple[float, float]:
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

    def _bounds(self, order: Order, now: float) -> tuple[float, float]:
        kept = self.behaviour.retention_seconds
        ever = now - (SINCE_EVER_SECONDS if kept is None else kept)
        return (ever if order.span.start is None else order.span.start), (
            now if order.span.end is None else order.span.end
        )

    def _check(self, order: Order, now: float) -> None:
        behaviour = self.behaviour
        start, end = self._bounds(order, now)
        if behaviour.longest_range_seconds is not None and end - start > behaviour.longest_range_seconds:
            raise Refusal(400, "bad_request", "timeRange is too wide")
        if order.segment not in segments(behaviour.segments):
            raise Refusal(behaviour.unknown_segment, "bad_request", "no such segment")
        if behaviour.unknown_field == "refused":
            known = EVENT_FIELDS if order.type is Type.EVENT else INDIVIDUAL_FIELDS
            for name in order.fields:
                if name not in known and name not in WILDCARDS and not name.startswith(("user_", "evt_", "page_")):
                    raise Refusal(400, "bad_request", f"there is no field {name}")

    def _known(self, order: Order, now: float, idempotency_key: str) -> Operation | None:
        """The operation that answers a create that is none of its own."""
        behaviour = self.behaviour
        if behaviour.honour_idempotency_key and idempotency_key in self._idempotent:
            return self._idempotent[idempotency_key]
        self._running = [one for one in self._running if now < one.ends_at]
        if behaviour.merge_equal:
            twin = next((one for one in self._running if one.order == order), None)
            if twin is not None:
                return twin
        if behaviour.most_running is not None and len(self._running) >= behaviour.most_running:
            raise Refusal(429, "too_many_requests", "too many exports are running")
        return None

    def _begin(self, order: Order, now: float, fate: str, idempotency_key: str) -> Operation:
        made = self._make(order, self.span(order, now), now, fate)
        self.made += 1
        self._running.append(made)
        if idempotency_key:
            self._idempotent[idempotency_key] = made
        for _ in range(self.behaviour.foreign_per_operation):
            self._make_foreign(now)
        return made

    def _make(self, order: Order | None, span: tuple[float, float], now: float, what: str) -> Operation:
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
        order: Order | None,
        span: tuple[float, float],
        created_at: float,
        started_at: float,
        ends_at: float,
        *,
        what: str,
    ) -> Operation:
        number = len(self.operations)
        digest = hashlib.sha512(self._salt + number.to_bytes(8, "big")).digest()
        export_id = base64.urlsafe_b64encode(digest[:32]).rstrip(b"=").decode()
        one = Operation(
            number, self._id(digest[32:48]), export_id, order, span, created_at, started_at, ends_at, what=what
        )
        self.operations.append(one)
        self._by_id[one.id] = self._by_export[one.export_id] = one
        bisect.insort(self._shuffled, (digest, number))
        return one

    def _id(self, digest: bytes) -> str:
        return digest.hex() if self.behaviour.ids == "plain" else base64.b64encode(digest).decode()

    def _shown(self, one: Operation, now: float, *, with_id: bool) -> dict[str, Any]:
        state = one.state(now)
        is_over = state in ("COMPLETED", "FAILED", "ERROR")
        results = None
        if state == "COMPLETED":
            results = {"expires": stamp(self.expires_at(one), digits=3), "searchExportId": one.export_id}
            if one.what == "no-export-id":
                del results["searchExportId"]
        finished_at = stamp(one.ends_at, digits=6) if is_over else None
        if not is_over and self.behaviour.finished_at_early and one.number % 4 == 3:
            finished_at = stamp(now, digits=6)
        shown = {
            "id": one.id,
            "type": one.type,
            "details": None,
            "results": results,
            "state": state,
            "errorDetails": "the search could not be carried out" if state in ("FAILED", "ERROR") else "",
            "createdAt": stamp(one.created_at, digits=6),
            "finishedAt": finished_at,
            "estimatePctComplete": one.percent(now),
            "step": "",
        }
        if not with_id:
            del shown["id"]
        if one.number % 5 == 4:
            del shown["step"]
        return shown

    def _in_order(self, start: str) -> Iterator[tuple[str, Operation]]:
        """The operations as they are listed, from a place on; a place stays the same when others are made."""
        reaches = self.behaviour.list_reaches
        oldest = 0 if reaches is None else max(0, len(self.operations) - reaches)
        if self.behaviour.list_order == "shuffled":
            first = bisect.bisect_left(self._shuffled, (bytes.fromhex(start), -1)) if start else 0
            for digest, number in islice(self._shuffled, first, None):
                if number >= oldest:
                    yield digest.hex(), self.operations[number]
        elif self.behaviour.list_order == "oldest":
            for number in range(max(oldest, int(start or 0)), len(self.operations)):
                yield str(number), self.operations[number]
        else:
            for number in range(int(start) if start else len(self.operations) - 1, oldest - 1, -1):
                yield str(number), self.operations[number]

    def _read_token(self, token: str) -> tuple[str, int]:
        """The place where a page begins, or how many items from the top."""
        try:
            if token.startswith("n"):
                return "", int(token[1:])
            if token.startswith("p"):
                place = token[1:]
                bytes.fromhex(place) if self.behaviour.list_order == "shuffled" else int(place)
                return place, 0
        except ValueError:
            pass
        if token:
            raise Refusal(400, "bad_request", "no such paginationToken")
        return "", 0
