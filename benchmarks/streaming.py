"""One contender of download.py: asyncexport's client, its gathering and its threads, with the SHA-256 of what came.

Left out of the whole path: the API, gzip, rows, fsync and the ledger. A part of the program that is not asked for is
replaced, none is rewritten: the part file has an inspector that only hashes, and fsync does nothing.
"""

import argparse
import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from asyncexport.client.session import ConnectionSettings
from asyncexport.client.storage_host import StorageHost
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Format
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.states import Archive
from asyncexport.storage import Archives, ArchiveWriter, archive_path
from asyncexport.storage.archive_part import ArchivePart
from asyncexport.storage.disk import Disk

DAY = 86_400


class HashOnly:
    """Takes whatever comes for an archive; what a part file asks of an inspector."""

    def __init__(self, path: str, write: Callable[[bytes], object]) -> None:
        self._path = path
        self._write = write
        self._sha256 = hashlib.sha256()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Hash it, keep it."""
        self._sha256.update(data)
        self._size += len(data)
        self._write(data)

    def close(self, *, end_proved: bool) -> Archive:  # noqa: ARG002 - an inspector's method
        """What it hashed to."""
        return Archive(self._path, self._size, 0, self._sha256.hexdigest())


class HashedPart(ArchivePart):
    """A part file that only hashes what it takes."""

    def __init__(self, disk: Disk, path: str) -> None:
        super().__init__(disk, path, Format.NDJSON)
        self._inspector = cast("Any", HashOnly(path, self._put))


class HashedDraft(ArchiveWriter):
    """A part file that is only hashed."""

    def __init__(self, disk: Disk, path: str) -> None:
        super().__init__(disk, path, Format.NDJSON)
        self._part = HashedPart(disk, path)


class Drafts(Archives):
    """Begins part files that are only hashed."""

    def new_part(self, bundle: Bundle, container: Format, *, wire_hashes: object = None) -> ArchiveWriter:  # noqa: ARG002
        """Begin one."""
        return HashedDraft(self._disk, archive_path(bundle, container))


async def fetch_all(urls: list[str], into: Path, *, at_once: int, trust: Path | None) -> None:
    """Fetch them, so many at once."""
    archives = Drafts(into)
    slots = asyncio.Semaphore(at_once)
    async with StorageHost(ConnectionSettings(ca_file=trust)) as storage_host:

        async def fetch(number: int, url: str) -> None:
            bundle = Bundle("everyone-events", Range(number * DAY // 48, (number + 1) * DAY // 48))
            async with (
                slots,
                storage_host.open(DownloadLink(url)) as body,
                archives.new_part(bundle, Format.NDJSON) as new_part,
            ):
                async for chunk in body.chunks():
                    await new_part.write(chunk)
                await new_part.commit(end_proved=body.end_proved)

        async with asyncio.TaskGroup() as group:
            for number, url in enumerate(urls):
                group.create_task(fetch(number, url))


def main() -> None:
    """Fetch what the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--of", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--trust", type=Path, default=None)
    asked = parser.parse_args()
    os.fsync = lambda fd: None  # noqa: ARG005 - as it is called
    urls = asked.of.read_text().split()
    began = time.perf_counter()
    asyncio.run(fetch_all(urls, asked.into, at_once=asked.at_once, trust=asked.trust))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
