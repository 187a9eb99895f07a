"""`segments`: list the segments that the configuration can name."""

import typer

from asyncexport.cli.configuration import read_key
from asyncexport.cli.options import Directory, Sets, read_asked
from asyncexport.cli.session import Session
from asyncexport.core.bundles import show
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.errors import UnavailableError

ID_COLUMNS = 24
"""Width of the id column. Rows are printed as they arrive, before the longest id is known."""


def segments(ctx: typer.Context, *, directory: Directory = None, sets: Sets = None) -> Summary:
    """List the segments.

    Put the id of a segment into [[export]] segment. The list is read page by page, one request per page, and stops when
    stdout is closed. If the output directory has a ledger, its budget applies to these requests, and they are recorded
    in it unless a run is in progress.
    """
    from asyncexport.cli.signals import run_interruptibly

    session: Session = ctx.obj
    asked = read_asked(session, directory=directory, sets=sets)
    key = read_key(session, asked.settings)

    async def listed() -> int:
        from asyncexport.display import plain
        from asyncexport.run.segments import segments as all_segments

        count = 0
        async for segment in all_segments(asked.settings, key=key, sent=lambda kind: session.requests.update([kind])):
            count += 1
            session.say(f"{plain(segment.id):<{ID_COLUMNS}}  {plain(segment.name)}")
            created = None if segment.created_at is None else show(segment.created_at)
            session.record("segment", id=segment.id, name=segment.name, creator=segment.creator, created=created)
            if session.results.gone:
                break
        return count

    try:
        found = run_interruptibly(listed)
    except UnavailableError as error:
        error.hint = error.hint or "check the host ([api] base_url), the proxy ([api] proxy) and the network connection"
        raise
    if not found:
        session.lines.report("note", "the account has no segments; the segment `everyone` always exists")
    return session.summary(Exit.DONE)
