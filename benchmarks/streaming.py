"""A contender in download.py: only asyncexport's client and its buffered writes in threads.

Left out are the API, the inspection of the files, fsync and the ledger. The rest is the real code: the part file is
replaced by one that is not inspected, and fsync by a function that does nothing.
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
    """A part file that counts as an archive without inspection."""

    def _inspect(self, proof: BodyProof) -> Inspected:  # noqa: ARG002 - the signature is given
        return Inspected(Archive(self._path, self._part.stat().st_size, 0, ""), is_remade=False, long_rows=0)


class UninspectedParts(Archives):
    """Creates part files that are not inspected."""

    def begin(self, bundle: Bundle) -> ArchiveWriter:
        """Create a part file."""
        return ArchiveWriter(
            self._disk, UninspectedPart(self._disk, archive_path(bundle, Format.NDJSON), Format.NDJSON)
        )


async def fetch_all(urls: list[str], into: Path, *, at_once: int, trust: Path | None) -> None:
    """Fetch the URLs, at most `at_once` at the same time."""
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
    """Fetch the URLs listed in the file `--of`, and print the seconds that took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--of", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--trust", type=Path, default=None)
    asked = parser.parse_args()
    os.fsync = lambda fd: None  # noqa: ARG005 - the signature is given
    urls = asked.of.read_text().split()
    began = time.perf_counter()
    asyncio.run(fetch_all(urls, asked.into, at_once=asked.at_once, trust=asked.trust))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
