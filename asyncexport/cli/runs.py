"""`backfill`, `nightly`, `retry`: the commands that export."""

from typing import Annotated

import typer

from asyncexport.cli.options import (
    Asked,
    Dashboard,
    Directory,
    End,
    MaxDuration,
    MaybeEnd,
    MaybeStart,
    Names,
    RequireEnd,
    Sets,
    Start,
    SuccessExits,
    read_asked,
)
from asyncexport.cli.session import Session
from asyncexport.core.summary import Summary
from asyncexport.run.spec import Backfill, Nightly, Retry, RunSpec, nightly_sample

NoJoin = Annotated[
    bool,
    typer.Option(
        "--no-join", help="If another run uses the directory, end with exit code 4 instead of waiting for it."
    ),
]


Load = Annotated[
    bool,
    typer.Option("--load", help="Also load days into tables, as `asyncexport load` does: each once it is complete."),
]


def backfill(
    ctx: typer.Context,
    *,
    start: Start,
    end: End = None,
    require_end: RequireEnd = False,
    export: Names = None,
    max_duration: MaxDuration = None,
    load: Load = False,
    success_exit: SuccessExits = None,
    dashboard: Dashboard = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Export a range.

    The range is cut into bundles, 30 minutes wide by default. Bundles that are already stored are not requested again.
    Resumes work that an earlier run started and retries bundles it gave up on. Ctrl-C stops cleanly; the same command
    resumes from there.
    """
    asked = read_asked(
        ctx.obj,
        directory=directory,
        sets=sets,
        names=export,
        start=start,
        end=end,
        max_duration=max_duration,
        require_end=require_end,
        success_exits=success_exit,
        dashboard=dashboard,
    )
    spec = Backfill(asked.exports, asked.start, asked.end, asked.max_duration_seconds, require_end=require_end)
    return _run(ctx.obj, asked, spec, loads=load)


def nightly(
    ctx: typer.Context,
    *,
    end: End = None,
    require_end: RequireEnd = False,
    export: Names = None,
    max_duration: MaxDuration = None,
    load: Load = False,
    no_join: NoJoin = False,
    success_exit: SuccessExits = None,
    dashboard: Dashboard = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Export what is new.

    Made for cron, timers and schedulers. Without [nightly] since, the first nightly run starts 7 days back, and the
    ledger remembers that date. With [nightly] refresh, bundles are exported again at the ages it lists. If a new export
    is empty or has far fewer rows than the archive, the archive is kept and the bundle is parked: this run ends with
    exit code 3, and later nightly runs export it again after a pause. [nightly] audit exports random bundles again at
    the end (`asyncexport audit --help`). `asyncexport plan --nightly` estimates the cost.

    If another run uses the directory, such as a long backfill, this one waits until everything it would have exported
    is stored or parked, or until the other run has ended, and then does the rest itself. The wait ends after
    --max-duration with exit code 9, and without that option after 24 hours with exit code 4.
    """
    asked = read_asked(
        ctx.obj,
        directory=directory,
        sets=sets,
        names=export,
        end=end,
        max_duration=max_duration,
        require_end=require_end,
        success_exits=success_exit,
        dashboard=dashboard,
    )
    spec = Nightly(
        asked.exports,
        asked.end,
        asked.settings.nightly.refresh_seconds,
        asked.max_duration_seconds,
        require_end=require_end,
        old_order=asked.settings.nightly.order,
        audit=nightly_sample(asked.settings.nightly.audit),
    )
    return _run(ctx.obj, asked, spec, waits=not no_join, loads=load)


def retry(
    ctx: typer.Context,
    *,
    accept_fewer: Annotated[
        bool,
        typer.Option(
            "--accept-fewer",
            help="Also export bundles again whose archive was kept, and replace it even if far fewer rows come.",
        ),
    ] = False,
    start: MaybeStart = None,
    end: MaybeEnd = None,
    export: Names = None,
    max_duration: MaxDuration = None,
    success_exit: SuccessExits = None,
    dashboard: Dashboard = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Retry parked bundles.

    Retries all parked bundles and finishes those in progress, in all of history or between --start and --end. Every
    parked bundle gets its full number of attempts again.

    A bundle whose archive was kept because a new export was empty or had far fewer rows is left alone. With
    --accept-fewer it is exported again, and the new export replaces the archive even if it has far fewer rows. `status`
    lists these bundles with both row counts.
    """
    asked = read_asked(
        ctx.obj,
        directory=directory,
        sets=sets,
        names=export,
        start=start,
        end=end,
        max_duration=max_duration,
        success_exits=success_exit,
        dashboard=dashboard,
    )
    spec = Retry(asked.exports, asked.start, asked.end, accept_fewer, asked.max_duration_seconds)
    return _run(ctx.obj, asked, spec)


def _run(session: Session, asked: Asked, spec: RunSpec, *, waits: bool = False, loads: bool = False) -> Summary:
    from asyncexport.cli.load import lane_of
    from asyncexport.cli.run_command import carry_out, key_of_run

    lane = lane_of(session, asked.settings, [one.name for one in spec.exports]) if loads else None
    key = key_of_run(session, asked.settings, spec)
    return carry_out(session, asked.settings, spec, key=key, waits=waits, lane=lane)
