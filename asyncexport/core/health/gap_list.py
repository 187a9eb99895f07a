"""How the gaps of an export are listed for people.

1. All time that runs have started and not finished is one entry: one command finishes all of it.
2. If there are more other gaps than an entry each allows, the largest are listed first.
3. Time that no run has requested is no fault before the start of nights, or if no night was ever asked for: perhaps it
   is not wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import Range
from asyncexport.core.health.missing import Again, Coverage, Due, Gap
from asyncexport.core.health.overview import Overview

STARTED = "started"
"""What people read instead of the value of `Coverage.IN_PROGRESS`, which is part of the JSON format."""

OPTIONAL = "never asked, and not part of nightly runs"


@dataclass(frozen=True, slots=True)
class StartedTime:
    """The time that is missing because runs have started it and not finished it (rule 1).

    Attributes:
        bundles: The number of bundles.
        gaps: The number of gaps that they form.
        seconds: The length of these gaps together.
        in_progress: Whether a run is in progress, which finishes them.
        command: The command line that finishes them; "" if a run is in progress or the export is no longer configured.
    """

    bundles: int
    gaps: int
    seconds: int
    in_progress: bool
    command: str


def started_time(
    gaps: Sequence[Gap],
    overview: Overview,
    due: Due | None,
    *,
    run_in_progress: bool,
    option: Sequence[str],
    again: Again,
) -> StartedTime | None:
    """Return the time that runs have started; None if there is none.

    Args:
        gaps: All gaps of the export, in order.
        overview: What the ledger knows of the export.
        due: What nights ask of it; None if it is no longer configured.
        run_in_progress: Whether a run is in progress.
        option: The option that selects this export, if a command needs it.
        again: Makes the command lines.
    """
    started = [gap.range for gap in gaps if gap.reason is Coverage.IN_PROGRESS]
    if not started:
        return None
    bundles = _count_in(started, [one.bundle.range for one in overview.unfinished if not one.parked])
    command = "" if due is None or run_in_progress else again("retry", *option)
    seconds = sum(span.seconds for span in started)
    return StartedTime(bundles, len(started), seconds, run_in_progress and due is not None, command)


def _count_in(spans: Sequence[Range], bundles: Sequence[Range]) -> int:
    """Count the bundles that overlap a span; both are in order, and the spans do not overlap each other."""
    count = at = 0
    for bundle in bundles:
        while at < len(spans) and spans[at].end <= bundle.start:
            at += 1
        count += at < len(spans) and spans[at].start < bundle.end
    return count


def listed_gaps(gaps: Sequence[Gap], *, most: int) -> list[Gap]:
    """Return the other gaps: in order of time if there are at most `most`, else the largest of them (rules 1 and 2)."""
    others = [gap for gap in gaps if gap.reason is not Coverage.IN_PROGRESS]
    return others if len(others) <= most else sorted(others, key=lambda gap: -gap.range.seconds)[:most]


def is_optional(gap: Gap, due: Due | None) -> bool:
    """Whether a gap is no fault, because neither a run nor nights ask for it (rule 3)."""
    if due is None or gap.reason is not Coverage.NEVER_ASKED:
        return False
    return due.since is None or gap.range.end <= due.since


def reason_words(gap: Gap, due: Due | None) -> str:
    """Return the reason of a gap for people."""
    if gap.reason is Coverage.IN_PROGRESS:
        return STARTED
    return OPTIONAL if is_optional(gap, due) else gap.reason.value
