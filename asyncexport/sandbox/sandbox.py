"""The sandbox as an object for tests: its behaviour, its clock, its counters, and the expected rows."""

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
"""The only key that the sandbox accepts."""

ENDPOINTS = (*API, "download", "other")

CALLS_KEPT = 100_000
"""The maximum number of calls in `Sandbox.calls`."""


@dataclass(slots=True)
class SandboxCall:
    """A request: its time of arrival (seconds since 1970), its endpoint, and the status sent (0 if none)."""

    at: float
    endpoint: str
    status: int = 0


@dataclass(frozen=True, slots=True)
class SandboxOperationView:
    """The present state of an operation made by a create; times are seconds since 1970."""

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
        """The range of its rows, half-open."""
        return self.start, self.end


class Sandbox:
    """The local stand-in for the service; `serving` starts it.

    Attributes:
        url: The `[api] base_url`.
        key: The API key that it accepts.
        behaviour: Its behaviour; `behave` changes it.
        service, limit, faults: Its parts.
        counts: The number of requests, by endpoint.
        peaks: The maximum number of requests in flight, by endpoint, and under `running` that of operations.
        calls: The latest requests.
        refused: The number of 429s that the API sent, because of its limit or a fault.
        leaked_credentials: The number of downloads with an Authorization header, which the storage host must not get.
        redirected: The number of requests that followed a redirect to another host.
        redirected_with_key: The number of these with an Authorization header.
    """

    def __init__(self, behaviour: SandboxBehaviour, *, clock: Callable[[], float] = time.time) -> None:
        self.url = ""
        self.key = KEY
        self.behaviour = behaviour
        self.service = SandboxService(behaviour)
        self.limit = SandboxRateLimit()
        self.faults = SandboxFaultPlan()
        self.faults.set_faults(behaviour.faults)
        self.unreachable: Callable[[], AbstractAsyncContextManager[None]]
        self._clock = clock
        self._skipped_seconds = 0.0
        self._awaited: asyncio.Future[None] | None = None
        self._under_way = dict.fromkeys(ENDPOINTS, 0)
        self.reset_counts()

    @property
    def now(self) -> float:
        """The time by its clock, in seconds since 1970."""
        return self._clock() + self.behaviour.clock_ahead_seconds + self._skipped_seconds

    @property
    def operations(self) -> list[SandboxOperationView]:
        """The operations made by creates, the oldest first."""
        now = self.now
        return [_view(one, one.request, now) for one in self.service.operations if one.request is not None]

    def behave(self, behaviour: SandboxBehaviour) -> None:
        """Change the behaviour. Faults that remain keep their counts, and existing operations keep their durations."""
        self.behaviour = self.service.behaviour = behaviour
        self.faults.set_faults(behaviour.faults)

    def skip(self, seconds: float) -> None:
        """Advance its clock, for operations, buckets and expiry times."""
        self._skipped_seconds += seconds

    def events(self, start: float, end: float) -> list[Row]:
        """Return every event row with start <= EventStart < end, including late ones: what an export must contain."""
        return list(source(self.behaviour).between(start, end))

    def individuals(self, start: float, end: float) -> list[Row]:
        """Return a row for each individual with an event in [start, end), with totals as of now."""
        return list(individuals(source(self.behaviour), start, end, as_of=self.now))

    def reset(self) -> None:
        """Forget all operations with their exports and signed URLs, and count from zero. The behaviour stays."""
        self.service = SandboxService(self.behaviour)
        self.reset_counts()

    def reset_counts(self) -> None:
        """Count from zero; the operations stay."""
        self.counts = dict.fromkeys(ENDPOINTS, 0)
        self.peaks = dict.fromkeys((*ENDPOINTS, "running"), 0)
        self.calls: deque[SandboxCall] = deque(maxlen=CALLS_KEPT)
        self.refused = self.leaked_credentials = self.redirected = self.redirected_with_key = 0

    def arrived(self, endpoint: str) -> SandboxCall:
        """Count a request, which is in flight until `left` is called."""
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
        """Wait until at least `count` requests have arrived at an endpoint since the counters were last reset."""
        while self.counts[endpoint] < count:
            self._awaited = self._awaited or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._awaited)

    def left(self, call: SandboxCall) -> None:
        """Note that a request is no longer in flight."""
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
