"""`backfill`, `nightly`, `retry`: the commands that export."""

from typing import Any

import typer

from asyncexport.cli.asking import Asked, Directory, End, MaxDuration, Names, Sets, Start, read_asked
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
    remembers where. With [nightly] refresh, bundles are exported once more when they are that old.
    """
    asked = read_asked(ctx.obj, directory=directory, sets=sets, names=export, max_duration=max_duration)
    return _run(ctx.obj, asked, start=None, refresh_seconds=asked.settings.nightly.refresh_seconds)


def retry(
    ctx: typer.Context,
    *,
    export: Names = None,
    max_duration: MaxDuration = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Take up what was parked.

    No range is to be named: of all bundles that the ledger has as parked, and of those that were begun and are not
    done. Each gets all its attempts anew.
    """
    asked = read_asked(ctx.obj, directory=directory, sets=sets, names=export, max_duration=max_duration)
    return _run(ctx.obj, asked, start=0, fills_gaps=False)


def _run(session: Session, asked: Asked, **how: Any) -> Summary:
    from asyncexport.cli.running import carry_out
    from asyncexport.pipeline import Order

    order = Order(session.command, asked.exports, max_duration_seconds=asked.max_duration_seconds, **how)
    return carry_out(session, asked.settings, order, key=session.key(asked.settings))
