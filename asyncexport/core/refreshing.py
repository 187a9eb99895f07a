"""Decides when a stored bundle is exported once more, because rows may have arrived late or been deleted.

1. `[nightly] refresh` lists ages: how long after its end a bundle is exported once more.
2. Each age leads to at most one refresh of a bundle. If nights were missed, only the highest age that is due counts.
3. The ledger alone decides whether an age is done: it is, if the newest archive was asked for or exported at that age
   or later. So a first export that was late enough counts as well.
4. An age that is not longer than the settle time never acts, since a bundle is first exported when it has settled.
5. If a new export has far fewer rows, the bundle keeps its archive, and that export completes no age: the service may
   have been disturbed for one night. The bundle is exported again at the next age, and after the pauses of
   `core.parking`, which do not let this happen every night. Rule 2 does not count these exports.
"""

from collections.abc import Iterable, Sequence

from asyncexport.core.parking import ParkedTimes, next_try
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.core.states import BundleRecord, Stored

LONGEST_AGE_DAYS = 400
"""Limit for a refresh age: above any retention period, so a longer one is a typing error."""


def acting_ages(ages: Iterable[float], *, settle_seconds: float) -> tuple[float, ...]:
    """Return the ages that can act on an export with this settle time (rule 4), in seconds, youngest first."""
    return tuple(sorted({age for age in ages if age > settle_seconds}))


def needs_refresh(record: BundleRecord, *, ages: Sequence[float], now: float) -> bool:
    """Whether a stored bundle is due to be exported once more; for one that kept its archive see `kept_is_due`.

    The ledger's `exported_within` only narrows the candidates.

    Args:
        record: The bundle as recorded.
        ages: The ages at which it is refreshed, in seconds; see `acting_ages`.
        now: Seconds since 1970, by the service's clock.
    """
    if record.stored is None or record.kept:
        return False
    due = _last_due(record, ages, now=now)
    return due is not None and _exported_at(record.stored) < due


def kept_is_due(record: BundleRecord, kept: ParkedTimes, *, ages: Sequence[float], now: float) -> bool:
    """Whether a bundle that kept its archive is due to be exported once more (rule 5).

    As in `core.parking.pause_end`, a time of keeping in the future is ignored.

    Args:
        record: The bundle as recorded.
        kept: How often it kept its archive since that was stored, and when it last did.
        ages: See `needs_refresh`.
        now: See `needs_refresh`.
    """
    due, after_pause = _last_due(record, ages, now=now), next_try(record, kept)
    if due is not None and kept.last_at < due:
        return True
    return after_pause is not None and not kept.last_at <= now < after_pause


def _last_due(record: BundleRecord, ages: Sequence[float], *, now: float) -> float | None:
    """Return when the highest age was reached that is due, in seconds since 1970."""
    return max((due for age in ages if (due := record.bundle.range.end + age) <= now), default=None)


def _exported_at(archive: Stored) -> float:
    """Return when an archive was exported, for rule 3.

    By the service's `createdAt` the export may have begun up to five minutes before it was asked for. That must not
    make a bundle due again the next night. A create time that is further ahead came from a wrong clock.
    """
    if archive.asked_at is None:
        return archive.exported_at
    return max(archive.exported_at, min(archive.asked_at, archive.exported_at + CLOCKS_APART_SECONDS))
