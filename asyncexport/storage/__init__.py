"""Archives on disk: written to part files, checked, flushed, and only then renamed to their final names.

1. A file under its final name is complete, checked and durable: write the part file, check it, fsync it, rename it,
   fsync its folder, and fsync the parents of folders that were created for it (`archive_part`).
2. A part file that no process writes to is garbage and removed at the next start. Its name begins with a dot, so `*.gz`
   does not match it, and contains its process, so two processes never write to the same part file (`part_names`).
3. A new revision's file replaces the old one in one rename, and only if its rows differ (`archive_place`).
4. Names come from the plan, never from the server. Nothing is written outside the output directory, and no link inside
   it is followed (`layout`, `disk`).
5. The event loop is never blocked: each megabyte is written by a thread while the next one is collected. A complete
   body is inspected in a pool with one thread per core (`inspecting`, `threads`). A cancelled caller waits until its
   thread has finished.

archives       the output directory: preparing, listing and checking it, starting archives and moving them aside
writer         writes one archive from the event loop
archive_part   the part file of an archive, from its first byte to its final name
archive_place  decides whether a new archive replaces the one under its final name
inspecting     reads a file to its end: is it one complete export
part_names     the names of part files, and which part files are garbage
definitions    the definition of each export, in a file next to its archives
layout         the paths of the files in an output directory
listing        lists what is in an export's folder
disk           creates, renames and flushes files and folders
threads        the threads in which all of this runs
faults         translates errors of the operating system
failpoints     points where a test can watch a write, make it fail, or kill the process
"""

from asyncexport.storage.archives import Archives
from asyncexport.storage.layout import (
    ARCHIVE_NAME,
    DEFINITION_NAME,
    archive_bundle,
    archive_path,
    has_archives,
    has_definitions,
    has_open_archives,
)
from asyncexport.storage.listing import ExportFolder, archives_of, scan_folder
from asyncexport.storage.threads import CORES
from asyncexport.storage.writer import ArchiveWriter

__all__ = [
    "ARCHIVE_NAME",
    "CORES",
    "DEFINITION_NAME",
    "ArchiveWriter",
    "Archives",
    "ExportFolder",
    "archive_bundle",
    "archive_path",
    "archives_of",
    "has_archives",
    "has_definitions",
    "has_open_archives",
    "scan_folder",
]
