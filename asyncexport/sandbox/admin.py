"""The sandbox's state over HTTP, without a key: `/sandbox/...`, which the real service does not have.

GET  /sandbox/counts                       requests by endpoint, and other counters
GET  /sandbox/rows?start=...&end=...       the expected event rows, as NDJSON; `&type=individual` for individuals
GET  /sandbox/operations                   the operations made by creates
POST /sandbox/reset                        forget all operations and count from zero
POST /sandbox/behave  {"retry_after": "date", "faults": ["create:503,nth=2"]}    change switches by name
"""

import asyncio
from dataclasses import asdict
from urllib.parse import parse_qsl

import orjson

from asyncexport.core.bundles import read_moment
from asyncexport.sandbox.answers import SandboxAnswer, error, reply
from asyncexport.sandbox.behaviour import changed
from asyncexport.sandbox.contents import source
from asyncexport.sandbox.formats import render
from asyncexport.sandbox.sandbox import Sandbox
from asyncexport.sandbox.stored_files import finished, stored

PREFIX = "/sandbox/"

ELSEWHERE = "/sandbox/elsewhere"
"""The target of redirects to another host."""


async def answered(sandbox: Sandbox, method: str, raw_path: str, body: bytes) -> SandboxAnswer:
    """Answer a request under `PREFIX`."""
    path, _, query = raw_path.partition("?")
    try:
        match method, path.removeprefix(PREFIX):
            case "GET", "counts":
                return reply(_counts(sandbox))
            case "GET", "operations":
                return reply([asdict(one) for one in sandbox.operations])
            case "GET", "rows":
                return await asyncio.to_thread(_expected_rows, sandbox, dict(parse_qsl(query)))
            case "POST", "reset":
                sandbox.reset()
                return reply({})
            case "POST", "behave":
                sandbox.behave(changed(sandbox.behaviour, orjson.loads(body)))
                return reply({})
            case _:
                return error(404, form="json")
    except (ValueError, KeyError, AttributeError) as fault:
        return error(400, form="json", message=str(fault))


def _counts(sandbox: Sandbox) -> dict[str, int]:
    return {
        **sandbox.counts,
        "refused": sandbox.refused,
        "leaked_credentials": sandbox.leaked_credentials,
        "redirected": sandbox.redirected,
        "redirected_with_key": sandbox.redirected_with_key,
        "operations": sandbox.service.operations.made,
        "peak_downloads": sandbox.peaks["download"],
        "peak_running": sandbox.peaks["running"],
    }


def _expected_rows(sandbox: Sandbox, query: dict[str, str]) -> SandboxAnswer:
    start, end = (read_moment(query[name], now=sandbox.now) for name in ("start", "end"))
    is_of_people = query.get("type") == "individual"
    rows = sandbox.individuals(start, end) if is_of_people else source(sandbox.behaviour).between(start, end)
    file = finished(stored(render(rows, "ndjson")))
    return SandboxAnswer(200, file.content, (("Content-Type", "application/x-ndjson"),))
