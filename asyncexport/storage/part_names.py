"""What a file that is being written is called, and when one that lies around is rubbish.

1. The name tells which process writes it: two runs that write to one directory, since its locks do nothing, never write
   into the same file.
2. A part file is rubbish when its process has ended, as far as that can be seen from here; else when nothing was
   written to it for a day. One whose name tells no process was left by an earlier version.
"""

import os
import re
import socket
import time
from functools import cache
from pathlib import Path

ABANDONED_SECONDS = 86_400
"""A part file of another machine is rubbish when nothing was written to it for so long."""

_OTHER = re.compile(r"[^A-Za-z0-9]+")

_PART_NAME = re.compile(r"\..+\.([A-Za-z0-9-]+)-([0-9]{1,10})\.part", re.ASCII)


def part_path(final: Path) -> Path:
    """Where this process writes what gets a final name later; beside that, hidden from every `*.gz`."""
    return final.with_name(f".{final.name}.{_host()}-{os.getpid()}.part")


def is_rubbish(part: Path) -> bool:
    """Whether nobody writes to a part file any more. This process must not have begun one yet."""
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
    """This machine's name, as far as it can stand in a file's name."""
    return _OTHER.sub("-", socket.gethostname())[:64].strip("-") or "host"


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine still runs; one that has ended and was not looked after yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    try:
        # After the program's name, which may hold anything but is the last thing in brackets.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in (b"Z", b"X")
