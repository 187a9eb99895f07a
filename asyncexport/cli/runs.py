"""`backfill`, `nightly`, `retry`: the commands that export."""

from typing import Annotated

import typer

from asyncexport.cli.configuration import read_key
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
from asyncexport.run.spec import Backfill, Nightly, Retry, RunSpec


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

    The range is cut into bundles (30 minutes wide, unless the export says otherwise). Bundles that are stored already
    are not asked for again. Those that an earlier run began are continued, and those that it parked are tried again.
    Ctrl-C stops it cleanly, and the same command goes on from there.
    """
    asked = read_asked(
        ctx.obj, directory=directory, sets=sets, names=export, start=start, end=end, max_duration=max_duration
    )
    spec = Backfill(asked.exports, asked.start, asked.end, asked.max_duration_seconds)
    return _run(ctx.obj, asked, spec)


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
    remembers where. [nightly] refresh lists the ages at which bundles are exported once more. If a new export is empty
    or has far fewer rows than the archive, the archive is kept and the bundle is parked: that night ends with 3, and
    later ones do not export it again. `asyncexport plan --nightly` says beforehand what a night costs.
    """
    asked = read_asked(ctx.obj, directory=directory, sets=sets, names=export, max_duration=max_duration)
    spec = Nightly(
        asked.exports,
        refresh_ages=asked.settings.nightly.refresh_seconds,
        max_duration_seconds=asked.max_duration_seconds,
    )
    return _run(ctx.obj, asked, spec)


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
    spec = Retry(asked.exports, asked.start, asked.end, accept_fewer, asked.max_duration_seconds)
    return _run(ctx.obj, asked, spec)


def _run(session: Session, asked: Asked, spec: RunSpec) -> Summary:
    from asyncexport.cli.run_command import carry_out

    return carry_out(session, asked.settings, spec, key=read_key(session, asked.settings))
