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
   good. Until a bundle is stored, failures of the other pieces of the same bundle speak against a split as well. While
   a bundle of another time is in progress, it is not known whether that one fails, too: the bundle is then parked.
5. Refusals and lost answers are not failures of the bundle and do not count here, even if they use up an attempt.
6. A bundle that is not split is parked after `[retry] attempts`, and a piece of a split bundle after `before_split`,
   because its failure is no surprise. For the same reason a nightly run makes only one attempt for a bundle that failed
   in an earlier run and cannot be split.
7. If a bundle and its pieces were split eight times in a run and none of its pieces was stored, they are not split
   further in that run: all of its time seems to fail. That is enough to split an hour into five minutes.
8. The pieces of a bundle belong together in later runs as well: the ledger knows which bundle was split. A bundle that
   was split because the bundle width is narrower by now does not count; its pieces are ordinary bundles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from asyncexport.core.bundles import HOUR, Bundle, Range, cut
from asyncexport.core.parking import may_pause
from asyncexport.core.states import BundleRecord, Created, Failed

MOST_SPLITS = 8
"""After this many splits without a stored piece, a bundle's pieces are not split further in this run (rule 7)."""

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


def split_earlier(
    bundles: Iterable[Bundle], split: Sequence[Bundle], *, width_seconds: int
) -> Iterator[tuple[Bundle, Bundle]]:
    """Yield those bundles that are pieces of one that an earlier run split, each with that bundle (rule 8).

    Args:
        bundles: The bundles.
        split: The bundles that were split; of several that contain a piece, the widest is yielded.
        width_seconds: The bundle width. Wider bundles that were split do not count.
    """
    wholes = sorted((one for one in split if one.range.seconds <= width_seconds), key=lambda one: -one.range.seconds)
    for bundle in bundles if wholes else ():
        whole = next((one for one in wholes if one.contains(bundle)), None)
        if whole is not None:
            yield bundle, whole


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
        in_progress: Returns the bundles in progress, which will succeed or fail in this run.
    """

    rules: AttemptRules
    in_progress: Callable[[], Iterable[Bundle]] = tuple
    _stored: int = 0
    _has_completed: bool = False
    _stored_before: dict[Bundle, int] = field(default_factory=dict)
    _since_stored: set[Bundle] = field(default_factory=set)
    _refused: dict[Bundle, int] = field(default_factory=dict)
    _limits: dict[Bundle, int] = field(default_factory=dict)
    _split_from: dict[Bundle, Bundle] = field(default_factory=dict)
    _splits: list[Bundle] = field(default_factory=list)
    _stored_pieces: list[Bundle] = field(default_factory=list)

    def split_earlier(self, piece: Bundle, whole: Bundle) -> None:
        """Note that a bundle is a piece of one that an earlier run split (rule 8)."""
        self._split_from[piece] = whole
        self._limits[piece] = self.rules.before_split

    def whole(self, bundle: Bundle) -> Bundle:
        """Return the bundle that this one is a piece of, before any split; the bundle itself if it is not a piece."""
        return self._split_from.get(bundle, bundle)

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
        if bundle in self._split_from:
            self._stored_pieces.append(bundle)
        for known in (self._stored_before, self._refused, self._limits, self._split_from):
            known.pop(bundle, None)

    def pieces(self, record: BundleRecord, attempt: int) -> tuple[Range, ...]:
        """Return the ranges of the pieces to split a bundle into after this failed attempt; none if it is not split."""
        own = attempt - self._refused.get(record.bundle, 0)
        if own < self.rules.before_split or not self._others_succeed(record.bundle) or self._all_fails(record.bundle):
            return ()
        shows_success = self._stored or (self._has_completed and isinstance(record.state, Created))
        is_last = self.is_last(record.bundle, attempt) and not self._others_in_progress(record.bundle)
        return self.rules.pieces(record) if shows_success or is_last else ()

    def is_last(self, bundle: Bundle, attempt: int) -> bool:
        """Whether a bundle is parked after this failed attempt."""
        own = attempt - self._refused.get(bundle, 0)
        return attempt >= self.rules.attempts or own >= self._limits.get(bundle, self.rules.attempts)

    def split(self, bundle: Bundle, pieces: Iterable[Bundle]) -> None:
        """Note that a bundle was split into these pieces."""
        self._since_stored.discard(bundle)
        stored_before = self._stored_before.get(bundle, self._stored)
        whole = self.whole(bundle)
        self._splits.append(bundle)
        for known in (self._stored_before, self._refused, self._limits, self._split_from):
            known.pop(bundle, None)
        for piece in pieces:
            self._stored_before[piece] = stored_before
            self._limits[piece] = self.rules.before_split
            self._split_from[piece] = whole

    def _others_succeed(self, bundle: Bundle) -> bool:
        """Whether other bundles succeed while this one fails (rules 3 and 4)."""
        if self._stored > self._stored_before.get(bundle, self._stored):
            return True
        related = self.whole(bundle) if self._stored else bundle
        return all(one.range.overlaps(related.range) for one in self._since_stored)

    def _others_in_progress(self, bundle: Bundle) -> bool:
        """Whether a bundle of another time is in progress; other pieces of the same bundle do not count."""
        whole = self.whole(bundle).range
        return any(not one.range.overlaps(whole) for one in self.in_progress())

    def _all_fails(self, bundle: Bundle) -> bool:
        """Whether a bundle is a piece of one that was split many times without a stored piece (rule 7)."""
        wholes = {self.whole(bundle), *(one for one in self._splits if one.contains(bundle))}
        return any(
            sum(whole.contains(one) for one in self._splits) >= MOST_SPLITS
            and not any(whole.contains(one) for one in self._stored_pieces)
            for whole in wholes
        )


__all__ = ["MOST_SPLITS", "SPLIT_WIDTHS", "AttemptRules", "FailedAttempts", "narrower", "split_earlier"]
