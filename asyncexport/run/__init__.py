"""Puts the wings together: a whole run, what a run would find, and the check of what is on disk.

spec           what a run is asked to do, and what each kind of run means
run            one run, from the lock to the last row
logging_runs   the row of the run in the ledger's log of runs
first_contact  the first requests: the list of operations, and what time it is
organisation   whose the key is, asked once a key
planner        what a run has to do
ranges         the range of time it covers
wiring         builds what it works with from the settings
counters       what it knows of itself: tally, open problems, requests
listeners      how its events get to the counters, the log and the listeners
progress       how far it has come, and how long it will still take
survey         what a run would find, without asking the service
status         reads what `status` reports: from the ledger, the settings and the disk
segments       the segments of the account
directory      whether an output directory has lost its ledger
unrecorded     whether it holds archives that its ledger knows nothing of
parallel_inspection  looks into archives side by side, and judges them by their rows
findings       what a check, a rebuild or an adoption finds
verify         whether the archives are what the ledger says
rebuild        a ledger made anew from the archives
check_result   what came of such a check, counted, and the run that repairs it
adopt          archives taken into the ledger that it did not know
library        a function for each kind of run, for programs

`asyncexport.run` is this package and may also be called, since `asyncexport.run(asyncexport.backfill(...))` is how a
program without an event loop starts a run.
"""

import sys
from collections.abc import Coroutine
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


class _CallablePackage(ModuleType):
    """This package, which runs a coroutine when it is called; see `library.run`."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        from asyncexport.run.library import run  # noqa: PLC0415 - the library loads pydantic, and importing this package is cheap

        return run(work)


sys.modules[__name__].__class__ = _CallablePackage
