"""What is wrong with an export.

1. Data that has been settled for longer than the allowed delay must be stored.
2. Gaps before the start of nights are no problem, since that data may not be wanted. Parked bundles are. If there was
   no night, time that no run has requested is no problem either.
3. An archive that was kept because the new export has far fewer rows is no problem: the run that kept it reported it.
4. What the user has accepted is no problem.
5. If no night was ever asked for, nothing is late while a run is in progress: a first backfill may take weeks. A run
   that has recorded nothing for longer than the allowed delay does not count.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from asyncexport.core.bundles import Range, merged, show
from asyncexport.core.coverage import settles_at
from asyncexport.core.health.gap_list import STARTED
from asyncexport.core.health.missing import Coverage, Due, Piece
from asyncexport.core.health.overview import Overview
from asyncexport.core.health.records import AcceptedGap, AlteredArchive
from asyncexport.core.sentinel.shortfalls import Shortfall
from asyncexport.core.states import BundleRecord, Failed, FewerRows, Refused
from asyncexport.core.text import show_duration

OVERDUE = "its operation was still running at its deadline"


def delays(overview: Overview, pieces: Sequence[Piece], due: Due, *, run_in_progress: bool) -> Iterator[str]:
    """Say which data should be stored by now (rules 1, 2 and 5)."""
    recorded_at = due.now if overview.last_at is None else overview.last_at
    if due.since is None and run_in_progress and due.now - recorded_at <= due.max_behind:
        return
    if not overview.stored and not overview.unfinished and (due.since is None or due.since < due.deadline):
        yield "nothing is stored yet"
        return
    if not pieces:
        return
    reached = _reached(pieces, due)
    if reached is not None and reached < due.deadline:
        yield (
            f"stored up to {show(reached)}, {show_duration(due.whole - reached)} behind the settled data "
            f"(allowed: {show_duration(due.max_behind)})"
        )
    since = pieces[0].range.start if due.since is None else due.since
    wanted = (Coverage.IN_PROGRESS,) if due.since is None else (Coverage.IN_PROGRESS, Coverage.NEVER_ASKED)
    late = [
        one
        for one in pieces
        if one.coverage in wanted and max(one.range.start, since) < min(one.range.end, due.deadline)
    ]
    if late:
        seconds = sum(one.range.end - max(one.range.start, since) for one in late)
        why = STARTED if late[0].coverage is Coverage.IN_PROGRESS else late[0].coverage.value
        yield f"{show_duration(seconds)} missing, the first from {late[0].range} ({why})"


def _reached(pieces: Sequence[Piece], due: Due) -> int | None:
    """Return where the time begins that no run has asked for since the last bundle; None if there is none."""
    if due.since is None:
        return pieces[-1].range.end
    return next((one.range.start for one in pieces if one.coverage is Coverage.BEHIND), None)


def faults(overview: Overview, parked: Sequence[BundleRecord], altered: Sequence[AlteredArchive]) -> Iterator[str]:
    """Say which bundles and archives are not as they should be; `parked`: those that the user has not accepted."""
    failed = [one for one in parked if not one.kept]
    if failed:
        yield f"{_count(len(failed), 'bundle')} parked, the first at {_start(failed[0])}: {why_parked(failed[0])}"
    if altered:
        archives, first = _count(len(altered), "archive"), altered[0]
        yield f"{archives} deleted or changed, the first at {_start(first.record)}: {first.reason}"
    if overview.overlaps:
        yield f"{_count(len(overview.overlaps), 'overlap')} of archives, the first from {overview.overlaps[0][1]}"


def unsettled(overview: Overview, due: Due, *, settle_seconds: float) -> Iterator[str]:
    """Say which archives should have been exported again by now, because their data was not settled (rules 1 and 2)."""
    late = [
        one
        for one in overview.unsettled
        if settles_at(one, settle_seconds=settle_seconds) < due.now - due.max_behind
        and one.bundle.range.end > (due.since or 0)
    ]
    if late:
        yield (
            f"{_count(len(late), 'archive')} exported before the data was settled, and not again since, the first at "
            f"{_start(late[0])}"
        )


def few_rows(shortfalls: Sequence[Shortfall]) -> Iterator[str]:
    """Say which stored time has far fewer rows than usual."""
    if shortfalls:
        yield f"{_count(len(shortfalls), 'shortfall')} of rows, the first: {shortfalls[0].text}"


def not_accepted(parked: Sequence[BundleRecord], accepted: Sequence[AcceptedGap]) -> tuple[BundleRecord, ...]:
    """Return the parked bundles that the user has not accepted (rule 4)."""
    spans = tuple(merged(sorted((one.bundle.range.start, one.bundle.range.end) for one in accepted)))
    return tuple(one for one in parked if not _lies_within(one.bundle.range, spans))


def why_parked(record: BundleRecord) -> str:
    """Return why a bundle is parked, in a sentence."""
    return record.state.reason if isinstance(record.state, Failed | Refused | FewerRows) else OVERDUE


def _lies_within(span: Range, spans: Sequence[Range]) -> bool:
    """Whether one of these ranges, merged and in order, contains the whole span."""
    at = bisect_right(spans, span.start, key=lambda one: one.start) - 1
    return at >= 0 and span.end <= spans[at].end


def _start(record: BundleRecord) -> str:
    return show(record.bundle.range.start)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
