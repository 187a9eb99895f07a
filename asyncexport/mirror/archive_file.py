"""Reads an archive for an upload, and checks meanwhile that it is the file that the ledger describes. Blocks."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from asyncexport.core.mirror.objects import Wanted
from asyncexport.errors import ChangedArchiveError


def read_archive(directory: Path, wanted: Wanted) -> bytes:
    """Return the content of a small archive.

    Raises:
        ChangedArchiveError: it is not the file that the ledger describes, or cannot be read.
    """
    return b"".join(archive_pieces(directory, wanted, wanted.bytes + 1))


def opened(path: Path) -> BinaryIO:
    """Open a file for reading; if it is a pipe, do not wait for its writer.

    Raises:
        OSError: it cannot be opened.
    """
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")


def archive_pieces(directory: Path, wanted: Wanted, size: int) -> Iterator[bytes]:
    """Yield the content of an archive in pieces; the last one only after the hash of all was found to be right.

    Raises:
        ChangedArchiveError: it is not the file that the ledger describes, or cannot be read.
    """
    digest, length, last = sha256(), 0, b""
    try:
        with opened(directory / wanted.path) as file:
            while piece := file.read(size):
                if last:
                    yield last
                digest.update(piece)
                length += len(piece)
                last = piece
                if length > wanted.bytes:
                    break
    except FileNotFoundError:
        raise ChangedArchiveError(
            f"{wanted.path} is recorded in the ledger, but there is no such file",
            path=wanted.path,
            hint="`asyncexport verify --repair` exports missing archives again",
        ) from None
    except OSError as error:
        raise ChangedArchiveError(
            f"{wanted.path} was not uploaded: it cannot be read: {error.strerror or error}", path=wanted.path
        ) from error
    if (length, digest.hexdigest()) != (wanted.bytes, wanted.sha256):
        raise ChangedArchiveError(
            f"{wanted.path} was not uploaded: its bytes are not those that the ledger describes",
            path=wanted.path,
            hint="`asyncexport verify` checks all archives, and `verify --repair` exports broken ones again",
        )
    yield last
