"""What came of a run: the tally kept while it goes on, and the summary at its end.

The summary's keys are what users script against (README): keys may be added, never changed.
planned = already + stored + failed + unfinished; `empty` is part of stored; `bytes` are of archives.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from asyncexport.core.bundles import Bundle, show
from asyncexport.core.exits import MEANINGS, Exit, exit_of
from asyncexport.core.states import Failed, Overdue, Standing, Stored
from asyncexport.errors import ExportError, RefusedError


@dataclass(slots=True)
class Tally:
    """Counts what happens to the bundles of a run; a `carrier.Listener`.

    Attributes:
        planned: All bundles of the range, those done before included.
        already: Of these, stored before the run began.
    """

    planned: int = 0
    already: int = 0
    stored: int = 0
    empty: int = 0
    rows: int = 0
    bytes: int = 0
    possible_duplicates: int = 0
    parked: dict[Bundle, str] = field(default_factory=dict)
    refusals: dict[str, RefusedError] = field(default_factory=dict)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=5))

    @property
    def failed(self) -> int:
        """Bundles parked."""
        return len(self.parked)

    @property
    def unfinished(self) -> int:
        """Bundles neither stored nor parked."""
        return max(0, self.planned - self.already - self.stored - self.failed)

    def moved(self, before: Standing, after: Standing) -> None:
        """Count a bundle that came to rest; forget that it was parked, once it is taken up again."""
        self.parked.pop(before.bundle, None)
        match after.state:
            case Stored(rows=rows, bytes=size):
                self.stored += 1
                self.empty += rows == 0
                self.rows += rows
                self.bytes += size
            case Failed(reason):
                self._park(after.bundle, reason)
            case Overdue():
                self._park(after.bundle, "the operation was still running at its deadline")

    def retried(self, bundle: Bundle, why: str) -> None:
        """Keep the last problems, for whoever watches."""
        self.recent.append(f"{bundle.export} {show(bundle.range.start)}: {why}")

    def possible_duplicate(self, bundle: Bundle) -> None:  # noqa: ARG002 - a listener's method
        """Count a create whose answer never came."""
        self.possible_duplicates += 1

    def refused(self, export: str, error: RefusedError) -> None:
        """Keep why the service refuses an export."""
        self.refusals[export] = error
        self.recent.append(f"{export}: {error}")

    def problems(self) -> list[dict[str, Any]]:
        """One object per parked bundle."""
        return [
            {
                "export": bundle.export,
                "start": show(bundle.range.start),
                "end": show(bundle.range.end),
                "reason": reason,
            }
            for bundle, reason in sorted(self.parked.items())
        ]

    def exit_code(self) -> Exit:
        """The code of a run that came to its own end."""
        if self.refusals and not self.stored:
            refusals = list(self.refusals.values())
            return Exit.KEY_REFUSED if all(error.status == 403 for error in refusals) else Exit.USAGE
        if self.failed or self.unfinished:
            return Exit.PARTLY
        return Exit.DONE

    def _park(self, bundle: Bundle, reason: str) -> None:
        self.parked[bundle] = reason
        self.recent.append(f"{bundle.export} {show(bundle.range.start)}: parked: {reason}")


@dataclass(frozen=True, slots=True)
class Summary:
    """The last line of every command's `--json`, a contract."""

    command: str
    exit_code: Exit
    seconds: float
    tally: Tally
    requests: dict[str, int]
    refused: int
    directory: str
    error: ExportError | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As it is printed."""
        tally = self.tally
        summary: dict[str, Any] = {
            "type": "summary",
            "command": self.command,
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 1),
            "bundles": {
                "planned": tally.planned,
                "already": tally.already,
                "stored": tally.stored,
                "empty": tally.empty,
                "failed": tally.failed,
                "unfinished": tally.unfinished,
            },
            "rows": tally.rows,
            "bytes": tally.bytes,
            "requests": self.requests,
            "refused": self.refused,
            "possible_duplicates": tally.possible_duplicates,
            "directory": self.directory,
            "problems": tally.problems(),
        }
        if self.error is not None:
            summary["error"] = str(self.error)
        return summary


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as it stands, for whoever watches it.

    Attributes:
        seconds: How long it has been going.
        done: Bundles stored in this run.
        already: Stored before it.
        planned: All bundles of the range.
        running: Operations at the service, or about to be there.
        fetching: Finished operations whose file is being fetched, or waits for it.
        parked: Given up for this run.
        tokens: Requests that could go out now.
        burst: Tokens of a full bucket.
        scope: Which requests are counted: `create` or `all`; `auto` and not yet known says `create?`.
        next_request_seconds: When the next counted request may go out.
        down_seconds: For how long the service has not been reached; None where it can be.
        rows: In this run.
        bytes: Of archives, in this run.
        expected_seconds: How long it will take from now; None where that cannot be said yet.
        problems: The last ones, newest last.
    """

    seconds: float
    done: int
    already: int
    planned: int
    running: int
    fetching: int
    parked: int
    tokens: int
    burst: int
    scope: str
    next_request_seconds: float
    down_seconds: float | None
    rows: int
    bytes: int
    expected_seconds: float | None
    problems: tuple[str, ...] = ()

    @property
    def have(self) -> int:
        """Bundles that are stored."""
        return self.already + self.done

    @property
    def waiting(self) -> int:
        """Bundles that nothing has happened to yet."""
        return max(0, self.planned - self.have - self.running - self.fetching - self.parked)


__all__ = ["MEANINGS", "Exit", "Snapshot", "Summary", "Tally", "exit_of"]
