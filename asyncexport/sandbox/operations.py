"""One operation: its request, and what the API shows of it over time."""

from dataclasses import dataclass
from typing import Any

from asyncexport.sandbox.answers import stamp
from asyncexport.sandbox.reading import SandboxExportRequest

ODD_STATE = "THROTTLED"


@dataclass(slots=True)
class SandboxOperation:
    """One operation.

    Attributes:
        number: Its position in the order of creation.
        id: The operation id.
        export_id: The id of its export, as its results report it.
        request: The request of the create; None for an operation of another client.
        span: The range of its rows, half-open, in seconds since 1970; empty if start == end.
        created_at: The time of the create, in seconds since 1970 like all times here.
        started_at: When it got a slot.
        ends_at: When it ends.
        what: Its fault, or "".
        type: The type of operation.
        polled: How often it was polled by its id.
        most_rows: The maximum number of rows in its export; None means all.
        shown_complete: Whether a client has seen it as COMPLETED before.
    """

    number: int
    id: str
    export_id: str
    request: SandboxExportRequest | None
    span: tuple[float, float]
    created_at: float
    started_at: float
    ends_at: float
    what: str = ""
    type: str = "SEARCH_EXPORT"
    polled: int = 0
    most_rows: int | None = None
    shown_complete: bool = False

    def state(self, now: float) -> str:
        """Return the state that the API shows."""
        if now < self.ends_at or self.what in ("pending", "odd-for-ever"):
            return ODD_STATE if self.what in ("odd-state", "odd-for-ever") else "PENDING"
        return self.what if self.what in ("FAILED", "ERROR") else "COMPLETED"

    def percent(self, now: float) -> int:
        """Return a rough estimate: uneven, sometimes lower than before, and sometimes 100 before the end."""
        if self.state(now) == "COMPLETED":
            return 100
        share = (now - self.started_at) / max(self.ends_at - self.started_at, 1e-9)
        wobble = ((self.number * 7919 + int(share * 20) * 104_729) % 31) - 15
        return max(0, min(100, round(100 * min(max(share, 0.0), 1.0) ** 0.7) + wobble)) if share > 0 else 0

    def shown(self, now: float, *, expires_at: float, finished_at_early: bool) -> dict[str, Any]:
        """Return the JSON object that the API shows. It has no details, so its range cannot be read back."""
        state = self.state(now)
        is_over = state in ("COMPLETED", "FAILED", "ERROR")
        shown = {
            "id": self.id,
            "type": self.type,
            "details": None,
            "results": self._results(expires_at) if state == "COMPLETED" else None,
            "state": state,
            "errorDetails": "the search could not be carried out" if state in ("FAILED", "ERROR") else "",
            "createdAt": stamp(self.created_at, digits=6),
            "finishedAt": stamp(self.ends_at, digits=6) if is_over else None,
            "estimatePctComplete": self.percent(now),
            "step": "",
        }
        if not is_over and finished_at_early and self.number % 4 == 3:
            shown["finishedAt"] = stamp(now, digits=6)
        if self.number % 5 == 4:
            del shown["step"]
        return shown

    def _results(self, expires_at: float) -> dict[str, str] | None:
        if self.type != "SEARCH_EXPORT":
            return None
        expires = {"expires": stamp(expires_at, digits=3)}
        is_named = self.what != "no-export-id" and (self.what != "late-export-id" or self.shown_complete)
        self.shown_complete = True
        return {**expires, "searchExportId": self.export_id} if is_named else expires
