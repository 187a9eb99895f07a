"""What a run will cost and when it will be done: the arithmetic of reference section 6, for `plan` and progress."""

from dataclasses import dataclass

from asyncexport.core.watching import LIST_SIZE


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the service's limit: how many counted requests some bundles cost."""

    name: str
    per_bundle: int
    per_list: int

    def requests(self, bundles: int) -> int:
        """Counted requests for so many bundles."""
        return self.per_bundle * bundles + self.per_list * -(-bundles // LIST_SIZE)


CREATES_ONLY = Reading("create", per_bundle=1, per_list=0)
ALL_WITH_LIST = Reading("all", per_bundle=2, per_list=1)
ALL_WITHOUT_LIST = Reading("all, no list", per_bundle=3, per_list=0)


def seconds_for(requests: int, *, tokens: float, requests_per_minute: float) -> float:
    """How long until the last of so many counted requests may go out, with so many tokens at hand."""
    return max(0.0, requests - tokens) / requests_per_minute * 60
