"""Whether the last run ended well.

1. A run that is in progress does not count yet: the one before it does.
2. A run ends well with exit code 0, or with 9: work is left, nothing failed, and the next run resumes.
3. Exit code 3 no longer counts once no bundle is parked any more, if the run reported nothing but parked bundles or the
   user has accepted gaps since. What is still wrong is reported as a problem of its export.
4. A run that left work behind (9, a signal, killed) is resumed by the same command; the ledger does not record its
   arguments.
"""

from collections.abc import Sequence

from asyncexport.core.bundles import show
from asyncexport.core.exits import Exit
from asyncexport.core.health.records import AcceptedGap, RunRecord

ENDS_WELL = (Exit.DONE, Exit.TIME_UP)

RESUME = "run the same command again to resume"

SIGNALS = {Exit.INTERRUPTED: "SIGINT (Ctrl-C)", Exit.TERMINATED: "SIGTERM or SIGHUP"}
"""The exit codes of runs that a signal stopped."""


def finished_runs(runs: Sequence[RunRecord]) -> Sequence[RunRecord]:
    """Return the runs that are not in progress (rule 1)."""
    return [run for run in runs if not run.running]


def fault_of_last_run(
    runs: Sequence[RunRecord], *, in_progress: bool, has_parked: bool, accepted: Sequence[AcceptedGap]
) -> str:
    """Say what is wrong with how the last run ended; "" if it ended well.

    Args:
        runs: The runs on record, in the order they ended (`core.health.run_order`).
        in_progress: Whether a run is in progress.
        has_parked: Whether any bundle is parked and not accepted.
        accepted: The gaps that the user has accepted.
    """
    finished = finished_runs(runs)
    if not finished:
        return "" if in_progress else "no run is on record"
    last = finished[-1]
    if last.exit_code in ENDS_WELL or _is_settled(last, has_parked=has_parked, accepted=accepted):
        return ""
    return f"the last run ({last.command}) {how_it_ended(last)}"


def _is_settled(run: RunRecord, *, has_parked: bool, accepted: Sequence[AcceptedGap]) -> bool:
    """Whether nothing is left of why a run ended with 3 (rule 3)."""
    if run.exit_code != Exit.PARTIAL or has_parked:
        return False
    bundles = run.counts.get("bundles", {})
    only_parked = not run.error and bundles.get("failed", 0) > 0 and bundles.get("unfinished", 0) == 0
    return only_parked or any(one.at >= (run.ended or 0) for one in accepted)


def how_it_ended(run: RunRecord) -> str:
    """Say how a run ended, and how to resume it if it left work (rule 4), as the end of a sentence."""
    if run.ended is None:
        return f"started at {show(run.began)} and did not finish: it was killed or it crashed; {RESUME}"
    ended = f"ended with exit code {run.exit_code} at {show(run.ended)}"
    left = ""
    if run.exit_code in SIGNALS:
        ended = f"was stopped by {SIGNALS[Exit(run.exit_code)]} at {show(run.ended)}, exit code {run.exit_code}"
        left = f"; {RESUME}"
    elif run.exit_code == Exit.TIME_UP:
        left = "; no bundle could be compared" if run.command == "audit" else f"; work is left: {RESUME}"
    return ended + (f": {run.error}" if run.error else "") + left
