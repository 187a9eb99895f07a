"""The sandbox's HTTP handler: the order of the checks, what is counted, and who answers.

1. A call is counted when it arrives, however it ends. The API then checks the key, the rate limit and the faults, in
   this order, and asks the service last. Downloads need no key and have no rate limit.
2. The handler may share an event loop with the exporter under test, so nothing here blocks: threads make and compress
   the rows, and every wait is awaited.
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
from asyncexport.sandbox.routes import SandboxRoute, route, routing_error
from asyncexport.sandbox.sandbox import Sandbox
from asyncexport.sandbox.transmission import BY_THE_RULES, SandboxSentResponse, send


class SandboxServer:
    """The HTTP server of a sandbox; downloads are answered by `SandboxDownloads`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._downloads = SandboxDownloads(sandbox)

    async def close(self) -> None:
        """Stop the threads that make files."""
        await self._downloads.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            if request.raw_path.startswith(admin.PREFIX):
                answer = await self._answer_other(request)
                return await send(request, answer, BY_THE_RULES, now=self._sandbox.now)
            return await self._counted(request)
        except ConnectionResetError:
            # The client closed the connection. Without this, aiohttp would log it as an error of the handler.
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
            return error(404, form=form, message=routing_error(request.method, request.raw_path)), BY_THE_RULES
        try:
            if asked.endpoint == "download":
                return await self._downloads.answer(request)
            return await self._rate_limited(request, asked)
        except SandboxRefusal as refusal:
            return refused(refusal, form=form), BY_THE_RULES

    async def _rate_limited(self, request: web.BaseRequest, asked: SandboxRoute) -> SandboxReply:
        sandbox, behaviour = self._sandbox, self._sandbox.behaviour
        body = await request.read() if asked.endpoint == "create" else b""
        if not self._is_known(request.headers.get("Authorization", "")):
            raise SandboxRefusal(401, "unauthorized", "the API key is missing or wrong")
        now = sandbox.now
        wait_seconds = sandbox.limit.take_token(asked.endpoint, behaviour, now=now)
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
            fault = sandbox.faults.fault_for(asked.endpoint, self._span(asked, wanted, now))
        if fault is None:
            return self._service_answer(request, asked, wanted), BY_THE_RULES
        token = asked.query.get("paginationToken", "")
        context = SandboxFaultContext(behaviour, now, elsewhere(request), token, key=sandbox.key)
        answer = replacement_answer(fault, context) or altered_answer(
            fault, self._service_answer(request, asked, wanted, fault), context
        )
        return answer, transmission_of(fault, len(answer.body))

    def _service_answer(
        self,
        request: web.BaseRequest,
        asked: SandboxRoute,
        wanted: SandboxExportRequest | SandboxRefusal | None,
        fault: SandboxFault | None = None,
    ) -> SandboxAnswer:
        """Return the service's own answer."""
        sandbox, service, now = self._sandbox, self._sandbox.service, self._sandbox.now
        match asked.endpoint:
            case "create":
                if not isinstance(wanted, SandboxExportRequest):
                    raise wanted or SandboxRefusal(400, "bad_request", "the request has no body")
                if fault and fault.what == "same-id" and (known := service.created_last()):
                    return known
                operation_fault = sandbox.faults.fault_for("operation", service.span(wanted, now))
                key = request.headers.get("Idempotency-Key", "")
                return service.create(wanted, now=now, fault=operation_fault, idempotency_key=key)
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
        """Return the time range of the export that a call is about, or None if it is about none."""
        service = self._sandbox.service
        if isinstance(wanted, SandboxExportRequest):
            return service.span(wanted, now)
        one = (
            service.operations.find(asked.id) if asked.endpoint == "poll" else service.operations.find_export(asked.id)
        )
        return one.span if one else None

    def _is_known(self, authorization: str) -> bool:
        """Whether the key is right. It follows the scheme as it is, not in base64."""
        scheme, _, key = authorization.partition(" ")
        schemes = ("basic", "bearer") if self._sandbox.behaviour.bearer else ("basic",)
        return scheme.lower() in schemes and hmac.compare_digest(
            key.encode("utf-8", "surrogateescape"), self._sandbox.key.encode()
        )

    async def _answer_other(self, request: web.BaseRequest) -> SandboxAnswer:
        """Answer a request for something that the real service does not have."""
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
