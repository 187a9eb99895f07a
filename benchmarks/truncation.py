"""Bad bodies: whether plain aiohttp, curl and asyncexport accept archives that are cut, damaged or empty.

A server sends each body exactly as given. A client that ends with a file and without an error has accepted the body.
aiohttp is used as its documentation shows: a session with defaults and `await response.read()`. curl runs as
`curl -f -o FILE` and `curl -f --compressed -o FILE`. asyncexport downloads with its own client into its own storage.
No times are measured: the outcome is the same in each run, and a test compares the README's table with it.
"""

import asyncio
import gzip
import shutil
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import measuring

from asyncexport.client.storage_host import StorageHost
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Definition
from asyncexport.core.service.resources import DownloadLink
from asyncexport.engine.download import ArchiveDownloads
from asyncexport.errors import ExportError
from asyncexport.storage import Archives

ROWS = b"".join(b'{"EventType":"click","PageId":%d,"EventPageOffset":%d}\n' % (n * 7919, n) for n in range(2_000))
WHOLE = gzip.compress(ROWS, mtime=0)
CUT = WHOLE[: len(WHOLE) // 2]
WRONG = WHOLE[:-8] + (zlib.crc32(ROWS) ^ 1).to_bytes(4, "little") + WHOLE[-4:]
HALF_A_ROW = gzip.compress(ROWS[: len(ROWS) // 2 + 7], mtime=0)
GZIPPED = "Content-Encoding: gzip"


@dataclass(frozen=True, slots=True)
class Case:
    """One body: its description, and the headers and bytes that are sent before the connection is closed."""

    title: str
    head: tuple[str, ...]
    body: bytes


def chunked(body: bytes, *, closed: bool) -> bytes:
    """Encode a body as chunks, with or without the last chunk that marks the end."""
    return b"%x\r\n%s\r\n" % (len(body), body) + (b"0\r\n\r\n" if closed else b"")


CASES = (
    Case("shorter than its `Content-Length`", (f"Content-Length: {len(WHOLE)}",), CUT),
    Case("chunked, without the last chunk", ("Transfer-Encoding: chunked",), chunked(CUT, closed=False)),
    Case("cut, without `Content-Length` or chunks", (), CUT),
    Case("half of a gzip file, with a matching `Content-Length`", (f"Content-Length: {len(CUT)}",), CUT),
    Case("the same, with `Content-Encoding: gzip`", (f"Content-Length: {len(CUT)}", GZIPPED), CUT),
    Case(
        "the same, with `Content-Encoding: gzip`, chunked with the last chunk",
        ("Transfer-Encoding: chunked", GZIPPED),
        chunked(CUT, closed=True),
    ),
    Case("gzip with a wrong checksum", (f"Content-Length: {len(WRONG)}",), WRONG),
    Case(
        "gzip with a wrong checksum, with `Content-Encoding: gzip`", (f"Content-Length: {len(WRONG)}", GZIPPED), WRONG
    ),
    Case("complete gzip that ends in the middle of a row", (f"Content-Length: {len(HALF_A_ROW)}",), HALF_A_ROW),
    Case("empty, without `Content-Length` or chunks", (), b""),
)
"""The bad bodies."""

CONTROLS = (
    Case("complete", (f"Content-Length: {len(WHOLE)}",), WHOLE),
    Case("complete, with `Content-Encoding: gzip`", (f"Content-Length: {len(WHOLE)}", GZIPPED), WHOLE),
)
"""Good bodies, which every client must accept."""

Fetch = Callable[[str, Path], Awaitable[bool]]
"""Fetches a URL into a folder; returns whether the client accepted the body."""


async def with_aiohttp(url: str, folder: Path) -> bool:
    """Fetch as aiohttp's documentation shows."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            response.raise_for_status()
            (folder / "file").write_bytes(await response.read())
    except aiohttp.ClientError:
        return False
    return True


async def with_curl(url: str, folder: Path, *more: str) -> bool:
    """Fetch with curl, whose exit code says whether it accepted the body."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-q", "-s", "-f", "--max-time", "10", *more, "-o", str(folder / "file"), url
    )
    return await process.wait() == 0


async def with_curl_compressed(url: str, folder: Path) -> bool:
    """Fetch with curl, and let it decode a Content-Encoding."""
    return await with_curl(url, folder, "--compressed")


async def with_asyncexport(url: str, folder: Path) -> bool:
    """Make one attempt to download a signed URL into an archive."""
    bundle = Bundle("everyone-events", Range(0, 1800))
    async with StorageHost() as storage_host:
        downloads = ArchiveDownloads(storage_host, Archives(folder))
        async with downloads.begin(bundle, Definition()) as download:
            try:
                await download.fetch(DownloadLink(url))
            except ExportError:
                return False
            return True


CONTENDERS: dict[str, Fetch] = {
    "aiohttp": with_aiohttp,
    "curl -o": with_curl,
    "curl --compressed": with_curl_compressed,
    "asyncexport": with_asyncexport,
}


def present() -> dict[str, Fetch]:
    """Return the clients that are installed."""
    return {name: fetch for name, fetch in CONTENDERS.items() if not name.startswith("curl") or shutil.which("curl")}


@asynccontextmanager
async def serving(cases: tuple[Case, ...]) -> AsyncIterator[str]:
    """Run a server that answers `/N` with exactly the nth case and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        case = cases[int(head.split(b" ")[1].removeprefix(b"/"))]
        lines = ("HTTP/1.1 200 OK", "Content-Type: application/octet-stream", *case.head, "Connection: close", "", "")
        writer.write("\r\n".join(lines).encode() + case.body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def judge() -> dict[str, dict[str, bool]]:
    """Return, for each case, which clients accept it."""
    verdicts: dict[str, dict[str, bool]] = {}
    everything = (*CASES, *CONTROLS)
    async with serving(everything) as url:
        for number, case in enumerate(everything):
            verdicts[case.title] = {}
            for name, fetch in present().items():
                with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
                    verdicts[case.title][name] = await fetch(f"{url}/{number}", Path(folder))
    return verdicts


def table(verdicts: dict[str, dict[str, bool]]) -> str:
    """Make the README's table."""
    names = list(present())
    lines = [f"| the body is | {' | '.join(f'`{name}`' for name in names)} |", "|---|" + "---|" * len(names)]
    for case in CASES:
        words = ("**accepted**" if verdicts[case.title][name] else "refused" for name in names)
        lines.append(f"| {case.title} | {' | '.join(words)} |")
    return "\n".join(lines)


def main() -> None:
    """Send the bodies, and print which clients accept them."""
    asked = measuring.options(__doc__, rounds=1, markdown=True)
    verdicts = asyncio.run(judge())
    broken = [
        f"{name} refuses a good body: {case.title}"
        for case in CONTROLS
        for name, took in verdicts[case.title].items()
        if not took
    ]
    if broken:
        measuring.fail("; ".join(broken))
    if asked.markdown:
        print(table(verdicts))
        return
    bad = {case.title: verdicts[case.title] for case in CASES}
    measuring.report(
        "truncation",
        asked,
        packages=("aiohttp",),
        programs=("curl",),
        cases=len(bad),
        skipped={name: "not installed" for name in CONTENDERS if name not in present()},
        accepted={name: sum(took[name] for took in bad.values()) for name in present()},
        by_case={title: [name for name, accepted in took.items() if accepted] for title, took in bad.items()},
    )


if __name__ == "__main__":
    main()
