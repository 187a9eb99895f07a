"""The range of one export in a run, as the summary reports it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from asyncexport.core.bundles import show


@dataclass(frozen=True, slots=True)
class CoveredRange:
    """The range of one export in a run; times are seconds since 1970.

    Attributes:
        start: The start of the range.
        end: The end of the range, exclusive. Equal to the start if nothing in the range is settled yet.
        settled_until: The end of the last bundle that is settled.
        asked_end: The end that was asked for. None if everything that is settled was asked for.
        complete_at: The time from which a run covers the whole range that was asked for; 0 if it has no end.
    """

    start: int
    end: int
    settled_until: int
    asked_end: int | None = None
    complete_at: int = 0

    @property
    def is_cut_back(self) -> bool:
        """Whether a later end was asked for, which is not settled yet."""
        return self.asked_end is not None and self.end < self.asked_end

    @property
    def is_open(self) -> bool:
        """Whether the run chose the end: where settled data ends. A start of 0 stands for all of history."""
        return self.asked_end is None and 0 < self.start < self.end

    def to_dict(self) -> dict[str, Any]:
        """Return the range as it is printed."""
        return {
            "start": show(self.start),
            "end": show(self.end),
            "settled_until": show(self.settled_until),
            "cut_back": self.is_cut_back,
        }


def covering(ranges: Iterable[CoveredRange]) -> CoveredRange | None:
    """Return the range from the first start to the last end of the ranges whose end the run chose; None if none is."""
    chosen = [one for one in ranges if one.is_open]
    if not chosen:
        return None
    return replace(max(chosen, key=lambda one: one.end), start=min(one.start for one in chosen))
