"""Decides when a nightly run that waits for another run has nothing left to do.

1. A run that joins another one works out once what it would have done: its share. The share does not grow while the run
   waits, so a run that keeps up with new data cannot keep it waiting.
2. The share is done when its whole range is stored or parked, and every bundle that would have been exported again has
   been stored again or parked.
3. A bundle that was parked and due when the share was worked out is not done until the other run has retried it. All
   other parked bundles are done: the joining run would not have retried them, or the other run has parked them since.
   A bundle that has kept its archive again counts as stored, as in the run that exported it: its problem was reported
   before.
4. A parked bundle that the user has accepted as missing belongs to no share.
5. Another export of a stored bundle that is not in the share does not count: the joining run would not have begun it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from asyncexport.core.bundles import Bundle
from asyncexport.core.coverage import ExportPlan
from asyncexport.core.join_progress import ShareProgress
from asyncexport.core.parking import ParkedTimes, next_try
from asyncexport.core.states import BundleRecord


@dataclass(frozen=True, slots=True)
class Share:
    """What a joining run would have done in one export.

    Attributes:
        again: The bundles with an archive that it would have exported again.
        due: The parked bundles that it would have retried, those that kept their archive included, as they were
            recorded: the record, and how often and when the bundle was parked (None if that is not known).
    """

    again: frozenset[Bundle]
    due: Mapping[Bundle, tuple[BundleRecord, ParkedTimes | None]]

    @classmethod
    def of(cls, plan: ExportPlan) -> "Share":
        """Return the share for what a run would have to do now."""
        recorded, kept = plan.recorded, (one for one in plan.refresh if one.kept)
        retried = (*plan.parked, *plan.splits, *kept)
        begun = [one for one in recorded.unfinished if not one.parked]
        again = {one.bundle for one in (*begun, *retried) if one.stored is not None}
        again |= {one.bundle for one in plan.refresh}
        return cls(frozenset(again), {one.bundle: (one, recorded.parked.get(one.bundle)) for one in retried})


def progress_of(share: Share, plan: ExportPlan) -> ShareProgress:
    """Return how much of a share is done.

    Args:
        share: The share.
        plan: What a run would have to do by the ledger as it is now, over the range of the share and at the time when
            the share was worked out.
    """
    recorded, parked_times = plan.recorded, plan.recorded.parked
    ignored = {one.bundle for one in recorded.unfinished if _is_ignored(share, one)}
    wanted = [one for one in recorded.unfinished if one.bundle not in plan.accepted_gaps]
    done = [one for one in wanted if _is_done(share, one, parked_times.get(one.bundle))]
    parked = [one for one in done if not (one.kept and _times(one, parked_times) > 1)]
    # A bundle that kept its archive counts as stored in the ledger, but it is parked in the run that kept it first.
    stored_before = recorded.stored_before + len(ignored) - sum(one.kept for one in parked)
    unfinished = tuple(one for one in recorded.unfinished if one.bundle not in ignored)
    ended = {one.bundle for one in done}
    rest = replace(
        plan,
        recorded=replace(recorded, unfinished=unfinished, stored_before=stored_before),
        refresh=tuple(one for one in plan.refresh if one.bundle in share.again - ended),
        paused_until=dict.fromkeys(ended, 0.0),
    )
    return ShareProgress(rest.stored_before, rest.count, tuple(parked), tuple(_next_tries(parked, parked_times)))


def _times(record: BundleRecord, parked_times: Mapping[Bundle, ParkedTimes]) -> int:
    """Return how often a bundle was parked, as far as that is recorded."""
    return parked_times[record.bundle].times if record.bundle in parked_times else 0


def _next_tries(
    parked: Iterable[BundleRecord], parked_times: Mapping[Bundle, ParkedTimes]
) -> Iterator[tuple[Bundle, float]]:
    """Yield the bundles that nightly runs retry after a pause, each with the end of the pause."""
    for one in parked:
        due = next_try(one, parked_times[one.bundle]) if one.bundle in parked_times else None
        if due is not None:
            yield one.bundle, due


def _is_ignored(share: Share, record: BundleRecord) -> bool:
    """Rule 5."""
    return record.stored is not None and not record.parked and record.bundle not in share.again


def _is_done(share: Share, record: BundleRecord, parked: ParkedTimes | None) -> bool:
    """Whether a bundle is parked and done (rule 3); one that kept its archive counts only if it is in the share."""
    if not record.parked or (record.kept and record.bundle not in share.again):
        return False
    return share.due.get(record.bundle) != (record, parked)


__all__ = ["Share", "progress_of"]
