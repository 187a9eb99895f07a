"""Sends one request to the API through the gate and judges its reply.

1. Every request is sent under a permit of the gate, after the permit was recorded. There are no retries here.
2. Error messages contain no secret, in any spelling that the service may echo.
3. The outcome of a request is reported to its permit once: the status, or that no answer came, and what went wrong.
   What says nothing about the service is not reported: a cancellation, or a certificate that cannot be trusted.
"""

from collections.abc import Callable

from asyncexport.client.api_transport import ApiTransport
from asyncexport.client.gate import Gate, RequestPermit
from asyncexport.client.outage_log import OutageLog
from asyncexport.core.admission import Priority
from asyncexport.core.masking import Mask
from asyncexport.core.service.replies import Reply, decoded, readable
from asyncexport.core.service.requests import Request
from asyncexport.core.service.statuses import judge, retry_after
from asyncexport.errors import ReplyError, ServiceError, UnavailableError


class GatedTransport:
    """Sends requests through the gate; `mask` replaces secrets, `wall_clock` returns seconds since 1970."""

    def __init__(self, transport: ApiTransport, gate: Gate, *, mask: Mask, wall_clock: Callable[[], float]) -> None:
        self._transport = transport
        self._gate = gate
        self._mask = mask
        self._wall_clock = wall_clock
        self._outages = OutageLog()

    async def call(self, request: Request, priority: Priority) -> Reply:
        """Send a request under a permit of its own; see `send`.

        Raises:
            UnavailableError: the gate grants no more permits.
            ServiceError: everything else that `send` raises.
        """
        async with self._gate.permit(request.kind, priority) as permit:
            return await self.send(request, permit)

    async def send(self, request: Request, permit: RequestPermit) -> Reply:
        """Send a request under this permit and return its reply, which is successful and decompressed.

        If the service stays unreachable, that is logged with the reason, and so is its return.

        Raises:
            ServiceError: see `ApiTransport.exchange`, `statuses.judge` and `replies.decoded`.
        """
        await permit.recorded()
        try:
            reply = await self._answer(request, permit)
        except UnavailableError as error:
            self._outages.failed(error, now=self._wall_clock())
            raise
        self._outages.answered()
        return reply

    async def _answer(self, request: Request, permit: RequestPermit) -> Reply:
        """Return the service's answer, after it was reported to the permit (rule 3)."""
        try:
            reply = await self._transport.exchange(request)
        except (UnavailableError, ReplyError) as error:
            self._mask.hide_in(error)
            # A reply that is far too long has a status: it is an answer and no outage.
            permit.answered(error.status if isinstance(error, ReplyError) else None, problem=str(error))
            raise
        now = self._wall_clock()
        try:
            judge(request, readable(reply), now=now)
        except ServiceError as error:
            self._mask.hide_in(error)
            permit.answered(reply.status, retry_after=retry_after(reply.headers, now=now), problem=str(error))
            raise
        permit.answered(reply.status)
        return decoded(reply)
