"""Archives on disk: written aside, checked, flushed, and only then given their name.

1. A file under its final name is complete, checked and durable: part file, check, fsync, rename, fsync of the folder,
   and of the folders above it where they were made for it (`archive_part`).
2. A part file without a run is rubbish and removed at the start. Its name begins with a dot, so that no `*.gz` sees it,
   and tells its process, so that two that write at once never write into the same file (`part_names`).
3. A new revision's file replaces the old one in one rename, and only where its rows differ (`archive_place`).
4. Names come from the plan alone, never from the server; nothing is written outside of the output directory, no link
   within it is followed (`layout`, `disk`).
5. The event loop is never blocked: a megabyte is gathered and written in one hop to a thread, while the next is
   gathered. When the body has ended, its file is inspected in threads of which there is one a core (`inspecting`,
   `threads`). A caller that is cancelled waits until its thread is done.

archives       the output directory: prepared, listed, archives begun and moved aside
writer         one archive, written from the event loop
archive_part   its part file, from the first byte to the final name
archive_place  what stands under that name, and how another comes in its place
inspecting     reads a file to its end: is it one whole export
part_names     names of part files, and when one is rubbish
definitions    what an export is, in a file beside its archives
layout         where files lie, and what they are called
listing        what lies below an export's folder
disk           folders and files made, named and flushed
threads        where all of this is done
faults         errors of the disk in plain words
failpoints     where a test can watch a write, make it fail, or kill the process
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
from asyncexport.storage.listing import ExportFolder, archives_of, look_into
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
    "look_into",
]
