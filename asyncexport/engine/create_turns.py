"""Decides when each bundle may send its create.

1. Normally creates are sent as they come, at the pace set by the budget's token bucket.
2. Until the service has accepted the first create of an export, and while it refuses them (400, 404), they are sent
   one at a time: an unknown segment then costs a few requests instead of fifty.
3. While creates are blocked (403), only the probe is sent (`core.service.refusals`). The same holds while operations
   fail through the service's fault (`core.service.operation_failures`).
4. After three refusals in a row the newest bundle of the export is sent ahead of its turn. If all bundles have been
   started already, it is the newest of those that wait.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asyncexport.core.bundles import Bundle
from asyncexport.core.service.retrying import Call
from asyncexport.engine.call_turns import CallTurn, CallTurns
from asyncexport.engine.export_state import ExportState


@dataclass(frozen=True, slots=True)
class CreateTurn:
    """Permission to send a create; if `is_exclusive`, no other create of this export is sent meanwhile."""

    bundle: Bundle
    call_turn: CallTurn
    is_exclusive: bool


class CreateTurns:
    """Gives turns to bundles that want to send a create.

    Args:
        call_turns: What is known about refused calls.

    Attributes:
        take_newest: Starts the newest bundle of an export that was not started yet, and returns it; None if there is
            none.
    """

    def __init__(self, call_turns: CallTurns) -> None:
        self._call_turns = call_turns
        self.take_newest: Callable[[str], Bundle | None] = lambda _: None

    @contextmanager
    def waiting(self, bundle: Bundle, export: ExportState) -> Iterator[None]:
        """Count the bundle as waiting for as long as it tries to get its create accepted."""
        export.waiting[bundle] = None
        try:
            yield
        finally:
            export.waiting.pop(bundle, None)

    def wait_seconds(self, bundle: Bundle, export: ExportState, *, was_refused: bool = False) -> float:
        """Seconds until it is this bundle's turn; infinite if that takes a change first.

        `was_refused`: a create of it failed before, so others go first.
        """
        creates, now = export.creates, self._call_turns.now()
        others_go_first = creates.newest not in (None, bundle) or creates.needs_newest(others_wait=True)
        if others_go_first or (export.creates_one_at_a_time and export.only_create is not None):
            return float("inf")
        refused_for = self._call_turns.wait_seconds(export.export.name, Call.CREATE, lets_others_go=was_refused)
        return max(refused_for, self._call_turns.failures.wait_seconds(bundle, now))

    def take(self, bundle: Bundle, export: ExportState, *, was_refused: bool = False) -> CreateTurn | None:
        """Take a turn; None if it is not this bundle's turn."""
        if self.wait_seconds(bundle, export, was_refused=was_refused) > 0:
            return None
        turn = self._call_turns.turn(export.export.name, Call.CREATE)
        if turn is None:
            return None
        self._call_turns.failures.begin(bundle)
        export.creates_in_progress.add(bundle)
        if export.creates_one_at_a_time:
            export.only_create = bundle
        return CreateTurn(bundle, turn, is_exclusive=export.creates_one_at_a_time)

    def may_send(self, turn: CreateTurn, export: ExportState) -> bool:
        """Whether the turn is still valid when its request gets a token."""
        if export.creates_stopped_by:
            return False
        if turn.is_exclusive or turn.call_turn.is_probe:
            return True
        refusals, name = self._call_turns.refusals, export.export.name
        is_blocked = refusals.ongoing(name, Call.CREATE) is not None or refusals.blocks_all_but(name, Call.CREATE)
        return not (export.creates_one_at_a_time or is_blocked or self._call_turns.failures.holds(turn.bundle))

    def accepted(self, turn: CreateTurn, export: ExportState) -> None:
        """Note that the service accepted the create."""
        was_one_at_a_time = export.creates_one_at_a_time
        export.accepted = True
        export.unreadable_since = None
        export.creates.accepted(turn.bundle)
        turn.call_turn.succeeded()
        if was_one_at_a_time:
            self._call_turns.changes.notify()

    def leave(self, turn: CreateTurn, export: ExportState) -> None:
        """End a turn, whatever its result was."""
        turn.call_turn.leave()
        export.creates_in_progress.discard(turn.bundle)
        if export.only_create == turn.bundle:
            export.only_create = None
        if export.waiting or export.creates.undecided:
            self.pick_newest(export)
            self._call_turns.changes.notify()

    def give_up(self, bundle: Bundle, export: ExportState) -> None:
        """Note that a bundle is parked; if the others waited for its result, another one is tried instead."""
        export.creates.parked(bundle)
        self._call_turns.changes.notify()

    def pick_newest(self, export: ExportState) -> None:
        """Give the newest bundle the next turn if rule 4 asks for that."""
        creates = export.creates
        if export.creates_in_progress or not creates.needs_newest(others_wait=bool(export.waiting)):
            return
        newest = self.take_newest(export.export.name) or max(export.waiting, default=None)
        if newest is None:
            creates.no_bundle_left()
        else:
            creates.newest = newest
        self._call_turns.changes.notify()
