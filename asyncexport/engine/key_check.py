"""Asks the service (`/me`) whether the key is good when an answer casts doubt on it.

1. When several calls are refused at the same time, `/me` is asked once and all of them wait for that answer. If one of
   them is cancelled, the others still get it. A key that `/me` refuses stays refused.
2. `CheckedCalls` makes the service's calls and confirms each 401 with `/me` before the caller sees it. Until then the
   budget grants no other permit. If the key is good, the 401 came from a proxy or gateway, and the caller gets a
   `RefusedError`.
3. An outage during `/me` is waited out, as for any other call.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition
from asyncexport.core.service.resources import DownloadLink, Me, Operation, OperationsPage
from asyncexport.core.service.retrying import Action, Call, Facts, Failure, KeyStatus, decide
from asyncexport.engine.budget import Budget
from asyncexport.engine.calls import ServiceCalls
from asyncexport.engine.permit import Permit
from asyncexport.errors import RateLimitedError, RefusedError, ServiceError, UnauthorizedError, UnavailableError

Answer = TypeVar("Answer")

PAUSE_SECONDS = 1.0
"""Pause before `/me` is asked again after an outage or a 429, in addition to the budget's own pauses."""


class KeyCheck:
    """Checks the key with `/me`.

    Args:
        me: Calls `/me`.
        trusted: Called when the key turned out to be good.
    """

    def __init__(self, me: Callable[[], Awaitable[Me]], *, trusted: Callable[[], None] = lambda: None) -> None:
        self._me = me
        self._trusted = trusted
        self._asking: asyncio.Task[KeyStatus] | None = None
        self._waiting = 0
        self._is_refused = False

    async def status(self) -> KeyStatus:
        """Ask `/me` about the key (rules 1 and 3).

        Raises:
            UnavailableError: the service was given up.
        """
        if self._is_refused:
            return KeyStatus.REFUSED
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="key")
        asking = self._asking
        self._waiting += 1
        try:
            await asyncio.wait({asking})
        finally:
            self._waiting -= 1
            if not asking.done() and not self._waiting:
                self._asking = None
                asking.cancel()
                await asyncio.wait({asking})
        return asking.result()

    async def _ask(self) -> KeyStatus:
        while True:
            try:
                await self._me()
            except UnauthorizedError:
                self._is_refused = True
                return KeyStatus.REFUSED
            except RefusedError as error:
                self._is_refused = error.status == 403
                return KeyStatus.REFUSED if self._is_refused else KeyStatus.UNCLEAR
            except (UnavailableError, RateLimitedError) as error:
                if not error.transient:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            except ServiceError:
                return KeyStatus.UNCLEAR
            else:
                self._trusted()
                return KeyStatus.GOOD


class CheckedCalls:
    """The service's calls, with each 401 confirmed (rule 2); implements `OperationCalls` and `ExportCalls`.

    Args:
        service: Makes the calls.
        gate: The budget, which pauses all requests after a 401.

    Attributes:
        key: Checks the key. Also used where other answers cast doubt on it, so that all share one check.
    """

    def __init__(self, service: ServiceCalls, gate: Budget) -> None:
        self._service = service
        self.key = KeyCheck(self.me, trusted=gate.key.trust)

    async def create(self, definition: Definition, span: Range, *, permit: Permit) -> str:
        """Start an operation under this permit; return its id."""
        return await self._checked(Call.CREATE, self._service.create(definition, span, permit=permit))

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """Get one operation."""
        return await self._checked(Call.POLL, self._service.operation(operation_id, priority=priority))

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """Get one page of the list."""
        page = self._service.operations(state=state, token=token, priority=priority)
        return await self._checked(Call.LIST, page)

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """Get a fresh signed URL."""
        return await self._checked(Call.RESULTS, self._service.locate(export_id, priority=priority))

    async def me(self, *, priority: Priority = Priority.REST) -> Me:
        """Ask whose key it is."""
        return await self._service.me(priority=priority)

    async def _checked(self, call: Call, asking: Awaitable[Answer]) -> Answer:
        try:
            return await asking
        except UnauthorizedError as error:
            refusal = error
        if decide(call, Failure.UNAUTHORIZED, Facts(key=await self.key.status())) is Action.STOP_RUN:
            raise refusal
        raise RefusedError(str(refusal), status=401) from refusal
