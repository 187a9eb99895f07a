"""The log of joined runs: nightly runs that waited for another run until it had done their share.

1. Such a run does not hold the lock, so it must not write to the ledger. Its record is in a file of its own, next to
   the ledger, with one JSON object per line.
2. The record is written when the run begins to wait, and again when it ends. If the run takes over, it becomes an
   ordinary run with a row in the ledger, and this record is removed.
3. Only the process that holds the place of the waiting run writes the file, and it replaces the file in one rename.
4. Nothing else depends on these records. A line that cannot be read is left out, and the next record replaces the file.
"""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from asyncexport.core.bundles import FIRST_WRITTEN, LAST_WRITTEN
from asyncexport.core.health.records import RunRecord
from asyncexport.core.join_progress import JoinedRun
from asyncexport.ledger.folder import LEDGER_FOLDER
from asyncexport.ledger.run_log import KEPT_SECONDS
from asyncexport.ledger.small_files import read_small, replace_small

JOINED_NAME = "joined.jsonl"

LONGEST_FILE = 16 << 20
"""Bytes that are read. A record has about 500 bytes, and there is usually one a night."""


def joined_runs(directory: Path) -> list[RunRecord]:
    """Return the recorded joined runs, in the order they began; none if the file is missing or cannot be read."""
    lines = (read_small(_path(directory), longest=LONGEST_FILE) or b"").splitlines()
    return sorted((run for line in lines if (run := _read(line))), key=lambda run: run.began)


def record_joined(directory: Path, run: RunRecord) -> None:
    """Record a joined run; an earlier record of the same run is replaced, and records of more than 400 days deleted.

    Raises:
        StorageError: the file cannot be written.
    """
    others = [one for one in joined_runs(directory) if not _is_same(one, run) and one.began > run.began - KEPT_SECONDS]
    _write(directory, [*others, run])


def forget_joined(directory: Path, run: RunRecord) -> None:
    """Remove the record of a run that has taken over.

    Raises:
        StorageError: the file cannot be written.
    """
    _write(directory, [one for one in joined_runs(directory) if not _is_same(one, run)])


def begun_joined(command: str, *, at: float, joined: JoinedRun | None) -> RunRecord:
    """Return the record of a run that begins to wait now, on this machine."""
    return RunRecord(command, at, socket.gethostname(), joined=joined or UNKNOWN_RUN)


UNKNOWN_RUN = JoinedRun("", 0, "", 0.0)
"""Stands for the run that holds the directory, as long as the lock file does not say which one that is."""


def _path(directory: Path) -> Path:
    return directory.absolute() / LEDGER_FOLDER / JOINED_NAME


def _is_same(one: RunRecord, other: RunRecord) -> bool:
    return (one.command, one.began, one.host) == (other.command, other.began, other.host)


def _write(directory: Path, runs: Sequence[RunRecord]) -> None:
    replace_small(_path(directory), b"".join(orjson.dumps(_line(run)) + b"\n" for run in runs))


def _line(run: RunRecord) -> dict[str, Any]:
    joined = run.joined or UNKNOWN_RUN
    return {
        "command": run.command,
        "began": run.began,
        "host": run.host,
        "ended": run.ended,
        "exit_code": run.exit_code,
        "error": run.error,
        "counts": run.counts,
        "joined": {"command": joined.command, "pid": joined.pid, "host": joined.host, "since": joined.since},
    }


def _read(line: bytes) -> RunRecord | None:
    """Read a line; return None if it is not a valid record."""
    try:
        known = orjson.loads(line)
        joined, ended, code = known["joined"], known["ended"], known["exit_code"]
        run = RunRecord(
            str(known["command"]),
            float(known["began"]),
            str(known["host"]),
            None if ended is None else float(ended),
            None if code is None else int(code),
            str(known["error"]),
            dict(known["counts"]),
            JoinedRun(str(joined["command"]), int(joined["pid"]), str(joined["host"]), float(joined["since"])),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    times = [one for one in (run.began, run.ended) if one is not None]
    is_valid = all(FIRST_WRITTEN <= one <= LAST_WRITTEN for one in times) and (run.ended is None) == (
        run.exit_code is None
    )
    return run if is_valid else None
