"""Cuts a span of time by what covers it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from asyncexport.core.bundles import Range


def layered(span: Range, layers: Sequence[Iterable[Range]]) -> Iterator[tuple[Range, int]]:
    """Cut a span into ranges, each with the number of the first layer that covers it; len(layers) if none does.

    They are in order of time, and each range is as long as possible. The ranges of a layer may overlap and be in any
    order. The cost grows with the number of ranges, not with the length of the span.
    """
    edges = sorted(
        edge
        for number, ranges in enumerate(layers)
        for one in ranges
        if one.start < span.end and span.start < one.end
        for edge in ((max(one.start, span.start), number, 1), (min(one.end, span.end), number, -1))
    )
    open_ranges = [0] * len(layers)
    start, covering = span.start, len(layers)
    for at, group in groupby(edges, key=lambda edge: edge[0]):
        for _, number, step in group:
            open_ranges[number] += step
        now_covering = next((number for number, count in enumerate(open_ranges) if count), len(layers))
        if now_covering != covering:
            if start < at:
                yield Range(start, at), covering
            start, covering = at, now_covering
    if start < span.end:
        yield Range(start, span.end), covering
