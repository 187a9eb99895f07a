"""Pauses all requests except `/me` after a 401, until it is known whether the key is good."""

import asyncio
from collections.abc import Awaitable, Callable

from asyncexport.core.admission import Grant
from asyncexport.core.service.requests import Kind


class KeyHold:
    """Lets requests pass until a 401 arrives, and again once the key is known to be good."""

    def __init__(self) -> None:
        self._trusted = asyncio.Event()
        self._trusted.set()

    async def granted(
        self, kind: Kind, grant: Callable[[], Awaitable[Grant]], *, take_back: Callable[[Grant], None]
    ) -> Grant:
        """Wait for a grant that may be used; requests of the kind that checks the key always pass."""
        while True:
            if kind is not Kind.OTHER:
                await self._trusted.wait()
            granted = await grant()
            if kind is Kind.OTHER or self._trusted.is_set():
                return granted
            take_back(granted)

    def answered(self, kind: Kind, status: int | None) -> None:
        """Note the status of an answer; a 401 starts the pause."""
        if status == 401 and kind is not Kind.OTHER:
            self._trusted.clear()

    def trust(self) -> None:
        """End the pause: the key is good."""
        self._trusted.set()
