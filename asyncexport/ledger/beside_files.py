"""The records of the last load and the last mirror: a file each, with one JSON object.

1. The record of a run's load, and that of any mirror, is beside the ledger. The command `load` only reads what is
   there, so its record is in the load directory.
2. A record is written when the load or the mirror begins, and again when it has ended. One that was killed has no end.
3. Nothing else depends on these records. One that cannot be read counts as none, and the next one replaces it.
"""

import socket
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from asyncexport.core.bundles import FIRST_WRITTEN, LAST_WRITTEN
from asyncexport.core.health.beside import Beside, BesideBegin, BesideEnd, BesideKind, newest
from asyncexport.ledger.folder import LEDGER_FOLDER
from asyncexport.ledger.lock import Holder
from asyncexport.ledger.small_files import read_small, replace_small

LONGEST_FILE = 1 << 20
"""Bytes that are read. A record has about 500."""


def beside_path(directory: Path, kind: BesideKind) -> Path:
    """Return the file beside the ledger of an output directory."""
    return directory.absolute() / LEDGER_FOLDER / f"last-{kind}.json"


def own_load_path(load_directory: Path) -> Path:
    """Return the file in a load directory."""
    return load_directory.absolute() / f".last-{BesideKind.LOAD}.json"


def read_beside(kind: BesideKind, *paths: Path) -> Beside | None:
    """Return the newest record of these files; None if there is none."""
    return newest(kind, [record for path in paths if (record := _read(kind, path))])


def record_begun(kind: BesideKind, path: Path, begun: BesideBegin) -> None:
    """Record that a load or a mirror has begun.

    Raises:
        StorageError: the file cannot be written.
    """
    _write(path, replace(_read(kind, path) or Beside(kind), begun=begun))


def record_ended(kind: BesideKind, path: Path, ended: BesideEnd) -> None:
    """Record how the load or the mirror has ended that has begun.

    Raises:
        StorageError: the file cannot be written.
    """
    before = _read(kind, path)
    complete_at = ended.ended if ended.is_complete else 0.0 if before is None else before.complete_at
    _write(path, Beside(kind, ended, None, complete_at))


def _write(path: Path, record: Beside) -> None:
    known: dict[str, Any] = {
        "last": None if record.last is None else asdict(record.last),
        "begun": None if record.begun is None else asdict(replace(record.begun, running=False)),
        "complete_at": record.complete_at,
    }
    replace_small(path, orjson.dumps(known, option=orjson.OPT_INDENT_2) + b"\n")


def _read(kind: BesideKind, path: Path) -> Beside | None:
    content = read_small(path, longest=LONGEST_FILE)
    with suppress(ValueError, KeyError, TypeError, OverflowError, AttributeError):
        known = orjson.loads(content or b"")
        last, begun = known["last"], known["begun"]
        return Beside(
            kind,
            None if last is None else _ended(last),
            None if begun is None else _begun(begun),
            _time(known["complete_at"]) if known["complete_at"] else 0.0,
        )
    return None


def _ended(known: dict[str, Any]) -> BesideEnd:
    return BesideEnd(
        str(known["command"]),
        _time(known["began"]),
        _time(known["ended"]),
        int(known["exit_code"]),
        str(known["error"]),
        dict(known["counts"]),
        bool(known["is_complete"]),
    )


def _begun(known: dict[str, Any]) -> BesideBegin:
    found = BesideBegin(str(known["command"]), _time(known["at"]), str(known["host"]), int(known["pid"]))
    return replace(found, running=not Holder(found.command, found.pid, found.host, found.at).gone)


def _time(value: Any) -> float:
    if not FIRST_WRITTEN <= float(value) <= LAST_WRITTEN:
        raise ValueError("not a time that was ever written")
    return float(value)


def begun_here(command: str, *, at: float, pid: int) -> BesideBegin:
    """Return what begins now, on this machine."""
    return BesideBegin(command, at, socket.gethostname(), pid)
