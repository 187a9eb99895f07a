"""The ledger: what happened to every bundle, in SQLite, so that resuming is reading it.

1. A row is durable before anything acts on it or shows it: WAL with `synchronous=FULL`, and whoever writes waits for
   the commit. One thread owns the connection; what waits when it is free goes into one commit (`thread`).
2. States are only ever added. Beside them each bundle has a row of pointers to its newest state and its newest archive,
   changed in the same commit: a resume reads where the bundles are, and not all that ever happened (`schema`).
3. What is read is what was written, or an error says that it is not: every row carries a checksum, and the sums over
   all pointers of an export stand in the ledger's head, so that a row that went missing shows, too (`rows`). What was
   committed and is no longer there, because the log it stood in is damaged or gone, shows by a mark (`commit_mark`).
4. After a commit that failed nothing more is written: the run stops, and the next one reads what is there.
5. A ledger of an earlier version is migrated by the first run, in one transaction. A command that only
   reads takes it as it is (`migration`).
6. One process per output directory writes: a lock of the operating system is held for the whole run (`lock`). Where
   that keeps nobody out, or the ledger is gone from its place, the next commit finds out (`in_place`). Any number may
   read meanwhile (`reader`).

ledger, metadata              what a run writes: of bundles, and of itself
reader                        the ledger for commands that change nothing
queries, bundle_queries       what can be asked: of all, and of the bundles of one export
metadata_queries              what can be asked of requests, durations, runs, remarks
overview                      what is known of one export, as a value
park_history                  how often bundles were parked, and which were refused for few rows
transaction                   what can be written
journal, hours, run_log       requests sent, requests by the hour, runs
accepted                      what a person accepted as missing
definitions                   whether an export may have another definition than before
service_ids                   for which bundles an operation or an export was recorded
settles                       the longest settle time that archives were made with
schema, rows                  the tables, and what their rows hold
bulk_insert                   many rows in few statements
thread, jobs                  who owns the connection, and what it is given to do
commit_mark, check, in_place  whether a commit, a row, or the ledger itself was lost
migration, replace            a ledger of an earlier version, and a new one in the place of an old one
files, folder, lock           the files, their folder, and who may write
faults                        errors of SQLite and of the system in plain words
failpoints                    where a test can watch a change, make it fail, or kill the process
"""

from asyncexport.ledger.accepted import AcceptedGap
from asyncexport.ledger.files import has_remains, present, set_aside
from asyncexport.ledger.hours import HourCount
from asyncexport.ledger.ledger import Ledger
from asyncexport.ledger.lock import Holder, hold, holder
from asyncexport.ledger.migration import discard_copy
from asyncexport.ledger.overview import Overview
from asyncexport.ledger.queries import LedgerQueries
from asyncexport.ledger.reader import LedgerReader, no_ledger
from asyncexport.ledger.run_log import RunRecord

__all__ = [
    "AcceptedGap",
    "Holder",
    "HourCount",
    "Ledger",
    "LedgerQueries",
    "LedgerReader",
    "Overview",
    "RunRecord",
    "discard_copy",
    "has_remains",
    "hold",
    "holder",
    "no_ledger",
    "present",
    "set_aside",
]
