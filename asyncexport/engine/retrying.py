"""Trying again: how long to wait, and whose trouble it is.

What fails for one bundle while it goes well for others all the time is no outage. After `[retry] outage` a create that
fails so is parked, and a file that cannot be had so counts as a failed attempt; the run goes on.
"""

import asyncio
import math
from collections.abc import Callable
from enum import Enum

from asyncexport.core.admission import Backoff


class Step(Enum):
    """What may go well for some bundles and not for others."""

    CREATE = "create"
    LOCATE = "locate"
    FETCH = "fetch"


class Retrying:
    """What all bundles know of what goes well.

    Args:
        backoff: How long between tries, and after how long a trouble has lasted long enough.
        jitter: A number in [0, 1), anew at each call.
    """

    def __init__(self, backoff: Backoff, *, jitter: Callable[[], float]) -> None:
        self._backoff = backoff
        self._jitter = jitter
        self._went_well = dict.fromkeys(Step, -math.inf)
        self.now = asyncio.get_running_loop().time

    async def pause(self, tries: int) -> None:
        """Wait before the next try, after so many in a row that failed."""
        await asyncio.sleep(self._backoff.wait_seconds(max(1, tries), jitter=self._jitter()))

    def note_success(self, step: Step) -> None:
        """It went well for a bundle."""
        self._went_well[step] = self.now()

    def has_lasted(self, since: float) -> bool:
        """Whether a trouble that began at this moment has lasted as long as anybody is willing to wait."""
        return self.now() - since >= self._backoff.outage_seconds

    def is_its_own(self, step: Step, since: float) -> bool:
        """Whether a trouble that began so long ago is one bundle's alone, since others got on meanwhile."""
        return self.has_lasted(since) and self._went_well[step] > since
