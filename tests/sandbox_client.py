"""A client that returns the raw bytes of an answer and how the connection ended."""

import asyncio
import gzip
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from asyncexport.core.bundles import show
from asyncexport.sandbox import Sandbox

WAIT_SECONDS = 60.0
"""Far longer than any answer takes; a test that expects none passes a shorter time."""


@dataclass(frozen=True)
class Got:
    """An answer: `raw` has all bytes, `ended` is `eof`, `reset` or `silence`."""

    raw: bytes
    ended: str

    @property
    def head(self) -> str:
        """The status line and headers."""
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """The HTTP status, or 0 if there is none."""
        found = re.match(r"HTTP/1\.1 (\d{3}) ", self.head)
        return int(found[1]) if found else 0

    def values(self, name: str) -> list[str]:
        """Return every value of a header."""
        pairs = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        return [value for key, _, value in pairs if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the only value of a header, or None."""
        values = self.values(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        """The body, decoded if it is chunked."""
        body = self.raw.partition(b"\r\n\r\n")[2]
        return unchunked(body)[0] if self.header("Transfer-Encoding") == "chunked" else body

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """Decode a chunked body, and return whether the final chunk was there."""
    whole = b""
    while found := re.match(rb"([0-9a-f]+)\r\n", body):
        size = int(found[1], 16)
        if size == 0:
            return whole, body[found.end() :] == b"\r\n"
        whole, body = whole + body[found.end() : found.end() + size], body[found.end() + size + 2 :]
    return whole, False


async def ask(
    url: str,
    target: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Got:
    """Send a request on a new connection and read until the connection ends."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    lines = [f"{method} {target} HTTP/1.1", f"Host: {where.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    raw, ended = bytearray(), "eof"
    try:
        while piece := await asyncio.wait_for(reader.read(1 << 20), wait_seconds):
            raw += piece
    except ConnectionResetError:
        ended = "reset"
    except TimeoutError:
        ended = "silence"
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)
    return Got(bytes(raw), ended)


class Caller:
    """Calls a sandbox's endpoints with its key."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.headers = {"Authorization": f"Basic {box.key}"}

    async def get(self, target: str, **more: Any) -> Got:
        """Send a GET request with the key."""
        return await ask(self.box.url, target, headers={**self.headers, **more.pop("headers", {})}, **more)

    async def create(self, start: float, end: float, *, wait_seconds: float = WAIT_SECONDS, **changes: Any) -> Got:
        """Create an export of a range; `changes` apply to the body, and None removes a key."""
        times = {"start": show(start), "end": show(end)}
        body: dict[str, Any] = {
            "segmentId": "everyone",
            "type": "TYPE_EVENT",
            "format": "FORMAT_NDJSON",
            "timeRange": times,
            "segmentTimeRange": times,
        }
        kept = {key: value for key, value in (body | changes).items() if value is not None}
        body_sent = orjson.dumps(kept)
        target = "/segments/v1/exports"
        return await ask(
            self.box.url, target, method="POST", body=body_sent, headers=self.headers, wait_seconds=wait_seconds
        )

    async def created(self, start: float, end: float, **changes: Any) -> str:
        """Create an export and return the operation id."""
        got = await self.create(start, end, **changes)
        assert got.status == 200, got.raw
        identifier: str = got.data["operationId"]
        return identifier

    async def poll(self, operation_id: str) -> Got:
        """Poll an operation."""
        return await self.get(f"/operations/v1/{quote(operation_id, safe='')}")

    async def results(self, export_id: str) -> Got:
        """Request the signed URL of an export."""
        return await self.get(f"/search/v1/exports/{quote(export_id, safe='')}/results")

    async def exported(self, start: float, end: float, **changes: Any) -> str:
        """Create an export and return its export id; the sandbox's operations must finish immediately."""
        operation_id = await self.created(start, end, **changes)
        found: str = (await self.poll(operation_id)).data["results"]["searchExportId"]
        return found

    async def located(self, start: float, end: float, **changes: Any) -> str:
        """Create an export and return the path and query of its signed URL."""
        return self.path((await self.results(await self.exported(start, end, **changes))).data["location"])

    def path(self, location: str) -> str:
        """Return a signed URL without the host, byte for byte."""
        assert location.startswith(self.box.url)
        return location[len(self.box.url) :]

    async def download(self, link: str, **headers: str) -> Got:
        """Download from a signed URL."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await ask(self.box.url, link, headers=named)

    async def file(self, start: float, end: float, **changes: Any) -> bytes:
        """Create and download an export, and return the uncompressed file."""
        return gzip.decompress((await self.download(await self.located(start, end, **changes))).body)
