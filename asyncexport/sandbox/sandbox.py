"""The sandbox as tests hold it: its behaviour, its clock, what it saw, and the truth to compare with."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.contents import source
from asyncexport.sandbox.faults import API, SandboxFaultPlan
from asyncexport.sandbox.limit import SandboxRateLimit
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.people import individuals
from asyncexport.sandbox.reading import SandboxExportRequest
from asyncexport.sandbox.rows import Row
from asyncexport.sandbox.service import SandboxService

KEY = "na1.sandbox/KEY+for=tests"
"""The one key it takes; it opens nothing else."""

ENDPOINTS = (*API, "download", "other")

CALLS_KEPT = 100_000
"""How many calls are remembered one by one."""


@dataclass(slots=True)
class SandboxCall:
    """One request that arrived: when (seconds since 1970), for what, and the status it got (0: none)."""

    at: float
    endpoint: str
    status: int = 0


@dataclass(frozen=True, slots=True)
class SandboxOperationView:
    """An operation that was made by a create, as it is now; moments in seconds since 1970."""

    id: str
    export_id: str
    start: float
    end: float
    created_at: float
    ends_at: float
    state: str
    type: str
    format: str
    segment: str
    fields: tuple[str, ...]
    scope: str
    polled: int

    @property
    def range(self) -> tuple[float, float]:
        """The rows it holds, half-open."""
        return self.start, self.end


class Sandbox:
    """The stand-in service; `serving` starts it and says where it is.

    Attributes:
        url: The `[api] base_url`.
        key: The API key it takes.
        behaviour: How it behaves; to be changed by `behave`.
        service, limit, faults: Its parts.
        counts: Requests that arrived, by endpoint.
        peaks: The most requests under way at once, by endpoint; and `running`, the most operations.
        calls: The last requests, one by one.
        refused: 429s that the API sent, by its limit or by a fault.
        leaked_credentials: Downloads that came with an Authorization header, which is nobody's business there.
        redirected: Requests that followed a redirect to another host.
        redirected_with_key: Those of them that brought an Authorization header along.
    """

    def __init__(self, behaviour: SandboxBehaviour, *, clock: Callable[[], float] = time.time) -> None:
        self.url = ""
        self.key = KEY
        self.behaviour = behaviour
        self.service = SandboxService(behaviour)
        self.limit = SandboxRateLimit()
        self.faults = SandboxFaultPlan()
        self.faults.become(behaviour.faults)
        self.unreachable: Callable[[], AbstractAsyncContextManager[None]]
        self._clock = clock
        self._skipped_seconds = 0.0
        self._awaited: asyncio.Future[None] | None = None
        self._under_way = dict.fromkeys(ENDPOINTS, 0)
        self.reset_counts()

    @property
    def now(self) -> float:
        """Its clock, in seconds since 1970."""
        return self._clock() + self.behaviour.clock_ahead_seconds + self._skipped_seconds

    @property
    def operations(self) -> list[SandboxOperationView]:
        """The operations made by creates, the oldest first."""
        now = self.now
        return [_view(one, one.request, now) for one in self.service.operations if one.request is not None]

    def behave(self, behaviour: SandboxBehaviour) -> None:
        """Behave so from now on. Faults that stay go on counting; operations that exist keep how long they take."""
        self.behaviour = self.service.behaviour = behaviour
        self.faults.become(behaviour.faults)

    def skip(self, seconds: float) -> None:
        """Let its clock jump ahead: operations end, buckets fill and things expire that much sooner."""
        self._skipped_seconds += seconds

    def events(self, start: float, end: float) -> list[Row]:
        """Every event row with start <= EventStart < end, late ones too: the truth to compare with."""
        return list(source(self.behaviour).between(start, end))

    def individuals(self, start: float, end: float) -> list[Row]:
        """A row for every individual with an event in [start, end), as of now."""
        return list(individuals(source(self.behaviour), start, end, as_of=self.now))

    def reset(self) -> None:
        """Forget every operation, its export and its links, and count from zero; the behaviour stays."""
        self.service = SandboxService(self.behaviour)
        self.reset_counts()

    def reset_counts(self) -> None:
        """Count from zero; operations stay."""
        self.counts = dict.fromkeys(ENDPOINTS, 0)
        self.peaks = dict.fromkeys((*ENDPOINTS, "running"), 0)
        self.calls: deque[SandboxCall] = deque(maxlen=CALLS_KEPT)
        self.refused = self.leaked_credentials = self.redirected = self.redirected_with_key = 0

    def arrived(self, endpoint: str) -> SandboxCall:
        """Count a request, which is under way until it has `left`."""
        self.counts[endpoint] += 1
        self._under_way[endpoint] += 1
        self.peaks[endpoint] = max(self.peaks[endpoint], self._under_way[endpoint])
        call = SandboxCall(self.now, endpoint)
        self.calls.append(call)
        if self._awaited is not None:
            self._awaited.set_result(None)
            self._awaited = None
        return call

    async def arrival(self, endpoint: str, count: int = 1) -> None:
        """Wait until so many requests have arrived since they were last counted from zero."""
        while self.counts[endpoint] < count:
            self._awaited = self._awaited or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._awaited)

    def left(self, call: SandboxCall) -> None:
        """The request is no longer under way."""
        self._under_way[call.endpoint] -= 1
        self.refused += call.status == 429 and call.endpoint != "download"
        self.peaks["running"] = max(self.peaks["running"], self.service.operations.running)


def _view(one: SandboxOperation, request: SandboxExportRequest, now: float) -> SandboxOperationView:
    return SandboxOperationView(
        id=one.id,
        export_id=one.export_id,
        start=one.span[0],
        end=one.span[1],
        created_at=one.created_at,
        ends_at=one.ends_at,
        state=one.state(now),
        type=request.type.value,
        format=request.format.value,
        segment=request.segment,
        fields=request.fields,
        scope=request.scope,
        polled=one.polled,
    )
