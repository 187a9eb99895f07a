"""Individuals: one row for everybody who has an event in a range, with totals as of a moment."""

from collections.abc import Iterator

from asyncexport.sandbox.rows import Row, Rows


def individuals(rows: Rows, start: float, end: float, *, as_of: float) -> Iterator[Row]:
    """One row per individual with an event in [start, end), totals as of `as_of`."""
    seen: dict[int, int] = {}
    for view in rows.history(start, end, as_of=as_of):
        seen[view.facts["IndvId"]] = seen.get(view.facts["IndvId"], 0) + len(view.moments)
    for person, count in seen.items():
        yield {"IndvId": person, "NumEvents": count, "UserVars": {}}
