"""Stand-ins in memory for all that a `BundleRunner` works with. Each follows its script and records the calls."""
# ruff: noqa: ARG002 - they have the arguments of the real ones

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from asyncexport.core.admission import BudgetScope, Prefer, Priority, Quota
from asyncexport.core.archive.expected_rows import RowCheck
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.connectivity import Backoff
from asyncexport.core.events import (
    BundleMoved,
    BundleParked,
    BundleStored,
    Event,
    ExportStopped,
    Note,
    PossibleDuplicate,
    Retried,
)
from asyncexport.core.exports import Definition, Export
from asyncexport.core.polling import FinishedOperation
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import DownloadLink, Me
from asyncexport.core.splitting import AttemptRules
from asyncexport.core.states import Archive, BundleRecord, Creating, Planned, Split, State
from asyncexport.engine.budget import Budget
from asyncexport.engine.bundle_runner import BundleRunner
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.download import ArchiveDownload, ArchiveDownloads
from asyncexport.engine.export_state import ExportState
from asyncexport.engine.key_check import KeyCheck
from asyncexport.engine.permit import Permit
from asyncexport.engine.poller import OperationPoller
from asyncexport.errors import ExportError, UnavailableError
from asyncexport.simulate.service import MemoryLedger

OUTAGE = 6 * 3600.0
EXPORT = Export("everyone")
LOST_ANSWER = UnavailableError("no answer came", unanswered=True)


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


def planned(number: int = 0, export: str = EXPORT.name, state: State | None = None) -> BundleRecord:
    """Return the record of the n-th bundle, planned or in another state."""
    bundle = Bundle(export, Range(number * 1800, (number + 1) * 1800))
    return BundleRecord(bundle) if state is None else BundleRecord(bundle, state=state)


@dataclass
class Ledger:
    """The rows in the order in which they became durable. An append takes `takes` seconds and may fail."""

    rows: list[BundleRecord] = field(default_factory=list)
    fails: Callable[[BundleRecord], Exception | None] = lambda _: None
    takes: float = 0.0

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Append a row."""
        await asyncio.sleep(self.takes)
        if error := self.fails(record):
            raise error
        self.rows.append(record)

    async def split(self, record: BundleRecord, pieces: Sequence[Range], *, at: float) -> tuple[BundleRecord, ...]:
        """Add the rows of a split at the same time."""
        await asyncio.sleep(self.takes)
        found = tuple(BundleRecord(Bundle(record.bundle.export, piece), 0, Planned()) for piece in pieces)
        self.rows += [replace(record, state=Split()), *found]
        return found

    async def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """Return the bundles for which an operation id was written."""
        found = [row.bundle for row in self.rows if getattr(row.state, "operation_id", None) == operation_id]
        return tuple(dict.fromkeys(found))

    async def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """Return the bundles for which an export id was written."""
        found = [row.bundle for row in self.rows if getattr(row.state, "export_id", None) == export_id]
        return tuple(dict.fromkeys(found))

    @property
    def states(self) -> list[State]:
        """The states of all rows."""
        return [row.state for row in self.rows]

    @property
    def bundles(self) -> list[Bundle]:
        """The bundles of all rows, the newest first."""
        return [row.bundle for row in reversed(self.rows)]

    def latest(self, bundle: Bundle) -> State | None:
        """Return the last state of a bundle, which a resuming run would find."""
        return next((row.state for row in reversed(self.rows) if row.bundle == bundle), None)


class Gate(Budget):
    """A budget with plenty of tokens that can be closed. If `fails` is set, `permit` raises it."""

    def __init__(self) -> None:
        super().__init__(
            Quota(6e6, 1_000_000, BudgetScope.CREATE),
            prefer=Prefer.THROUGHPUT,
            backoff=Backoff(1.0, 300.0, OUTAGE),
            journal=MemoryLedger(),
            wall_clock=now,
            jitter=lambda: 0.5,
        )
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.fails: Exception | None = None

    @asynccontextmanager
    async def permit(
        self, kind: Kind, priority: Priority, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[Permit]:
        """Grant a permit once the gate is open."""
        await self.is_open.wait()
        if self.fails:
            raise self.fails
        async with super().permit(kind, priority, is_wanted=is_wanted) as permit:
            yield permit


@dataclass
class Service:
    """Makes operations and signed URLs.

    `creates`, `locates` and `keys` have the results of the next calls; None and all later calls succeed. A create whose
    result is `LOST_ANSWER` still makes its operation. `names` are the ids of the next operations.
    """

    ledger: Ledger
    creates: list[Exception | None] = field(default_factory=list)
    locates: list[Exception | DownloadLink | None] = field(default_factory=list)
    refuses: Callable[[Range], Exception | None] = lambda _: None
    names: list[str] = field(default_factory=list)
    takes: float = 1.0
    keys: list[Exception | None] = field(default_factory=list)
    questions: int = 0
    made: dict[str, Bundle] = field(default_factory=dict)
    posts: int = 0
    links: int = 0

    async def create(self, definition: Definition, span: Range, *, permit: Permit) -> str:
        """Start an operation."""
        await permit.recorded()
        bundle = next(one for one in self.ledger.bundles if one.range == span)
        assert isinstance(self.ledger.latest(bundle), Creating), "Creating is in the ledger before the request is sent"
        self.posts += 1
        error = (self.creates.pop(0) if self.creates else None) or self.refuses(span)
        operation_id = self.names.pop(0) if self.names else f"op{len(self.made) + 1}"
        if error is None or error is LOST_ANSWER:
            self.made[operation_id] = bundle
        await asyncio.sleep(self.takes)
        if error:
            raise error
        return operation_id

    async def me(self, *, priority: Priority) -> Me:
        """Return whose key it is."""
        await asyncio.sleep(self.takes)
        self.questions += 1
        if error := self.keys.pop(0) if self.keys else None:
            raise error
        return Me("owner@example.com", "ORG", "ADMIN")

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """Return a signed URL."""
        await asyncio.sleep(self.takes)
        self.links += 1
        answer = self.locates.pop(0) if self.locates else None
        if isinstance(answer, Exception):
            raise answer
        return answer or DownloadLink(f"https://storage.invalid/{export_id}?link={self.links}", now() + 300)


@dataclass
class Watch(OperationPoller):
    """Reports the results of operations: all complete after a minute, except those in `outcomes`."""

    outcomes: dict[str, FinishedOperation | Exception | None] = field(default_factory=dict)
    asked: list[FinishedOperation | Exception | None] = field(default_factory=list)
    takes: float = 60.0
    questions: int = 0

    async def wait(self, operation_id: str, *, asked_at: float, is_urgent: bool = False) -> FinishedOperation | None:
        """Wait for an operation."""
        await asyncio.sleep(self.takes)
        return self._said(self.outcomes.get(operation_id, FinishedOperation(f"x-{operation_id}", asked_at)))

    async def ask(self, operation_id: str) -> FinishedOperation | None:
        """Poll an operation once."""
        await asyncio.sleep(0)
        self.questions += 1
        return self._said(self.asked.pop(0) if len(self.asked) > 1 else self.asked[0])

    def _said(self, outcome: FinishedOperation | Exception | None) -> FinishedOperation | None:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@dataclass
class Download(ArchiveDownload):
    """A download of one archive."""

    owner: "Downloads"
    bundle: Bundle
    so_far: int = 0
    row_check: RowCheck | None = None

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: there is no part file."""

    @property
    def received(self) -> int:
        """The number of bytes received."""
        return self.so_far

    async def fetch(self, location: DownloadLink, *, on_end: Callable[[], Awaitable[None]] | None = None) -> Archive:
        """Download the archive, or fail as the script says."""
        owner = self.owner
        owner.used.append(location.url)
        owner.at_once += 1
        owner.peak = max(owner.peak, owner.at_once)
        try:
            await asyncio.sleep(owner.takes)
        finally:
            owner.at_once -= 1
        if on_end:
            await on_end()
        outcome = (owner.fetches.pop(0) if owner.fetches else None) or owner.fails(self.bundle)
        if isinstance(outcome, tuple):
            self.so_far, outcome = outcome
        if outcome:
            raise outcome
        return Archive(f"{self.bundle.range.start}.gz", 10, 1, "sha")


@dataclass
class Downloads(ArchiveDownloads):
    """Downloads archives. `fetches` has the results of the next attempts: an error, or received bytes and an error."""

    fetches: list[Exception | tuple[int, Exception] | None] = field(default_factory=list)
    fails: Callable[[Bundle], Exception | None] = lambda _: None
    takes: float = 2.0
    used: list[str] = field(default_factory=list)
    floors: list[int | None] = field(default_factory=list)
    at_once: int = 0
    peak: int = 0

    def begin(
        self,
        bundle: Bundle,
        definition: Definition,
        *,
        least_rows: int | None = 0,
        new_check: Callable[[], RowCheck] | None = None,
    ) -> Download:
        """Begin a download."""
        self.floors.append(least_rows)
        return Download(self, bundle, row_check=new_check() if new_check else None)


@dataclass
class Listener:
    """Records events."""

    ledger: Ledger
    states: list[State] = field(default_factory=list)
    moves: list[tuple[State, State]] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    shared: int = 0
    duplicates: int = 0
    refusals: dict[str, ExportError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        """Record an event."""
        match event:
            case BundleStored(archive=archive):
                self.states.append(archive)
            case BundleParked(state=state):
                self.states.append(state)
            case BundleMoved(before=before, after=after):
                self.states.append(after.state)
                self.moves.append((before.state, after.state))
            case Retried(reason=reason, concerns_all=concerns_all):
                self.retries.append(reason)
                self.shared += concerns_all
            case PossibleDuplicate():
                self.duplicates += 1
            case ExportStopped(export=export, error=error):
                self.refusals[export] = error
            case Note(message=message):
                self.notes.append(message)


def _state(export: Export, *, accepted: bool) -> ExportState:
    """Return the state of an export; if `accepted`, the service has accepted one of its creates in this run."""
    state = ExportState(export, accepted=accepted)
    if accepted:
        state.creates.accepted(Bundle(export.name, Range(-1800, 0)))
    return state


class Scene:
    """A runner and its stand-ins; `accepted` says whether the service has accepted a create in this run."""

    def __init__(
        self,
        *,
        attempts: int = 5,
        before_split: int = 100,
        slots: int = 4,
        accepted: bool = True,
        jitter: float = 0.5,
        also: Sequence[Export] = (),
    ) -> None:
        self.ledger = Ledger()
        self.gate = Gate()
        self.service = Service(self.ledger)
        self.watch = Watch()
        self.downloads = Downloads()
        self.listener = Listener(self.ledger)
        self.stream = _state(EXPORT, accepted=accepted)
        self.export_states = {EXPORT.name: self.stream, **{one.name: _state(one, accepted=True) for one in also}}
        self.accepted: set[Bundle] = set()
        self.call_turns = CallTurns(
            Backoff(1.0, 300.0, OUTAGE),
            jitter=lambda: jitter,
            key=KeyCheck(lambda: self.service.me(priority=Priority.REST)),
            emit=self.listener.on_event,
        )
        self.runner = BundleRunner(
            gate=self.gate,
            service=self.service,
            poller=self.watch,
            downloads=self.downloads,
            ledger=self.ledger,
            export_states=self.export_states,
            definitions={EXPORT.name: EXPORT.definition, **{one.name: one.definition for one in also}},
            emit=self.listener.on_event,
            call_turns=self.call_turns,
            rules=AttemptRules(attempts, before_split),
            download_slots=slots,
            clock=lambda: round(now(), 3),
            accepted=self.accepted,
        )
