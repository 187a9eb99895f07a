"""The effect of each fault on an answer and on how it is sent; `faults` describes them in a table."""

import codecs
from dataclasses import dataclass, replace
from typing import Any

import orjson

from asyncexport.sandbox.answers import SandboxAnswer, error, json_line
from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.contents import SandboxRepeatedBody
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.limit import retry_after_header
from asyncexport.sandbox.storage import xml
from asyncexport.sandbox.transmission import BY_THE_RULES, SandboxTransmission

BLANKS = b" " * (1 << 20)
HUGE_BLOCKS = 32
"""MiB of spaces: more than any client should accept as a reply of the API."""

TOO_LONG_BYTES = 1000

PAGE = b"<html><head><title>Sign in to the guest network</title></head><body>\n<p>Welcome!</p></body></html>\n"

LONG_POLICY = "img-src " + " ".join(f"https://cdn{number}.example" for number in range(900))
"""As long as those of some gateways, and longer than many clients accept."""

JSON = (("Content-Type", "application/json"),)

HTML = (("Content-Type", "text/html; charset=UTF-8"),)

TEXT = (("Content-Type", "text/plain"),)

FIRST_TOKENS = {"operations": "n0", "segments": "tok0"}
"""The token for the first page, used if the call had no token that could be repeated."""


@dataclass(frozen=True, slots=True)
class SandboxFaultContext:
    """What the effect of a fault depends on besides the fault.

    Attributes:
        behaviour: The behaviour of the sandbox.
        now: Seconds since 1970.
        elsewhere: A URL on another host.
        token: The pagination token of the call.
        is_storage: Whether the storage host answers, whose errors are XML.
        key: The API key of the call; "" at the storage host.
    """

    behaviour: SandboxBehaviour
    now: float
    elsewhere: str
    token: str = ""
    is_storage: bool = False
    key: str = ""


def replacement_answer(fault: SandboxFault, context: SandboxFaultContext) -> SandboxAnswer | None:
    """Return the answer that replaces the service's own, or None if the service is to be asked."""
    if fault.status is not None:
        return _status(fault, context)
    match fault.what:
        case "reset" | "close" | "stall" | "garbage" | "cut-head" | "stall-head" | "empty":
            return SandboxAnswer(200, b"")
        case "html":
            return SandboxAnswer(200, PAGE, HTML)
        case "redirect":
            return SandboxAnswer(302, b"", (("Location", context.elsewhere),))
        case "echo-key":
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in context.key)
            return SandboxAnswer(503, f'{{"message": "overloaded, and so was {escaped}"}}\n'.encode(), JSON)
        case "not-object":
            return SandboxAnswer(200, b"[]\n")
        case "newline":
            return SandboxAnswer(200, b"\n", TEXT)
        case "ok":
            return SandboxAnswer(200, b"OK\n", TEXT)
        case "error-object":
            return SandboxAnswer(200, json_line({"error": {"code": 503, "message": "backend overloaded"}}))
        case "no-id":
            return SandboxAnswer(200, json_line({"error": "the export could not be started"}))
        case _:
            return None


def altered_answer(fault: SandboxFault, answer: SandboxAnswer, context: SandboxFaultContext) -> SandboxAnswer:
    """Return the service's own answer as the fault changes it."""
    match fault.what:
        case "lost-502":
            return error(502, form="html")
        case "huge" if isinstance(answer.body, bytes):
            return replace(answer, body=SandboxRepeatedBody(b"", BLANKS, HUGE_BLOCKS, answer.body))
        case "broken-json" if isinstance(answer.body, bytes):
            return replace(answer, body=answer.body[: len(answer.body) // 2])
        case "accepted":
            return replace(answer, status=202 if answer.status == 200 else answer.status)
        case "bom" if isinstance(answer.body, bytes):
            return replace(answer, body=codecs.BOM_UTF8 + answer.body)
        case "old-date":
            return replace(answer, headers=(*answer.headers, ("Age", f"{abs(fault.seconds):.0f}")))
        case "long-header":
            return replace(answer, headers=(*answer.headers, ("Content-Security-Policy", LONG_POLICY)))
        case "repeated-token" | "empty-page" | "no-location" | "unsafe-location":
            return _rewritten(fault.what, answer, context)
        case _:
            return answer


def transmission_of(fault: SandboxFault, size: int) -> SandboxTransmission:
    """Return how to send an answer with a body of this size."""
    part = min(size, size // 2 if fault.after is None else fault.after)
    match fault.what:
        case "reset" | "lost":
            return SandboxTransmission(head="none", ending="reset")
        case "close":
            return SandboxTransmission(head="none", ending="close")
        case "stall" | "lost-stall":
            return SandboxTransmission(head="none", ending="stall")
        case "garbage":
            return SandboxTransmission(head="garbage", ending="close")
        case "cut-head":
            return SandboxTransmission(head="half", ending="close")
        case "stall-head":
            return SandboxTransmission(head="half", ending="stall")
        case "wrong-date" | "old-date":
            return SandboxTransmission(date_off_seconds=fault.seconds)
        case "no-date":
            return SandboxTransmission(date_off_seconds=None)
        case "late":
            return SandboxTransmission(wait_seconds=fault.seconds)
        case "drip":
            return SandboxTransmission(step=1, pause_seconds=fault.seconds)
        case "reset-body":
            return SandboxTransmission(sent=part, ending="reset")
        case "stall-body":
            return SandboxTransmission(sent=part, ending="stall")
        case "cut-length":
            return SandboxTransmission(sent=part, ending="close")
        case "cut-chunked":
            return SandboxTransmission(framing="chunked", sent=part, ending="close")
        case "cut-close":
            return SandboxTransmission(framing="close", sent=part, ending="close")
        case "long-length":
            return SandboxTransmission(promised=size + TOO_LONG_BYTES, ending="close")
        case "short-length":
            return SandboxTransmission(promised=size // 2, ending="close")
        case "bad-chunk":
            return SandboxTransmission(framing="chunked", sent=part, ending="bad-chunk")
        case _:
            return BY_THE_RULES


def _status(fault: SandboxFault, context: SandboxFaultContext) -> SandboxAnswer:
    status = fault.status or 500
    headers: tuple[tuple[str, str], ...] = ()
    if status in (204, 304):
        return SandboxAnswer(status, b"", headers)
    if status == 429 or fault.retry_after:
        kind: Any = fault.retry_after or context.behaviour.retry_after
        headers = retry_after_header(kind, fault.seconds, now=context.now)
    if context.is_storage and not fault.body:
        return xml(status, "InternalError" if status >= 500 else "SlowDown", "The sandbox has a fault here.", headers)
    return error(status, form=fault.body or context.behaviour.error_body, headers=headers)


def _rewritten(what: str, answer: SandboxAnswer, context: SandboxFaultContext) -> SandboxAnswer:
    """Return the service's own answer with another token or another location."""
    if answer.status != 200 or not isinstance(answer.body, bytes):
        return answer
    data: dict[str, Any] = orjson.loads(answer.body)
    if what == "no-location":
        del data["location"]
    elif what == "unsafe-location":
        data["location"] = "http://storage.example.com/export?signature=none"
    else:
        key = "operations" if "operations" in data else "segments"
        data["nextPaginationToken"] = context.token or FIRST_TOKENS[key]
        data[key] = [] if what == "empty-page" else data[key]
    return replace(answer, body=json_line(data))
