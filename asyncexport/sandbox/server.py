"""The sandbox as a server: what comes first, what is counted, and what is answered.

1. A call is counted when it has arrived, whatever becomes of it. Then come the key, the limit, the faults, and last the
   service itself. Downloads need no key and pass no limit.
2. The event loop may be that of the exporter under test as well, so nothing here takes long: rows are made and
   compressed in threads, and every wait is one.
"""

import hmac

from aiohttp import web

from asyncexport.sandbox import admin, segments
from asyncexport.sandbox.answers import SandboxAnswer, error, refused, reply
from asyncexport.sandbox.downloads import SandboxDownloads, SandboxReply, elsewhere
from asyncexport.sandbox.fault_effects import SandboxFaultContext, altered_answer, replacement_answer, transmission_of
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.limit import retry_after_header
from asyncexport.sandbox.reading import SandboxExportRequest, SandboxRefusal, read_export_request
from asyncexport.sandbox.routes import SandboxRoute, misroute, route
from asyncexport.sandbox.sandbox import Sandbox
from asyncexport.sandbox.transmission import BY_THE_RULES, SandboxSentResponse, send


class SandboxServer:
    """The HTTP server of a sandbox; downloads are answered by `SandboxDownloads`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._downloads = SandboxDownloads(sandbox)

    async def close(self) -> None:
        """Give back what it holds."""
        await self._downloads.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            if request.raw_path.startswith(admin.PREFIX):
                answer = await self._aside(request)
                return await send(request, answer, BY_THE_RULES, now=self._sandbox.now)
            return await self._counted(request)
        except ConnectionResetError:
            # The peer is gone; were this let through, aiohttp would log it as a fault of ours.
            return SandboxSentResponse(keep=False)

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        sandbox = self._sandbox
        asked = route(request.method, request.raw_path, strict_ids=sandbox.behaviour.ids == "strict")
        call = sandbox.arrived(asked.endpoint if asked else "other")
        try:
            answer, transmission = await self._reply_to(request, asked)
            call.status = answer.status if transmission.head == "whole" else 0
            return await send(request, answer, transmission, now=sandbox.now)
        finally:
            sandbox.left(call)

    async def _reply_to(self, request: web.BaseRequest, asked: SandboxRoute | None) -> SandboxReply:
        form = self._sandbox.behaviour.error_body
        if asked is None:
            return error(404, form=form, message=misroute(request.method, request.raw_path)), BY_THE_RULES
        try:
            if asked.endpoint == "download":
                return await self._downloads.answer(request)
            return await self._metered(request, asked)
        except SandboxRefusal as refusal:
            return refused(refusal, form=form), BY_THE_RULES

    async def _metered(self, request: web.BaseRequest, asked: SandboxRoute) -> SandboxReply:
        sandbox, behaviour = self._sandbox, self._sandbox.behaviour
        body = await request.read() if asked.endpoint == "create" else b""
        if not self._is_known(request.headers.get("Authorization", "")):
            raise SandboxRefusal(401, "unauthorized", "the API key is missing or wrong")
        now = sandbox.now
        wait_seconds = sandbox.limit.refuses(asked.endpoint, behaviour, now=now)
        if wait_seconds is not None:
            headers = retry_after_header(behaviour.retry_after, wait_seconds, now=now)
            return error(429, form=behaviour.error_body, headers=headers), BY_THE_RULES
        try:
            replied = self._api(request, asked, body, now)
        except SandboxRefusal as refusal:
            replied = refused(refusal, form=behaviour.error_body), BY_THE_RULES
        if replied[0].status != 200 and not behaviour.failure_costs:
            sandbox.limit.give_back(asked.endpoint, behaviour)
        return replied

    def _api(self, request: web.BaseRequest, asked: SandboxRoute, body: bytes, now: float) -> SandboxReply:
        sandbox, behaviour = self._sandbox, self._sandbox.behaviour
        wanted = _export_request(body) if asked.endpoint == "create" else None
        fault = None
        if behaviour.faults:
            fault = sandbox.faults.befall(asked.endpoint, self._span(asked, wanted, now))
        if fault is None:
            return self._asked(request, asked, wanted), BY_THE_RULES
        token = asked.query.get("paginationToken", "")
        context = SandboxFaultContext(behaviour, now, elsewhere(request), token, key=sandbox.key)
        answer = replacement_answer(fault, context) or altered_answer(
            fault, self._asked(request, asked, wanted, fault), context
        )
        return answer, transmission_of(fault, len(answer.body))

    def _asked(
        self,
        request: web.BaseRequest,
        asked: SandboxRoute,
        wanted: SandboxExportRequest | SandboxRefusal | None,
        fault: SandboxFault | None = None,
    ) -> SandboxAnswer:
        """What the service says."""
        sandbox, service, now = self._sandbox, self._sandbox.service, self._sandbox.now
        match asked.endpoint:
            case "create":
                if not isinstance(wanted, SandboxExportRequest):
                    raise wanted or SandboxRefusal(400, "bad_request", "there is no body")
                if fault and fault.what == "same-id" and (known := service.created_last()):
                    return known
                fate = sandbox.faults.befall("operation", service.span(wanted, now))
                key = request.headers.get("Idempotency-Key", "")
                return service.create(wanted, now=now, fate=fate, idempotency_key=key)
            case "poll":
                return service.poll(asked.id, now=now)
            case "list":
                return service.list(asked.query, now=now)
            case "results":
                one = service.exported(asked.id, now=now)
                life = -1.0 if fault and fault.what == "dead-link" else sandbox.behaviour.link_life_seconds
                return self._downloads.location(request, one, now + sandbox.behaviour.shortened(life))
            case "segments":
                return segments.listed(asked.query, sandbox.behaviour.segments)
            case "segment":
                return segments.shown(asked.id, sandbox.behaviour.segments)
            case _:
                organisation = sandbox.behaviour.organisation
                return reply({"email": "owner@example.com", "orgId": organisation, "role": "ADMIN"})

    def _span(
        self, asked: SandboxRoute, wanted: SandboxExportRequest | SandboxRefusal | None, now: float
    ) -> tuple[float, float] | None:
        """The range that a call is about."""
        service = self._sandbox.service
        if isinstance(wanted, SandboxExportRequest):
            return service.span(wanted, now)
        one = (
            service.operations.find(asked.id) if asked.endpoint == "poll" else service.operations.find_export(asked.id)
        )
        return one.span if one else None

    def _is_known(self, authorization: str) -> bool:
        """Whether the key is right: it goes in as it is (reference section 2)."""
        scheme, _, key = authorization.partition(" ")
        schemes = ("basic", "bearer") if self._sandbox.behaviour.bearer else ("basic",)
        return scheme.lower() in schemes and hmac.compare_digest(
            key.encode("utf-8", "surrogateescape"), self._sandbox.key.encode()
        )

    async def _aside(self, request: web.BaseRequest) -> SandboxAnswer:
        """What does not belong to the service."""
        if request.raw_path.startswith(admin.ELSEWHERE):
            self._sandbox.redirected += 1
            self._sandbox.redirected_with_key += "Authorization" in request.headers
            return reply({})
        return await admin.answered(self._sandbox, request.method, request.raw_path, await request.read())


def _export_request(body: bytes) -> SandboxExportRequest | SandboxRefusal:
    try:
        return read_export_request(body)
    except SandboxRefusal as refusal:
        return refusal
