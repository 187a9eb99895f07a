"""Events of a shop that does not exist, made from the time and a seed alone."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime

from asyncexport.sandbox.rows import PageView, Row, Rows, micros

__all__ = ["Row", "Rows", "SyntheticRows"]


class SyntheticRows:
    """Events made up from the time and a seed: the same ones in every process.

    Args:
        seed: Another seed, another shop.
        rows_per_hour: How many events there are in an hour on average.
        late_share: The share of rows that reach the service late.
        late_seconds: How long after its event a late row reaches the service; all others do so at once.
        quiet: The share of the half-hours between midnight and six, UTC, in which nothing happens at all.
    """

    def __init__(
        self,
        seed: int = 1,
        rows_per_hour: float = 800,
        *,
        late_share: float = 0.0,
        late_seconds: float = 0.0,
        quiet: float = 0.25,
    ) -> None:
        self._seed = seed
        self._rate = rows_per_hour
        self._late = (late_share, late_seconds)
        self._quiet = quiet

    def between(self, start: float, end: float, *, arrived_by: float | None = None) -> Iterator[Row]:
        """The rows with start <= EventStart < end, shuffled."""
        first, last = micros(start), micros(end)
        for minute in range(first // 60_000_000, -(-last // 60_000_000)):
            rng = random.Random(f"{self._seed} {minute}")
            for _ in range(int(self._rate / 60 + rng.random())):
                at = minute * 60_000 + int(rng.random() * 60_000)
                user, late = (1 << 60) + rng.getrandbits(61), rng.random() < self._late[0]
                if not first <= at * 1000 < last:
                    continue
                if arrived_by is not None and at / 1000 + late * self._late[1] > arrived_by:
                    continue
                stamp = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")[:23] + "Z"
                yield {
                    "IndvId": user,
                    "UserId": user,
                    "SessionId": user,
                    "PageId": user,
                    "EventStart": stamp,
                    "EventType": "click",
                }

    def history(self, start: float, end: float, *, as_of: float) -> Iterator[PageView]:
        """All page views up to `as_of` of whoever has an event in the range."""
        for row in self.between(start, min(end, as_of)):
            yield PageView(row, (micros(datetime.fromisoformat(row["EventStart"]).timestamp()),))
