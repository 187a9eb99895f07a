"""When each bundle may send its create.

1. As a rule creates go as they come, and the token bucket of the gate sets the pace.
2. Until the service has taken the first create of an export, and while it refuses them (400, 404), they go one at a
   time: an unknown segment then costs a few requests, not fifty.
3. While creates are blocked (403) only the probe goes (`core.service.refusals`). The same holds while operations fail
   through the service's fault (`core.service.operation_failures`).
4. After three refusals in a row the newest bundle goes, ahead of its turn. Where all bundles have been taken up, it is
   the newest of those that wait.
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
    """Leave to send a create; `alone`: no other of this export goes meanwhile."""

    bundle: Bundle
    turn: CallTurn
    alone: bool


class CreateTurns:
    """Gives turns.

    Args:
        call_turns: What is known of refusals.

    Attributes:
        take_newest: Has the newest bundle of an export taken up that was not yet, and says which it is; None: there is
            none.
    """

    def __init__(self, call_turns: CallTurns) -> None:
        self._call_turns = call_turns
        self.take_newest: Callable[[str], Bundle | None] = lambda _: None

    @contextmanager
    def waiting(self, bundle: Bundle, export: ExportState) -> Iterator[None]:
        """Around all that a bundle does to have its create taken."""
        export.waiting[bundle] = None
        try:
            yield
        finally:
            export.waiting.pop(bundle, None)

    def wait_seconds(self, bundle: Bundle, export: ExportState, *, was_refused: bool = False) -> float:
        """How long until it is this bundle's turn; infinite: until something has changed.

        `was_refused`: it had a turn before, so that others go first.
        """
        creates, now = export.creates, self._call_turns.now()
        others_go_first = creates.newest not in (None, bundle) or creates.needs_newest(others_wait=True)
        if others_go_first or (export.goes_alone and export.alone is not None):
            return float("inf")
        refused_for = self._call_turns.wait_seconds(export.export.name, Call.CREATE, lets_others_go=was_refused)
        return max(refused_for, self._call_turns.failures.wait_seconds(bundle, now))

    def take(self, bundle: Bundle, export: ExportState, *, was_refused: bool = False) -> CreateTurn | None:
        """Take a turn; None: it is not this bundle's."""
        if self.wait_seconds(bundle, export, was_refused=was_refused) > 0:
            return None
        turn = self._call_turns.turn(export.export.name, Call.CREATE)
        if turn is None:
            return None
        self._call_turns.failures.begin(bundle)
        export.under_way.add(bundle)
        if export.goes_alone:
            export.alone = bundle
        return CreateTurn(bundle, turn, alone=export.goes_alone)

    def may_go(self, turn: CreateTurn, export: ExportState) -> bool:
        """Whether a turn that was taken still holds, when there is a token for it."""
        if export.creates_stopped_by:
            return False
        if turn.alone or turn.turn.is_probe:
            return True
        refusals, name = self._call_turns.refusals, export.export.name
        is_blocked = refusals.ongoing(name, Call.CREATE) is not None or refusals.blocks_all_but(name, Call.CREATE)
        return not (export.goes_alone or is_blocked or self._call_turns.failures.holds(turn.bundle))

    def taken(self, turn: CreateTurn, export: ExportState) -> None:
        """The service took a create."""
        was_held = export.goes_alone
        export.accepted = True
        export.unreadable_since = None
        export.creates.accepted(turn.bundle)
        turn.turn.succeeded()
        if was_held:
            self._call_turns.changes.notify()

    def leave(self, turn: CreateTurn, export: ExportState) -> None:
        """A turn is over, whatever came back."""
        turn.turn.leave()
        export.under_way.discard(turn.bundle)
        if export.alone == turn.bundle:
            export.alone = None
        if export.waiting or export.creates.undecided:
            self.look_for_newest(export)
            self._call_turns.changes.notify()

    def give_up(self, bundle: Bundle, export: ExportState) -> None:
        """A bundle is parked, for whatever reason: if the others waited to see how it fares, another is tried."""
        export.creates.parked(bundle)
        self._call_turns.changes.notify()

    def look_for_newest(self, export: ExportState) -> None:
        """Where it is the newest bundle's turn, give it that (rule 4)."""
        creates = export.creates
        if export.under_way or not creates.needs_newest(others_wait=bool(export.waiting)):
            return
        newest = self.take_newest(export.export.name) or max(export.waiting, default=None)
        if newest is None:
            creates.no_bundle_left()
        else:
            creates.newest = newest
        self._call_turns.changes.notify()
