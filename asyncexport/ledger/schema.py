"""The tables.

`head` is one row, which holds all that is small: the format's version, the exports with their definitions and the sums
over their bundles, and what is remembered from run to run. `state` is the list of all states of all revisions, only
ever added to; its column `take` is the number of the revision. `bundle` says of each bundle which row of `state` is its
newest, and which is the newest `Stored` one of any revision; `rows`, `bytes` and `exported` (whole seconds) are that
archive's. `request` and `duration` are what the budget
and the poller of the next run start from; the oldest are dropped. The view `standing` shows each bundle with both of
its rows of `state`.

A later version of the format keeps `head` and its checksum as they are: by them an older asyncexport knows that the
ledger is newer, and not damaged.
"""

APPLICATION_ID = 0x61786C67
"""What `file` and SQLite know the file by: "axlg"."""

VERSION = 1

TABLES = {
    "head": "CREATE TABLE head (one INTEGER PRIMARY KEY, text TEXT NOT NULL, digest INTEGER NOT NULL)",
    "state": (
        "CREATE TABLE state (seq INTEGER PRIMARY KEY, export INTEGER NOT NULL, start INTEGER NOT NULL,"
        " stop INTEGER NOT NULL, take INTEGER NOT NULL, state TEXT NOT NULL, fields TEXT NOT NULL,"
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
}
