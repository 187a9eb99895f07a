"""The tables.

`head` is one row, which holds all that is small: the format's version, the exports with their definitions and the sums
over their bundles, and what is remembered from run to run. `state` is the list of all states of all revisions, only
ever added to. `bundle` says of each bundle which row of `state` is its newest, and which is the newest `Stored` one of
any revision; `rows`, `bytes` and `exported` (whole seconds) are that archive's. `service_id` leads from an operation's
or an export's id to the rows of `state` that hold it. `request` and `duration` are what the budget and the poller of
the next run start from; the oldest are dropped. `run` has a row for each run, `hour` the requests of each hour by kind
and status; both are kept for 400 days. `accepted` has what was accepted as missing. The view `standing` shows each
bundle with both of its rows of `state`.

A later version of the format keeps `head` and its checksum as they are: by them an older asyncexport knows that the
ledger is newer, and not damaged.

Version 1 had neither `service_id` nor `run`, `hour` and `accepted`, and named the column `revision` of `state` `take`.
The columns stand in the same order, so that both are read by the same questions. A run migrates it (`migration`).
"""

APPLICATION_ID = 0x61786C67
"""What `file` and SQLite know the file by: "axlg"."""

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
"""By the format's version."""
