"""`audit`: export a random sample of stored bundles again, and say what that proves about all of them."""

from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.options import (
    Dashboard,
    Directory,
    Names,
    Sets,
    SuccessExits,
    Wait,
    read_asked,
    read_duration_option,
)
from asyncexport.core.auditing import DEFAULT_AGE_SECONDS, DEFAULT_SAMPLE, is_audited
from asyncexport.core.summary import Summary
from asyncexport.errors import ConfigError, LedgerLockedError, Problem
from asyncexport.run.spec import Audit, random_sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncexport.cli.session import Session
    from asyncexport.core.exports import Export

Sample = Annotated[int, typer.Option("--sample", metavar="N", min=1, help="How many bundles to export again.")]
OlderThan = Annotated[
    str | None,
    typer.Option(
        "--older-than",
        metavar="TIME",
        help="Only bundles whose end is at least this long ago, such as 7d. Default: 2d.",
    ),
]


def audit(
    ctx: typer.Context,
    *,
    sample: Sample = DEFAULT_SAMPLE,
    older_than: OlderThan = None,
    export: Names = None,
    wait: Wait = False,
    success_exit: SuccessExits = None,
    dashboard: Dashboard = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Audit what is stored.

    Rows that reach Fullstory after a bundle was exported are missing from its archive, and only another export shows
    that. This command exports a random sample of bundles again, spread over exports and time, and compares the rows.
    The result is a statement about all bundles, such as "of 120 exported again 0 differ: fewer than 2.5 % do, at 95 %":
    with 95 % confidence, fewer than 2.5 % of all bundles differ. If some differ, it shows how many, by the age at which
    they had been exported.

    A bundle that differs is replaced as by a refresh. If the new export is empty or has far fewer rows, the archive is
    kept, the bundle is parked and the exit code is 3. The cost is one create per bundle. Bundles in progress are
    finished first; parked bundles are left alone. Exports of individuals are not audited: their rows always change.

    To audit some bundles every night, set [nightly] audit.
    """
    from asyncexport.cli.run_command import carry_out, key_of_run

    session: Session = ctx.obj
    faults: list[Problem] = []
    age = read_duration_option("--older-than", older_than, faults)
    asked = read_asked(
        session,
        directory=directory,
        sets=sets,
        names=export,
        success_exits=success_exit,
        dashboard=dashboard,
        faults=faults,
    )
    _check_auditable(asked.exports, is_chosen=bool(export))
    chosen = random_sample(sample, older_than_seconds=DEFAULT_AGE_SECONDS if age is None else age)
    spec = Audit(asked.exports, chosen)
    summary = carry_out(session, asked.settings, spec, key=key_of_run(session, asked.settings, spec), waits=wait)
    if isinstance(summary.error, LedgerLockedError):
        summary.error.hint = "wait until it has ended, or let `--wait` do that"
    return summary


def _check_auditable(exports: "Iterable[Export]", *, is_chosen: bool) -> None:
    """Check that at least one export can be audited, and all if they were chosen by name.

    Raises:
        ConfigError: that is not so.
    """
    refused = [export.name for export in exports if not is_audited(export)]
    allowed = [export.name for export in exports if is_audited(export)]
    if refused and (is_chosen or not allowed):
        raise ConfigError(
            [Problem("--export", f"{', '.join(refused)}: rows of individuals are totals that always change")],
            hint="only exports of events can be audited",
        )
