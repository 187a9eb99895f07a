"""The state that the bundles of one export share, and how an export is stopped.

The bundles of a stopped export keep the state that the ledger has: they are unfinished, and the next run resumes them.
"""

from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle
from asyncexport.core.events import ExportStopped
from asyncexport.core.exports import Export
from asyncexport.core.service.refusals import CreateRefusals
from asyncexport.core.service.retrying import Call, Failure, failure_of
from asyncexport.errors import ExportError


class ExportHasStopped(Exception):  # noqa: N818 - ends a bundle's coroutine; not an error
    """The bundle's export was stopped: the bundle's coroutine ends, and the bundle keeps its recorded state."""


@dataclass(slots=True)
class ExportState:
    """The state that the bundles of one export share.

    Attributes:
        export: The export.
        accepted: Whether the service has ever accepted a create of it.
        ever_stored: Whether any archive of it was ever stored.
        creates_stopped_by: The error that stopped its creates for good; None if they are not stopped.
        stopped: Whether the whole export is stopped, including its operations that are in flight at the service.
        creates: Its refused creates.
        waiting: Bundles that wait to send their create, in order; one whose create was refused is in `creates` instead.
        creates_in_progress: Bundles that have the turn to send their create, or have sent it.
        only_create: The bundle whose create is in progress while creates are sent one at a time
            (`engine.create_turns`).
        unreadable_since: When the first unreadable answer to a create came since one was last accepted; None if there
            was none.
        urgent: Bundles that settled while the run goes on: their requests are sent before those of the backlog.
    """

    export: Export
    accepted: bool = False
    ever_stored: bool = False
    creates_stopped_by: ExportError | None = None
    stopped: bool = False
    creates: CreateRefusals = field(default_factory=CreateRefusals)
    waiting: dict[Bundle, None] = field(default_factory=dict)
    creates_in_progress: set[Bundle] = field(default_factory=set)
    only_create: Bundle | None = None
    unreadable_since: float | None = None
    urgent: set[Bundle] = field(default_factory=set)

    @property
    def creates_one_at_a_time(self) -> bool:
        """Whether creates are sent one at a time; in each run they are until the first one is accepted."""
        return self.creates.newest_accepted is None or not self.creates.is_open

    def stop(self, error: ExportError, call: Call) -> ExportStopped | None:
        """Stop the export and return the event to report; None if it was stopped before.

        If only its creates are refused, operations that are in flight at the service continue.
        """
        was_stopped = self.creates_stopped_by is not None
        self.creates_stopped_by = self.creates_stopped_by or error
        self.stopped = self.stopped or call is not Call.CREATE
        blames_key = call is Call.CREATE and failure_of(call, error) in (Failure.FORBIDDEN, Failure.BLOCKED)
        stopped = ExportStopped(self.export.name, error, ever_stored=self.ever_stored, blames_key=blames_key)
        return None if was_stopped else stopped
