"""The tables.

- `head` is one row for everything small: the version of the format, the exports with their definitions and the sums
  over their bundles, and the notes that are kept from run to run.
- `state` lists all states of all revisions; rows are only appended.
- `bundle` points, for each bundle, to its newest row of `state` and to the newest `Stored` row of any revision; `rows`,
  `bytes` and `exported` (in whole seconds) are those of that archive.
- `service_id` is an index from the ids of operations and exports to the rows of `state` that contain them.
- `request` and `duration` are what the next run's budget and poller start from; the oldest rows are deleted.
- `run` has a row for each run, `hour` the number of requests of each hour by kind and status; both are kept for 400
  days.
- `accepted` has the gaps that the user has accepted.
- The view `standing` joins each bundle with its two rows of `state`.

Later versions of the format must not change `head` and its checksum, so that an older asyncexport can tell a newer
ledger from a damaged one.

Version 1 had no `service_id`, `run`, `hour` and `accepted`, and the column `revision` of `state` was called `take`. The
columns have the same order, so the same queries read both versions. A run migrates version 1 (`migration`).
"""

APPLICATION_ID = 0x61786C67
"""SQLite's application id of the file, "axlg", which `file` also shows."""

VERSION = 2

NEW_IN_2 = {
    "service_id": (
        "CREATE TABLE service_id (hash INTEGER NOT NULL, state INTEGER NOT NULL, PRIMARY KEY (hash, state))"
        " WITHOUT ROWID"
    ),
    "run": (
        "CREATE TABLE run (seq INTEGER PRIMARY KEY, began REAL NOT NULL, ended REAL, command TEXT NOT NULL,"
        " host TEXT NOT NULL, exit_code INTEGER, error TEXT NOT NULL, counts TEXT NOT NULL, digest INTEGER NOT NULL)"
    ),
    "hour": (
        "CREATE TABLE hour (hour INTEGER NOT NULL, kind TEXT NOT NULL, status INTEGER NOT NULL,"
        " requests INTEGER NOT NULL, digest INTEGER NOT NULL, PRIMARY KEY (hour, kind, status)) WITHOUT ROWID"
    ),
    "accepted": (
        "CREATE TABLE accepted (seq INTEGER PRIMARY KEY, export INTEGER NOT NULL, start INTEGER NOT NULL,"
        " stop INTEGER NOT NULL, reason TEXT NOT NULL, written_at REAL NOT NULL, digest INTEGER NOT NULL)"
    ),
}

TABLES = {
    "head": "CREATE TABLE head (one INTEGER PRIMARY KEY, text TEXT NOT NULL, digest INTEGER NOT NULL)",
    "state": (
        "CREATE TABLE state (seq INTEGER PRIMARY KEY, export INTEGER NOT NULL, start INTEGER NOT NULL,"
        " stop INTEGER NOT NULL, revision INTEGER NOT NULL, state TEXT NOT NULL, fields TEXT NOT NULL,"
        " written_at REAL NOT NULL, digest INTEGER NOT NULL)"
    ),
    "bundle": (
        "CREATE TABLE bundle (export INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,"
        " latest INTEGER NOT NULL, stored INTEGER, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,"
        " exported INTEGER NOT NULL, PRIMARY KEY (export, start, stop)) WITHOUT ROWID"
    ),
    "request": (
        "CREATE TABLE request (seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL,"
        " status INTEGER NOT NULL, digest INTEGER NOT NULL)"
    ),
    "duration": (
        "CREATE TABLE duration (seq INTEGER PRIMARY KEY, finished_at REAL NOT NULL, seconds REAL NOT NULL,"
        " digest INTEGER NOT NULL)"
    ),
    "standing": (
        "CREATE VIEW standing AS SELECT bundle.*, newest.*, archive.* FROM bundle"
        " LEFT JOIN state AS newest ON newest.seq = bundle.latest"
        " LEFT JOIN state AS archive ON archive.seq = bundle.stored"
    ),
    **NEW_IN_2,
}

_TABLES_1 = {
    name: statement.replace(" revision INTEGER ", " take INTEGER ")
    for name, statement in TABLES.items()
    if name not in NEW_IN_2
}

TABLES_OF: dict[int, dict[str, str]] = {1: _TABLES_1, 2: TABLES}
"""The tables by version of the format."""
