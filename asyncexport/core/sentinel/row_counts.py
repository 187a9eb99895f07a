"""The rows of an export by half hour and by day.

1. A half hour counts if bundles that lie within it cover all of it, a day likewise. Bundles wider than half an hour, or
   across its edge, only count in days.
2. Half hours and days are numbered from 1970.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import DAY, Range

HALF_HOUR = 1_800


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The rows of an export.

    Attributes:
        half_hours: The rows of each half hour that is stored completely, by its number.
        days: The rows of each UTC day that is stored completely, by its number.
    """

    half_hours: Mapping[int, int]
    days: Mapping[int, int]

    def without(self, spans: Sequence[Range]) -> "RowCounts":
        """Return the counts without the half hours and days that share time with these spans."""
        if not spans:
            return self
        return RowCounts(_without(self.half_hours, spans, HALF_HOUR), _without(self.days, spans, DAY))


def _without(counts: Mapping[int, int], spans: Sequence[Range], width: int) -> dict[int, int]:
    left = dict(counts)
    for span in spans:
        first, last = span.start // width, -(-span.end // width)
        if last - first > len(left):
            left = {number: rows for number, rows in left.items() if not first <= number < last}
        else:
            for number in range(first, last):
                left.pop(number, None)
    return left
