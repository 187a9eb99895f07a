"""`load`: put exported days into tables, or check the tables."""

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.options import DATES, Directory, Names, Sets, SuccessExits, read_asked
from asyncexport.cli.session import Session
from asyncexport.cli.signals import AGAIN, run_gracefully
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.summary import Summary
from asyncexport.display import count_of, days_text, load_hints, load_lines, load_record, plain
from asyncexport.errors import Problem, SinkError

if TYPE_CHECKING:
    from asyncexport.cli.options import Asked
    from asyncexport.config import Settings
    from asyncexport.core.warehouse.differences import Difference
    from asyncexport.core.warehouse.load_events import LoadEvent
    from asyncexport.engine.scheduler import Stop
    from asyncexport.run.load import LoadSpec
    from asyncexport.run.load_lane import LoadLane

LoadStart = Annotated[
    str | None,
    typer.Option("--start", metavar="DATE", help=f"Only days from this time on: {DATES}.", show_default=False),
]
LoadEnd = Annotated[
    str | None, typer.Option("--end", metavar="DATE", help="Only days before this time.", show_default=False)
]
To = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="NAME", help="Only this destination; may be repeated. Default: [load] to."),
]
Again = Annotated[bool, typer.Option("--again", help="Also load days that the destinations have already.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Let the workers of this Dask scheduler make the days, such as tcp://127.0.0.1:8786.",
        show_default=False,
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Compare the destinations with the ledger and change nothing.")]


def load(
    ctx: typer.Context,
    *,
    start: LoadStart = None,
    end: LoadEnd = None,
    to: To = None,
    export: Names = None,
    again: Again = False,
    check: Check = False,
    scheduler: Scheduler = None,
    success_exit: SuccessExits = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Load what is stored.

    Puts each day of each export into a Parquet file under [load] directory, and from there into the destinations of
    [load] to. Needs no key, only pip install 'asyncexport[load]'. Days that have not changed are not touched, so a
    second load takes a moment. Works during a run; a day is loaded again when more of it is stored, or it is refreshed.

    A value that does not fit its column is kept as text in the column _rescued. A line that is no row is kept in a file
    beside the table, and the exit code is 3. A day whose archives overlap, or are not what the ledger says, is not
    loaded, and the exit code is 7.

    With --check, nothing is changed. For each day, the receipt and the number of rows in each destination are compared
    with what the ledger leads to; values and archives are not read. The exit code is 0 if all agree, and 3 if not.
    """
    session: Session = ctx.obj
    ignored = [name for name, is_given in (("--again", again), ("--scheduler", scheduler)) if check and is_given]
    asked = read_asked(
        session,
        directory=directory,
        sets=sets,
        start=start,
        end=end,
        success_exits=success_exit,
        faults=[Problem(name, "cannot be combined with --check, which loads nothing") for name in ignored],
    )
    from asyncexport.run.load import LoadSpec
    from asyncexport.run.survey import time_at_service

    now = time_at_service(asked.settings)
    spec = LoadSpec(tuple(export or ()), asked.start, asked.end, tuple(to or ()), again, scheduler=scheduler)
    return _check(session, asked, spec, now=now) if check else _load(session, asked, spec, now=now)


def _load(session: Session, asked: "Asked", spec: "LoadSpec", *, now: float) -> Summary:
    from asyncexport.run.load import load as load_days

    where = asked.settings.load.directory
    counter = session.counting(f"load into {where}", total=None, of="days loaded")

    with counter as count:

        def on_event(event: "LoadEvent") -> None:
            if session.as_json:
                session.results.record(load_record(event))
            count()

        async def work(stop: "Stop") -> Summary:
            return await load_days(asked.settings, spec, now=now, stop=stop, on_event=on_event, on_total=counter.expect)

        def on_stop(reason: Exit) -> None:
            if not session.quiet:
                session.lines.report("stopping", f"waiting for the days that are being replaced; {AGAIN[reason]}")

        summary = run_gracefully(work, on_stop=on_stop, received=session.signals)
    _say(session, asked, summary)
    return summary


def _say(session: Session, asked: "Asked", summary: Summary) -> None:
    """Print what was done; with `--quiet`, one line unless all is well."""
    tally = summary.load
    if tally is None or session.as_json:
        return
    lines = load_lines(summary, directory=str(asked.settings.load.directory))
    if session.quiet:
        if summary.error is None and summary.exit_code is not Exit.DONE:
            session.say(f"load, exit code {int(summary.exit_code)}: {'; '.join(lines[:3])}")
        return
    if summary.error is None or tally.loaded:
        for line in lines:
            session.say_fitted(line)
    for hint in load_hints(summary):
        session.lines.hint(session.invocation.pasteable(hint))


def lane_of(session: Session, settings: "Settings", names: list[str]) -> "LoadLane":
    """Return the load beside a run of these exports.

    Raises:
        ConfigError: the settings of the load cannot be used, or a library is missing.
    """
    from asyncexport.run.load_exports import check_load_settings
    from asyncexport.run.load_lane import LoadLane

    check_load_settings(settings)

    def on_event(event: "LoadEvent") -> None:
        if session.as_json:
            session.results.record(load_record(event))

    def on_total(days: int) -> None:
        if days and not session.quiet:
            session.lines.report("loading", f"{count_of(days, 'day', 'days')} into {settings.load.directory}")

    return LoadLane(settings, tuple(names), on_event=on_event, on_total=on_total)


def _check(session: Session, asked: "Asked", spec: "LoadSpec", *, now: float) -> Summary:
    from asyncexport.run.load_check import check_load

    failures: list[SinkError] = []
    found: list[Difference] = []
    every = check_load(asked.settings, spec, now=now, on_failure=failures.append)
    for (sink, table, reason), days in groupby(every, key=lambda one: (one.sink, one.table, one.reason)):
        dates = []
        for one in days:
            found.append(one)
            dates.append(one.date)
            session.record("differs", sink=one.sink, table=one.table, date=one.date, reason=one.reason)
        session.say_fitted(f"differs  {sink} {table} {days_text(dates)}: {plain(reason)}")
    if found:
        session.say(f"{count_of(len(found), 'day of a table differs', 'days of tables differ')} from the archives")
    elif not session.quiet and not failures:
        session.say("nothing differs")
    if found:
        again = [word for name in spec.to for word in ("--to", name)]
        again += ["--again"] if any(one.is_recorded for one in found) else []
        session.lines.hint(f"`{session.invocation.again('load', *again)}` loads them")
    if failures:
        for error in failures[1:]:
            session.say_fitted(f"failed   {error.sink}: {plain(str(error))}")
            session.lines.hint(error.hint)
        return session.summary(exit_of(failures[0]), error=failures[0])
    return session.summary(Exit.PARTIAL if found else Exit.DONE)
