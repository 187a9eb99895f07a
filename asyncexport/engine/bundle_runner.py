"""Takes one bundle from state to state: create, watch, fetch, store.

1. Each step takes a bundle in one state and returns it in the next, which is durable by then.
2. A failure of one bundle ends in `Failed`, in `Split` if narrower bundles may do better, or in `Refused` if its
   operation or its file may still be fine. It counts as an attempt only if the bundle itself is at fault: a failed
   operation, a lost export, a bad file.
3. An operation or export that belongs to another bundle is not accepted for this one (`engine.service_ids`). It counts
   as a failed operation and is reported.
4. Errors that concern all bundles are raised: a refused key, a full disk, a broken ledger, a service that was given up.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from asyncexport.core.bundles import Bundle
from asyncexport.core.events import Listener, PossibleDuplicate
from asyncexport.core.exports import Definition, Type
from asyncexport.core.splitting import AttemptRules
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
        gate: The budget, which grants the permits for creates.
        service: Creates exports and returns signed URLs.
        poller: Waits for operations.
        downloads: Downloads archives to the disk.
        ledger: Records states, and the ids that the service gave.
        export_states: The exports of this run, by name.
        emit: Called with each event.
        call_turns: What is known about refused calls; shared with the poller.
        rules: How often a failing bundle is exported, and when it is split. Those of individuals never are.
        download_slots: `[concurrency] downloads`.
        accepted: Bundles whose archive may be replaced by one with far fewer rows. More may be added during the run.
        clock: Seconds since 1970 by the service's clock.
        earliest: See `BundleMoves`.
        definitions: Definitions of exports that may not be part of this run, by name.
        second_look_seconds: `[download] second_look`.

    Attributes:
        moves: Records states.
        creates: The creates in progress.
        fetching: The downloads in progress.
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
        emit: Listener,
        call_turns: CallTurns,
        rules: AttemptRules,
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
        individuals = (name for name, one in known.items() if one.type is Type.INDIVIDUAL)
        rules = replace(rules, never_split=frozenset(individuals))
        self.moves = BundleMoves(ledger, emit, rules=rules, clock=clock, earliest=earliest)
        self._ends = OperationEnds(poller, self.moves, call_turns, self._owners)
        self._overdue = OverdueOperations(poller, self.moves, call_turns)
        self.creates = Creates(gate, service, self.moves, call_turns)
        self.fetching = Fetching(
            service,
            downloads,
            self.moves,
            call_turns,
            slots=download_slots,
            accepted=accepted,
            second_look_seconds=second_look_seconds,
        )

    def hurry(self, bundle: Bundle) -> None:
        """Send the requests for a bundle before those of the backlog."""
        self._export_states[bundle.export].urgent.add(bundle)

    async def resume(self, record: BundleRecord) -> BundleRecord:
        """Prepare a bundle that an earlier run left unfinished; a parked one starts again at attempt 1."""
        match record.state:
            case Failed() | FewerRows():
                return self.moves.plan_again(record)
            case Refused() as refused:
                return self.moves.take_up(record, refused.again)
            case Overdue() as overdue:
                export = self._export_states[record.bundle.export].export
                return await self._overdue.poll_again(record, overdue, export)
            case Creating():
                self.moves.emit(PossibleDuplicate(record.bundle))
        return record

    async def create(self, record: BundleRecord, attempt: int) -> BundleRecord:
        """See `Creates.create`."""
        return await self.creates.create(record, attempt, self._export_states[record.bundle.export])

    async def watch(self, record: BundleRecord, created: Created) -> BundleRecord:
        """See `OperationEnds.watch`."""
        if owner := await self._owners.of_operation(record.bundle, created.operation_id):
            return await self._ends.failed(
                record, created.attempt, f"the service returned an operation that belongs to {owner}"
            )
        return await self._ends.watch(record, created, self._export_states[record.bundle.export])

    async def fetch(self, record: BundleRecord, ready: Ready) -> BundleRecord:
        """See `Fetching.fetch`; the file of another bundle's export is not fetched for this one."""
        if owner := await self._owners.of_export(record.bundle, ready.export_id):
            return await self._ends.failed(
                record, ready.attempt, f"the service returned an export that belongs to {owner}"
            )
        return await self.fetching.fetch(record, ready, self._export_states[record.bundle.export])
