"""Downloads: from a signed URL to the file that is sent.

1. Downloads need no key and have no rate limit. A key that a client sends anyway is counted as leaked.
2. A URL with a wrong signature is refused. One that has expired, or whose export is deleted, gets an XML error.
3. Faults come last: they replace the answer, change it, or change how it is sent.
"""

from dataclasses import replace

from aiohttp import web

from asyncexport.core.bundles import day
from asyncexport.sandbox import admin, segments
from asyncexport.sandbox.answers import SandboxAnswer, reply, stamp
from asyncexport.sandbox.contents import DAMAGES, SandboxArchives
from asyncexport.sandbox.fault_effects import SandboxFaultContext, altered_answer, replacement_answer, transmission_of
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.operations import SandboxOperation
from asyncexport.sandbox.sandbox import Sandbox
from asyncexport.sandbox.storage import SandboxDownloadRequest, SandboxSignedLinks, delivered, expired, xml
from asyncexport.sandbox.transmission import BY_THE_RULES, SandboxTransmission

SandboxReply = tuple[SandboxAnswer, SandboxTransmission]
"""An answer and how to send it."""


class SandboxDownloads:
    """The storage host of a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._links = SandboxSignedLinks()
        self._archives = SandboxArchives()

    async def close(self) -> None:
        """Stop making files."""
        await self._archives.close()

    def location(self, request: web.BaseRequest, one: SandboxOperation, expires_at: float) -> SandboxAnswer:
        """Answer a results call with a fresh signed URL for the file of an operation."""
        link = self._links.mint(one.export_id, expires_at=expires_at)
        return reply({"location": f"{request.scheme}://{request.host}{link}", "expires": stamp(expires_at, digits=9)})

    async def answer(self, request: web.BaseRequest) -> SandboxReply:
        """Answer a request for a file with the file, a part of it or an error, as changed by a fault."""
        sandbox, behaviour, now = self._sandbox, self._sandbox.behaviour, self._sandbox.now
        sandbox.leaked_credentials += "Authorization" in request.headers
        found = self._links.read(request.raw_path)
        if found is None:
            return xml(403, "SignatureDoesNotMatch", "Access denied."), BY_THE_RULES
        export_id, expires_at = found
        one = sandbox.service.operations.find_export(export_id)
        fault = sandbox.faults.fault_for("download", one.span if one else None)
        context = SandboxFaultContext(behaviour, now, elsewhere(request), is_storage=True)
        in_its_place = replacement_answer(fault, context) if fault else None
        if in_its_place is None and (now >= expires_at or (fault and fault.what == "expired")):
            in_its_place = expired(behaviour, expires_at)
        answer, transmission = (
            (in_its_place, BY_THE_RULES) if in_its_place else await self._deliver(request, one, fault)
        )
        if fault is None:
            return answer, transmission
        answer = altered_answer(fault, answer, context)
        broken = transmission_of(fault, len(answer.body))
        return answer, transmission if broken is BY_THE_RULES else broken

    async def _deliver(
        self, request: web.BaseRequest, one: SandboxOperation | None, fault: SandboxFault | None
    ) -> SandboxReply:
        behaviour, headers = self._sandbox.behaviour, request.headers
        if one is None or one.request is None or self._sandbox.now >= self._sandbox.service.expires_at(one):
            return xml(404, "NoSuchKey", "The specified key does not exist."), BY_THE_RULES
        asked = SandboxDownloadRequest(
            headers.get("Range", ""), headers.get("If-Range", ""), headers.get("Accept-Encoding", "")
        )
        if fault and fault.what == "wrong-range":
            asked = asked.shifted()
        transmission = BY_THE_RULES if behaviour.framing == "length" else SandboxTransmission(framing=behaviour.framing)
        if behaviour.delivery in ("encoded", "encoded-gzip") and not asked.takes_gzip:
            # For clients that do not accept gzip, the storage host decodes the file and does not know its length.
            behaviour = replace(behaviour, delivery="plain" if behaviour.delivery == "encoded" else "gzip")
            transmission = SandboxTransmission(framing="chunked")
        damage = fault.what if fault and fault.what in DAMAGES else ""
        stored = await self._archives.get(one, one.request, behaviour, damage)
        file_name = f"{segments.name_of(one.request.segment, behaviour.segments)} {day(int(one.span[0]))}.gz"
        return delivered(stored, asked, behaviour, file_name=file_name), transmission


def elsewhere(request: web.BaseRequest) -> str:
    """Return a URL of this machine under another name, which is another host to a client."""
    name, _, port = request.host.rpartition(":")
    other = "127.0.0.1" if name == "localhost" else "localhost"
    return f"{request.scheme}://{other}:{port}{admin.ELSEWHERE}"
