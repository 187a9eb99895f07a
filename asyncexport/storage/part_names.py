"""The names of part files, and which part files are garbage.

1. The name contains the process that writes the file. So two runs never write to the same part file, even if the locks
   of the file system do not work and both use one directory.
2. A part file is garbage if its process was on this machine and has ended, or if nothing was written to the file for a
   day. A name without a process was left by an earlier version.
"""

import os
import re
import socket
import time
from functools import cache
from pathlib import Path

ABANDONED_SECONDS = 86_400
"""Seconds without a write after which a part file of another machine is garbage."""

_OTHER = re.compile(r"[^A-Za-z0-9]+")

_PART_NAME = re.compile(r"\..+\.([A-Za-z0-9-]+)-([0-9]{1,10})\.part", re.ASCII)


def part_path(final: Path) -> Path:
    """Return the path of this process's part file for a final path: in the same folder, not matched by `*.gz`."""
    return final.with_name(f".{final.name}.{_host()}-{os.getpid()}.part")


def is_rubbish(part: Path) -> bool:
    """Whether no process writes to a part file any more. This process must not have created part files yet."""
    found = _PART_NAME.fullmatch(part.name)
    if found is None:
        return True
    host, pid = found[1], int(found[2])
    if host == _host() and (pid == os.getpid() or not _is_alive(pid)):
        return True
    try:
        return part.lstat().st_mtime < time.time() - ABANDONED_SECONDS
    except FileNotFoundError:
        return False


@cache
def _host() -> str:
    """Return this machine's name, reduced to characters that are safe in a file's name."""
    return _OTHER.sub("-", socket.gethostname())[:64].strip("-") or "host"


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine still runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    try:
        # The state follows the program's name, which may contain anything but ends with the last bracket.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in (b"Z", b"X")
