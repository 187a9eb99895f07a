"""What is found of archives and of other files: by a check, a rebuild, and the adoption of archives."""

from dataclasses import dataclass

from asyncexport.core.bundles import Bundle
from asyncexport.core.states import BundleRecord


@dataclass(frozen=True, slots=True)
class Intact:
    """An archive that is what the ledger says.

    Attributes:
        path: Its path, relative to the output directory.
        rows: The number of its rows.
        bytes: Its size on disk.
        outside: The number of sampled rows that lie outside its range.
    """

    path: str
    rows: int
    bytes: int
    outside: int = 0


@dataclass(frozen=True, slots=True)
class Missing:
    """The ledger has an archive that the disk has not."""

    path: str
    record: BundleRecord


@dataclass(frozen=True, slots=True)
class Broken:
    """An archive that is not what the ledger says."""

    path: str
    record: BundleRecord
    reason: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """An archive that is not whole, and is moved aside, to this path, when the new ledger takes its place."""

    path: str
    bundle: Bundle
    reason: str


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A file that the ledger knows nothing of.

    Attributes:
        path: Where it lies.
        is_archive: It is one of its export's archives, by its name: no run begins beside it.
    """

    path: str
    is_archive: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """An intact archive that the ledger did not know and now does; the attributes are those of `Intact`."""

    path: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Overlapping:
    """An archive that holds rows which another one of its export holds, too: `other` is that one's path."""

    path: str
    bundle: Bundle
    other: str


@dataclass(frozen=True, slots=True)
class RulesOff:
    """So many archives of an export in a row have other rows than were asked for that none is refused for them.

    `path` is the export's folder; `is_remembered`: a run found so, and archives are not judged by the time of rows.
    """

    path: str
    is_remembered: bool = False


@dataclass(frozen=True, slots=True)
class UnknownExport:
    """A folder that holds archives, of an export that nobody can name: no ledger, no `.export.json` says what it is."""

    path: str
    reason: str


Finding = Intact | Missing | Broken | Damaged | Unrecorded | Adopted | Overlapping | RulesOff | UnknownExport
