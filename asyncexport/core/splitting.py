"""What follows a failed attempt of a bundle: another attempt, narrower bundles instead, or parking.

1. A bundle of which nothing was ever stored is split after `[retry] before_split` failed attempts. Its pieces have the
   next narrower width that divides it, and are split in the same way, down to `[retry] split_to`. So a minute that the
   service cannot export costs five minutes of data, not half an hour.
2. Bundles of individuals are never split: their rows are totals over a day. Neither is a bundle that has an archive.
3. A bundle is split only if other bundles succeed: if one was stored after the bundle first failed, or the bundle that
   it is a piece of; or if no bundle of another time has failed since one was last stored. If everything fails,
   narrower bundles would only fail more often. Bundles of other exports of the same time may fail for the same reason,
   and so may the other pieces of the same bundle.
4. As long as nothing in the run shows that the service works, a bundle is split only after its last attempt, instead of
   being parked. A completed operation shows that others can complete, but only a stored bundle shows that files are
   good. Until a bundle is stored, failures of the other pieces of the same bundle speak against a split as well.
5. Refusals and lost answers are not failures of the bundle and do not count here, even if they use up an attempt.
6. A bundle that is not split is parked after `[retry] attempts`, and a piece of a split bundle after `before_split`,
   because its failure is no surprise. For the same reason a nightly run makes only one attempt for a bundle that failed
   in an earlier run and cannot be split.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from asyncexport.core.bundles import HOUR, Bundle, Range, cut
from asyncexport.core.parking import may_pause
from asyncexport.core.states import BundleRecord, Created, Failed

SPLIT_WIDTHS = (12 * HOUR, 6 * HOUR, 3 * HOUR, HOUR, 1800, 900, 300)
"""The widths of pieces in seconds, widest first."""


def narrower(whole: Range, *, split_to: float) -> tuple[Range, ...]:
    """Return the pieces that replace a range when it is split; none if it cannot be split.

    The pieces have the widest width below that of the range, not below `split_to` seconds, whose grid has lines at both
    ends of the range. If there is none, the widest one is used, and the pieces at the ends are narrower.
    """
    widths = [width for width in SPLIT_WIDTHS if split_to <= width < whole.seconds]
    if not widths:
        return ()
    dividing = (width for width in widths if whole.start % width == whole.end % width == 0)
    return tuple(cut(whole, next(dividing, widths[0])))


@dataclass(frozen=True, slots=True)
class AttemptRules:
    """How often a failing bundle is exported, and when it is split.

    Attributes:
        attempts: `[retry] attempts`.
        before_split: `[retry] before_split`.
        split_to_seconds: `[retry] split_to`.
        retries_once: Whether a parked bundle that cannot be split gets one attempt only: in nightly runs.
        never_split: The exports whose bundles are never split.
    """

    attempts: int = 5
    before_split: int = 2
    split_to_seconds: float = 300.0
    retries_once: bool = False
    never_split: frozenset[str] = frozenset()

    def pieces(self, record: BundleRecord) -> tuple[Range, ...]:
        """Return the ranges of the pieces that a bundle can be split into; none if it cannot be split."""
        if record.stored is not None or record.bundle.export in self.never_split:
            return ()
        return narrower(record.bundle.range, split_to=self.split_to_seconds)


@dataclass(slots=True)
class FailedAttempts:
    """Keeps track of the failed attempts of a run and decides what follows one.

    Args:
        rules: The rules.
    """

    rules: AttemptRules
    _stored: int = 0
    _has_completed: bool = False
    _stored_before: dict[Bundle, int] = field(default_factory=dict)
    _since_stored: set[Bundle] = field(default_factory=set)
    _refused: dict[Bundle, int] = field(default_factory=dict)
    _limits: dict[Bundle, int] = field(default_factory=dict)
    _split_from: dict[Bundle, Range] = field(default_factory=dict)

    def retried(self, record: BundleRecord) -> None:
        """Note that a parked bundle is about to be retried (rule 6)."""
        has_failed = isinstance(record.state, Failed) and may_pause(record)
        if self.rules.retries_once and has_failed and not self.rules.pieces(record):
            self._limits[record.bundle] = 1

    def failed(self, bundle: Bundle) -> None:
        """Note that an attempt of a bundle failed."""
        self._stored_before.setdefault(bundle, self._stored)
        self._since_stored.add(bundle)

    def refused(self, bundle: Bundle) -> None:
        """Note that an attempt of a bundle was used up by a refusal or a lost answer (rule 5)."""
        self._refused[bundle] = self._refused.get(bundle, 0) + 1

    def completed(self) -> None:
        """Note that an operation completed."""
        self._has_completed = True

    def stored(self, bundle: Bundle) -> None:
        """Note that a bundle was stored."""
        self._stored += 1
        self._since_stored.clear()
        for known in (self._stored_before, self._refused, self._limits, self._split_from):
            known.pop(bundle, None)

    def pieces(self, record: BundleRecord, attempt: int) -> tuple[Range, ...]:
        """Return the ranges of the pieces to split a bundle into after this failed attempt; none if it is not split."""
        own = attempt - self._refused.get(record.bundle, 0)
        if own < self.rules.before_split or not self._others_succeed(record.bundle):
            return ()
        shows_success = self._stored or (self._has_completed and isinstance(record.state, Created))
        return self.rules.pieces(record) if shows_success or self.is_last(record.bundle, attempt) else ()

    def is_last(self, bundle: Bundle, attempt: int) -> bool:
        """Whether a bundle is parked after this failed attempt."""
        own = attempt - self._refused.get(bundle, 0)
        return attempt >= self.rules.attempts or own >= self._limits.get(bundle, self.rules.attempts)

    def split(self, bundle: Bundle, pieces: Iterable[Bundle]) -> None:
        """Note that a bundle was split into these pieces."""
        self._since_stored.discard(bundle)
        stored_before = self._stored_before.get(bundle, self._stored)
        split_from = self._split_from.get(bundle, bundle.range)
        for known in (self._stored_before, self._refused, self._limits, self._split_from):
            known.pop(bundle, None)
        for piece in pieces:
            self._stored_before[piece] = stored_before
            self._limits[piece] = self.rules.before_split
            self._split_from[piece] = split_from

    def _others_succeed(self, bundle: Bundle) -> bool:
        """Whether other bundles succeed while this one fails (rules 3 and 4)."""
        if self._stored > self._stored_before.get(bundle, self._stored):
            return True
        related = self._split_from.get(bundle, bundle.range) if self._stored else bundle.range
        return all(one.range.overlaps(related) for one in self._since_stored)


__all__ = ["SPLIT_WIDTHS", "AttemptRules", "FailedAttempts", "narrower"]
