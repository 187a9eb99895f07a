"""The sandbox as a server: what comes first, what is counted, and what is answered.

1. A call is counted when it has arrived, whatever becomes of it. Then come the key, the limit, the faults, and last the
   service itself. Downloads need no key and pass no limit.
2. The event loop may be that of the exporter under test as well, so nothing here takes long: rows are made and
   compressed in threads, and every wait is one.
"""

import hmac
from dataclasses import replace

from aiohttp import web

from asyncexport.core.bundles import day
from asyncexport.sandbox import admin, segments
from asyncexport.sandbox.answers import SandboxAnswer, error, refused, reply, stamp
from asyncexport.sandbox.contents import DAMAGES, SandboxArchives
from asyncexport.sandbox.delivery import BY_THE_RULES, SandboxDelivery, SandboxSentResponse, send
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.limit import retry_after
from asyncexport.sandbox.mishaps import SandboxFaultContext, afterwards, instead, manner_of
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.reading import SandboxExportRequest, SandboxRefusal, read_order
from asyncexport.sandbox.routes import SandboxRoute, route
from asyncexport.sandbox.sandbox import Sandbox
from asyncexport.sandbox.storage import SandboxDownloadRequest, SandboxSignedLinks, delivered, expired, xml

Going = tuple[SandboxAnswer, SandboxDelivery]
"""An answer, and how it is to be sent."""


class SandboxServer:
    """Answers requests in the name of a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._links = SandboxSignedLinks()
        self._archives = SandboxArchives()

    async def close(self) -> None:
        """Give back what it holds."""
        await self._archives.close()

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
            answer, manner = await self._going(request, asked)
            call.status = answer.status if manner.head == "whole" else 0
            return await send(request, answer, manner, now=sandbox.now)
        finally:
            sandbox.left(call)

    async def _going(self, request: web.BaseRequest, asked: SandboxRoute | None) -> Going:
        form = self._sandbox.behaviour.error_body
        if asked is None:
            return error(404, form=form), BY_THE_RULES
        try:
            if asked.endpoint == "download":
                return await self._download(request)
            return await self._metered(request, asked)
        except SandboxRefusal as refusal:
            return refused(refusal, form=form), BY_THE_RULES

    async def _metered(self, request: web.BaseRequest, asked: SandboxRoute) -> Going:
        sandbox, behaviour = self._sandbox, self._sandbox.behaviour
        body = await request.read() if asked.endpoint == "create" else b""
        if not self._is_known(request.headers.get("Authorization", "")):
            raise SandboxRefusal(401, "unauthorized", "the API key is missing or wrong")
        now = sandbox.now
        wait_seconds = sandbox.limit.refuses(asked.endpoint, behaviour, now=now)
        if wait_seconds is not None:
            headers = retry_after(behaviour.retry_after, wait_seconds, now=now)
            return error(429, form=behaviour.error_body, headers=headers), BY_THE_RULES
        try:
            going = self._api(request, asked, body, now)
        except SandboxRefusal as refusal:
            going = refused(refusal, form=behaviour.error_body), BY_THE_RULES
        if going[0].status != 200 and not behaviour.failure_costs:
            sandbox.limit.give_back(asked.endpoint, behaviour)
        return going

    def _api(self, request: web.BaseRequest, asked: SandboxRoute, body: bytes, now: float) -> Going:
        sandbox, behaviour = self._sandbox, self._sandbox.behaviour
        order = _order(body) if asked.endpoint == "create" else None
        fault = None
        if behaviour.faults:
            fault = sandbox.faults.befall(asked.endpoint, self._span(asked, order, now))
        if fault is None:
            return self._asked(request, asked, order), BY_THE_RULES
        scene = SandboxFaultContext(behaviour, now, _elsewhere(request), asked.query.get("paginationToken", ""))
        answer = instead(fault, scene) or afterwards(fault, self._asked(request, asked, order, fault), scene)
        return answer, manner_of(fault, len(answer.body))

    def _asked(
        self,
        request: web.BaseRequest,
        asked: SandboxRoute,
        order: SandboxExportRequest | SandboxRefusal | None,
        fault: SandboxFault | None = None,
    ) -> SandboxAnswer:
        """What the service says."""
        sandbox, service, now = self._sandbox, self._sandbox.service, self._sandbox.now
        match asked.endpoint:
            case "create":
                if not isinstance(order, SandboxExportRequest):
                    raise order or SandboxRefusal(400, "bad_request", "there is no body")
                fate = sandbox.faults.befall("operation", service.span(order, now))
                key = request.headers.get("Idempotency-Key", "")
                return service.create(order, now=now, fate=fate, idempotency_key=key)
            case "poll":
                return service.poll(asked.id, now=now)
            case "list":
                return service.list(asked.query, now=now)
            case "results":
                one = service.exported(asked.id, now=now)
                life = -1.0 if fault and fault.what == "dead-link" else sandbox.behaviour.link_life_seconds
                return self._location(request, one, now + sandbox.behaviour.shortened(life))
            case "segments":
                return segments.listed(asked.query, sandbox.behaviour.segments)
            case "segment":
                return segments.shown(asked.id, sandbox.behaviour.segments)
            case _:
                return reply({"email": "owner@example.com", "orgId": "ORG", "role": "ADMIN"})

    def _location(self, request: web.BaseRequest, one: SandboxOperation, expires_at: float) -> SandboxAnswer:
        link = self._links.mint(one.export_id, expires_at=expires_at)
        return reply({"location": f"{request.scheme}://{request.host}{link}", "expires": stamp(expires_at, digits=9)})

    async def _download(self, request: web.BaseRequest) -> Going:
        sandbox, behaviour, now = self._sandbox, self._sandbox.behaviour, self._sandbox.now
        sandbox.leaked_credentials += "Authorization" in request.headers
        found = self._links.read(request.raw_path)
        if found is None:
            return xml(403, "SignatureDoesNotMatch", "Access denied."), BY_THE_RULES
        export_id, expires_at = found
        one = sandbox.service.find_export(export_id)
        fault = sandbox.faults.befall("download", one.span if one else None)
        scene = SandboxFaultContext(behaviour, now, _elsewhere(request), is_storage=True)
        in_its_place = instead(fault, scene) if fault else None
        if in_its_place is None and (now >= expires_at or (fault and fault.what == "expired")):
            in_its_place = expired(behaviour, expires_at)
        answer, manner = (in_its_place, BY_THE_RULES) if in_its_place else await self._file(request, one, fault)
        if fault is None:
            return answer, manner
        answer = afterwards(fault, answer, scene)
        broken = manner_of(fault, len(answer.body))
        return answer, manner if broken is BY_THE_RULES else broken

    async def _file(self, request: web.BaseRequest, one: SandboxOperation | None, fault: SandboxFault | None) -> Going:
        behaviour, headers = self._sandbox.behaviour, request.headers
        if one is None or one.order is None or self._sandbox.now >= self._sandbox.service.expires_at(one):
            return xml(404, "NoSuchKey", "The specified key does not exist."), BY_THE_RULES
        wish = SandboxDownloadRequest(
            headers.get("Range", ""), headers.get("If-Range", ""), headers.get("Accept-Encoding", "")
        )
        if fault and fault.what == "wrong-range":
            wish = wish.shifted()
        manner = BY_THE_RULES if behaviour.framing == "length" else SandboxDelivery(framing=behaviour.framing)
        if behaviour.delivery in ("encoded", "encoded-gzip") and not wish.takes_gzip:
            # The store undoes the encoding for those who do not take it, and then does not know the length.
            behaviour = replace(behaviour, delivery="plain" if behaviour.delivery == "encoded" else "gzip")
            manner = SandboxDelivery(framing="chunked")
        damage = fault.what if fault and fault.what in DAMAGES else ""
        stored = await self._archives.get(one, one.order, behaviour, damage)
        file_name = f"{segments.name_of(one.order.segment, behaviour.segments)} {day(int(one.span[0]))}.gz"
        return delivered(stored, wish, behaviour, file_name=file_name), manner

    def _span(
        self, asked: SandboxRoute, order: SandboxExportRequest | SandboxRefusal | None, now: float
    ) -> tuple[float, float] | None:
        """The range that a call is about."""
        service = self._sandbox.service
        if isinstance(order, SandboxExportRequest):
            return service.span(order, now)
        one = service.find(asked.id) if asked.endpoint == "poll" else service.find_export(asked.id)
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


def _order(body: bytes) -> SandboxExportRequest | SandboxRefusal:
    try:
        return read_order(body)
    except SandboxRefusal as refusal:
        return refusal


def _elsewhere(request: web.BaseRequest) -> str:
    """This machine under another name: to a client, another host."""
    name, _, port = request.host.rpartition(":")
    other = "127.0.0.1" if name == "localhost" else "localhost"
    return f"{request.scheme}://{other}:{port}{admin.ELSEWHERE}"
