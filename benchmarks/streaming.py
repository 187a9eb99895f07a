"""One contender of download.py: asyncexport's client, its gathering and its threads.

Left out of the whole path: the API, the inspection of what came, fsync and the ledger. A part of the program that is
not asked for is replaced, none is rewritten: the part file is not inspected, and fsync does nothing.
"""

import argparse
import asyncio
import os
import time
from pathlib import Path

from asyncexport.client.session import ConnectionSettings
from asyncexport.client.storage_host import StorageHost
from asyncexport.core.archive.inspection import Inspected
from asyncexport.core.archive.proof import BodyProof
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Format
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.states import Archive
from asyncexport.storage import Archives, ArchiveWriter, archive_path
from asyncexport.storage.archive_part import ArchivePart

DAY = 86_400


class UninspectedPart(ArchivePart):
    """A part file that is taken for an archive as it is."""

    def _inspect(self, proof: BodyProof) -> Inspected:  # noqa: ARG002 - as it is called
        return Inspected(Archive(self._path, self._part.stat().st_size, 0, ""), is_remade=False, long_rows=0)


class UninspectedParts(Archives):
    """Begins part files that are not inspected."""

    def begin(self, bundle: Bundle) -> ArchiveWriter:
        """Begin one."""
        return ArchiveWriter(
            self._disk, UninspectedPart(self._disk, archive_path(bundle, Format.NDJSON), Format.NDJSON)
        )


async def fetch_all(urls: list[str], into: Path, *, at_once: int, trust: Path | None) -> None:
    """Fetch them, so many at once."""
    archives = UninspectedParts(into)
    slots = asyncio.Semaphore(at_once)
    async with StorageHost(ConnectionSettings(ca_file=trust)) as storage_host:

        async def fetch(number: int, url: str) -> None:
            bundle = Bundle("everyone-events", Range(number * DAY // 48, (number + 1) * DAY // 48))
            async with (
                slots,
                storage_host.open(DownloadLink(url)) as body,
                archives.begin(bundle) as new_part,
            ):
                async for chunk in body.chunks():
                    await new_part.write(chunk)
                await new_part.commit(BodyProof(end_proved=body.end_proved))

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
