"""One bundle from state to state: create, watch, fetch, store.

1. Each move takes a bundle in one state and gives it back in the next, which is durable by then.
2. A bundle's failure is its own and ends in `Failed`, or in `Refused` where its operation or its file may be fine. It
   counts an attempt only where the fault is the bundle's: a failed operation, a lost export, a bad file.
3. An operation or an export that belongs to another bundle is not this one's (`engine.service_ids`): it counts as an
   operation that failed, and is told.
4. What concerns all bundles is raised: a refused key, a full disk, a broken ledger, a service gone for good.
"""

from collections.abc import Callable, Container, Mapping

from asyncexport.core.bundles import Bundle
from asyncexport.core.events import Listener, PossibleDuplicate
from asyncexport.core.exports import Definition
from asyncexport.core.states import BundleRecord, Created, Creating, Failed, FewerRows, Overdue, Ready, Refused
from asyncexport.engine.budget import Budget
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.calls import ExportCalls
from asyncexport.engine.creates import Creates
from asyncexport.engine.download import ArchiveDownloads
from asyncexport.engine.export_state import ExportState
from asyncexport.engine.fetching import Fetching
from asyncexport.engine.moves import BundleMoves, StateLog
from asyncexport.engine.operation_ends import OperationEnds, OverdueOperations
from asyncexport.engine.poller import OperationPoller
from asyncexport.engine.service_ids import IdOwners


class BundleRunner:
    """Takes bundles from state to state.

    Args:
        gate: What gives leave for a create.
        service: What creates and locates.
        poller: Who knows when operations are done.
        downloads: Where archives are brought.
        ledger: Where states are written, and ids on record.
        export_states: The exports by name.
        tell: Called with each event.
        call_turns: What is known of refusals, shared with the poller.
        attempts: `[retry] attempts`.
        download_slots: `[concurrency] downloads`.
        accepted: Bundles whose archive is replaced by whatever comes. More may be added during the run.
        clock: Seconds since 1970 by the service's clock.
        earliest: See `BundleMoves`.
        definitions: What is asked for by exports that the run may leave out, by name.
        second_look_seconds: `[download] second_look`.

    Attributes:
        creates: The creates under way.
        fetching: The downloads under way.
    """

    def __init__(
        self,
        *,
        gate: Budget,
        service: ExportCalls,
        poller: OperationPoller,
        downloads: ArchiveDownloads,
        ledger: StateLog,
        export_states: dict[str, ExportState],
        tell: Listener,
        call_turns: CallTurns,
        attempts: int,
        download_slots: int,
        clock: Callable[[], float],
        earliest: Callable[[], float] | None = None,
        accepted: Container[Bundle] = frozenset(),
        definitions: Mapping[str, Definition] | None = None,
        second_look_seconds: float = 60.0,
    ) -> None:
        self._export_states = export_states
        known = {name: one.export.definition for name, one in export_states.items()}
        self._owners = IdOwners(ledger, {**(definitions or {}), **known})
        self._moves = BundleMoves(ledger, tell, attempts=attempts, clock=clock, earliest=earliest)
        self._ends = OperationEnds(poller, self._moves, call_turns, self._owners)
        self._overdue = OverdueOperations(poller, self._moves, call_turns)
        self.creates = Creates(gate, service, self._moves, call_turns)
        self.fetching = Fetching(
            service,
            downloads,
            self._moves,
            call_turns,
            slots=download_slots,
            accepted=accepted,
            second_look_seconds=second_look_seconds,
        )

    async def resume(self, record: BundleRecord) -> BundleRecord:
        """A bundle as an earlier run left it, ready to go on: what was parked begins at attempt 1."""
        match record.state:
            case Failed() | FewerRows():
                return self._moves.plan_again(record)
            case Refused() as refused:
                return self._moves.take_up(record, refused.again)
            case Overdue() as overdue:
                export = self._export_states[record.bundle.export].export
                return await self._overdue.ask_once_more(record, overdue, export)
            case Creating():
                self._moves.tell(PossibleDuplicate(record.bundle))
        return record

    async def create(self, record: BundleRecord, attempt: int) -> BundleRecord:
        """See `Creates.create`."""
        return await self.creates.create(record, attempt, self._export_states[record.bundle.export])

    async def watch(self, record: BundleRecord, created: Created) -> BundleRecord:
        """See `OperationEnds.watch`."""
        if owner := await self._owners.of_operation(record.bundle, created.operation_id):
            return await self._ends.failed(record, created.attempt, f"the service gave the operation of {owner}")
        return await self._ends.watch(record, created, self._export_states[record.bundle.export])

    async def fetch(self, record: BundleRecord, ready: Ready) -> BundleRecord:
        """See `Fetching.fetch`; an export that is another bundle's is not fetched for this one."""
        if owner := await self._owners.of_export(record.bundle, ready.export_id):
            return await self._ends.failed(record, ready.attempt, f"the service gave the export of {owner}")
        return await self.fetching.fetch(record, ready, self._export_states[record.bundle.export])
