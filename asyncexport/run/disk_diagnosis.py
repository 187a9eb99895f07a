"""What the checks of `doctor` ask the disk: whether a path can be written, how much is free, how much a month takes."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from asyncexport.client.clock import time_by
from asyncexport.config import Settings
from asyncexport.config.presence import existing_place, is_directory
from asyncexport.core.bundles import DAY, Range
from asyncexport.core.diagnosis import MONTH_DAYS, Check, failed, warned
from asyncexport.core.exits import Exit
from asyncexport.errors import ExportError
from asyncexport.ledger import LedgerReader
from asyncexport.run.planner import CLOCK_CHECK


@dataclass(frozen=True, slots=True)
class RecentBytes:
    """The bytes of the archives with data of the last month: of all, and of its largest day."""

    month: int = 0
    largest_day: int = 0


def is_writable(path: Path) -> bool:
    """Whether this process may write to a file, or make files in a folder."""
    mode = os.W_OK | os.X_OK if is_directory(path) else os.W_OK
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def free_bytes(name: str, directory: Path) -> int | Check:
    """Return the free bytes on the disk of a directory, which may not exist yet; a check if nothing can be stored.

    Args:
        name: The name of the check.
        directory: The directory, absolute.
    """
    place = existing_place(directory)
    try:
        free, inodes = shutil.disk_usage(place).free, os.statvfs(place)
    except OSError as error:
        return warned(name, f"the free space cannot be read: {error.strerror}")
    if inodes.f_files and not inodes.f_favail:
        return failed(name, "the disk has no inodes left: it cannot hold more files", "delete files", code=Exit.DISK)
    return free


def recent_bytes(settings: Settings) -> RecentBytes:
    """Return the bytes of the archives of the last month; 0 if the ledger cannot be read."""
    days: Counter[int] = Counter()
    try:
        with LedgerReader(settings.output.directory) as ledger:
            now = int(time_by(ledger.recall(CLOCK_CHECK), trust=settings.api.clock))
            month = Range(now - MONTH_DAYS * DAY, now)
            for record in (one for name in ledger.exports() for one in ledger.stored(name, month)):
                if record.stored is not None:
                    days[record.bundle.range.start // DAY] += record.stored.bytes
    except ExportError:
        return RecentBytes()
    return RecentBytes(days.total(), max(days.values(), default=0))
