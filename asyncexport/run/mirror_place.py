"""Opens the mirror of the settings: the bucket, and what is remembered of it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from asyncexport.config import Settings
from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.objects import Held, Wanted
from asyncexport.errors import ConfigError, Problem, StorageError
from asyncexport.ledger import LedgerReader
from asyncexport.ledger.folder import LEDGER_FOLDER
from asyncexport.mirror.seen_file import SeenFile
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.mirror_pairs import MirrorPairs

if TYPE_CHECKING:
    from asyncexport.mirror.store import MirrorStore

LIBRARY = "obstore"


def open_store(settings: Settings, limits: MirrorLimits) -> "MirrorStore":
    """Return the bucket of the settings. No request is sent.

    Raises:
        ConfigError: no mirror is set, a library is missing, or the settings cannot be used.
    """
    url = settings.output.mirror
    if not url:
        problem = Problem("output.mirror", "is not set, so there is nothing to upload to")
        raise ConfigError([problem], hint='set [output] mirror, such as "s3://bucket/prefix"')
    if find_spec(LIBRARY) is None:
        problem = Problem("output.mirror", f"needs a library that is not installed: {LIBRARY}")
        raise ConfigError([problem], hint="pip install 'asyncexport[mirror]'")
    from asyncexport.mirror.store import MirrorStore  # noqa: PLC0415 - the library is needed for mirrors only

    return MirrorStore(url, environ=os.environ, limits=limits)


@dataclass(frozen=True, slots=True)
class OpenMirror:
    """A mirror with the ledger that it is compared with; made by `open_mirror`.

    Attributes:
        pairs: The files and objects.
        seen: The objects that were found to be right.
    """

    pairs: MirrorPairs
    seen: SeenFile

    def digests(self, right: list[tuple[Wanted, Held]]) -> list[str]:
        """Return the digests of objects that were found to be right."""
        return [one for one in (self.pairs.digest(wanted, held) for wanted, held in right) if one is not None]


@asynccontextmanager
async def open_mirror(directory: Path, store: "MirrorStore", *, reads_only: bool = False) -> AsyncIterator[OpenMirror]:
    """Open the ledger and the file of objects that were found to be right.

    Args:
        directory: The output directory.
        store: The bucket.
        reads_only: Whether nothing is written.

    Raises:
        LedgerError: the ledger is missing or damaged.
        StorageError: the disk cannot be read.
    """
    await asyncio.to_thread(check_ledger_not_lost, directory)
    seen = SeenFile(directory / LEDGER_FOLDER, reads_only=reads_only)
    ledger = await asyncio.to_thread(LedgerReader, directory)
    try:
        await asyncio.to_thread(seen.load)
        yield OpenMirror(MirrorPairs(directory, ledger, store, seen), seen)
    except OSError as error:
        raise StorageError(f"cannot use the files in {directory}: {error.strerror or error}") from error
    finally:
        ledger.close()
