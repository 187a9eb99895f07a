"""Decides when a stored bundle is exported once more, because rows may have arrived late or been deleted.

1. `[nightly] refresh` lists ages: how long after its end a bundle is exported once more.
2. Each age leads to at most one refresh of a bundle. If nights were missed, only the highest age that is due counts.
3. The ledger alone decides whether an age is done: it is, if the newest archive was asked for or exported at that age
   or later. So a first export that was late enough counts as well.
4. An age that is not longer than the settle time never acts, since a bundle is first exported when it has settled.
5. A bundle that kept its archive because a new export has far fewer rows is left alone: otherwise it would be exported
   every night.
"""

from collections.abc import Iterable, Sequence

from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.core.states import BundleRecord, Stored

LONGEST_AGE_DAYS = 400
"""Limit for a refresh age: above any retention period, so a longer one is a typing error."""


def acting_ages(ages: Iterable[float], *, settle_seconds: float) -> tuple[float, ...]:
    """Return the ages that can act on an export with this settle time (rule 4), in seconds, youngest first."""
    return tuple(sorted({age for age in ages if age > settle_seconds}))


def needs_refresh(record: BundleRecord, *, ages: Sequence[float], now: float) -> bool:
    """Whether a stored bundle is due to be exported once more.

    This is the only rule. The ledger's `exported_within` only narrows the candidates.

    Args:
        record: The bundle as recorded.
        ages: The ages at which it is refreshed, in seconds; see `acting_ages`.
        now: Seconds since 1970, by the service's clock.
    """
    if record.stored is None or record.kept:
        return False
    end = record.bundle.range.end
    due = max((age for age in ages if end + age <= now), default=None)
    return due is not None and _exported_at(record.stored) < end + due


def _exported_at(archive: Stored) -> float:
    """Return when an archive was exported, for rule 3.

    By the service's `createdAt` the export may have begun up to five minutes before it was asked for. That must not
    make a bundle due again the next night. A create time that is further ahead came from a wrong clock.
    """
    if archive.asked_at is None:
        return archive.exported_at
    return max(archive.exported_at, min(archive.asked_at, archive.exported_at + CLOCKS_APART_SECONDS))
