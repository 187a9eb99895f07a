"""A client that hides nothing: what was sent over the wire, byte for byte, and how it ended."""

import asyncio
import gzip
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from asyncexport.core.bundles import show
from asyncexport.sandbox import Sandbox

PATIENCE_SECONDS = 60.0
"""Far more than anything takes; who expects silence is less patient."""


@dataclass(frozen=True)
class Got:
    """An answer: `raw` is all of it, `ended` says how: `eof`, `reset` or `silence`."""

    raw: bytes
    ended: str

    @property
    def head(self) -> str:
        """Status line and headers."""
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """The HTTP status; 0 where there is none."""
        found = re.match(r"HTTP/1\.1 (\d{3}) ", self.head)
        return int(found[1]) if found else 0

    def values(self, name: str) -> list[str]:
        """Every value of a header."""
        pairs = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        return [value for key, _, value in pairs if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The only value of a header."""
        values = self.values(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        """What came after the head, without the marks of chunks."""
        body = self.raw.partition(b"\r\n\r\n")[2]
        return unchunked(body)[0] if self.header("Transfer-Encoding") == "chunked" else body

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """The bytes in chunks, and whether the closing chunk was there."""
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
    backoff: float = PATIENCE_SECONDS,
) -> Got:
    """Send one request on a connection of its own, and take all that comes."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    lines = [f"{method} {target} HTTP/1.1", f"Host: {where.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    raw, ended = bytearray(), "eof"
    try:
        while piece := await asyncio.wait_for(reader.read(1 << 20), backoff):
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
        """Any of the API."""
        return await ask(self.box.url, target, headers={**self.headers, **more.pop("headers", {})}, **more)

    async def create(self, start: float, end: float, *, backoff: float = PATIENCE_SECONDS, **changes: Any) -> Got:
        """An export of a range; `changes` to the body, of which None takes a key out."""
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
        return await ask(self.box.url, target, method="POST", body=body_sent, headers=self.headers, backoff=backoff)

    async def created(self, start: float, end: float, **changes: Any) -> str:
        """The id of an operation that was made."""
        got = await self.create(start, end, **changes)
        assert got.status == 200, got.raw
        identifier: str = got.data["operationId"]
        return identifier

    async def poll(self, operation_id: str) -> Got:
        """How an operation stands."""
        return await self.get(f"/operations/v1/{quote(operation_id, safe='')}")

    async def results(self, export_id: str) -> Got:
        """Where an export is."""
        return await self.get(f"/search/v1/exports/{quote(export_id, safe='')}/results")

    async def exported(self, start: float, end: float, **changes: Any) -> str:
        """The id of an export that is ready; the sandbox must be quick."""
        operation_id = await self.created(start, end, **changes)
        found: str = (await self.poll(operation_id)).data["results"]["searchExportId"]
        return found

    async def located(self, start: float, end: float, **changes: Any) -> str:
        """The path and query of a link to an export's file."""
        return self.path((await self.results(await self.exported(start, end, **changes))).data["location"])

    def path(self, location: str) -> str:
        """A link without the host, byte for byte."""
        assert location.startswith(self.box.url)
        return location[len(self.box.url) :]

    async def download(self, link: str, **headers: str) -> Got:
        """What a link leads to."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await ask(self.box.url, link, headers=named)

    async def file(self, start: float, end: float, **changes: Any) -> bytes:
        """An export's file, uncompressed."""
        return gzip.decompress((await self.download(await self.located(start, end, **changes))).body)
