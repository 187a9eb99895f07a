"""Archives whose hash is checked while they are read.

1. An archive that is not exactly what the ledger says is not loaded: it was replaced meanwhile, or altered.
2. DuckDB opens archives by their paths. So each one is opened and hashed here first, and when DuckDB has finished, its
   path must still lead to the same unchanged file.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from asyncexport.core.warehouse.days import SourceArchive
from asyncexport.errors import ChangedArchiveError

READ_BYTES = 1 << 20
HINT = "if no run replaced it meanwhile, check it with `asyncexport verify`"

_Identity = tuple[int, int, int, int, int]


@contextmanager
def unchanged(output: Path, archives: Iterable[SourceArchive]) -> Iterator[None]:
    """Check the archives before the block, and after it that they are still the same files.

    Raises:
        ChangedArchiveError: an archive is missing, or not what the ledger says, or was changed meanwhile.
    """
    before = [(one, _checked(output / one.path, one)) for one in archives]
    yield
    for archive, identity in before:
        try:
            found = _identity((output / archive.path).stat())
        except FileNotFoundError:
            found = None
        if found != identity:
            raise ChangedArchiveError(f"{archive.path} was replaced or altered while it was read", path=archive.path)


def _checked(file: Path, archive: SourceArchive) -> _Identity:
    digest = sha256()
    try:
        with file.open("rb", buffering=0) as opened:
            identity = _identity(os.fstat(opened.fileno()))
            while piece := opened.read(READ_BYTES):
                digest.update(piece)
    except FileNotFoundError:
        raise ChangedArchiveError(
            f"{archive.path} does not exist, although the ledger names it", path=archive.path, hint=HINT
        ) from None
    if digest.hexdigest() != archive.sha256:
        raise ChangedArchiveError(
            f"{archive.path} is not the file that the ledger describes: its hash differs", path=archive.path, hint=HINT
        )
    return identity


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
