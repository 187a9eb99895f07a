"""The ledger: an SQLite record of what happened to every bundle, so that a run resumes by reading it.

1. A row is durable before anything acts on it or shows it: the ledger uses WAL with `synchronous=FULL`, and a writer
   waits for the commit. One thread owns the connection and puts all waiting writes into one commit (`thread`).
2. States are only ever appended. In addition, each bundle has a row of pointers to its newest state and its newest
   archive, updated in the same commit, so that a resume does not have to read the whole history (`schema`).
3. Reads return what was written, or raise an error: every row has a checksum, and the ledger's head holds the sums over
   all pointers of an export, which reveal a missing row (`rows`). A separate mark reveals commits that are missing
   because the write-ahead log was damaged or lost (`commit_mark`).
4. After a failed commit nothing more is written: the run stops, and the next run reads what is there.
5. The first run with a newer version migrates the ledger, in one transaction. Commands that only read use an old ledger
   as it is (`migration`).
6. Only one process writes to an output directory: it holds a lock of the operating system during the whole run
   (`lock`). If the lock does not work, or the ledger file is moved or replaced, the next commit detects it
   (`in_place`). Any number of processes may read meanwhile (`reader`), and one more may wait for the lock.

ledger, metadata              what a run writes: about bundles, and about itself
reader                        the ledger for commands that change nothing
queries, bundle_queries       what can be read: from the whole ledger, and about the bundles of one export
sample_queries                the stored bundles that an audit may choose from
metadata_queries              what can be read about requests, durations, runs and notes
writers                       hashes of earlier archives, and when the bytes of archives were exported
row_counts                    sums over the rows of bundles, by half hour and by day
park_history                  how often bundles were parked, and which revisions were refused for few rows
transaction                   what can be written
journal, hours, run_log       the requests sent, the requests per hour, the runs
joined_log                    the runs that only joined another run, in a file of their own
beside_files                  how the last load and the last mirror went, in files of their own
small_files                   reads and replaces these files
accepted                      gaps that the user has accepted
definitions                   whether an export's definition may change
service_ids                   the bundles that an operation or an export of the service was recorded for
settles                       the longest settle time of an export's archives
schema, rows                  the tables, and the content of their rows
bulk_insert                   inserts many rows with few statements
thread, jobs                  the thread that owns the connection, and the queue of its jobs
commit_mark, check, in_place  detect the loss of a commit, a row, or the ledger itself
migration, replace            migrating a ledger of an earlier version, and replacing a ledger by a rebuilt one
files, folder, lock           the files, their folder, and the lock of the writing process
faults                        translates errors of SQLite and of the operating system
failpoints                    points where a test can watch a change, make it fail, or kill the process
"""

from asyncexport.core.health.overview import Overview
from asyncexport.core.health.records import AcceptedGap, HourCount, RunRecord
from asyncexport.ledger.beside_files import (
    begun_here,
    beside_path,
    own_load_path,
    read_beside,
    record_begun,
    record_ended,
)
from asyncexport.ledger.files import has_remains, present, set_aside
from asyncexport.ledger.joined_log import begun_joined, forget_joined, joined_runs, record_joined
from asyncexport.ledger.ledger import Ledger
from asyncexport.ledger.lock import Holder, hold, hold_load, hold_place, holder, load_holder, lock_holder, waiting_run
from asyncexport.ledger.migration import discard_copy
from asyncexport.ledger.queries import LedgerQueries
from asyncexport.ledger.reader import LedgerReader, no_ledger
from asyncexport.ledger.run_log import begun_run

__all__ = [
    "AcceptedGap",
    "Holder",
    "HourCount",
    "Ledger",
    "LedgerQueries",
    "LedgerReader",
    "Overview",
    "RunRecord",
    "begun_here",
    "begun_joined",
    "begun_run",
    "beside_path",
    "discard_copy",
    "forget_joined",
    "has_remains",
    "hold",
    "hold_load",
    "hold_place",
    "holder",
    "joined_runs",
    "load_holder",
    "lock_holder",
    "no_ledger",
    "own_load_path",
    "present",
    "read_beside",
    "record_begun",
    "record_ended",
    "record_joined",
    "set_aside",
    "waiting_run",
]
