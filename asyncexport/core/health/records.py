"""Facts as values: runs, requests per hour, gaps that the user has accepted, archives that were altered."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asyncexport.core.bundles import Bundle
from asyncexport.core.join_progress import JoinedRun
from asyncexport.core.states import BundleRecord


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run.

    Attributes:
        command: The command.
        began: When it began, in seconds since 1970.
        host: The name of the machine; "" if it is not known.
        ended: When it ended, in seconds since 1970; None if it is still running or was killed.
        exit_code: The exit code; None if it is still running or was killed.
        error: The error that ended it, in one line; "" if there was none.
        counts: The counts of its summary: `bundles`, `refreshed`, `audited`, `rows`, `bytes`, `requests`, `refused`; {}
            until it ends.
        joined: The other run, if this one only waited for it, so that the ledger has no row for it. None: it was a run
            of its own.
        running: Whether it is still running. The ledger does not know that.
    """

    command: str
    began: float
    host: str = ""
    ended: float | None = None
    exit_code: int | None = None
    error: str = ""
    counts: dict[str, Any] = field(default_factory=dict)
    joined: JoinedRun | None = None
    running: bool = False


class HourCount(NamedTuple):
    """The number of requests of one hour, kind and status.

    Attributes:
        began: The start of the hour, in seconds since 1970.
        kind: `create`, `poll`, `list`, `results` or `other`.
        status: The status of the answer; 0 if there was none.
        requests: The number of requests.
    """

    began: int
    kind: str
    status: int
    requests: int


class AcceptedGap(NamedTuple):
    """An accepted gap.

    Attributes:
        bundle: The bundle that misses rows.
        reason: The reason that the user gave.
        at: When it was accepted, in seconds since 1970.
    """

    bundle: Bundle
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class AlteredArchive:
    """An archive that was deleted or whose size changed.

    Attributes:
        record: Its bundle, as the ledger has it.
        reason: What is wrong.
    """

    record: BundleRecord
    reason: str
