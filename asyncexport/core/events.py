"""What happens during a run, as values.

1. An event is made where something happens, once it is durable, and never changes.
2. Whoever wants to know is a listener: a function that is called with each event. It picks the kinds it cares about.
3. An event says what happened and not how it is shown: JSON, log lines and pictures are made by `display` and `run`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from asyncexport.core.bundles import Bundle
from asyncexport.core.states import BundleRecord, Failed, FewerRows, Overdue, Refused, Stored
from asyncexport.errors import ExportError


@dataclass(frozen=True, slots=True)
class BundleStored:
    """A bundle's archive is complete, checked, and in the ledger.

    Attributes:
        bundle: Which.
        archive: Its archive.
        replaced: The archive that was there before. None: there was none.
    """

    bundle: Bundle
    archive: Stored
    replaced: Stored | None = None


@dataclass(frozen=True, slots=True)
class BundleParked:
    """A bundle was given up for this run.

    Attributes:
        bundle: Which.
        state: The state it is parked in.
    """

    bundle: Bundle
    state: Failed | Overdue | Refused | FewerRows

    @property
    def reason(self) -> str:
        """Why, as a person reads it."""
        match self.state:
            case Overdue():
                return "the operation was still running at its deadline"
            case Failed(reason=reason) | Refused(reason=reason):
                return reason
            case FewerRows() as fewer:
                return fewer.reason


@dataclass(frozen=True, slots=True)
class BundleMoved:
    """A bundle is in a new state, in which its work goes on.

    Attributes:
        before: The bundle as it was.
        after: The bundle as it is.
    """

    before: BundleRecord
    after: BundleRecord


@dataclass(frozen=True, slots=True)
class Retried:
    """Something went wrong with a bundle. It is tried again, or parked next.

    Attributes:
        bundle: Which.
        reason: What went wrong.
        concerns_all: The service is in trouble, not this bundle.
    """

    bundle: Bundle
    reason: str
    concerns_all: bool = False


@dataclass(frozen=True, slots=True)
class PossibleDuplicate:
    """A create was sent, and its answer was lost or could not be read.

    The service may run an operation whose file nobody will fetch.
    """

    bundle: Bundle


@dataclass(frozen=True, slots=True)
class RowsOutside:
    """A few rows of a bundle that was stored lie outside of its range.

    Attributes:
        bundle: Which.
        outside: How many of the rows that were looked at do.
        timed: Of how many that is.
    """

    bundle: Bundle
    outside: int
    timed: int

    @property
    def said(self) -> str:
        """In a sentence."""
        return f"{self.outside} of {self.timed} rows that were looked at lie outside of the range by EventStart"


@dataclass(frozen=True, slots=True)
class ExportStopped:
    """The service refuses what is asked of an export; none of its bundles is asked for any more.

    Attributes:
        export: The export's name.
        error: How the service refused, or what its files are.
        ever_stored: Whether anything of it was stored before this run.
        blames_key: Whether it may be the key that is refused.
    """

    export: str
    error: ExportError
    ever_stored: bool = False
    blames_key: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the user should know about this run, in a sentence."""

    message: str


Event = BundleStored | BundleParked | BundleMoved | Retried | PossibleDuplicate | RowsOutside | ExportStopped | Note

Listener = Callable[[Event], None]
"""Called with each event, in the event loop: it must return quickly."""


def event_of(before: BundleRecord, after: BundleRecord) -> BundleStored | BundleParked | BundleMoved:
    """The event of a bundle that went from one state to another."""
    match after.state:
        case Stored() as archive:
            return BundleStored(after.bundle, archive, before.stored)
        case Failed() | Overdue() | Refused() | FewerRows() as state:
            return BundleParked(after.bundle, state)
        case _:
            return BundleMoved(before, after)


__all__ = [
    "BundleMoved",
    "BundleParked",
    "BundleStored",
    "Event",
    "ExportStopped",
    "Listener",
    "Note",
    "PossibleDuplicate",
    "Retried",
    "RowsOutside",
    "event_of",
]
