"""`segments`: what can be put into the configuration."""

import typer

from asyncexport.cli.configuration import read_key
from asyncexport.cli.options import Directory, Sets, read_asked
from asyncexport.cli.session import Session
from asyncexport.core.bundles import show
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.errors import UnavailableError

ID_COLUMNS = 24
"""Rows are shown as they come, before the longest id is known; a longer one moves its own name only."""


def segments(ctx: typer.Context, *, directory: Directory = None, sets: Sets = None) -> Summary:
    """List the segments.

    The id goes into [[export]] segment. The list is read page by page, each of them a request; reading stops where
    nobody listens any more. The output directory serves to know how many requests are left.
    """
    from asyncexport.cli.signals import run_abruptly

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
        found = run_abruptly(listed)
    except UnavailableError as error:
        error.hint = error.hint or "check the host ([api] base_url), the proxy ([api] proxy) and the network"
        raise
    if not found:
        session.lines.tell("note", "the account has no segments; the segment `everyone` is always there")
    return session.summary(Exit.DONE)
