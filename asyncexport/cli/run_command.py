"""One run of a command: show it, stop it on signals, and print its closing text."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from asyncexport.cli.configuration import read_key
from asyncexport.cli.service_manager import ServiceManager
from asyncexport.cli.signals import AGAIN, run_gracefully, run_interruptibly
from asyncexport.core.bundles import ALL_TIME, Ago, Range, When, moment_of, show, show_day_or_time
from asyncexport.core.exits import Exit
from asyncexport.core.text import show_duration
from asyncexport.display import (
    audit_lines,
    closing_line,
    closing_lines,
    compared_nothing,
    load_hints,
    load_lines,
    look_command,
    mirror_hints,
    mirror_lines,
)
from asyncexport.errors import ExportError
from asyncexport.run.spec import Audit, Backfill, Nightly, Retry, instructions

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asyncexport.cli.session import Session
    from asyncexport.config import ApiKey, Settings
    from asyncexport.core.sentinel.shortfalls import Shortfall
    from asyncexport.core.summary import Summary
    from asyncexport.display import RunViewer
    from asyncexport.engine.scheduler import Stop
    from asyncexport.run.load_lane import LoadLane
    from asyncexport.run.mirror_lane import MirrorLane
    from asyncexport.run.spec import RunSpec

HINTS = {
    Exit.TIME_UP: "run the same command again to resume",
    Exit.INTERRUPTED: "run the same command again to resume",
    Exit.TERMINATED: "run the same command again to resume",
}


def carry_out(
    session: "Session",
    settings: "Settings",
    spec: "RunSpec",
    *,
    key: "ApiKey",
    waits: bool = False,
    lane: "LoadLane | None" = None,
) -> "Summary":
    """Carry out a run: show its progress, stop it on signals, and print the closing text.

    Args:
        session: The session.
        settings: The settings.
        spec: The run.
        key: The API key.
        waits: Whether it waits for another run that holds the directory; a nightly run then joins that run.
        lane: The load beside the run, if there is one.
    """
    summary, example = export_watched(session, settings, spec, key=key, waits=waits, lane=lane)
    say_closing(session, settings, spec, summary, example=example)
    return summary


def export_watched(
    session: "Session",
    settings: "Settings",
    spec: "RunSpec",
    *,
    key: "ApiKey",
    waits: bool = False,
    lane: "LoadLane | None" = None,
) -> "tuple[Summary, str]":
    """Carry out a run without its closing text; return the summary and the path of a stored archive ("" if none)."""
    from asyncexport.cli.mirror import mirror_of
    from asyncexport.display import plain
    from asyncexport.run.beside import with_all
    from asyncexport.run.dashboard import Dashboard
    from asyncexport.run.joining import export_or_join
    from asyncexport.run.monitored import monitored
    from asyncexport.run.run import export

    heading, manager = _heading(settings, spec), ServiceManager(os.environ)
    viewer, mirror = session.viewer(heading, also=manager.report), mirror_of(session, settings)
    all_beside: list[LoadLane | MirrorLane] = [one for one in (mirror, lane) if one is not None]

    dashboard = Dashboard(
        settings,
        key=key,
        again=session.invocation.again,
        clean=lambda text: plain(session.streams.masked(text)),
        announce=lambda url: None if session.quiet else session.lines.report("dashboard", url),
    )

    def run_alone(stop: "Stop") -> "Awaitable[Summary]":
        notes = (one.on_event for one in all_beside)
        listeners, watch = (viewer.on_event, *dashboard.listeners, *notes), dashboard.watched(viewer.watch)
        if waits and isinstance(spec, Nightly):
            return export_or_join(settings, spec, key=key, stop=stop, listeners=listeners, watch=watch)
        return export(settings, spec, key=key, stop=stop, listeners=listeners, watch=watch, waits=waits)

    async def managed(stop: "Stop") -> "Summary":
        async with manager.run(heading):
            return await monitored(
                settings, spec, lambda: with_all(run_alone(stop), stop, all_beside), key=key, dashboard=dashboard
            )

    def on_stop(reason: Exit) -> None:
        manager.report_stopping()
        if not (viewer.is_joining or session.quiet):
            session.lines.report("stopping", _stopping_text(settings, viewer, reason))

    summary = run_gracefully(managed, on_stop=on_stop, received=session.signals)
    return summary, viewer.example


def key_of_run(session: "Session", settings: "Settings", spec: "RunSpec") -> "ApiKey":
    """Read the API key for a run; that there is none is reported to the monitoring service.

    Raises:
        UnauthorizedError: there is no key, or the text found cannot be one.
        ConfigError: the key file cannot be read.
    """
    from asyncexport.run.monitored import report_unstarted

    try:
        return read_key(session, settings)
    except ExportError as error:
        unstarted = error
        run_interruptibly(lambda: report_unstarted(settings, spec, unstarted))
        raise


def say_closing(session: "Session", settings: "Settings", spec: "RunSpec", summary: "Summary", *, example: str) -> None:
    """Print the closing text; with `--quiet`, one line if the run did not end as it should or an audit found rows."""
    from asyncexport.run.monitored import ends_as_it_should

    tally = summary.tally
    if session.as_json:
        return
    if session.quiet:
        # An error that ended the run is printed in any case.
        if summary.error is None and not ends_as_it_should(summary, spec):
            session.say(session.invocation.pasteable(closing_line(summary)))
        elif tally.audit.differing:
            session.say(audit_lines(tally.audit)[0])
        return
    if summary.error is not None and not tally.planned:
        return
    example = example or (_stored_before(settings, spec) if tally.stored_before else "")
    look = look_command(settings.output.directory / example) if example else ""
    hung_up = session.signals[:1] == [signal.SIGHUP]
    more = (*load_lines(summary, directory=str(settings.load.directory)), *mirror_lines(summary))
    for line in (*closing_lines(summary, look=look, hung_up=hung_up), *more):
        session.say_fitted(session.invocation.pasteable(line))
    if summary.error is None:
        for hint in _hints(session, spec, summary):
            session.lines.hint(hint)


def _hints(session: "Session", spec: "RunSpec", summary: "Summary") -> Iterator[str]:
    """Say what to do next."""
    tally = summary.tally
    yield from (*load_hints(summary), *mirror_hints(summary))
    if summary.ends_unsettled:
        complete_at = max(one.complete_at for one in tally.ranges.values() if one.is_cut_back)
        yield f"run the same command again after {show(complete_at)}, when the end is settled"
        return
    if summary.exit_code in HINTS and isinstance(spec, Audit):
        if compared_nothing(summary):
            yield "audit again when bundles are older, or lower `--older-than`"
        elif tally.unfinished:
            yield "later runs finish the exports in progress; another audit chooses other bundles"
        return
    if summary.exit_code is not Exit.PARTIAL:
        yield from filter(None, [HINTS.get(summary.exit_code)])
        return
    kept = sum(bundle in tally.parked for bundle in tally.fewer)
    if tally.failed > kept:
        yield _next_step(session, spec)
    elif tally.unfinished:
        yield HINTS[Exit.TIME_UP]
    if tally.audit.damaged:
        yield f"`{session.invocation.again('verify', '--repair')}` exports damaged archives again"
    if kept:
        yield accepting(session)
    if tally.fails_by_shortfalls:
        yield marking_as_known(session, tally.shortfalls)


def accepting(session: "Session") -> str:
    """Say what to do about bundles whose archive was kept."""
    again = session.invocation.again("retry", "--accept-fewer")
    return (
        "nightly runs export these bundles again, and replace the archives once their rows are back; if the rows were "
        f"deleted on purpose, `{again}` replaces the archives with new exports"
    )


def marking_as_known(session: "Session", shortfalls: "Sequence[Shortfall]") -> str:
    """Say what to do about time that has far fewer rows than usual."""
    first = shortfalls[0]
    start, end = (_date(one) for one in (first.bundle.range.start, first.bundle.range.end))
    again = session.invocation.again("accept", start, end, "--export", first.bundle.export, "--why", "REASON")
    which = "it" if len(shortfalls) == 1 else "the first one"
    return f"{first.advice}; if the rows do not exist, `{again}` marks {which} as known"


def _next_step(session: "Session", spec: "RunSpec") -> str:
    """Say what to do about parked bundles; after `retry`, do not advise another `retry`."""
    again = session.invocation.again
    match spec:
        case Backfill(command="demo"):
            return HINTS[Exit.TIME_UP]
        case Retry():
            return f"`{again('status')}` shows why they are parked; all `[retry] attempts` were used"
        case _:
            return f"`{again('retry')}` retries parked bundles"


def _heading(settings: "Settings", spec: "RunSpec") -> str:
    asked = instructions(spec)
    names = ", ".join(export.name for export in spec.exports)
    since = "" if not asked.start else f" from {_date(asked.start)}"
    until = "" if asked.end is None else f" to {_date(asked.end)}"
    return f"{spec.command} {names}{since}{until}, into {settings.output.directory}"


def _date(when: When) -> str:
    if isinstance(when, Ago):
        return str(when)
    return show_day_or_time(when)


def _stopping_text(settings: "Settings", viewer: "RunViewer", reason: Exit) -> str:
    downloads, grace = viewer.downloading, settings.output.grace_seconds
    waits = "for the last answers"
    if downloads and grace:
        files = "1 download" if downloads == 1 else f"{downloads} downloads"
        waits = f"up to {show_duration(grace)} for {files}"
    return f"waiting {waits}; {AGAIN[reason]}"


def _stored_before(settings: "Settings", spec: "RunSpec") -> str:
    """Return the path of an archive that an earlier run stored in the range, one with rows if possible."""
    from asyncexport.ledger import LedgerReader

    asked, now = instructions(spec), time.time()
    start = moment_of(asked.start or 0, now=now)
    end = ALL_TIME.end if asked.end is None else moment_of(asked.end, now=now)
    if start >= end:
        return ""
    span = Range(start, end)
    found = ""
    with LedgerReader(settings.output.directory) as ledger:
        for export in spec.exports:
            for one in ledger.stored(export.name, span):
                found = one.stored.path if one.stored else found
                if one.stored and one.stored.rows:
                    return found
    return found
