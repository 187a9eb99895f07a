"""Which open problems of an export lie in a range that the user accepts.

1. An acceptance covers the parked bundles and shortfalls that lie completely within the range, and no other time of it:
   a bundle that fails there later is a new problem.
2. What reaches beyond the range stays open and is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncexport.core.bundles import Range, merged


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What an acceptance covers.

    Attributes:
        spans: The time to accept, merged, in order.
        parked: The number of parked bundles in it.
        shortfalls: The number of shortfalls in it.
        beyond: The ranges of problems that overlap the range and reach beyond it.
    """

    spans: tuple[Range, ...]
    parked: int
    shortfalls: int
    beyond: tuple[Range, ...]


def acceptance(span: Range, *, parked: Sequence[Range], shortfalls: Sequence[Range]) -> Acceptance:
    """Return what the acceptance of a range covers.

    Args:
        span: The range that the user accepts.
        parked: The ranges of the parked bundles that are not accepted yet.
        shortfalls: The ranges of the shortfalls that are not accepted yet.
    """
    parked_inside = [one for one in parked if _lies_within(one, span)]
    short_inside = [one for one in shortfalls if _lies_within(one, span)]
    beyond = [
        one
        for one in (*parked, *shortfalls)
        if one.start < span.end and span.start < one.end and not _lies_within(one, span)
    ]
    inside = sorted((one.start, one.end) for one in (*parked_inside, *short_inside))
    return Acceptance(tuple(merged(inside)), len(parked_inside), len(short_inside), tuple(sorted(beyond)))


def _lies_within(one: Range, span: Range) -> bool:
    return span.start <= one.start and one.end <= span.end
