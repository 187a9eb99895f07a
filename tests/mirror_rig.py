"""An output directory with archives, a place in a bucket on a real S3 server, and mirrors from one to the other."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import obstore
import orjson
import pytest
from obstore.store import S3Store

from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.tally import MirrorEvent
from asyncexport.core.summary import Summary
from asyncexport.engine.scheduler import Stop
from asyncexport.run.mirror import mirror
from asyncexport.run.mirror_check import check_mirror
from tests.load_rig import EVENTS, Arrival, Place, events
from tests.s3_proxy import S3Proxy, proxying
from tests.s3_server import S3Server

BUCKET = "bucket"

DEFINITION = f"{EVENTS.name}/.export.json"

NUMBERS = count()

IMPATIENT = MirrorLimits(connect=2.0, answer=1.0, upload=2.0, retries=2, retry=5.0, pause=0.01)
"""Limits for tests of a server that fails."""


@dataclass
class MirrorRig:
    """A directory, and a place in the bucket.

    Attributes:
        server: The server.
        place: The directory.
        limits: The limits of mirrors.
        events: What mirrors have reported.
    """

    server: S3Server
    place: Place
    limits: MirrorLimits = IMPATIENT
    prefix: str = field(default_factory=lambda: f"backup/of-test-{next(NUMBERS)}")
    events: list[MirrorEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place.changes["output"] = {"directory": str(self.place.output), "mirror": self.url}
        # SeaweedFS makes a bucket with its first object.
        obstore.put(self.whole, "of-somebody-else", b"-")

    @property
    def url(self) -> str:
        """The URL of the mirror."""
        return f"s3://{BUCKET}/{self.prefix}"

    @property
    def whole(self) -> S3Store:
        """The bucket, without the prefix."""
        return self.server.bucket(BUCKET)

    @property
    def store(self) -> S3Store:
        """The bucket, below the prefix."""
        return self.server.bucket(BUCKET, self.prefix)

    def add(self, *stored: Arrival) -> None:
        """Store archives, and the definition of the export."""
        self.place.store(*stored)
        self.define()

    def define(self) -> None:
        """Write the definition of the export, as a run does."""
        text = orjson.dumps({"name": EVENTS.name, **EVENTS.definition.to_dict()}, option=orjson.OPT_INDENT_2) + b"\n"
        (self.place.output / DEFINITION).write_bytes(text)

    def mirror(self, **asked: Any) -> Summary:
        """Mirror, without a proxy, in a loop of its own."""
        import asyncio  # noqa: PLC0415 - most tests have a loop

        return asyncio.run(self.mirrored(**asked))

    async def mirrored(self, *, stop: Stop | None = None) -> Summary:
        """Mirror, and return the summary."""
        self.events.clear()
        return await mirror(self.place.settings, stop=stop, on_event=self.events.append, limits=self.limits)

    async def counts(self) -> tuple[int, int, int, int]:
        """Mirror, and return how many files were uploaded, there before, failed, and foreign."""
        summary = await self.mirrored()
        assert summary.mirror is not None
        tally = summary.mirror
        return tally.uploaded, tally.already, tally.failed, tally.foreign

    async def differences(self) -> list[tuple[str, str]]:
        """Return what the check finds."""
        return [(one.kind, one.path) async for one in check_mirror(self.place.settings, limits=self.limits)]

    def files(self) -> dict[str, bytes]:
        """Return the archives and definitions on the disk."""
        found = (one for one in self.place.output.glob("*/**/*") if one.is_file() and ".asyncexport" not in one.parts)
        return {str(one.relative_to(self.place.output)): one.read_bytes() for one in found}

    def objects(self) -> dict[str, bytes]:
        """Return the objects below the prefix."""
        names = [one["path"] for one in obstore.list(self.store).collect()]
        return {name: bytes(obstore.get(self.store, name).bytes()) for name in names}

    def check_complete(self) -> None:
        """Check that the bucket has what the directory has, and that the metadata has the hashes."""
        objects = self.objects()
        assert objects == self.files()
        for name, content in objects.items():
            assert obstore.get(self.store, name).attributes["sha256"] == sha256(content).hexdigest()

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[S3Proxy]:
        """Send the requests of mirrors through a proxy."""
        async with proxying(self.server.port) as proxy:
            with in_environment(self.server.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}):
                yield proxy


@contextmanager
def in_environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables."""
    with patch.dict(os.environ, variables):
        yield


@pytest.fixture
def rig(s3_server: S3Server, tmp_path: Path) -> Iterator[MirrorRig]:
    """Three archives of an earlier run, none of them mirrored."""
    with in_environment(s3_server.environ):
        rig = MirrorRig(s3_server, Place(tmp_path))
        rig.add(*hours(0, 3))
        yield rig


def hours(first: int, number: int, **more: Any) -> list[Arrival]:
    """Return archives of an hour each."""
    return [Arrival((one, one + 1), events(3600 * one, 3), **more) for one in range(first, first + number)]


def archive(number: int, folder: Path | None = None) -> str:
    """Return the name of the archive of the n-th hour of 2026."""
    name = f"{EVENTS.name}/date=2026-01-01/20260101T{number:02}0000Z_20260101T{number + 1:02}0000Z.ndjson.gz"
    return name if folder is None else str(folder / name)
