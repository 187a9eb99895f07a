"""Which time is missing, why, and which command fills it.

1. What was asked for begins at the first bundle or where nights begin, whichever is earlier. It ends at the last bundle
   or, if nights were ever asked for, at the last whole bundle that is settled.
2. Time after the last bundle that has been settled for less than the allowed delay is not due: the next run exports it.
3. Time that the user has accepted as missing is not missing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from asyncexport.core.bundles import HOUR, Range, show_day_or_time
from asyncexport.core.health.layers import layered
from asyncexport.core.health.overview import Overview

MAX_BEHIND_SECONDS = 30 * HOUR
"""The allowed delay unless the user says otherwise: a day between two nights, and some hours for the run itself."""

Again = Callable[..., str]
"""Makes a command line from a command and its arguments."""


class Coverage(StrEnum):
    """What is there for a span of time; the values are those of `--json`."""

    ALTERED = "altered"
    STORED = "stored"
    ACCEPTED = "accepted"
    IN_PROGRESS = "in progress"
    PARKED = "parked"
    NEVER_ASKED = "never asked"
    BEHIND = "behind"
    NOT_DUE = "not due"


MISSING = (Coverage.PARKED, Coverage.IN_PROGRESS, Coverage.NEVER_ASKED, Coverage.BEHIND)
"""The kinds of time that is due and not stored."""

_LAYERS = (
    Coverage.ALTERED,
    Coverage.STORED,
    Coverage.ACCEPTED,
    Coverage.IN_PROGRESS,
    Coverage.PARKED,
    Coverage.NEVER_ASKED,
)
"""The first kind that applies counts; the last one is for time that nothing covers."""


class Piece(NamedTuple):
    """A span of time and what is there for it."""

    range: Range
    coverage: Coverage


@dataclass(frozen=True, slots=True)
class Due:
    """What nights ask of an export.

    Attributes:
        since: Where nights begin, in seconds since 1970; None if no night was ever asked for.
        settled: The time up to which its data is settled.
        whole: The end of the last whole bundle that is settled; runs export up to there.
        max_behind: The allowed delay, in seconds.
        now: The present time.
    """

    since: int | None
    settled: int
    whole: int
    max_behind: float
    now: float

    @property
    def deadline(self) -> float:
        """The time up to which everything must be stored."""
        return self.whole - self.max_behind


@dataclass(frozen=True, slots=True)
class Gap:
    """A span of time that is due and not stored.

    Attributes:
        range: The span.
        reason: Why it is missing: one of `MISSING`.
        command: The command line that fills it; "" if the export is no longer configured, or if a run in progress
            finishes it.
    """

    range: Range
    reason: Coverage
    command: str


def timeline(
    overview: Overview, *, altered: Sequence[Range], accepted: Sequence[Range], due: Due | None
) -> tuple[Piece, ...]:
    """Return everything that was asked for (rule 1) in order, and the time up to now if nights were asked for.

    Args:
        overview: What the ledger knows of the export.
        altered: The ranges of archives that were deleted or changed on disk.
        accepted: What the user has accepted as missing.
        due: What nights ask of the export; None if it is no longer configured.
    """
    known = [*overview.covered, *(one.bundle.range for one in overview.unfinished)]
    asks = due is not None and due.since is not None and due.since < due.whole
    starts = [one.start for one in known] + ([due.since] if due and due.since is not None and asks else [])
    if not starts:
        return ()
    last = max((one.end for one in known), default=min(starts))
    end = max(last, due.whole) if due and asks else last
    layers = (
        altered,
        overview.covered,
        accepted,
        [one.bundle.range for one in overview.unfinished if not one.parked],
        [one.bundle.range for one in overview.parked if not one.kept],
    )
    pieces = [Piece(span, _LAYERS[number]) for span, number in layered(Range(min(starts), end), layers)]
    if due is None or due.since is None or not asks:
        return tuple(pieces)
    if pieces[-1].coverage is Coverage.NEVER_ASKED and pieces[-1].range.end == due.whole:
        pieces += _asked_by_nights(pieces.pop().range, due, due.since, follows_bundles=bool(known))
    if end < int(due.now):
        pieces.append(Piece(Range(end, int(due.now)), Coverage.NOT_DUE))
    return tuple(pieces)


def _asked_by_nights(span: Range, due: Due, since: int, *, follows_bundles: bool) -> Iterator[Piece]:
    """Return the pieces of the time after the last bundle; nights only ask for what comes after their start."""
    if span.start < since:
        yield Piece(Range(span.start, since), Coverage.NEVER_ASKED)
    start = max(span.start, since)
    late = Coverage.BEHIND if follows_bundles else Coverage.NEVER_ASKED
    yield Piece(Range(start, span.end), Coverage.NOT_DUE if start >= due.deadline else late)


def gaps_of(
    pieces: Sequence[Piece], due: Due | None, *, run_in_progress: bool, option: Sequence[str], again: Again
) -> Iterator[Gap]:
    """Return what is missing, in order.

    Args:
        pieces: The timeline of the export.
        due: What nights ask of it; None if it is no longer configured.
        run_in_progress: Whether a run is in progress.
        option: The option that selects this export, if a command needs it.
        again: Makes the command lines.
    """
    for span, coverage in pieces:
        if coverage not in MISSING:
            continue
        if due is None or (run_in_progress and coverage is Coverage.IN_PROGRESS):
            yield Gap(span, coverage, "")
        elif coverage is Coverage.BEHIND:
            yield Gap(Range(span.start, due.settled), coverage, again("nightly", *option))
        else:
            command = "backfill" if coverage is Coverage.NEVER_ASKED else "retry"
            dates = ("--start", show_day_or_time(span.start), "--end", show_day_or_time(span.end))
            yield Gap(span, coverage, again(command, *dates, *option))
