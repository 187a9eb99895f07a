"""What is to be done with an object in the bucket, so that it becomes the file on the disk.

1. An object is ours if its metadata has the hash of an archive that the ledger knew for the bundle. Only such an object
   is ever replaced, and only as long as it is the very version that was examined.
2. An object of the same name that is not ours is never replaced: it may be the only copy of something else.
3. A listing has no metadata. Unless an object is known from before (`seen`), its metadata is read.
"""

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum

HASH_KEY = "sha256"
"""The key of an object's metadata that holds the SHA-256 of its content, in hex."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that the bucket should have.

    Attributes:
        path: Its path, relative to the output directory, which is also the name of the object.
        bytes: Its size.
        sha256: The SHA-256 of its content, in hex.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Held:
    """An object in the bucket.

    Attributes:
        bytes: Its size.
        e_tag: Its ETag. None if the store has none.
        version: Its version. None if the store has none.
        sha256: The hash in its metadata. None if there is none, or if it was not read.
        is_read: Whether its metadata was read.
    """

    bytes: int
    e_tag: str | None = None
    version: str | None = None
    sha256: str | None = None
    is_read: bool = False


class ConflictError(Exception):
    """The condition of an upload was not met: another object is there, or none any more."""


class Step(Enum):
    """What is to be done with an object."""

    KEEP = "the bucket has it"
    READ = "read its metadata"
    ADD = "upload it if there still is none"
    REPLACE = "upload it in place of the version that was examined"
    REFUSE = "it is not ours"


def step_for(wanted: Wanted, held: Held | None, earlier: Container[str]) -> Step:
    """Return what is to be done.

    Args:
        wanted: The file.
        held: The object of this name; None if there is none.
        earlier: Hashes of earlier archives of the bundle.
    """
    if held is None:
        return Step.ADD
    if not held.is_read:
        return Step.READ
    if held.sha256 == wanted.sha256 and held.bytes == wanted.bytes:
        return Step.KEEP
    is_ours = held.sha256 is not None and (held.sha256 == wanted.sha256 or held.sha256 in earlier)
    return Step.REPLACE if is_ours else Step.REFUSE


def difference(wanted: Wanted, held: Held | None, step: Step) -> str:
    """Return how an object differs from the file, for people; empty if it does not."""
    match step:
        case Step.ADD:
            return "the bucket does not have it"
        case Step.REFUSE:
            return foreign_reason(held)
        case Step.REPLACE if held is not None and held.sha256 == wanted.sha256:
            return f"the object has {held.bytes} bytes instead of {wanted.bytes}"
        case Step.REPLACE:
            return "the bucket has an earlier archive of the same bundle"
        case _:
            return ""


def foreign_reason(held: Held | None) -> str:
    """Say why an object counts as not ours."""
    if held is not None and held.sha256 is not None:
        return "an object of this name has the hash of a file that the ledger does not know; it was not overwritten"
    return "an object of this name was not uploaded by asyncexport; it was not overwritten"
