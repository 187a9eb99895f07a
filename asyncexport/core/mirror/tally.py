"""Counts what a mirror did, for its summary, and decides its exit code."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asyncexport.core.exits import Exit, exit_of
from asyncexport.errors import ExportError

MOST_FAILURES = 1000
"""Failures that are kept with their reason; all are counted."""

GIVES_UP_AFTER = 3
"""Uploads that failed in a row, after all their retries: then the object store as a whole has failed."""


class Outcome(StrEnum):
    """What became of a file."""

    UPLOADED = "uploaded"
    ALREADY = "already"
    FAILED = "failed"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class MirrorEvent:
    """What became of a file.

    Attributes:
        path: Its path, relative to the output directory.
        outcome: What became of it.
        bytes: The bytes that were uploaded.
        error: Why it was not uploaded.
    """

    path: str
    outcome: Outcome
    bytes: int = 0
    error: ExportError | None = None


MirrorListener = Callable[[MirrorEvent], None]


@dataclass(slots=True)
class MirrorTally:
    """What a mirror did.

    Attributes:
        url: The mirror.
        uploaded, already, failed, foreign: Files that were uploaded; that the bucket had; that could not be uploaded;
            whose name in the bucket belongs to an object that is not ours.
        bytes: Bytes that were uploaded.
        failures: The events of those that failed, or are foreign, as far as they are kept.
        left: Files that were not compared with the bucket; None as long as their number is not known.
        error: What ended the mirror early; None if nothing did.
        is_stopped: Whether it was stopped before it was done.
        seconds: How long it took after the run.
    """

    url: str = ""
    uploaded: int = 0
    already: int = 0
    failed: int = 0
    foreign: int = 0
    bytes: int = 0
    left: int | None = None
    failures: list[MirrorEvent] = field(default_factory=list)
    error: ExportError | None = None
    is_stopped: bool = False
    seconds: float = 0.0
    failed_in_a_row: int = 0

    @property
    def missing(self) -> int | None:
        """Files that are not known to be in the mirror; None if not even their number is known."""
        return None if self.left is None else self.left + self.failed + self.foreign

    @property
    def is_complete(self) -> bool:
        """Whether the mirror has everything."""
        return self.missing == 0 and self.error is None and not self.is_stopped

    def record(self, event: MirrorEvent) -> None:
        """Count a file."""
        match event.outcome:
            case Outcome.UPLOADED:
                self.uploaded += 1
                self.bytes += event.bytes
            case Outcome.ALREADY:
                self.already += 1
            case Outcome.FAILED:
                self.failed += 1
            case Outcome.FOREIGN:
                self.foreign += 1
        if event.error is not None and len(self.failures) < MOST_FAILURES:
            self.failures.append(event)

    def exit_code(self) -> Exit:
        """Return the exit code of a mirror that was not ended by a signal."""
        if self.error is not None and exit_of(self.error) in (Exit.UNEXPECTED, Exit.USAGE, Exit.LEDGER, Exit.DISK):
            return exit_of(self.error)
        return Exit.PARTIAL if self.failed or self.foreign or self.error is not None else Exit.DONE

    def to_dict(self) -> dict[str, Any]:
        """Return the tally as the summary has it."""
        return {
            "uploaded": self.uploaded,
            "already": self.already,
            "failed": self.failed,
            "bytes": self.bytes,
            "foreign": self.foreign,
            "missing": self.missing,
        }


def exit_with_mirror(run: Exit, mirror: MirrorTally, *, stopped_by: Exit | None = None) -> Exit:
    """Return the exit code of a run that ends with a mirror: that of the mirror counts if nothing failed in the run.

    Args:
        run: The exit code of the run alone.
        mirror: What the mirror did.
        stopped_by: The exit code for what has asked the run to stop; None if nothing has.
    """
    code = mirror.exit_code()
    if code is Exit.DONE and mirror.is_stopped and stopped_by is not None:
        code = stopped_by
    return run if code is Exit.DONE or run not in (Exit.DONE, Exit.TIME_UP) else code
