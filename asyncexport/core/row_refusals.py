"""What follows when files of one export are refused for their rows (`core.archive.expected_rows`).

1. A file with the rows of another range costs a new export, at once: another download would bring the same rows. After
   `MOST_IN_A_ROW` in a row the rule is wrong about this export, and not the files: it is off from then on.
2. A file that is no export, or has no known name, is fetched again through a fresh link. After `MOST_IN_A_ROW` in a row
   our list of names is wrong, or the service sends something else: the export stops, before all of its bundles are
   asked for in vain. A box on the way that is in trouble for a moment spoils many at once; so they must span
   `span_seconds`, unless the storage host's own hash proves one.
3. In a row means: with no file between that shows the contrary.
4. The ledger remembers for which exports rule 1 is off: their archives are not judged by the time of their rows. In
   the next run one more such file is enough to switch it off again, and one with the right rows switches it on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import orjson

from asyncexport.core.archive.expected_rows import RowLook
from asyncexport.errors import ArchiveError

T = TypeVar("T")

UNTIMED = "untimed_exports"
"""The key of the remark that names the exports for which rule 1 is off."""

MOST_IN_A_ROW = 3
"""So many refusals in a row are no accident."""

RULE_IS_OFF = (
    f"{MOST_IN_A_ROW} files in a row have rows of another time by EventStart: what is asked for and what that field "
    "says differ, so it is not looked at any more"
)
"""What is told of an export when the rule about the rows' time is switched off for it."""

RULE_WAS_OFF = (
    f"a run found rows of another time by EventStart in {MOST_IN_A_ROW} files in a row, and stored such files: "
    "archives are not judged by that field"
)
"""What a check tells of an export for which a run switched the rule off."""

RULES_ARE_OFF = (
    f"{MOST_IN_A_ROW} archives in a row have rows of another time by EventStart, or under names that nobody knows: "
    "what is known of such rows is wrong, so none is refused for them"
)
"""What is told of an export whose archives are not judged by their rows."""


def read_untimed(text: str | None) -> frozenset[str]:
    """What `write_untimed` made; nothing where there is nothing, or what another version wrote."""
    try:
        names = orjson.loads(text or "[]")
    except ValueError:
        return frozenset()
    return frozenset(one for one in names if isinstance(one, str)) if isinstance(names, list) else frozenset()


def write_untimed(exports: Iterable[str]) -> str:
    """The names of exports, as the ledger keeps them."""
    return orjson.dumps(sorted(exports)).decode()


@dataclass(slots=True)
class RowRefusals:
    """What is known of the refused files of one export.

    Args:
        span_seconds: Over how long files without a known name must come until that is believed.

    Attributes:
        checks_range: Whether the rows' time is looked at.
        foreign: How many files in a row had rows of another range.
        unknown: How many in a row had no known name.
        unknown_since: When the first of these came.
    """

    span_seconds: float
    checks_range: bool = True
    foreign: int = 0
    unknown: int = 0
    unknown_since: float = 0.0

    def note_taken(self, look: RowLook) -> None:
        """A file was taken after this look at its rows."""
        if look.known:
            self.unknown = 0
        if look.timed:
            self.foreign = 0

    def note_foreign(self) -> bool:
        """A file has the rows of another range: whether it is refused; False once the rule is off."""
        if self.checks_range:
            self.foreign += 1
            self.checks_range = self.foreign < MOST_IN_A_ROW
        return self.checks_range

    def note_unknown(self, *, now: float, proved: bool) -> bool:
        """A file has no known name: whether the export stops.

        Args:
            now: In seconds, by any clock that never goes back.
            proved: The file is the one that the storage host holds, by its hash.
        """
        if not self.unknown:
            self.unknown_since = now
        self.unknown += 1
        lasted = proved or now - self.unknown_since >= self.span_seconds
        return self.unknown >= MOST_IN_A_ROW and lasted


@dataclass(slots=True)
class RowVerdicts(Generic[T]):
    """The same rules, over archives of one export that are there already: they come in order, and are judged late.

    An archive whose rows are wrong is held until the next ones tell whether it is refused.

    Attributes:
        are_off: Whether so many in a row were wrong that the rules must be.
    """

    are_off: bool = False
    _held: list[tuple[T, ArchiveError]] = field(default_factory=list)

    def judge(self, archive: T, look: RowLook) -> Iterator[tuple[T, ArchiveError | None]]:
        """The archives that are judged now, and why each is refused; None: it is not."""
        wrong = None if self.are_off else look.wrong
        if wrong is None:
            if look.decides:
                yield from self.close()
            yield archive, None
            return
        self._held.append((archive, wrong))
        if len(self._held) >= MOST_IN_A_ROW:
            self.are_off = True
            held, self._held = self._held, []
            yield from ((one, None) for one, _ in held)

    def close(self) -> Iterator[tuple[T, ArchiveError]]:
        """No more will come: those that are held are refused."""
        held, self._held = self._held, []
        yield from held
