"""The logic of the API for exports and operations. It never waits, and the time is an argument.

1. An export contains what had reached the service when its operation was made. The same range exported later may
   contain more.
2. Operation, export and signed URL expire independently of each other (see `storage`).
3. If a create has no `segmentTimeRange`, the segment covers only the last days, and older rows are missing without
   any notice.
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
"""The createdAt of operations for the values of the switch `created_at` other than `right`."""

SINCE_EVER_SECONDS = 365 * 86_400.0
"""How far back an open start reaches without a retention limit: synthetic rows have no beginning."""


class SandboxService:
    """The service behind the API.

    Args:
        behaviour: Its behaviour, which may be replaced at any time.

    Attributes:
        operations: All operations.
    """

    def __init__(self, behaviour: SandboxBehaviour) -> None:
        self.behaviour = behaviour
        self.operations = SandboxOperationStore(behaviour.seed)

    def create(
        self, request: SandboxExportRequest, *, now: float, fault: SandboxFault | None = None, idempotency_key: str = ""
    ) -> SandboxAnswer:
        """Start an export; `fault` is the fault of its operation.

        Raises:
            SandboxRefusal: The request is refused.
        """
        self.operations.make_old_ones(self.behaviour, now)
        self._check(request, now)
        one = self.operations.create(
            request,
            self.span(request, now),
            self.behaviour,
            now=now,
            fault=fault,
            idempotency_key=idempotency_key,
        )
        return reply({"operationId": self._shown_id(one.id)})

    def created_last(self) -> SandboxAnswer | None:
        """Return the answer to the last create that made an operation again, or None if there was none."""
        made = self.operations.made_last
        return reply({"operationId": self._shown_id(made.id)}) if made else None

    def poll(self, operation_id: str, *, now: float) -> SandboxAnswer:
        """Return the state of an operation.

        Raises:
            SandboxRefusal: The operation is unknown or has expired.
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
        """Return a page of operations.

        Raises:
            SandboxRefusal: The query is invalid.
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
        """Return the operation with this export.

        Raises:
            SandboxRefusal: The export is unknown, not ready, or expired.
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
        """Return the refusal of an unknown id; `known` is the operation with the id decoded once more, if any."""
        encoded_twice = known is not None and "%" in identifier
        reason = "; it is percent-encoded twice" if encoded_twice else ""
        said = f"no {kind} has the id {printable(identifier)}{reason}"
        return SandboxRefusal(self.behaviour.gone, "resource_not_found", said)

    def expires_at(self, one: SandboxOperation) -> float:
        """Return when the export of an operation expires."""
        return one.created_at + self.behaviour.shortened(self.behaviour.export_life_seconds)

    def span(self, request: SandboxExportRequest, now: float) -> tuple[float, float]:
        """Return the range of rows that a request gets: its range, limited by the segment's and by the retention."""
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
            raise SandboxRefusal(behaviour.unknown_segment, "bad_request", "the segment does not exist")
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
