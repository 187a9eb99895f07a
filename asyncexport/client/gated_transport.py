"""One request to the API through the gate, and the judgement of its reply.

1. Every request passes the gate, which decides when it may go out. There are no retries here.
2. The gate hears of every request that it let through, once: of the status that came back, that no answer came, or that
   what came of it tells nothing of the service (a cancel, a certificate that cannot be trusted).
"""

from collections.abc import Awaitable, Callable

from asyncexport.client.api_transport import ApiTransport
from asyncexport.client.gate import Gate
from asyncexport.client.outage_log import OutageLog
from asyncexport.core.admission import Priority
from asyncexport.core.service.replies import Reply, decoded
from asyncexport.core.service.requests import Request
from asyncexport.core.service.statuses import judge, retry_after
from asyncexport.errors import ReplyError, UnavailableError


class GatedTransport:
    """Makes requests that pass the gate; `wall_clock` tells seconds since 1970."""

    def __init__(self, transport: ApiTransport, gate: Gate, *, wall_clock: Callable[[], float]) -> None:
        self._transport = transport
        self._gate = gate
        self._wall_clock = wall_clock
        self._outages = OutageLog()

    async def call(
        self, request: Request, priority: Priority, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> Reply:
        """One request, and its reply, which is a success and not compressed.

        A service that stays out of reach is told of in the log with the reason, and so is its return.

        Raises:
            ServiceError: what `ApiTransport.exchange`, `statuses.judge` and `replies.decoded` raise.
            UnavailableError: the gate lets nobody through any more; with the reason of the last failure.
        """
        try:
            reply = await self._exchange(request, priority, before=before)
            judge(request, reply, now=self._wall_clock())
            reply = decoded(reply)
        except UnavailableError as error:
            if not error.transient and self._outages.reason:
                raise UnavailableError(f"{error} ({self._outages.reason})", lasting=True, hint=error.hint) from error
            self._outages.failed(error, now=self._wall_clock())
            raise
        self._outages.answered()
        return reply

    async def _exchange(
        self, request: Request, priority: Priority, *, before: Callable[[], Awaitable[None]] | None
    ) -> Reply:
        """Pass the gate, exchange the request for a reply, and tell the gate what came of it (rule 2)."""
        leave = await self._gate.enter(request.kind, priority, before=before)
        status: int | None = None
        tells = False
        seconds = None
        try:
            try:
                reply = await self._transport.exchange(request)
            except (UnavailableError, ReplyError):
                tells = True
                raise
            tells, status = True, reply.status
            seconds = retry_after(reply.headers, now=self._wall_clock())
        finally:
            if tells:
                leave.leave(status, retry_after=seconds)
            else:
                leave.abandon()
        return reply
