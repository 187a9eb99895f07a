"""The findings of a check, a rebuild or an adoption of archives."""

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
    """An archive in the ledger that does not exist on disk."""

    path: str
    record: BundleRecord


@dataclass(frozen=True, slots=True)
class Broken:
    """An archive that differs from what the ledger says."""

    path: str
    record: BundleRecord
    reason: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """An archive that is not intact, and is moved aside to `path`."""

    path: str
    bundle: Bundle
    reason: str


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A file that is not in the ledger.

    Attributes:
        path: Its path, relative to the output directory.
        is_archive: Whether it has the name of an archive. Then no run starts until it is adopted or removed.
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
    """An archive whose range overlaps that of another archive of its export, with the path `other`."""

    path: str
    bundle: Bundle
    other: str


@dataclass(frozen=True, slots=True)
class RulesOff:
    """Several archives in a row have rows other than requested, so no archive of the export is rejected for its rows.

    Attributes:
        path: The export's folder.
        is_remembered: Whether an earlier run found this, and the ledger remembers it.
    """

    path: str
    is_remembered: bool = False


@dataclass(frozen=True, slots=True)
class UnknownExport:
    """A folder with archives of an unknown export: neither the ledger nor an `.export.json` describes it."""

    path: str
    reason: str


Finding = Intact | Missing | Broken | Damaged | Unrecorded | Adopted | Overlapping | RulesOff | UnknownExport
