"""The paths of the files in an output directory.

1. An archive is `EXPORT/date=YYYY-MM-DD/START_END.FORMAT.gz`; an export's definition is `EXPORT/.export.json`.
2. Names come from the export and the bundle, never from the server.
3. A path is an archive's only if it is exactly the one that this module makes for its bundle.
"""

import re
from pathlib import Path

from asyncexport.core.bundles import Bundle, Range, compact, day, read_moment
from asyncexport.core.exports import Format

DEFINITION_NAME = ".export.json"
"""The file in an export's folder that holds its definition."""

EXPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""The names of exports that can be names of folders."""

ARCHIVE_NAME = re.compile(r"(\d{8}T\d{6}Z)_(\d{8}T\d{6}Z)\.(ndjson|csv|json)\.gz", re.ASCII)
"""The name of an archive: start, end and format of its bundle."""


def archive_path(bundle: Bundle, container: Format) -> str:
    """Return the path of a bundle's archive, relative to the output directory."""
    span = bundle.range
    name = f"{compact(span.start)}_{compact(span.end)}.{container.value}.gz"
    return f"{bundle.export}/date={day(span.start)}/{name}"


def archive_range(path: str) -> Range | None:
    """Return the range in an archive's path; None if the path is not an archive's."""
    folder, _, name = path.rpartition("/")
    found = ARCHIVE_NAME.fullmatch(name)
    if not found:
        return None
    try:
        span = Range(read_moment(found[1], now=0), read_moment(found[2], now=0))
    except ValueError:
        return None
    return span if folder.rpartition("/")[2] == f"date={day(span.start)}" else None


def archive_bundle(export: str, path: str, container: Format) -> Bundle | None:
    """Return the bundle of an export whose archive has this path; None if the path is not one of its archives'."""
    span = archive_range(path)
    bundle = None if span is None else Bundle(export, span)
    return bundle if bundle is not None and path == archive_path(bundle, container) else None


def has_archives(directory: Path) -> bool:
    """Whether an output directory holds any archive. Reads the disk: do not call it in the event loop."""
    return any(ARCHIVE_NAME.fullmatch(path.name) for path in directory.glob("*/date=*/*.gz"))


def folders_with_archives(directory: Path) -> list[str]:
    """Return the names of folders that hold archives, in order. Reads the disk: do not call it in the event loop."""
    return sorted(
        folder.name for folder in directory.iterdir() if EXPORT_NAME.fullmatch(folder.name) and holds_archives(folder)
    )


def holds_archives(folder: Path) -> bool:
    """Whether an export's folder holds any archive, of any format. Reads the disk: do not call it in the event loop."""
    return any(ARCHIVE_NAME.fullmatch(path.name) for path in folder.glob("date=*/*.gz"))


def has_open_archives(directory: Path) -> bool:
    """Whether archives are accessible to other users than their owner, judged by the first archive that is found.

    Reads the disk: do not call it in the event loop.
    """
    found = (path for path in directory.glob("*/date=*/*.gz") if ARCHIVE_NAME.fullmatch(path.name))
    first = next(found, None)
    return first is not None and bool(first.stat().st_mode & 0o077)


def has_definitions(directory: Path) -> bool:
    """Whether an output directory holds any export's definition. Reads the disk: do not call it in the event loop."""
    return any(True for _ in directory.glob(f"*/{DEFINITION_NAME}"))
