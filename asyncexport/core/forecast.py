"""Forecasts what a run costs and when it ends (API reference, section 6), for `plan` and for the progress display."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncexport.core.polling import LIST_SIZE


@dataclass(frozen=True, slots=True)
class RequestCost:
    """One assumption about the service's limit: how many counted requests bundles cost."""

    name: str
    per_bundle: int
    per_list: int

    def requests(self, bundles: int, *, created: int = 0, second_looks: int = 0) -> int:
        """Return the counted requests for this many bundles, of which `created` have an operation already.

        `second_looks`: how many of their files need a second check, each through another link.
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
        tokens: Requests that can be sent now.
        requests_per_minute: The rate at which tokens come back.
        in_flight: Operations that may be in flight at the same time.
        operation_seconds: The duration of an operation.
    """

    tokens: float
    requests_per_minute: float
    in_flight: int
    operation_seconds: float


def seconds_for(requests: int, *, tokens: float, requests_per_minute: float) -> float:
    """Return the seconds until the last of this many counted requests may be sent."""
    return max(0.0, requests - tokens) / requests_per_minute * 60


def seconds_to_end(
    reading: RequestCost,
    pace: Pace,
    *,
    bundles: int,
    created: int = 0,
    remaining_seconds: float = 0.0,
    second_looks: int = 0,
    second_look_seconds: float = 0.0,
) -> float:
    """Return how long a run will take: as long as the requests or the operations take, whichever is longer.

    `created` of the bundles have an operation already, and `remaining_seconds` is how long these will still run.
    `second_looks` files need a second check, `second_look_seconds` after the first; the last of them may end the run.
    """
    last_look = second_look_seconds if second_looks else 0.0
    to_create = bundles - created
    quota = seconds_for(
        reading.requests(bundles, created=created, second_looks=second_looks),
        tokens=pace.tokens,
        requests_per_minute=pace.requests_per_minute,
    )
    if not to_create:
        return max(quota, remaining_seconds + last_look)
    last_create = max(
        seconds_for(to_create, tokens=pace.tokens, requests_per_minute=pace.requests_per_minute),
        max(0, bundles - pace.in_flight) / pace.in_flight * pace.operation_seconds,
    )
    return max(quota, remaining_seconds, last_create + pace.operation_seconds + last_look)


def seconds_of_downloads(files: int, *, slots: int, each_seconds: float, ages: Sequence[float]) -> float:
    """Return the seconds until this many files are fetched. `ages`: how long downloads in progress have been running.

    A download that has taken longer than usual is expected to take as long again.
    """
    return max(files / slots * each_seconds, *(max(age, each_seconds) for age in ages), 0.0)
