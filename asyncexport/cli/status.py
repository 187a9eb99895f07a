"""`status`: show what is stored, as recorded in the ledger, and check whether all is well."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.options import Directory, Names, Sets, check_names, read_asked, read_duration_option
from asyncexport.cli.run_command import accepting, marking_as_known
from asyncexport.cli.session import Session
from asyncexport.cli.status_page import Html, PageWriter, page_problems
from asyncexport.cli.status_records import LAST_BESIDE, beside_record, export_record, run_record
from asyncexport.cli.status_text import export_lines, fitted, last_run_line, run_lines, verdict_line
from asyncexport.core.bundles import show
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.health.beside import beside_line, fault_of_beside
from asyncexport.core.health.missing import MAX_BEHIND_SECONDS
from asyncexport.core.health.problems import why_parked
from asyncexport.core.health.report import StatusReport, Verdict
from asyncexport.core.states import FewerRows
from asyncexport.core.summary import Summary, Tally
from asyncexport.display import plain
from asyncexport.errors import LedgerError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncexport.cli.options import Asked
    from asyncexport.core.health.export_report import ExportReport

Check = Annotated[
    bool,
    typer.Option("--check", help="Only print in one line whether all is well: a health check for monitoring."),
]
MaxBehind = Annotated[
    str | None,
    typer.Option("--max-behind", metavar="TIME", help="How long settled data may remain unstored. Default: 30h."),
]
Runs = Annotated[int, typer.Option("--runs", metavar="N", min=0, help="Number of past runs to show.")]


def status(
    ctx: typer.Context,
    *,
    check: Check = False,
    max_behind: MaxBehind = None,
    runs: Runs = 5,
    html: Html = None,
    export: Names = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Show what is stored.

    Reads the ledger and changes nothing; works during a run. Checks that every archive exists and has the recorded
    size; `verify` checks the contents. The exit code is 3 if bundles are parked, archives overlap, or archive files
    were deleted or changed in size.

    gaps: time that no archive covers, since [nightly] since or the first archive, with the reason and the command that
    fills it. kept: bundles whose archive was kept because a new export was empty or had far fewer rows, with both
    counts. unsettled: bundles exported before their data was settled; they are exported once more when it has settled.

    With --check, the exit code is 0 only if the last run, load and mirror ended well (0, or 9: work is left, nothing
    failed) and everything that settled more than --max-behind ago is stored. Otherwise it is 3, or 7 if there is no
    ledger or it is damaged.

    With --html, the report is also written as a page that needs nothing but a browser. It is written even if the ledger
    cannot be read, and then says so. An existing page is replaced; any other existing file is left alone.
    """
    session: Session = ctx.obj
    faults = page_problems(html)
    seconds = read_duration_option("--max-behind", max_behind, faults)
    asked = read_asked(session, directory=directory, sets=sets, faults=faults)
    allowed = MAX_BEHIND_SECONDS if seconds is None else seconds
    page = PageWriter(session, asked, html)
    if check:
        return _check(session, asked, export or [], max_behind=allowed, page=page)
    report = None
    with page.when_unreadable():
        if _has_ledger(session, asked, export or []):
            report = _read(session, asked, export or [], max_behind=allowed, page=page)
    return _nothing_yet(session, asked, page) if report is None else _show(session, asked, report, runs=runs, page=page)


def _has_ledger(session: Session, asked: "Asked", names: list[str]) -> bool:
    """Whether the directory has a ledger.

    Raises:
        LedgerError: it has none although it has archives.
    """
    from asyncexport.ledger import present
    from asyncexport.run.directory import check_ledger_not_lost

    where = asked.settings.output.directory
    if present(where):
        return True
    check_names(names, [one.name for one in asked.settings.exports])
    try:
        check_ledger_not_lost(where)
    except LedgerError as error:
        error.hint = f"`{session.invocation.again('verify', '--rebuild')}` makes a new ledger from the archives"
        raise
    return False


def _read(
    session: Session,
    asked: "Asked",
    names: list[str],
    *,
    max_behind: float,
    page: PageWriter,
    checks: bool = False,
) -> StatusReport:
    """Read the report and what its page needs; `checks`: check the whole ledger first, unless it is large.

    Raises:
        LedgerError: the ledger is damaged or missing.
    """
    from asyncexport.ledger import LedgerReader
    from asyncexport.run.status import read_status
    from asyncexport.run.survey import time_at_service

    now = time_at_service(asked.settings)
    with LedgerReader(asked.settings.output.directory) as ledger:
        if checks:
            ledger.check_if_small()
        check_names(names, [*(one.name for one in asked.settings.exports), *ledger.exports()])
        again = session.invocation.again
        report = read_status(asked.settings, ledger, names=names, now=now, again=again, max_behind=max_behind)
        page.read(ledger, report)
    return report


def _check(session: Session, asked: "Asked", names: list[str], *, max_behind: float, page: PageWriter) -> Summary:
    """Report only the verdict."""
    try:
        with page.when_unreadable():
            _has_ledger(session, asked, names)
            report = _read(session, asked, names, max_behind=max_behind, page=page, checks=True)
    except (LedgerError, StorageError) as error:
        verdict = Verdict(healthy=False, reason=str(error))
        _say_verdict(session, verdict)
        return session.summary(exit_of(error), error=error, verdict=verdict)
    page.write(report)
    verdict = report.verdict
    if not verdict.healthy or not session.quiet:
        _say_verdict(session, verdict)
    if verdict.healthy:
        return session.summary(Exit.DONE, verdict=verdict)
    session.lines.hint(f"`{session.invocation.again('status')}` shows details and the commands that help")
    return session.summary(Exit.PARTIAL, verdict=verdict)


def _say_verdict(session: Session, verdict: Verdict) -> None:
    _say(session, verdict_line(verdict))
    session.record("health", healthy=verdict.healthy, reason=verdict.reason)


def _nothing_yet(session: Session, asked: "Asked", page: PageWriter) -> Summary:
    """Report an empty directory."""
    message = plain(f"nothing exported yet: {asked.settings.output.directory} has no ledger")
    page.write_reason(message)
    session.say(message)
    session.record("note", message=message)
    page.announce()
    return session.summary(Exit.DONE)


def _say(session: Session, text: str = "") -> None:
    """Print a line of the report, fitted to the terminal."""
    for line in () if session.as_json else fitted(text, session.results.columns()):
        session.say(line)


def _show(session: Session, asked: "Asked", report: StatusReport, *, runs: int, page: PageWriter) -> Summary:
    """Report everything."""
    from asyncexport.ledger import holder

    page.write(report)
    running, last_run = holder(asked.settings.output.directory), report.runs[-1] if report.runs else None
    if running:
        session.record("run", command=running.command, pid=running.pid, host=running.host, since=show(running.since))
    _say(session, f"a run is in progress: {plain(str(running))}" if running else "no run is in progress")
    if last_run and not running:
        _say(session, last_run_line(last_run))
    for beside in report.beside:
        session.record(LAST_BESIDE[beside.kind], **beside_record(beside))
        _say(session, plain(beside_line(beside)))
    _say(session, verdict_line(report.verdict))
    for line in run_lines(report, most=runs):
        _say(session, line)
    for one in report.exports:
        session.record("export", **export_record(one))
        _say(session)
        for line in export_lines(one, now=report.now, columns=session.results.columns()):
            _say(session, line)
    session.record("runs", runs=[run_record(run) for run in (report.runs[-runs:] if runs else ())])
    if last_run and not running:
        session.record("last_run", **run_record(last_run))
    session.record("health", healthy=report.verdict.healthy, reason=report.verdict.reason)
    tally = _stored_tally(report.exports)
    hints = list(_hints(session, report.exports, tally))
    for hint in hints:
        session.lines.hint(hint)
    for beside in filter(fault_of_beside, report.beside):
        session.lines.hint(f"`{session.invocation.again(beside.kind.value)}` does what the last {beside.kind} left")
    if tally.shortfalls:
        session.lines.hint(marking_as_known(session, tally.shortfalls))
    page.announce()
    code = Exit.PARTIAL if hints or tally.fails_by_shortfalls else Exit.DONE
    return session.summary(code, tally=tally, verdict=report.verdict)


def _hints(session: Session, reports: "Sequence[ExportReport]", tally: Tally) -> Iterator[str]:
    """Say what to do about each kind of fault."""
    again = session.invocation.again
    if any(not bundle.kept for one in reports for bundle in one.open_parked):
        yield f"`{again('retry')}` retries parked bundles"
    if tally.fewer:
        yield accepting(session)
    if any(one.altered for one in reports):
        yield f"`{again('verify', '--repair')}` exports missing and broken archives again"
    if any(one.overview.overlaps for one in reports):
        yield f"overlapping archives contain the same rows twice: `{again('verify')}` lists their files"


def _stored_tally(reports: "Sequence[ExportReport]") -> Tally:
    tally = Tally()
    for report in reports:
        one, altered = report.overview, {each.record.bundle: each.reason for each in report.altered}
        parked = report.open_parked
        # An archive that was kept and has been deleted since counts as deleted.
        held = {record.bundle for record in parked if record.stored is not None} | altered.keys()
        tally.stored_before += one.stored - len(held)
        tally.shortfalls += report.shortfalls
        tally.shortfalls_fail = tally.shortfalls_fail or report.shortfalls_fail
        tally.rows += one.rows
        tally.bytes += one.bytes
        tally.parked.update({record.bundle: why_parked(record) for record in parked})
        tally.parked.update({bundle: f"its archive was altered: {reason}" for bundle, reason in altered.items()})
        due_times = {record.bundle: one.next_try(record) for record in parked}
        tally.next_tries.update({bundle: due for bundle, due in due_times.items() if due is not None})
        kept = {record.bundle: record.state for record in parked if record.kept}
        tally.fewer.update({bundle: state for bundle, state in kept.items() if isinstance(state, FewerRows)})
        # A bundle whose new revision is in progress or parked still has its archive; an accepted one is not wanted.
        accepted = {record.bundle for record in one.parked}.difference(record.bundle for record in parked)
        to_do = [record for record in one.unfinished if record.bundle not in accepted]
        tally.planned += one.stored + sum(record.stored is None for record in to_do)
    return tally
