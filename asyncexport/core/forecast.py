"""What a run will cost and when it will be done: the arithmetic of reference section 6, for `plan` and progress."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncexport.core.polling import LIST_SIZE


@dataclass(frozen=True, slots=True)
class RequestCost:
    """One reading of the service's limit: how many counted requests some bundles cost."""

    name: str
    per_bundle: int
    per_list: int

    def requests(self, bundles: int, *, created: int = 0, second_looks: int = 0) -> int:
        """Counted requests for so many bundles, of which some have an operation already.

        `second_looks`: how many of their files are looked at twice, through a link each.
        """
        links = second_looks if self.per_bundle > 1 else 0
        return self.per_bundle * bundles - created + links + self.per_list * -(-bundles // LIST_SIZE)


CREATES_ONLY = RequestCost("create", per_bundle=1, per_list=0)
ALL_WITH_LIST = RequestCost("all", per_bundle=2, per_list=1)
ALL_WITHOUT_LIST = RequestCost("all, no list", per_bundle=3, per_list=0)
REQUEST_COSTS = (CREATES_ONLY, ALL_WITH_LIST, ALL_WITHOUT_LIST)


@dataclass(frozen=True, slots=True)
class Pace:
    """What sets the pace of a run.

    Attributes:
        tokens: Requests at hand.
        requests_per_minute: How fast more come in.
        in_flight: How many operations may be running at the service at once.
        operation_seconds: What one takes.
    """

    tokens: float
    requests_per_minute: float
    in_flight: int
    operation_seconds: float


def seconds_for(requests: int, *, tokens: float, requests_per_minute: float) -> float:
    """How long until the last of so many counted requests may go out, with so many tokens at hand."""
    return max(0.0, requests - tokens) / requests_per_minute * 60


def seconds_to_end(
    reading: RequestCost,
    pace: Pace,
    *,
    bundles: int,
    created: int = 0,
    rest_seconds: float = 0.0,
    second_looks: int = 0,
    second_look_seconds: float = 0.0,
) -> float:
    """How long a run will take: as long as the requests do, or the operations, whichever is longer.

    `created` of the bundles have an operation already; `rest_seconds` is how long these will go on for. So many files
    take a second look, `second_look_seconds` after the first; the last of them may be the last of the run.
    """
    last_look = second_look_seconds if second_looks else 0.0
    to_create = bundles - created
    quota = seconds_for(
        reading.requests(bundles, created=created, second_looks=second_looks),
        tokens=pace.tokens,
        requests_per_minute=pace.requests_per_minute,
    )
    if not to_create:
        return max(quota, rest_seconds + last_look)
    last_create = max(
        seconds_for(to_create, tokens=pace.tokens, requests_per_minute=pace.requests_per_minute),
        max(0, bundles - pace.in_flight) / pace.in_flight * pace.operation_seconds,
    )
    return max(quota, rest_seconds, last_create + pace.operation_seconds + last_look)


def seconds_of_downloads(files: int, *, slots: int, each_seconds: float, ages: Sequence[float]) -> float:
    """How long until so many files are fetched; of those under way, the ages are how long they have been going.

    One that has taken longer than usual is expected to go on for as long again.
    """
    return max(files / slots * each_seconds, *(max(age, each_seconds) for age in ages), 0.0)
