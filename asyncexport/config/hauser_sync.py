"""Finds how far hauser has exported.

1. With local files, hauser writes `.sync.hauser` below `FilePrefix` but reads it without the prefix. Both places are
   read. If both have a time, the earlier one counts: that costs a second export at most, and leaves no gap.
2. In a bucket or a database, only the user can look for it. The notes say where.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asyncexport.config.hauser import HauserFile
from asyncexport.config.hauser_values import describe_time

FILE_NAME = ".sync.hauser"

LOCAL, AMAZON, GOOGLE = "local", "aws", "gcp"

PROVIDERS = {"local": LOCAL, "aws": AMAZON, "gcp": GOOGLE, "redshift": AMAZON, "bigquery": GOOGLE}
"""The provider by the value of `Provider`, or of the older `Warehouse`."""

MOST_BYTES = 100
"""A sync file has 20 bytes."""


@dataclass(frozen=True, slots=True)
class SyncPoint:
    """How far hauser has exported.

    Attributes:
        time: RFC 3339 in UTC; "" if it was not found.
        found_in: The file that has it; "" if it was not found.
        notes: What else was found, or where a user finds the time.
    """

    time: str
    found_in: str
    notes: tuple[str, ...]


def find_sync_point(file: HauserFile, *, folders: tuple[Path, ...]) -> SyncPoint:
    """Look for the sync point.

    Args:
        file: hauser's configuration.
        folders: The folders from which a relative `SaveDir` may start.
    """
    provider = _provider(file)
    if provider != LOCAL:
        return SyncPoint("", "", tuple(_advice(file, provider)))
    places = list(_places(file, folders))
    found: list[tuple[str, str]] = []
    notes: list[str] = []
    for path in places:
        text = _content(path)
        if text is None:
            continue
        time = describe_time(text)
        if time:
            found.append((time, str(path)))
        else:
            notes.append(f"{path} has no time and is ignored")
    if not found:
        where = " or ".join(map(str, places))
        missing = f"there is no time in {where}" if where else "SaveDir is not set, so it cannot be looked for"
        return SyncPoint("", "", (*notes, missing))
    time, place = min(found)
    notes += [f"{other} says {later}; the earlier time counts" for later, other in found if other != place]
    return SyncPoint(time, place, tuple(notes))


def _provider(file: HauserFile) -> str:
    return PROVIDERS.get((file.text("Provider") or file.text("Warehouse")).lower(), "")


def _places(file: HauserFile, folders: tuple[Path, ...]) -> Iterator[Path]:
    """Yield where a local sync file may be, each place once."""
    folder, prefix = file.text("SaveDir", table="Local"), file.text("FilePrefix").strip("/")
    if not folder:
        return
    roots = dict.fromkeys(one / Path(folder).expanduser() for one in folders)
    for root in roots:
        # The prefix may be a folder, or the beginning of the name.
        yield from dict.fromkeys((root / prefix / FILE_NAME, root / f"{prefix}{FILE_NAME}", root / FILE_NAME))


def _content(path: Path) -> str | None:
    """Return the text of a sync file; None if there is none that can be read."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return None


def _advice(file: HauserFile, provider: str) -> Iterator[str]:
    """Say where the sync point is."""
    tables = {AMAZON: ("s3", "Redshift", "S3Only", "s3"), GOOGLE: ("gcs", "BigQuery", "GCSOnly", "gs")}
    if provider not in tables:
        yield "hauser's file names no Provider, so the sync point cannot be looked for"
        return
    storage, database, only, scheme = tables[provider]
    is_storage_only = True in (file.find("StorageOnly")[1], file.find(only, table=storage)[1])
    if is_storage_only:
        bucket, prefix = file.text("Bucket", table=storage).strip("/"), file.text("FilePrefix").strip("/")
        names = dict.fromkeys(
            f"{scheme}://{bucket or 'BUCKET'}/{name}" for name in (f"{prefix}/{FILE_NAME}".strip("/"), FILE_NAME)
        )
        yield f"the sync point is the time in {' or '.join(names)}; the earlier one counts"
    else:
        table = file.text("SyncTable", table=database) or "SYNC_TABLE"
        yield f"the sync point is the newest BundleEndTime in the table {table} of {database}"
