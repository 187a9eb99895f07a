"""`mirror`: upload to an object store what it lacks, or check it."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.options import Directory, Sets, SuccessExits, read_asked
from asyncexport.cli.session import Session
from asyncexport.cli.signals import AGAIN, run_gracefully, run_interruptibly
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.display import count_of, mirror_hints, mirror_lines, mirror_record, plain

if TYPE_CHECKING:
    from asyncexport.config import Settings
    from asyncexport.core.mirror.tally import MirrorEvent
    from asyncexport.engine.scheduler import Stop
    from asyncexport.run.mirror_lane import MirrorLane

MirrorCheck = Annotated[
    bool, typer.Option("--check", help="Compare the mirror with the ledger and change nothing.", show_default=False)
]


def mirror(
    ctx: typer.Context,
    *,
    check: MirrorCheck = False,
    success_exit: SuccessExits = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Upload what the mirror lacks.

    Copies every archive in the ledger, and the definition of each export, to [output] mirror, such as
    s3://bucket/prefix, under the same names as on the disk. Runs do the same; this command is for what was stored
    before the mirror was set, and for what failed. Needs no API key, only pip install 'asyncexport[mirror]' and the
    key of the object store in the environment (AWS_ACCESS_KEY_ID and so on). Works during a run.

    An object is replaced only if it is an earlier archive of the same bundle. An object of the same name that is
    anything else is never overwritten; it is named, and the exit code is 3. Nothing is ever deleted.

    With --check, nothing is changed: the exit code is 0 if the mirror has exactly what the ledger lists, and 3 if not.
    """
    session: Session = ctx.obj
    asked = read_asked(session, directory=directory, sets=sets, success_exits=success_exit)
    return _check(session, asked.settings) if check else _mirror(session, asked.settings)


def _mirror(session: Session, settings: "Settings") -> Summary:
    from asyncexport.run.mirror import mirror as upload

    counter = session.counting(f"mirror to {settings.output.mirror}", total=None, of="files uploaded")
    with counter as count:

        def on_event(event: "MirrorEvent") -> None:
            _record(session, event)
            count()

        def on_stop(reason: Exit) -> None:
            if not session.quiet:
                session.lines.report("stopping", f"uploads in progress are given up; {AGAIN[reason]}")

        async def work(stop: "Stop") -> Summary:
            return await upload(settings, stop=stop, on_event=on_event)

        summary = run_gracefully(work, on_stop=on_stop, received=session.signals)
    _say(session, summary)
    return summary


def _say(session: Session, summary: Summary) -> None:
    """Print what was done; with `--quiet`, one line unless all is well."""
    if session.as_json:
        return
    lines = mirror_lines(summary)
    if session.quiet:
        if summary.error is None and summary.exit_code is not Exit.DONE:
            session.say(f"mirror, exit code {int(summary.exit_code)}: {'; '.join(lines[:3])}")
        return
    for line in lines:
        session.say_fitted(line)
    for hint in mirror_hints(summary):
        session.lines.hint(session.invocation.pasteable(hint))


def mirror_of(session: Session, settings: "Settings") -> "MirrorLane | None":
    """Return the mirror beside a run; None if none is set.

    Raises:
        ConfigError: the settings of the mirror cannot be used, or a library is missing.
    """
    if not settings.output.mirror:
        return None
    from asyncexport.run.mirror_lane import MirrorLane

    return MirrorLane(settings, on_event=lambda event: _record(session, event))


def _record(session: Session, event: "MirrorEvent") -> None:
    if session.as_json:
        session.results.record(mirror_record(event))


def _check(session: Session, settings: "Settings") -> Summary:
    from asyncexport.run.mirror_check import check_mirror

    found: list[str] = []

    async def checked() -> None:
        async with aclosing(check_mirror(settings)) as differences:
            async for one in differences:
                found.append(one.kind)
                session.record("unmirrored", path=one.path, problem=one.kind, reason=one.reason)
                session.say_fitted(f"{one.kind:<8} {plain(one.path)}: {plain(one.reason)}")

    run_interruptibly(checked)
    if not session.quiet or found:
        differ = count_of(len(found), "file or object differs", "files or objects differ")
        session.say(f"{differ} from the ledger" if found else "the mirror is complete")
    if not {"missing", "differs"}.isdisjoint(found):
        session.lines.hint(f"`{session.invocation.again('mirror')}` uploads what is missing or differs")
    return session.summary(Exit.PARTIAL if found else Exit.DONE)
