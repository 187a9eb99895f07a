"""Holds all requests back after a 401, except `/me`, until it is known whether the key is good."""

import asyncio
from collections.abc import Awaitable, Callable

from asyncexport.core.admission import Grant
from asyncexport.core.service.requests import Kind


class KeyHold:
    """Open until a 401 is read, and again once the key was found to be good."""

    def __init__(self) -> None:
        self._sure = asyncio.Event()
        self._sure.set()

    async def granted(
        self, kind: Kind, grant: Callable[[], Awaitable[Grant]], *, take_back: Callable[[Grant], None]
    ) -> Grant:
        """What is granted, once it may be used; the question whose key it is may always go."""
        while True:
            if kind is not Kind.OTHER:
                await self._sure.wait()
            granted = await grant()
            if kind is Kind.OTHER or self._sure.is_set():
                return granted
            take_back(granted)

    def answered(self, kind: Kind, status: int | None) -> None:
        """An answer was read."""
        if status == 401 and kind is not Kind.OTHER:
            self._sure.clear()

    def trust(self) -> None:
        """The key is good."""
        self._sure.set()
