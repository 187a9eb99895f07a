"""`backfill`, `nightly`, `retry`: the commands that export."""

from typing import Annotated, Any

import typer

from asyncexport.cli.options import (
    Asked,
    Directory,
    End,
    MaxDuration,
    MaybeEnd,
    MaybeStart,
    Names,
    Sets,
    Start,
    read_asked,
)
from asyncexport.cli.session import Session
from asyncexport.core.summary import Summary


def backfill(
    ctx: typer.Context,
    *,
    start: Start,
    end: End = None,
    export: Names = None,
    max_duration: MaxDuration = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Export a range.

    The range is cut into bundles (30 minutes wide, unless the export says otherwise). What is stored already is not
    asked for again; what an earlier run began is gone on with; what it parked is taken up once more. Ctrl-C stops it
    cleanly, and the same command goes on from there.
    """
    asked = read_asked(
        ctx.obj, directory=directory, sets=sets, names=export, start=start, end=end, max_duration=max_duration
    )
    return _run(ctx.obj, asked, start=asked.start, end=asked.end)


def nightly(
    ctx: typer.Context,
    *,
    export: Names = None,
    max_duration: MaxDuration = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Export what is new.

    For cron, timers and schedulers. Without [nightly] since, the first night begins 7 days back, and the ledger
    remembers where. With [nightly] refresh, bundles are exported once more when they are that old. If a new export
    is empty, or has far fewer rows than the archive, the archive is kept and the bundle is parked: that night ends with
    3, and later ones do not ask for it again.
    """
    asked = read_asked(ctx.obj, directory=directory, sets=sets, names=export, max_duration=max_duration)
    return _run(ctx.obj, asked, start=None, refresh_seconds=asked.settings.nightly.refresh_seconds)


def retry(
    ctx: typer.Context,
    *,
    accept_fewer: Annotated[
        bool,
        typer.Option(
            "--accept-fewer", help="Also export anew the bundles that kept their archive, and take what comes."
        ),
    ] = False,
    start: MaybeStart = None,
    end: MaybeEnd = None,
    export: Names = None,
    max_duration: MaxDuration = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Take up what was parked.

    These are all bundles that the ledger has as parked, and those that were begun and are not done; --start and --end
    limit them to a range. Each gets all its attempts anew.

    A bundle whose archive was kept, because a new export of it was empty or had far fewer rows, is left as it is. With
    --accept-fewer it is exported anew, and what comes replaces the archive, however few rows it has. `status` lists
    these bundles with both counts.
    """
    asked = read_asked(
        ctx.obj, directory=directory, sets=sets, names=export, start=start, end=end, max_duration=max_duration
    )
    return _run(ctx.obj, asked, start=asked.start or 0, end=asked.end, fills_gaps=False, accept_fewer=accept_fewer)


def _run(session: Session, asked: Asked, **how: Any) -> Summary:
    from asyncexport.cli.run_command import carry_out
    from asyncexport.run.run import Order

    order = Order(session.command, asked.exports, max_duration_seconds=asked.max_duration_seconds, **how)
    return carry_out(session, asked.settings, order, key=session.key(asked.settings))
