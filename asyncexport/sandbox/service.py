"""The service: what it answers to each request about exports and operations. No wait, and the clock comes in.

1. An export holds what had reached the service when its operation was made: the same window exported later may hold
   more.
2. Three ages end apart from each other: the operation's, the export's, and the link's (see `storage`).
3. Where a create leaves `segmentTimeRange` out, the segment covers its last days only, and older rows are missing
   without a word.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from asyncexport.core.exports import Type
from asyncexport.sandbox.answers import SandboxAnswer, reply
from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.formats import EVENT_FIELDS, INDIVIDUAL_FIELDS, WILDCARDS
from asyncexport.sandbox.operation_store import SandboxOperationStore
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.reading import SandboxExportRequest, SandboxRefusal
from asyncexport.sandbox.routes import printable
from asyncexport.sandbox.segments import segments

CREATED_AT = {"year-1": "0001-01-01T00:00:00Z", "year-9999": "9999-12-31T23:59:59Z", "missing": None}
"""What operations say of when they were made, where that is nonsense."""

SINCE_EVER_SECONDS = 365 * 86_400.0
"""How far back an open start reaches where nothing else says so: rows from the seed have no beginning."""


class SandboxService:
    """Everything behind the API.

    Args:
        behaviour: How it behaves; may be exchanged at any time.

    Attributes:
        operations: All that were made.
    """

    def __init__(self, behaviour: SandboxBehaviour) -> None:
        self.behaviour = behaviour
        self.operations = SandboxOperationStore(behaviour.seed)

    def create(
        self, request: SandboxExportRequest, *, now: float, fate: SandboxFault | None = None, idempotency_key: str = ""
    ) -> SandboxAnswer:
        """Start an export; `fate` is the fault that its operation is born with.

        Raises:
            SandboxRefusal: not this one.
        """
        self.operations.make_old_ones(self.behaviour, now)
        self._check(request, now)
        one = self.operations.create(
            request,
            self.span(request, now),
            self.behaviour,
            now=now,
            fate=fate,
            idempotency_key=idempotency_key,
        )
        return reply({"operationId": self._shown_id(one.id)})

    def created_last(self) -> SandboxAnswer | None:
        """The answer to the last create that made an operation, once more; None: there was none."""
        made = self.operations.made_last
        return reply({"operationId": self._shown_id(made.id)}) if made else None

    def poll(self, operation_id: str, *, now: float) -> SandboxAnswer:
        """How one operation stands.

        Raises:
            SandboxRefusal: it is unknown, or no longer kept.
        """
        self.operations.make_old_ones(self.behaviour, now)
        one = self.operations.find(operation_id)
        if one is None:
            raise self._unknown("operation", operation_id, known=self.operations.find(unquote(operation_id)))
        if now >= one.created_at + self.behaviour.shortened(self.behaviour.operation_life_seconds):
            raise SandboxRefusal(self.behaviour.gone, "resource_not_found", "the operation has expired")
        one.polled += 1
        if (one.what == "unknown-first" and one.polled == 1) or (one.what == "forgotten" and one.polled > 1):
            raise self._unknown("operation", operation_id)
        return reply(self._shown(one, now))

    def list(self, query: Mapping[str, str], *, now: float) -> SandboxAnswer:
        """A page of operations.

        Raises:
            SandboxRefusal: the query cannot be read.
        """
        self.operations.make_old_ones(self.behaviour, now)
        kept_since = now - self.behaviour.shortened(self.behaviour.operation_life_seconds)
        page, token = self.operations.listing.page(query, self.behaviour, now=now, kept_since=kept_since)
        data: dict[str, Any] = {"operations": [self._shown(one, now) for one in page]}
        if not self.behaviour.list_ids:
            for shown in data["operations"]:
                del shown["id"]
        return reply({**data, "nextPaginationToken": token} if token else data)

    def exported(self, export_id: str, *, now: float) -> SandboxOperation:
        """The operation whose export is asked for.

        Raises:
            SandboxRefusal: it is unknown, not ready, or has expired.
        """
        one = self.operations.find_export(export_id)
        if one is None or one.request is None or one.what in ("export-gone", "no-export-id"):
            raise self._unknown("export", export_id, known=self.operations.find_export(unquote(export_id)))
        if one.state(now) != "COMPLETED":
            raise SandboxRefusal(self.behaviour.not_ready, "resource_not_found", "the export is not ready")
        if now >= self.expires_at(one):
            raise SandboxRefusal(self.behaviour.gone, "resource_not_found", "the export has expired")
        return one

    def _unknown(self, kind: str, identifier: str, *, known: SandboxOperation | None = None) -> SandboxRefusal:
        """The refusal of an id that is unknown; `known` is what it means once it is decoded again."""
        encoded_twice = known is not None and "%" in identifier
        reason = "; it is percent-encoded twice" if encoded_twice else ""
        said = f"no {kind} has the id {printable(identifier)}{reason}"
        return SandboxRefusal(self.behaviour.gone, "resource_not_found", said)

    def expires_at(self, one: SandboxOperation) -> float:
        """When its export is no longer kept."""
        return one.created_at + self.behaviour.shortened(self.behaviour.export_life_seconds)

    def span(self, request: SandboxExportRequest, now: float) -> tuple[float, float]:
        """The rows that a request is about: its range within the segment's, and within what is kept."""
        behaviour, segment = self.behaviour, request.segment_span
        start, end = self._bounds(request, now)
        if segment is None:
            start, end = max(start, now - behaviour.everyone_seconds), min(end, now)
        else:
            start = start if segment.start is None else max(start, segment.start)
            end = end if segment.end is None else min(end, segment.end)
        if behaviour.retention_seconds is not None:
            start = max(start, now - behaviour.retention_seconds)
        return start, max(start, end)

    def _bounds(self, request: SandboxExportRequest, now: float) -> tuple[float, float]:
        kept = self.behaviour.retention_seconds
        ever = now - (SINCE_EVER_SECONDS if kept is None else kept)
        return (ever if request.span.start is None else request.span.start), (
            now if request.span.end is None else request.span.end
        )

    def _check(self, request: SandboxExportRequest, now: float) -> None:
        behaviour = self.behaviour
        start, end = self._bounds(request, now)
        if behaviour.longest_range_seconds is not None and end - start > behaviour.longest_range_seconds:
            raise SandboxRefusal(400, "bad_request", "timeRange is too wide")
        if request.segment not in segments(behaviour.segments):
            raise SandboxRefusal(behaviour.unknown_segment, "bad_request", "no such segment")
        if behaviour.unknown_field == "refused":
            known = EVENT_FIELDS if request.type is Type.EVENT else INDIVIDUAL_FIELDS
            for name in request.fields:
                if name not in known and name not in WILDCARDS and not name.startswith(("user_", "evt_", "page_")):
                    raise SandboxRefusal(400, "bad_request", f"there is no field {name}")

    def _shown(self, one: SandboxOperation, now: float) -> dict[str, Any]:
        early = self.behaviour.finished_at_early
        shown = one.shown(now, expires_at=self.expires_at(one), finished_at_early=early)
        shown["id"] = self._shown_id(one.id)
        shown["createdAt"] = CREATED_AT.get(self.behaviour.created_at, shown["createdAt"])
        if shown["results"] and "searchExportId" in shown["results"]:
            shown["results"]["searchExportId"] = self._shown_id(one.export_id)
        return shown

    def _shown_id(self, identifier: str) -> str | int:
        return int(identifier) if self.behaviour.ids == "numbers" else identifier
