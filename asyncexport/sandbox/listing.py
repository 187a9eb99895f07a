"""The list of operations, page by page: order, pagination and filters.

1. A token names the operation that a page begins with, so new operations neither hide nor repeat an item. With
   `list_moves` it is an offset from the top instead, and items move between pages.
2. Filters apply before pagination: every page but the last is full.
"""

import bisect
import re
from collections.abc import Iterator, Mapping
from itertools import islice

from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.reading import SandboxRefusal
from asyncexport.sandbox.segments import read_limit

PAGE = 100
"""Operations on a page: the default and the maximum."""


class SandboxOperationList:
    """All operations in the orders in which they can be listed."""

    def __init__(self) -> None:
        self._operations: list[SandboxOperation] = []
        self._shuffled: list[tuple[str, int]] = []

    def add(self, one: SandboxOperation) -> None:
        """Add an operation, the newest one."""
        self._operations.append(one)
        # Export ids are random, so sorting by them shuffles the operations.
        bisect.insort(self._shuffled, (one.export_id.encode().hex(), one.number))

    def page(
        self, query: Mapping[str, str], behaviour: SandboxBehaviour, *, now: float, kept_since: float
    ) -> tuple[list[SandboxOperation], str]:
        """Return a page and the token of the next one, or "" after the last.

        Raises:
            SandboxRefusal: The query is invalid.
        """
        limit = read_limit(query, default=PAGE, most=PAGE)
        type_, state = query.get("type", ""), query.get("state", "")
        place, skipped = _page_start(query.get("paginationToken", ""), behaviour)
        found = (
            (place, one)
            for place, one in self._from(place, behaviour)
            if one.created_at > kept_since
            and (not type_ or one.type == type_)
            and (not state or one.state(now) == state)
        )
        page = list(islice(found, skipped, skipped + limit + 1))
        token = ""
        if len(page) > limit:
            token = f"n{skipped + limit}" if behaviour.list_moves else f"p{page[limit][0]}"
        return [one for _, one in page[:limit]], token

    def _from(self, place: str, behaviour: SandboxBehaviour) -> Iterator[tuple[str, SandboxOperation]]:
        """Yield the operations from a place in the list on, each with its own place."""
        count = len(self._operations)
        oldest = 0 if behaviour.list_reaches is None else max(0, count - behaviour.list_reaches)
        match behaviour.list_order:
            case "shuffled":
                first = bisect.bisect_left(self._shuffled, (place, -1))
                for key, number in islice(self._shuffled, first, None):
                    if number >= oldest:
                        yield key, self._operations[number]
            case "oldest":
                for number in range(max(oldest, int(place or 0)), count):
                    yield str(number), self._operations[number]
            case "newest":
                for number in range(min(int(place or count), count - 1), oldest - 1, -1):
                    yield str(number), self._operations[number]


def _page_start(token: str, behaviour: SandboxBehaviour) -> tuple[str, int]:
    """Return the place at which a page begins and the number of items to skip from there."""
    places = "[0-9a-f]{1,200}" if behaviour.list_order == "shuffled" else "[0-9]{1,12}"
    if re.fullmatch("n[0-9]{1,12}", token):
        return "", int(token[1:])
    if re.fullmatch(f"p{places}", token):
        return token[1:], 0
    if token:
        raise SandboxRefusal(400, "bad_request", "the paginationToken is unknown")
    return "", 0
