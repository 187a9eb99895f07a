"""`accept`: mark parked bundles and shortfalls as known, so that they no longer count as problems."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.options import DATES, Directory, Sets, check_names, read_asked, read_when_option
from asyncexport.cli.session import Session
from asyncexport.cli.signals import run_interruptibly
from asyncexport.core.bundles import Range, moment_of, show
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.display import count_of, plain
from asyncexport.errors import ConfigError, LedgerLockedError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from asyncexport.core.bundles import When
    from asyncexport.core.events import Joining
    from asyncexport.core.health.acceptance import Acceptance

LONGEST_REASON = 500

From = Annotated[str, typer.Argument(metavar="FROM", help=f"Start of the range: {DATES}.", show_default=False)]
To = Annotated[str, typer.Argument(metavar="TO", help="End of the range, exclusive.", show_default=False)]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason; `status` shows it.", show_default=False)]
Name = Annotated[
    str | None, typer.Option("--export", metavar="NAME", help="The export. May be left out if there is only one.")
]
Wait = Annotated[bool, typer.Option("--wait", help="If a run is in progress, wait for its end.")]


def accept(
    ctx: typer.Context,
    *,
    start: From,
    end: To,
    why: Why,
    export: Name = None,
    wait: Wait = False,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Accept missing data.

    Marks the parked bundles and the shortfalls (stored time with far fewer rows than usual) between FROM and TO as
    known. They no longer cause exit code 3, and `status` lists them with the reason. A shortfall that continues after
    TO is reported again, once.

    Nightly runs and backfills leave accepted bundles alone. `retry` with --start or --end still retries them. An
    acceptance cannot be taken back.
    """
    session: Session = ctx.obj
    faults: list[Problem] = []
    dates = read_when_option("FROM", start, faults), read_when_option("TO", end, faults)
    _check_reason(why, faults)
    asked = read_asked(session, directory=directory, sets=sets, faults=faults)
    from asyncexport.run.accept import accept as accept_range
    from asyncexport.run.lock_wait import LockWait
    from asyncexport.run.survey import time_at_service

    where = asked.settings.output.directory
    name, now = _chosen(export, where), time_at_service(asked.settings)
    span = _span(dates, now=now)
    try:
        found = run_interruptibly(
            lambda: accept_range(
                where,
                name,
                span,
                reason=why.strip(),
                at=now,
                warn=partial(session.lines.report, "warning"),
                wait=LockWait(partial(_report_wait, session)) if wait else None,
            )
        )
    except LedgerLockedError as error:
        error.hint = "wait until it has ended, or let `--wait` do that"
        raise
    return _tell(session, name, span, found, reason=why.strip())


def _report_wait(session: Session, joining: "Joining") -> None:
    from asyncexport.display.event_records import event_record

    session.lines.report("waiting", joining.text)
    if session.as_json and (record := event_record(joining)):
        session.results.record(record)


def _check_reason(why: str, faults: list[Problem]) -> None:
    if not why.strip():
        faults.append(Problem("--why", "must not be empty: `status` shows the reason"))
    elif not why.isprintable() or len(why) > LONGEST_REASON:
        faults.append(Problem("--why", f"must be one line of at most {LONGEST_REASON} printable characters"))


def _chosen(export: str | None, directory: "Path") -> str:
    """Return the export that is meant.

    Raises:
        ConfigError: it does not exist, or is not named although there are several.
        LedgerError: the ledger is missing or cannot be read.
    """
    from asyncexport.ledger import LedgerReader
    from asyncexport.run.directory import check_ledger_not_lost

    check_ledger_not_lost(directory)
    with LedgerReader(directory) as ledger:
        known = list(ledger.exports())
    if export is not None:
        check_names([export], known)
        return export
    if len(known) != 1:
        raise ConfigError([Problem("--export", f"is needed: the ledger has {', '.join(known) or 'no export'}")])
    return known[0]


def _span(dates: "Sequence[When | None]", *, now: float) -> Range:
    """Return the range.

    Raises:
        ConfigError: it is empty.
    """
    start, end = (moment_of(one or 0, now=now) for one in dates)
    if start >= end:
        raise ConfigError([Problem("TO", f"{show(end)} is not after FROM, {show(start)}")])
    return Range(start, end)


def _tell(session: Session, export: str, span: Range, found: "Acceptance", *, reason: str) -> Summary:
    again = session.invocation.again
    for one in found.beyond:
        session.lines.report("note", f"{export}: the problem from {one} reaches beyond the range and stays open")
    if not found.spans:
        raise ConfigError(
            [Problem("", f"nothing to accept: no parked bundle and no shortfall of {export} lies within {span}")],
            hint=f"`{again('status')}` lists parked bundles (parked) and shortfalls (few rows) with their times",
        )
    for one in found.spans:
        session.say(f"accepted: {export} {one}: {plain(reason)}")
        session.record("accepted", export=export, start=show(one.start), end=show(one.end), reason=reason)
    parked = count_of(found.parked, "parked bundle", "parked bundles")
    shortfalls = count_of(found.shortfalls, "shortfall", "shortfalls")
    session.say(f"{parked} and {shortfalls} no longer count as problems")
    return session.summary(Exit.DONE)
