"""`status`: show what is stored, as recorded in the ledger."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asyncexport.cli.options import Directory, Names, Sets, check_names, read_asked
from asyncexport.cli.run_command import accepting
from asyncexport.cli.session import Session
from asyncexport.core.bundles import Range, show
from asyncexport.core.exits import Exit
from asyncexport.core.states import BundleRecord, Failed, FewerRows, Ready, Refused
from asyncexport.core.summary import Summary, Tally, counts_of
from asyncexport.core.text import show_duration
from asyncexport.display import count_of, plain, show_bytes, show_count

if TYPE_CHECKING:
    from asyncexport.ledger import Overview, RunRecord
    from asyncexport.run.export_status import ExportStatus

MOST_NAMED = 10
"""Gaps and parked bundles that are listed one by one; `--json` lists all."""

OVERDUE = "its operation was still running at its deadline"


def status(ctx: typer.Context, *, export: Names = None, directory: Directory = None, sets: Sets = None) -> Summary:
    """Show what is stored.

    Reads the ledger and changes nothing, also during a run. Checks that every archive exists and has the recorded size;
    `verify` checks the contents. The exit code is 3 if bundles are parked, archives overlap, or archive files were
    deleted or changed in size.

    gaps: time that no archive covers, between the first and the last archive or in the range of nightly runs. kept:
    bundles whose archive was kept because a new export was empty or had far fewer rows, with both counts. unsettled:
    bundles exported before their data was settled; they are exported once more when it is.
    """
    from asyncexport.ledger import LedgerReader, holder, present
    from asyncexport.run.export_status import export_statuses
    from asyncexport.run.survey import time_at_service

    session: Session = ctx.obj
    asked = read_asked(session, directory=directory, sets=sets)
    where = asked.settings.output.directory
    configured = [one.name for one in asked.settings.exports]
    if not present(where):
        check_names(export, configured)
        return _nothing_yet(session, where)
    now = time_at_service(asked.settings)
    with LedgerReader(where) as ledger:
        known = list(ledger.exports())
        check_names(export, [*configured, *known])
        chosen = export_statuses(asked.settings, ledger, names=export or (), now=now)
        last_run = ledger.last_run()
    running = holder(where)
    if running:
        session.record("run", command=running.command, pid=running.pid, host=running.host, since=show(running.since))
    session.say(f"a run is in progress: {plain(str(running))}" if running else "no run is in progress")
    if last_run and not running:
        session.say(f"last run: {_last_run_text(last_run)}")
    for export_status in chosen:
        session.record("export", **_export_record(export_status))
        session.say()
        for line in _export_lines(export_status, now=now):
            session.say(line)
    for name in configured:
        if name not in known and (not export or name in export):
            session.say()
            session.say(f"{name}: nothing is stored yet")
    if last_run and not running:
        session.record("last_run", **_ending(last_run))
    tally = _stored_tally(chosen)
    hints = list(_hints(session, chosen, tally))
    for hint in hints:
        session.lines.hint(hint)
    return session.summary(Exit.PARTIAL if hints else Exit.DONE, tally=tally)


def _hints(session: Session, chosen: "list[ExportStatus]", tally: Tally) -> Iterator[str]:
    """Say what to do about each kind of fault."""
    again = session.invocation.again
    if any(len(one.overview.parked) > len(one.overview.kept) for one in chosen):
        yield f"`{again('retry')}` retries parked bundles"
    if tally.fewer:
        yield accepting(session)
    if any(one.altered for one in chosen):
        yield f"`{again('verify', '--repair')}` exports missing and broken archives again"
    if any(one.overview.overlaps for one in chosen):
        yield f"overlapping archives contain the same rows twice: `{again('verify')}` lists their files"


def _nothing_yet(session: Session, where: Path) -> Summary:
    """Report an empty directory; archives without a ledger are an error."""
    from asyncexport.errors import LedgerError
    from asyncexport.run.directory import check_ledger_not_lost

    try:
        check_ledger_not_lost(where)
    except LedgerError as error:
        error.hint = f"`{session.invocation.again('verify', '--rebuild')}` makes a new ledger from the archives"
        raise
    message = f"nothing exported yet: {where} has no ledger"
    session.say(message)
    session.record("note", message=message)
    return session.summary(Exit.DONE)


def _last_run_text(run: "RunRecord") -> str:
    """Describe how the newest run ended, as text."""
    if run.ended is None:
        return f"{plain(run.command)} started at {show(run.began)} and did not finish: it was killed or it crashed"
    return f"{plain(run.command)} ended with exit code {run.exit_code} at {show(run.ended)}" + (
        f": {plain(run.error)}" if run.error else ""
    )


def _ending(run: "RunRecord") -> dict[str, Any]:
    """Describe how the newest run ended, as a JSON object."""
    return {
        "command": run.command,
        "began": show(run.began),
        "ended": None if run.ended is None else show(run.ended),
        "exit_code": run.exit_code,
        "error": run.error,
    }


def _stored_tally(chosen: "list[ExportStatus]") -> Tally:
    tally = Tally()
    for export_status in chosen:
        one, altered = export_status.overview, {each.record.bundle: each.reason for each in export_status.altered}
        # An archive that was kept and has been deleted since counts as deleted.
        held = {record.bundle for record in one.parked if record.stored is not None} | altered.keys()
        tally.stored_before += one.stored - len(held)
        tally.rows += one.rows
        tally.bytes += one.bytes
        tally.parked.update({record.bundle: _why(record) for record in one.parked})
        tally.parked.update({bundle: f"its archive was altered: {reason}" for bundle, reason in altered.items()})
        due_times = {record.bundle: one.next_try(record) for record in one.parked}
        tally.next_tries.update({bundle: due for bundle, due in due_times.items() if due is not None})
        kept = {record.bundle: record.state for record in one.kept}
        tally.fewer.update({bundle: state for bundle, state in kept.items() if isinstance(state, FewerRows)})
        # A bundle whose new revision is in progress or parked still has its archive.
        tally.planned += one.stored + sum(record.stored is None for record in one.unfinished)
    return tally


def _export_record(export_status: "ExportStatus") -> dict[str, Any]:
    """Describe one export as a JSON object."""
    overview, settled = export_status.overview, export_status.settled
    covered = overview.covered
    return {
        "name": overview.name,
        "definition": overview.definition.to_dict(),
        "stored": overview.stored,
        "empty": overview.empty,
        "rows": overview.rows,
        "bytes": overview.bytes,
        "covered": [_range_record(one) for one in covered],
        "since": None if export_status.since is None else show(export_status.since),
        "gaps": [_range_record(one) for one in export_status.gaps],
        "altered": [
            {**_range_record(one.record.bundle.range), "path": one.record.stored.path, "reason": one.reason}
            for one in export_status.altered
            if one.record.stored
        ],
        "overlaps": [{**_range_record(later), "with": _range_record(earlier)} for earlier, later in overview.overlaps],
        "unsettled": [
            {**_range_record(one.bundle.range), "exported_at": show(one.stored.exported_at)}
            for one in overview.unsettled
            if one.stored
        ],
        "settled_until": None if settled is None else show(settled),
        "behind_seconds": None if settled is None or not covered else max(0, settled - covered[-1].end),
        "under_way": overview.in_progress,
        "parked": [
            {
                **_range_record(one.bundle.range),
                "reason": _why(one),
                **counts_of(one.state),
                **({} if (due := overview.next_try(one)) is None else {"next_try": show(due)}),
            }
            for one in overview.parked
        ],
        "last_at": None if overview.last_at is None else show(overview.last_at),
    }


def _export_lines(export_status: "ExportStatus", *, now: float) -> Iterator[str]:
    """Describe one export as lines of text."""
    overview, settled = export_status.overview, export_status.settled
    definition = overview.definition
    yield f"{overview.name}: {definition.type.value}s of {plain(definition.segment)}, as {definition.format.value}"
    empty = f" ({show_count(overview.empty)} without rows)" if overview.empty else ""
    yield _labelled(
        "stored",
        f"{count_of(overview.stored, 'bundle', 'bundles')}{empty}, {show_count(overview.rows)} rows, "
        f"{show_bytes(overview.bytes)}",
    )
    covered = overview.covered
    if covered:
        yield _labelled("covered", f"{show(covered[0].start)} to {show(covered[-1].end)}")
        if settled is not None:
            yield _labelled("settled", f"up to {show(settled)}{_behind(settled - covered[-1].end)}")
    yield from _list_lines("gaps", [f"{one} ({show_duration(one.seconds)})" for one in export_status.gaps])
    altered = [f"{show(one.record.bundle.range.start)}: {one.reason}" for one in export_status.altered]
    yield from _list_lines("altered", altered)
    yield from _list_lines("overlaps", [f"{later} with {earlier}" for earlier, later in overview.overlaps])
    unsettled = [
        f"{one.bundle.range}: exported at {show(one.stored.exported_at)}" for one in overview.unsettled if one.stored
    ]
    yield from _list_lines("unsettled", unsettled)
    if overview.in_progress:
        yield _labelled("in progress", _in_progress(overview))
    parked = [
        f"{show(one.bundle.range.start)}: {plain(_why(one))}{_next_try(overview, one)}"
        for one in overview.parked
        if not one.kept
    ]
    yield from _list_lines("parked", parked)
    yield from _list_lines("kept", [f"{show(one.bundle.range.start)}: {plain(_why(one))}" for one in overview.kept])
    if overview.last_at is not None:
        yield _labelled("last change", f"{show(overview.last_at)}, {show_duration(max(1, now - overview.last_at))} ago")


def _next_try(overview: "Overview", record: BundleRecord) -> str:
    due = overview.next_try(record)
    return "" if due is None else f"; retried by the first nightly run after {show(due)}"


def _in_progress(overview: "Overview") -> str:
    """Count the bundles in flight at the service and those ready to download."""
    ready = sum(isinstance(one.state, Ready) for one in overview.unfinished)
    parts = {"in flight at the service": overview.in_progress - ready, "ready to download": ready}
    return ", ".join(f"{count_of(count, 'bundle', 'bundles')} {where}" for where, count in parts.items() if count)


def _behind(seconds: int) -> str:
    return f", {show_duration(seconds)} after the last archive" if seconds > 0 else ""


def _list_lines(label: str, items: list[str]) -> Iterator[str]:
    if not items:
        return
    yield _labelled(label, show_count(len(items)))
    for item in items[:MOST_NAMED]:
        yield _labelled("", f"  {item}")
    if len(items) > MOST_NAMED:
        yield _labelled("", f"  and {show_count(len(items) - MOST_NAMED)} more; --json lists all")


def _labelled(label: str, text: str) -> str:
    return f"  {label:<12}{text}"


def _range_record(span: Range) -> dict[str, str]:
    return {"start": show(span.start), "end": show(span.end)}


def _why(record: BundleRecord) -> str:
    return record.state.reason if isinstance(record.state, Failed | Refused | FewerRows) else OVERDUE
