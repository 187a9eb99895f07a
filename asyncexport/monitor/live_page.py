"""The status page during a run: made anew from time to time, in a thread, and shared by all who read it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from asyncexport.monitor.live_changes import LiveChanges

LEAST_PAUSE_SECONDS = 10.0
"""Least time between two pages. Changes of bundles are sent in between; a new page also has the verdict and figures."""

PAUSE_PER_COST = 100.0
"""After a page, the next one is at least this many times its processor time later: pages take 1 % at most."""

PAUSE_WITHOUT_LEDGER_SECONDS = 1.0
"""The pause until there is a ledger, which a first run is about to create."""


@dataclass(frozen=True, slots=True)
class LivePage:
    """A page.

    Attributes:
        html: The page.
        version: Its number among the pages of this run, from 1 on.
        includes: The number of the last change that it is sure to include.
    """

    html: str
    version: int
    includes: int


class LivePages:
    """Makes pages.

    Args:
        changes: The changes of bundles.
        make: Makes a page that contains this name of its state; called in a thread. Returns the page and
            whether there is a ledger.
        token: A text that differs from run to run.

    Attributes:
        current: The newest page; None if none was made yet.
    """

    def __init__(self, changes: LiveChanges, make: Callable[[str], tuple[str, bool]], *, token: str) -> None:
        self.current: LivePage | None = None
        self._changes = changes
        self._make = make
        self._token = token
        self._making = asyncio.Lock()
        self._refreshing: asyncio.Task[LivePage] | None = None
        self._due_at = 0.0
        self._has_ledger = True

    async def present(self) -> LivePage:
        """Return a page that is not older than the pause between two pages."""
        async with self._making:
            if self.current is None or (self._is_due() and self._is_outdated(self.current)):
                return await self._made()
            return self.current

    async def newest(self) -> LivePage:
        """Make a page now."""
        async with self._making:
            return await self._made()

    def refresh(self) -> None:
        """Begin to make a page if the last one is outdated and the pause is over."""
        is_free = self._refreshing is None or self._refreshing.done()
        if is_free and self._is_due() and self.current is not None and self._is_outdated(self.current):
            self._refreshing = asyncio.create_task(self.present(), name="live page")

    async def close(self) -> None:
        """Wait for a page that is being made."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait({self._refreshing})

    def name(self, page: LivePage, number: int) -> str:
        """Return the name of a state: this page with the changes up to this number."""
        return f"{self._token}.{page.version}.{number}"

    def read(self, name: str) -> tuple[int, int]:
        """Return the version of the page and the number of the last change that a name stands for; 0 if unknown."""
        token, _, rest = name.partition(".")
        version, _, number = rest.partition(".")
        if token != self._token or not (version.isdecimal() and number.isdecimal()):
            return 0, 0
        return int(version), int(number)

    def _is_due(self) -> bool:
        return asyncio.get_running_loop().time() >= self._due_at

    def _is_outdated(self, page: LivePage) -> bool:
        return self._changes.number > page.includes or not self._has_ledger

    async def _made(self) -> LivePage:
        # What the changes so far say is in the ledger, which is read after this.
        includes = self._changes.number
        version = 1 if self.current is None else self.current.version + 1
        html, has_ledger, cost = await asyncio.to_thread(self._timed, f"{self._token}.{version}.{includes}")
        pause = max(LEAST_PAUSE_SECONDS, cost * PAUSE_PER_COST) if has_ledger else PAUSE_WITHOUT_LEDGER_SECONDS
        self._due_at = asyncio.get_running_loop().time() + pause
        self._has_ledger = has_ledger
        self.current = LivePage(html, version, includes)
        return self.current

    def _timed(self, name: str) -> tuple[str, bool, float]:
        began = time.thread_time()
        html, has_ledger = self._make(name)
        return html, has_ledger, time.thread_time() - began
