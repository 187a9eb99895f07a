"""What the bundles of one export share, and how it is stopped.

Bundles of a stopped export stay as the ledger has them: they are unfinished, and the next run goes on with them.
"""

from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle
from asyncexport.core.events import ExportStopped
from asyncexport.core.exports import Export
from asyncexport.core.service.refusals import CreateRefusals
from asyncexport.core.service.retrying import Call, Failure, failure_of
from asyncexport.errors import ExportError


class ExportHasStopped(Exception):  # noqa: N818 - a way out of a coroutine, not an error of its own
    """The bundle's export was stopped: its coroutine ends, and the bundle stays as it is on record."""


@dataclass(slots=True)
class ExportState:
    """What the bundles of one export share.

    Attributes:
        export: The export.
        accepted: Whether the service has ever taken a create of it.
        ever_stored: Whether anything of it was ever stored.
        creates_stopped_by: How its creates were refused for good; None: they are not.
        stopped: Whether nothing of it is asked for any more, what runs at the service included.
        creates: Which creates of it were refused.
        waiting: Bundles that wait to send their create, in order; one whose create was refused is in `creates` instead.
        under_way: Bundles that have the turn to send their create, or have sent it.
        alone: The bundle whose create is under way while creates go one at a time (`engine.create_turns`).
        unreadable_since: When the first unreadable answer to a create came since one was last taken; None: none did.
    """

    export: Export
    accepted: bool = False
    ever_stored: bool = False
    creates_stopped_by: ExportError | None = None
    stopped: bool = False
    creates: CreateRefusals = field(default_factory=CreateRefusals)
    waiting: dict[Bundle, None] = field(default_factory=dict)
    under_way: set[Bundle] = field(default_factory=set)
    alone: Bundle | None = None
    unreadable_since: float | None = None

    @property
    def goes_alone(self) -> bool:
        """Whether creates go one at a time: what the service took in an earlier run it may refuse by now."""
        return self.creates.newest_accepted is None or not self.creates.is_open

    def stop(self, error: ExportError, call: Call) -> ExportStopped | None:
        """Stop it: what runs at the service goes on only where its creates alone are refused. None: it was stopped."""
        was_stopped = self.creates_stopped_by is not None
        self.creates_stopped_by = self.creates_stopped_by or error
        self.stopped = self.stopped or call is not Call.CREATE
        blames_key = call is Call.CREATE and failure_of(call, error) in (Failure.FORBIDDEN, Failure.BLOCKED)
        stopped = ExportStopped(self.export.name, error, ever_stored=self.ever_stored, blames_key=blames_key)
        return None if was_stopped else stopped
