"""Runs against a service that refuses, in memory and on a virtual clock.

The engine and its budget gate are the real ones; only the service, the storage host and the ledger are in memory. The
time of each granted request and of each refusal is recorded.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from asyncexport.client.gate import RequestPermit
from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.events import Event, ExportStopped
from asyncexport.core.exports import Definition, Export
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import DownloadLink, Ended, Me, Operation, OperationsPage
from asyncexport.core.service.retrying import Call
from asyncexport.core.states import State
from asyncexport.errors import ExportError, GoneError, RefusedError, UnauthorizedError
from asyncexport.simulate import clock
from asyncexport.simulate.run import Scenario, Wiring
from asyncexport.simulate.service import MemoryDownload, MemoryService, SimulatedBehaviour
from asyncexport.simulate.work import EXPORT
from tests.virtual_time import leaving_nothing

LIMIT_SECONDS = 40 * 86_400.0
"""Limit in virtual time: a run that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with what a refusal may depend on.

    Attributes:
        number: The number of requests of this kind before it, for all exports.
        at: When it was sent, in seconds since the start.
        segment: The segment of a create; "" for other calls.
        span: The range of a create.
        export_id: The export id of a results call; "" for other calls.
    """

    number: int
    at: float
    segment: str = ""
    span: Range | None = None
    export_id: str = ""


Refuses = Callable[[Asked], ExportError | None]


def denied(*, from_service: bool = False) -> RefusedError:
    """Return a 403 from the service or from a proxy."""
    return RefusedError("no (403)", status=403, from_service=from_service)


@dataclass
class RefusingService(MemoryService):
    """A service that refuses some calls.

    Attributes:
        refuses: For each call, a function that returns the error for a request, or None if it succeeds.
        key_fails: A function that returns the error for a request to `/me` at a time, or None.
        fails: A function that says whether the operation with a number ends as FAILED.
        poison: Times that no operation can contain: it ends as FAILED.
        spans: The range of each operation, by its number.
        sent: The time and kind of each request.
        read: The time, call and error of each refusal.
    """

    refuses: dict[Call, Refuses] = field(default_factory=dict)
    key_fails: Callable[[float], ExportError | None] = lambda _: None
    fails: Callable[[int], bool] = lambda _: False
    poison: tuple[Range, ...] = ()
    spans: list[Range] = field(default_factory=list)
    sent: list[tuple[float, Kind]] = field(default_factory=list)
    read: list[tuple[float, Call, ExportError]] = field(default_factory=list)
    counts: dict[Call, int] = field(default_factory=lambda: dict.fromkeys(Call, 0))

    def start(self, behaviour: SimulatedBehaviour) -> None:
        """Start on the event loop of the run."""
        super().__init__(behaviour, clock=asyncio.get_running_loop().time)

    async def create(self, definition: Definition, span: Range, *, permit: RequestPermit) -> str:
        """Start an operation or refuse."""
        await self._refuse(Call.CREATE, permit, segment=definition.segment, span=span)
        number = await super().create(definition, span, permit=permit)
        self.spans.append(span)
        return number

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """Return an operation or refuse."""
        async with self.gate.permit(Kind.POLL, priority) as permit:
            await self._refuse(Call.POLL, permit)
        return self._failed(await super().operation(operation_id, priority=priority))

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """Return a page of the list or refuse."""
        if Call.LIST in self.refuses:
            async with self.gate.permit(Kind.LIST, priority) as permit:
                await self._refuse(Call.LIST, permit)
        page = await super().operations(state=state, token=token, priority=priority)
        return replace(page, operations=tuple(map(self._failed, page.operations)))

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """Return a signed URL or refuse."""
        if Call.RESULTS in self.refuses:
            async with self.gate.permit(Kind.RESULTS, priority) as permit:
                await self._refuse(Call.RESULTS, permit, export_id=export_id)
        return await super().locate(export_id, priority=priority)

    async def me(self, *, priority: Priority) -> Me:
        """Return whose key it is, or fail."""
        async with self.gate.permit(Kind.OTHER, priority) as permit:
            await permit.recorded()
            self.sent.append((self._clock(), Kind.OTHER))
            if error := self.key_fails(self._clock()):
                permit.answered(_status(error))
                raise error
            permit.answered(200)
        return Me("owner@example.com", "ORG", "ADMIN")

    def ended_before(self, number: int, moment: float) -> bool:
        """Whether the operation with this number had finished before this time."""
        return self.finished_at(str(number)) < moment

    def granted_after_first_refusal(self) -> int:
        """Return the number of requests sent after the first refusal had been read."""
        first = min(at for at, _, _ in self.read)
        return sum(at > first for at, _ in self.sent)

    async def _refuse(
        self, call: Call, permit: RequestPermit, *, segment: str = "", span: Range | None = None, export_id: str = ""
    ) -> None:
        if call not in self.refuses:
            return
        asked = Asked(self.counts[call], self._clock(), segment, span, export_id)
        error = self.refuses[call](asked)
        self.counts[call] += 1
        if error is None:
            return
        await permit.recorded()
        self.sent.append((self._clock(), _KINDS[call]))
        await asyncio.sleep(0.2)
        permit.answered(_status(error))
        self.read.append((self._clock(), call, error))
        raise error

    async def _send(self, kind: Kind, permit: RequestPermit) -> None:
        self.sent.append((self._clock(), kind))
        await super()._send(kind, permit)

    def _failed(self, one: Operation) -> Operation:
        number = int(one.id or 0)
        if one.finished_at is None:
            return one
        is_poisoned = any(self.spans[number].overlaps(poison) for poison in self.poison)
        if not is_poisoned and not self.fails(number):
            return one
        return replace(one, progress=Ended("the operation has a fault"))


_KINDS = {Call.CREATE: Kind.CREATE, Call.POLL: Kind.POLL, Call.LIST: Kind.LIST, Call.RESULTS: Kind.RESULTS}


def _status(error: ExportError) -> int:
    match error:
        case UnauthorizedError():
            return 401
        case RefusedError(status=status):
            return status
        case GoneError():
            return 404
        case _:
            return 200


@dataclass
class RefusingStorage:
    """A storage host that refuses some downloads."""

    refuses: Refuses
    take_seconds: float = 2.0
    asked: int = 0

    @asynccontextmanager
    async def open(
        self,
        location: DownloadLink,  # noqa: ARG002 - the arguments of a storage host
        *,
        offset: int = 0,  # noqa: ARG002
        etag: str = "",  # noqa: ARG002
    ) -> AsyncIterator[MemoryDownload]:
        """Begin a download or refuse."""
        error = self.refuses(Asked(self.asked, asyncio.get_running_loop().time()))
        self.asked += 1
        if error:
            raise error
        yield MemoryDownload(lambda: self.take_seconds)


@dataclass
class RunResult:
    """The result of a run.

    Attributes:
        stored: The number of stored bundles of each export.
        states: The last state of each bundle in the ledger.
        error: The error that ended the run, or None.
        seconds: The duration of the run.
        stopped: The errors of exports that were stopped.
        attempts: The highest attempt in the ledger.
    """

    service: RefusingService
    stored: dict[str, int] = field(default_factory=dict)
    states: dict[Bundle, State] = field(default_factory=dict)
    error: ExportError | None = None
    seconds: float = 0.0
    stopped: dict[str, ExportError] = field(default_factory=dict)
    attempts: int = 0


class RecordingWiring(Wiring):
    """Records which exports are stopped."""

    run_result: RunResult

    def _emit(self, event: Event) -> None:
        super()._emit(event)
        if isinstance(event, ExportStopped):
            self.run_result.stopped[event.export] = event.error


def run_scenario(
    scenario: Scenario,
    service: RefusingService,
    *,
    exports: tuple[Export, ...] = (EXPORT,),
    storage: Refuses | None = None,
    key_has_worked: bool = True,
) -> RunResult:
    """Run once, from an empty ledger."""
    result = RunResult(service)

    async def carry_out() -> None:
        service.start(scenario.behaviour)
        wiring = RecordingWiring(
            scenario, service=service, exports=exports, key_has_worked=key_has_worked, storage=_storage(storage)
        )
        wiring.run_result = result
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await wiring.run()
        except ExportError as error:
            result.error = error
        result.seconds = asyncio.get_running_loop().time()
        for bundle in wiring.recorder.stored_at:
            result.stored[bundle.export] = result.stored.get(bundle.export, 0) + 1
        result.states = {bundle: record.state for bundle, record in wiring.ledger.latest.items()}
        result.attempts = wiring.ledger.highest_attempt

    clock.run(leaving_nothing(carry_out()))
    return result


def _storage(refuses: Refuses | None) -> RefusingStorage | None:
    return None if refuses is None else RefusingStorage(refuses)
