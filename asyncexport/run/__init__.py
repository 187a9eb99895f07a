"""Combines the other packages into whole runs, plans of runs, and checks of the output directory.

spec                 what a run is asked to do, and what each kind of run means
run                  one run, from taking the lock to storing the last archive
joining              a nightly run that waits for another run instead of failing
joined_record        records a run that has only joined another one
share_reader         reads how much of a waiting run's work another run has done
logging_runs         records the run in the ledger's log of runs
first_contact        the first requests: the list of operations, and the service's time
lock_wait            takes the lock of the directory, if wanted as soon as it is free
organisation         checks once per key which organisation it belongs to
following            finds what becomes due while a run goes on
planner              works out what a run has to do
sampling             chooses the stored bundles that an audit exports again
ranges               works out the range of time that a run covers
wiring               builds the engine of a run from the settings
sentinel             looks for stored time with far fewer rows than usual
counters             counts bundles, open problems and requests during a run
listeners            passes events to the counters, the log and the listeners
progress             computes the progress of a run and its expected end
survey               what a run would have to do, without asking the service
status               reads what `status` reports: from the ledger, the settings and the disk
metrics              reads what the metrics are made from
monitored            reports a run to Prometheus and to a monitoring service
dashboard            serves the status page during a run
pings                tells a monitoring service that a run begins, and how it ended
diagnosis            checks what a run needs, for `doctor`
service_diagnosis    asks the service for `doctor`
disk_diagnosis       asks the disk for `doctor`
mirror_diagnosis     checks the mirror for `doctor`
load_diagnosis       checks the load and its destinations for `doctor`
listen_diagnosis     checks for `doctor` whether the addresses to serve at are free
segments             lists the segments of the account
outside_runs         requests of commands that are not runs: within the budget, and recorded
directory            detects an output directory that has lost its ledger
unrecorded           detects archives that the ledger does not know
parallel_inspection  checks several archives at the same time, and their rows in order
findings             the findings of a check, a rebuild or an adoption
verify               checks the archives against the ledger
rebuild              makes a new ledger from the archives
check_result         counts the findings of a check, and prepares the run that repairs them
accept               accepts parked bundles and shortfalls as missing for good
adopt                adds archives to the ledger that it does not know
load                 loads exported days into tables
open_load            a load that holds the lock of its directory
load_day             one day of a load
load_making          lets workers make the files of days
load_exports         the exports to load, and their days
load_sinks           the destinations of a load
load_workers         the workers of a load: processes here, or those of a Dask scheduler
load_place           the load directory: its lock, and the place for unfinished files
load_lane            loads days during a run that exports them
stopping             does work until the run is asked to stop
load_check           compares what the destinations have with what the archives lead to
beside               what works beside a run
beside_log           records how the last load and the last mirror went
mirror               uploads to the mirror what it lacks
mirror_pairs         pairs what the ledger lists with what the mirror holds
mirror_place         opens the mirror of the settings
mirror_uploads       uploads the files of a mirror
mirror_check         compares the mirror with the ledger
mirror_library       the function `mirror_archives`, for use in programs
mirror_lane          uploads archives during a run that stores them
library              a function for each kind of run, for use in programs
moments              times and durations as these functions take them
load_library         the function `load`, for use in programs

`asyncexport.run` is this package, and it can also be called: `asyncexport.run(asyncexport.backfill(...))` starts a run
in a program without an event loop.
"""

import sys
from collections.abc import Coroutine
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


class _CallablePackage(ModuleType):
    """This package, made callable: it runs a coroutine (see `library.run`)."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        from asyncexport.run.library import run  # noqa: PLC0415 - the library loads pydantic, and importing this package is cheap

        return run(work)


sys.modules[__name__].__class__ = _CallablePackage
