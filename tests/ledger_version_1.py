"""Ledgers as version 1 of the format wrote them, and the checks of its program; both are frozen, without current code.

`write_ledger` creates a file with the bundles of `ledger_rig.fill`, in the tables and with the checksums of version 1.
`verdict_of_version_1` returns how the program of version 1 classifies a ledger.
"""

import json
import math
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

APPLICATION_ID = 0x61786C67

TABLES = tuple(
    """
CREATE TABLE head (one INTEGER PRIMARY KEY, text TEXT NOT NULL, digest INTEGER NOT NULL)
CREATE TABLE state (seq INTEGER PRIMARY KEY, export INTEGER NOT NULL, start INTEGER NOT NULL, \
stop INTEGER NOT NULL, take INTEGER NOT NULL, state TEXT NOT NULL, fields TEXT NOT NULL, \
written_at REAL NOT NULL, digest INTEGER NOT NULL)
CREATE TABLE bundle (export INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, \
latest INTEGER NOT NULL, stored INTEGER, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, \
exported INTEGER NOT NULL, PRIMARY KEY (export, start, stop)) WITHOUT ROWID
CREATE TABLE request (seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, \
status INTEGER NOT NULL, digest INTEGER NOT NULL)
CREATE TABLE duration (seq INTEGER PRIMARY KEY, finished_at REAL NOT NULL, seconds REAL NOT NULL, \
digest INTEGER NOT NULL)
CREATE VIEW standing AS SELECT bundle.*, newest.*, archive.* FROM bundle \
LEFT JOIN state AS newest ON newest.seq = bundle.latest \
LEFT JOIN state AS archive ON archive.seq = bundle.stored
""".strip().splitlines()
)

DEFINITION = {"segment": "everyone", "type": "event", "format": "ndjson", "fields": [], "scope": "", "timezone": ""}

CREATED_AT = 1.6e9

AT = 1.7e9

BUNDLES = 12

FEWER = "the archive was kept, since far fewer rows came: 0 in place of 120"


def write_ledger(directory: Path, *, remarks: dict[str, str] | None = None, damage: str = "") -> Path:
    """Create a version 1 ledger; `damage` is a statement that is executed at the end."""
    path = directory / ".asyncexport" / "ledger.sqlite3"
    path.parent.mkdir(mode=0o700, parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        for statement in TABLES:
            connection.execute(statement)
        sums = {1: [0] * 9, 2: [0] * 9}
        states = _write_bundles(connection, sums)
        for number in range(BUNDLES):
            _insert(connection, "request", (number + 1, AT + number, "create", 200))
            _insert(connection, "duration", (number + 1, AT + number, 60.5))
        head = {
            "version": 1,
            "created_at": CREATED_AT,
            "commits": 7,
            "last_state": states,
            "last_request": BUNDLES,
            "last_duration": BUNDLES,
            "requests": BUNDLES,
            "durations": BUNDLES,
            "first_request_at": AT,
            "remarks": {"nightly_since": "1700000000", **(remarks or {})},
            "exports": {
                name: {"number": number, "definition": DEFINITION, "sums": sums[number]}
                for number, name in ((1, "events"), (2, "people"))
            },
        }
        _insert(connection, "head", (1, json.dumps(head)))
        connection.execute("COMMIT")
        if damage:
            connection.execute(damage)
    mark = struct.pack(">dq", CREATED_AT, 7)
    path.with_name("ledger.sqlite3-mark").write_bytes(mark + zlib.crc32(mark).to_bytes(4, "big"))
    return path


def verdict_of_version_1(directory: Path) -> str:
    """Return `ledger`, `newer` or `damaged`, as the program of version 1 classifies the file."""
    path = directory / ".asyncexport" / "ledger.sqlite3"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            return "damaged"
        head = connection.execute("SELECT one, text, digest FROM head").fetchone()
        if head is None or head[-1] != zlib.crc32(repr(head[:-1]).encode()):
            return "damaged"
        if version > 1 and json.loads(head[1])["version"] == version:
            return "newer"
        found = {sql.decode() for (sql,) in connection.execute("SELECT sql FROM sqlite_master")}
        return "ledger" if version == 1 and found == set(TABLES) else "damaged"


def _write_bundles(connection: sqlite3.Connection, sums: dict[int, list[int]]) -> int:
    """Write bundles of two exports in turn; the last third are unfinished, and one kept its archive in a refresh."""
    seq = 0
    for number in range(BUNDLES):
        export = 1 + number % 2
        start, stop = number * 1800, number * 1800 + 1800
        steps = 1 + number % 4 if number >= BUNDLES * 2 // 3 else 4
        latest, stored, archive = 0, None, {"rows": 0, "bytes": 0, "exported_at": 0.0}
        history = [(0, *step) for step in _history(number)[:steps]]
        if number == 3:
            history += [(1, "creating", {"attempt": 1, "asked_at": AT}), (1, "failed", {"reason": FEWER})]
        for take, state, fields in history:
            seq += 1
            text = json.dumps(fields, separators=(",", ":"))
            _insert(connection, "state", (seq, export, start, stop, take, state, text, AT + number))
            latest = seq
            if state == "stored":
                stored, archive = seq, fields
        exported = math.floor(archive["exported_at"])
        row = (export, start, stop, latest, stored, archive["rows"], archive["bytes"], exported)
        connection.execute("INSERT INTO bundle VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        values = (1, stored is not None, start, stop, latest, stored or 0, archive["rows"], archive["bytes"], exported)
        sums[export] = [a + int(b) for a, b in zip(sums[export], values, strict=True)]
    return seq


def _history(number: int) -> list[tuple[str, dict[str, Any]]]:
    at, name = AT + number, f"operation-{number}"
    archive = {
        "path": f"events/{number}.gz",
        "bytes": 20_000 + number,
        "rows": number % 3,
        "sha256": f"{number:064x}",
        "exported_at": AT + number / 4,
    }
    return [
        ("creating", {"attempt": 1, "asked_at": at}),
        ("created", {"attempt": 1, "asked_at": at + 1, "operation_id": name}),
        ("ready", {"attempt": 1, "exported_at": at, "export_id": name}),
        ("stored", archive),
    ]


def _insert(connection: sqlite3.Connection, table: str, values: tuple[Any, ...]) -> None:
    as_read = tuple(value.encode() if isinstance(value, str) else value for value in values)
    row = (*values, zlib.crc32(repr(as_read).encode()))
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
