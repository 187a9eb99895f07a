"""Bad bodies: what plain aiohttp, curl and asyncexport make of the same archives when something is wrong with them.

A server that answers byte for byte as told sends each body; whoever then has a file and no error has accepted it.
aiohttp is used as its documentation shows: a session with defaults, `await response.read()`. curl runs as
`curl -f -o FILE` and `curl -f --compressed -o FILE`. asyncexport downloads with its own client into its own storage.
Nothing is measured in time: the outcome is the same at each run, and a test holds the README's table to it.
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
    """One bad body: what it is, in words, and what goes over the wire; then the connection is closed."""

    title: str
    head: tuple[str, ...]
    body: bytes


def chunked(body: bytes, *, closed: bool) -> bytes:
    """As chunks, with or without the last one, which says that these were all."""
    return b"%x\r\n%s\r\n" % (len(body), body) + (b"0\r\n\r\n" if closed else b"")


CASES = (
    Case("shorter than its `Content-Length`", (f"Content-Length: {len(WHOLE)}",), CUT),
    Case("chunked, without the last chunk", ("Transfer-Encoding: chunked",), chunked(CUT, closed=False)),
    Case("cut, without any length", (), CUT),
    Case("half of a gzip file, of the length promised", (f"Content-Length: {len(CUT)}",), CUT),
    Case("the same, with `Content-Encoding: gzip`", (f"Content-Length: {len(CUT)}", GZIPPED), CUT),
    Case(
        "the same, with `Content-Encoding: gzip`, chunked to the end",
        ("Transfer-Encoding: chunked", GZIPPED),
        chunked(CUT, closed=True),
    ),
    Case("wrong checksum within", (f"Content-Length: {len(WRONG)}",), WRONG),
    Case("wrong checksum within, with `Content-Encoding: gzip`", (f"Content-Length: {len(WRONG)}", GZIPPED), WRONG),
    Case("whole gzip of half a row", (f"Content-Length: {len(HALF_A_ROW)}",), HALF_A_ROW),
    Case("empty, without any length", (), b""),
)
"""The bad ones."""

CONTROLS = (
    Case("whole", (f"Content-Length: {len(WHOLE)}",), WHOLE),
    Case("whole, with `Content-Encoding: gzip`", (f"Content-Length: {len(WHOLE)}", GZIPPED), WHOLE),
)
"""Whoever refuses these is not measured but broken."""

Fetch = Callable[[str, Path], Awaitable[bool]]
"""Fetch a URL into a folder; whether it was taken for whole."""


async def with_aiohttp(url: str, folder: Path) -> bool:
    """The way of the documentation."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            response.raise_for_status()
            (folder / "file").write_bytes(await response.read())
    except aiohttp.ClientError:
        return False
    return True


async def with_curl(url: str, folder: Path, *more: str) -> bool:
    """By its exit code."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-q", "-s", "-f", "--max-time", "10", *more, "-o", str(folder / "file"), url
    )
    return await process.wait() == 0


async def with_curl_compressed(url: str, folder: Path) -> bool:
    """Let it inflate what comes with a Content-Encoding."""
    return await with_curl(url, folder, "--compressed")


async def with_asyncexport(url: str, folder: Path) -> bool:
    """One try, from link to archive."""
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
    """Those that are installed."""
    return {name: fetch for name, fetch in CONTENDERS.items() if not name.startswith("curl") or shutil.which("curl")}


@asynccontextmanager
async def serving(cases: tuple[Case, ...]) -> AsyncIterator[str]:
    """Answer `/N` with the nth case, to the byte, and close."""

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
    """Of each case, who took it for whole."""
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
    """For the README."""
    names = list(present())
    lines = [f"| the body is | {' | '.join(f'`{name}`' for name in names)} |", "|---|" + "---|" * len(names)]
    for case in CASES:
        words = ("**accepted**" if verdicts[case.title][name] else "refused" for name in names)
        lines.append(f"| {case.title} | {' | '.join(words)} |")
    return "\n".join(lines)


def main() -> None:
    """Find out."""
    asked = measuring.options(__doc__, rounds=1, markdown=True)
    verdicts = asyncio.run(judge())
    broken = [
        f"{name} refuses: {case.title}" for case in CONTROLS for name, took in verdicts[case.title].items() if not took
    ]
    if broken:
        measuring.fail("; ".join(broken))
    if asked.markdown:
        print(table(verdicts))
        return
    bad = {case.title: verdicts[case.title] for case in CASES}
    measuring.say(
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
