"""What happens during a run, as values.

1. An event is created once what it reports is durable, and never changes.
2. A listener is a function that is called with each event. It picks the kinds it needs.
3. An event says what happened, not how it is shown: JSON, log lines and the live view are made by `display` and `run`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from asyncexport.core.auditing import Comparison
from asyncexport.core.bundles import Bundle
from asyncexport.core.join_progress import JoinedRun, ShareProgress
from asyncexport.core.sentinel.shortfalls import Shortfall
from asyncexport.core.states import BundleRecord, Failed, FewerRows, Overdue, Refused, Stored
from asyncexport.errors import ExportError


@dataclass(frozen=True, slots=True)
class BundleStored:
    """A bundle's archive is complete, checked, and in the ledger.

    Attributes:
        bundle: The bundle.
        archive: Its archive.
        replaced: The archive that it had before. None if it had none.
    """

    bundle: Bundle
    archive: Stored
    replaced: Stored | None = None


@dataclass(frozen=True, slots=True)
class BundleParked:
    """A bundle was given up for this run.

    Attributes:
        bundle: The bundle.
        state: The state in which it is parked.
    """

    bundle: Bundle
    state: Failed | Overdue | Refused | FewerRows

    @property
    def reason(self) -> str:
        """The reason, for messages."""
        match self.state:
            case Overdue():
                return "the operation was still running at its deadline"
            case Failed(reason=reason) | Refused(reason=reason):
                return reason
            case FewerRows() as fewer:
                return fewer.reason


@dataclass(frozen=True, slots=True)
class BundleSplit:
    """Narrower bundles have replaced a bundle that keeps failing. They are exported in the same run.

    Attributes:
        bundle: The bundle.
        pieces: The narrower bundles that are to be exported.
        reason: Why it failed last.
    """

    bundle: Bundle
    pieces: tuple[Bundle, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class BundleMoved:
    """A bundle moved to a new state, and its work continues.

    Attributes:
        before: The bundle as it was.
        after: The bundle as it is.
    """

    before: BundleRecord
    after: BundleRecord


@dataclass(frozen=True, slots=True)
class Retried:
    """Something went wrong with a bundle. It is retried, or parked next.

    Attributes:
        bundle: The bundle.
        reason: What went wrong.
        concerns_all: Whether the service caused it, so that other bundles are affected, too.
    """

    bundle: Bundle
    reason: str
    concerns_all: bool = False


@dataclass(frozen=True, slots=True)
class PossibleDuplicate:
    """A create was sent, and its answer was lost or could not be read.

    The service may run an operation whose file is never fetched.
    """

    bundle: Bundle


@dataclass(frozen=True, slots=True)
class RowsOutside:
    """A few rows of a stored bundle lie outside its range.

    Attributes:
        bundle: The bundle.
        outside: Sampled rows outside the range.
        timed: Sampled rows whose time could be read.
    """

    bundle: Bundle
    outside: int
    timed: int

    @property
    def text(self) -> str:
        """The event in one sentence."""
        return f"EventStart of {self.outside} of {self.timed} sampled rows lies outside the range"


@dataclass(frozen=True, slots=True)
class ExportStopped:
    """The service refuses an export's calls; no more calls are made for its bundles.

    Attributes:
        export: The export's name.
        error: How the service refused, or what is wrong with its files.
        ever_stored: Whether anything of it was stored before this run.
        blames_key: Whether the key may be the cause.
    """

    export: str
    error: ExportError
    ever_stored: bool = False
    blames_key: bool = False


@dataclass(frozen=True, slots=True)
class ShortfallFound:
    """Stored time has far fewer rows than usual, which no earlier run has reported."""

    shortfall: Shortfall


@dataclass(frozen=True, slots=True)
class BundleAudited:
    """A bundle of an audit's sample was compared with a new export; it has been stored or parked."""

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know about this run, in one sentence."""

    message: str


@dataclass(frozen=True, slots=True)
class Joining:
    """A run waits for another run, which holds the output directory.

    Attributes:
        run: The other run. None if it is not known.
        progress: How much of what the waiting run would have done is done. None if that is not known yet.
        seconds: How long it has been waiting.
        has_share: Whether the other run may do the work of the waiting run (a nightly run that joins it).
    """

    run: JoinedRun | None
    progress: ShareProgress | None
    seconds: float
    has_share: bool = True

    @property
    def text(self) -> str:
        """The event in one sentence."""
        text = f"waiting for {self.run or 'the run that holds the directory'}"
        if not self.has_share:
            return text
        if self.progress is None:
            return f"{text}; what it has stored of this run's range is not known yet"
        parked = f", {len(self.progress.parked):,} parked" if self.progress.parked else ""
        return (
            f"{text}; {self.progress.stored:,} of {self.progress.planned:,} bundles of this run's range stored{parked}"
        )


Event = (
    BundleStored
    | BundleParked
    | BundleSplit
    | BundleMoved
    | Retried
    | PossibleDuplicate
    | RowsOutside
    | ExportStopped
    | Joining
    | ShortfallFound
    | BundleAudited
    | Note
)

Listener = Callable[[Event], None]
"""Called with each event, in the event loop, so it must return quickly."""


def event_of(before: BundleRecord, after: BundleRecord) -> BundleStored | BundleParked | BundleMoved:
    """Return the event for a bundle's move from one state to another."""
    match after.state:
        case Stored() as archive:
            return BundleStored(after.bundle, archive, before.stored)
        case Failed() | Overdue() | Refused() | FewerRows() as state:
            return BundleParked(after.bundle, state)
        case _:
            return BundleMoved(before, after)


__all__ = [
    "BundleAudited",
    "BundleMoved",
    "BundleParked",
    "BundleSplit",
    "BundleStored",
    "Event",
    "ExportStopped",
    "Joining",
    "Listener",
    "Note",
    "PossibleDuplicate",
    "Retried",
    "RowsOutside",
    "ShortfallFound",
    "event_of",
]
