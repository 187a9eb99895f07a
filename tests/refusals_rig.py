"""Whole runs in memory, on a clock that jumps, against a service that refuses.

The engine is the real one, with its gate. Only the service, the storage host and the ledger are in memory. Every
request that the gate lets pass is noted with the moment it was granted, and so is the moment each refusal was read.
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
from asyncexport.simulate.run import EXPORT, Scenario, Wiring
from asyncexport.simulate.service import MemoryDownload, MemoryService, SimulatedBehaviour
from tests.virtual_time import leaving_nothing

LIMIT_SECONDS = 40 * 86_400.0
"""Of virtual time: a run that takes longer waits for ever."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a refusal may depend on it.

    Attributes:
        number: How many requests of this kind were sent before it, for all exports.
        at: When it was sent, in seconds from the start.
        segment: Of the export that a create is for; "" elsewhere.
        span: The range that a create is for.
        export_id: Of the export that a link is asked for; "" elsewhere.
    """

    number: int
    at: float
    segment: str = ""
    span: Range | None = None
    export_id: str = ""


Refuses = Callable[[Asked], ExportError | None]


def denied(*, from_service: bool = False) -> RefusedError:
    """A 403, of the service or of a box before it."""
    return RefusedError("no (403)", status=403, from_service=from_service)


@dataclass
class RefusingService(MemoryService):
    """Refuses what it is told to refuse.

    Attributes:
        refuses: What comes of a call, in place of its answer.
        key_fails: What comes of `/me`.
        fails: Whether the operation of that number ends as FAILED.
    """

    refuses: dict[Call, Refuses] = field(default_factory=dict)
    key_fails: Callable[[float], ExportError | None] = lambda _: None
    fails: Callable[[int], bool] = lambda _: False
    sent: list[tuple[float, Kind]] = field(default_factory=list)
    read: list[tuple[float, Call, ExportError]] = field(default_factory=list)
    counts: dict[Call, int] = field(default_factory=lambda: dict.fromkeys(Call, 0))

    def start(self, behaviour: SimulatedBehaviour) -> None:
        """Begin, on the loop of the run."""
        super().__init__(behaviour, clock=asyncio.get_running_loop().time)

    async def create(self, definition: Definition, span: Range, *, permit: RequestPermit) -> str:
        """Start an operation, or refuse."""
        await self._refuse(Call.CREATE, permit, segment=definition.segment, span=span)
        return await super().create(definition, span, permit=permit)

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """One operation."""
        async with self.gate.permit(Kind.POLL, priority) as permit:
            await self._refuse(Call.POLL, permit)
        return self._failed(await super().operation(operation_id, priority=priority))

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """One page of the list."""
        if Call.LIST in self.refuses:
            async with self.gate.permit(Kind.LIST, priority) as permit:
                await self._refuse(Call.LIST, permit)
        page = await super().operations(state=state, token=token, priority=priority)
        return replace(page, operations=tuple(map(self._failed, page.operations)))

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """A link."""
        if Call.RESULTS in self.refuses:
            async with self.gate.permit(Kind.RESULTS, priority) as permit:
                await self._refuse(Call.RESULTS, permit, export_id=export_id)
        return await super().locate(export_id, priority=priority)

    async def me(self, *, priority: Priority) -> Me:
        """Whose key it is."""
        async with self.gate.permit(Kind.OTHER, priority) as permit:
            await permit.recorded()
            self.sent.append((self._clock(), Kind.OTHER))
            if error := self.key_fails(self._clock()):
                permit.answered(_status(error))
                raise error
            permit.answered(200)
        return Me("owner@example.com", "ORG", "ADMIN")

    def ended_before(self, number: int, moment: float) -> bool:
        """Whether the operation of that number was done before this moment."""
        return self.finished_at(str(number)) < moment

    def granted_after_first_refusal(self) -> int:
        """How many requests were sent after the first refusal had been read."""
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
        if one.finished_at is None or not self.fails(int(one.id or 0)):
            return one
        return replace(one, progress=Ended("the sandbox was told to"))


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
    """A storage host that denies what it is told to deny."""

    refuses: Refuses
    take_seconds: float = 2.0
    asked: int = 0

    @asynccontextmanager
    async def open(
        self,
        location: DownloadLink,  # noqa: ARG002 - as a storage host is asked
        *,
        offset: int = 0,  # noqa: ARG002
        etag: str = "",  # noqa: ARG002
    ) -> AsyncIterator[MemoryDownload]:
        """Begin a download."""
        error = self.refuses(Asked(self.asked, asyncio.get_running_loop().time()))
        self.asked += 1
        if error:
            raise error
        yield MemoryDownload(lambda: self.take_seconds)


@dataclass
class Played:
    """What came of a run.

    Attributes:
        stored: How many bundles of each export.
        states: What the ledger has of each bundle at the end.
        error: What ended the run; None: it came to its own end.
        seconds: How long it took.
        stopped: Exports that were stopped.
        attempts: The highest attempt on record.
    """

    service: RefusingService
    stored: dict[str, int] = field(default_factory=dict)
    states: dict[Bundle, State] = field(default_factory=dict)
    error: ExportError | None = None
    seconds: float = 0.0
    stopped: dict[str, ExportError] = field(default_factory=dict)
    attempts: int = 0


class PlayedWiring(Wiring):
    """Notes what exports are stopped, and which attempts are made."""

    played: Played

    def _tell(self, event: Event) -> None:
        super()._tell(event)
        if isinstance(event, ExportStopped):
            self.played.stopped[event.export] = event.error


def play(
    scenario: Scenario,
    service: RefusingService,
    *,
    exports: tuple[Export, ...] = (EXPORT,),
    storage: Refuses | None = None,
    key_has_worked: bool = True,
) -> Played:
    """One run, from an empty ledger."""
    played = Played(service)

    async def carry_out() -> None:
        service.start(scenario.behaviour)
        wiring = PlayedWiring(
            scenario, service=service, exports=exports, key_has_worked=key_has_worked, storage=_storage(storage)
        )
        wiring.played = played
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await wiring.run()
        except ExportError as error:
            played.error = error
        played.seconds = asyncio.get_running_loop().time()
        for bundle in wiring.recorder.stored_at:
            played.stored[bundle.export] = played.stored.get(bundle.export, 0) + 1
        played.states = {bundle: record.state for bundle, record in wiring.ledger.latest.items()}
        played.attempts = wiring.ledger.highest_attempt

    clock.run(leaving_nothing(carry_out()))
    return played


def _storage(refuses: Refuses | None) -> RefusingStorage | None:
    return None if refuses is None else RefusingStorage(refuses)
