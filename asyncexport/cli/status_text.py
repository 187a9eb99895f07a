"""The report of `status` as lines of text, for terminals of 80 columns.

On a narrower terminal, lines are broken at spaces. Commands are not: the terminal wraps them, so that they are copied
as one line.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from asyncexport.cli.invocation import PROGRAM
from asyncexport.core.bundles import Bundle, day, show
from asyncexport.core.health.gap_list import STARTED, is_optional, listed_gaps
from asyncexport.core.health.last_run import how_it_ended
from asyncexport.core.health.problems import why_parked
from asyncexport.core.health.weeks import CELLS_PER_WEEK, WEEK_SECONDS
from asyncexport.core.states import Ready
from asyncexport.core.text import show_duration
from asyncexport.display import count_of, merged_problems, plain, show_bytes, show_count, show_minute, table, wrapped

if TYPE_CHECKING:
    from asyncexport.core.health.export_report import ExportReport
    from asyncexport.core.health.gap_list import StartedTime
    from asyncexport.core.health.overview import Overview
    from asyncexport.core.health.records import RunRecord
    from asyncexport.core.health.report import StatusReport, Verdict
    from asyncexport.core.health.weeks import Week

MOST_NAMED = 10
"""Gaps and parked bundles that are listed one by one; `--json` lists all."""

IF_WANTED = "not part of nightly runs; if wanted: "
"""Precedes the command that fills a gap that is no fault."""

MOST_WEEKS = 20
"""Lines of weeks; `--json` lists all."""

NEWEST_WEEKS = 4
"""Weeks that are shown even if they are complete."""

CELLS_PER_DAY = CELLS_PER_WEEK // 7

DAY_NAMES = "Mon  Tue  Wed  Thu  Fri  Sat  Sun"

NARROW_DAY_NAMES = "Mon Tue Wed Thu Fri Sat Sun"
"""The names above the four characters of each day, without spaces between the days."""

WEEK_COLUMNS = 50
"""The columns of a week's line. On a narrower terminal it has no indentation and no spaces between the days: it is a
picture, and must not be broken."""

LABEL = re.compile(r"  [a-z][a-z ]{10} (?=\S)")
"""The beginning of a line made by `_labelled`, if it has a label."""

LEGEND = ("# stored", ". not due", "- missing", "x parked", "! altered", "~ started", "a accepted")
"""Explains `core.health.weeks.MARKS`."""


def fitted(line: str, columns: int | None) -> list[str]:
    """Return a line of the report as lines that fit into a terminal; None: it is not shown on a terminal."""
    text = line.lstrip()
    if columns is None or len(line) <= columns or text.removeprefix(IF_WANTED).startswith(f"{PROGRAM} "):
        return [line]
    label = LABEL.match(line)
    return wrapped(line, columns, hanging=label.end() if label else len(line) - len(text) + 4)


def verdict_line(verdict: "Verdict") -> str:
    """Say whether all is well, and why."""
    return f"{'healthy' if verdict.healthy else 'not healthy'}: {plain(verdict.reason)}"


def last_run_line(run: "RunRecord") -> str:
    """Say how the newest run ended."""
    return f"last run: {plain(run.command)} {plain(how_it_ended(run))}"


def run_lines(report: "StatusReport", *, most: int) -> list[str]:
    """List the last runs, the newest last."""
    chosen = report.runs[-most:] if most else ()
    rows = [_run_row(run) for run in chosen]
    return ["last runs:", *(f"  {line}" for line in table(rows, right=frozenset({2})))] if rows else []


def _run_row(run: "RunRecord") -> tuple[str, ...]:
    began, command = show_minute(run.began), plain(run.command)
    joined = "" if run.joined is None else f"joined {plain(run.joined.command) or 'another run'}"
    if run.ended is None:
        return began, command, "", "in progress" if run.running else "killed", joined
    # A run that only joined another one has stored nothing itself: what counts is how much of its range is stored.
    key = "stored" if run.joined is None else "already"
    stored, parked = (run.counts.get("bundles", {}).get(one, 0) for one in (key, "failed"))
    parts = [
        joined,
        f"{count_of(stored, 'bundle', 'bundles')} stored",
        f"{show_count(parked)} parked" if parked else "",
    ]
    seconds = max(0.0, run.ended - run.began)
    return began, command, show_duration(seconds), f"exit {run.exit_code}", ", ".join(filter(None, parts))


def export_lines(report: "ExportReport", *, now: float, columns: int | None = None) -> Iterator[str]:
    """Describe one export, for a terminal with this many columns; None: it is not shown on a terminal."""
    overview = report.overview
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
        if report.due is not None:
            settled = report.due.settled
            yield _labelled("settled", f"up to {show(settled)}{_behind(settled - covered[-1].end)}")
    yield from week_lines(report.weeks, is_narrow=columns is not None and columns < WEEK_COLUMNS)
    yield from _gap_lines(report)
    yield from _bundle_lines("altered", [(one.record.bundle, one.reason, None) for one in report.altered])
    yield from _list_lines("overlaps", [f"{later} with {earlier}" for earlier, later in overview.overlaps])
    unsettled = [
        f"{one.bundle.range}: exported at {show(one.stored.exported_at)}" for one in overview.unsettled if one.stored
    ]
    yield from _list_lines("unsettled", unsettled)
    if overview.in_progress:
        yield _labelled("in progress", _in_progress(overview))
    yield from _shortfall_lines(report)
    yield from _bundle_lines("accepted", [(one.bundle, one.reason, None) for one in report.accepted])
    for label, kept in (("parked", False), ("kept", True)):
        listed = [one for one in report.open_parked if one.kept == kept]
        yield from _bundle_lines(label, [(one.bundle, why_parked(one), overview.next_try(one)) for one in listed])
    if overview.last_at is not None:
        yield _labelled("last change", f"{show(overview.last_at)}, {show_duration(max(1, now - overview.last_at))} ago")


def week_lines(weeks: "Sequence[Week]", *, is_narrow: bool = False) -> Iterator[str]:
    """Show coverage, a line per week; of the older weeks, those that are alike in all their cells share a line."""
    if not weeks:
        return
    lines: list[str] = []
    one_week = _narrow_week_line if is_narrow else _week_line
    older, newest = weeks[:-NEWEST_WEEKS], weeks[-NEWEST_WEEKS:]
    for mark, group in groupby(older, key=lambda week: week.only_mark):
        members = list(group)
        lines += [_weeks_line(members, mark)] if mark and len(members) > 1 else map(one_week, members)
    lines += map(one_week, newest)
    used = {mark for week in weeks for mark in week.cells}
    yield _labelled("weeks", "a character for every six hours, UTC")
    yield f"    {'  '.join(entry for entry in LEGEND if entry[0] in used)}"
    yield f"{'week of':<11}{NARROW_DAY_NAMES}" if is_narrow else f"    {'week of':<12}{DAY_NAMES}"
    if len(lines) > MOST_WEEKS:
        yield f"    {show_count(len(lines) - MOST_WEEKS)} earlier lines are left out; --json lists all weeks"
    yield from lines[-MOST_WEEKS:]


def _weeks_line(weeks: "Sequence[Week]", mark: str) -> str:
    """Return the line of several weeks that have the same mark everywhere."""
    what = next((entry[2:] for entry in LEGEND if entry[0] == mark), "not asked for")
    end = weeks[-1].start + WEEK_SECONDS - 1
    return f"    {day(weeks[0].start)}  to {day(end)}: {show_count(len(weeks))} weeks {what}"


def _week_line(week: "Week") -> str:
    days = (week.cells[at : at + CELLS_PER_DAY] for at in range(0, CELLS_PER_WEEK, CELLS_PER_DAY))
    missing = f"  {show_duration(week.missing_seconds)} missing" if week.missing_seconds else ""
    return f"    {day(week.start)}  {' '.join(days)}{missing}".rstrip()


def _narrow_week_line(week: "Week") -> str:
    return f"{day(week.start)} {week.cells}".rstrip()


def _gap_lines(report: "ExportReport") -> Iterator[str]:
    """List the gaps: those that were started as one, the others each with the command that fills it."""
    if not report.gaps:
        return
    total = sum(gap.range.seconds for gap in report.gaps)
    yield _labelled("gaps", f"{show_count(len(report.gaps))}, {show_duration(total)} in all")
    if report.started is not None:
        yield f"    {started_text(report.started)}"
        if report.started.command:
            yield f"    {report.started.command}"
    listed = listed_gaps(report.gaps, most=MOST_NAMED)
    for gap in listed:
        yield f"    {gap.range} ({show_duration(gap.range.seconds)}): {gap.reason}"
        if gap.command:
            yield f"    {IF_WANTED if is_optional(gap, report.due) else ''}{gap.command}"
    left = len(report.gaps) - len(listed) - (report.started.gaps if report.started else 0)
    if left:
        shown = sum(gap.range.seconds for gap in listed) + (report.started.seconds if report.started else 0)
        yield _labelled("", f"  and {show_count(left)} smaller, {show_duration(total - shown)}; --json lists all")


def started_text(started: "StartedTime") -> str:
    """Describe the time that runs have started, as one line; the command, if there is one, follows."""
    found = (
        f"{STARTED}: {count_of(started.bundles, 'bundle', 'bundles')}, {count_of(started.gaps, 'gap', 'gaps')}, "
        f"{show_duration(started.seconds)}"
    )
    if started.in_progress:
        return f"{found}: the run in progress finishes them"
    return f"{found}: run the interrupted command again, or" if started.command else found


def _shortfall_lines(report: "ExportReport") -> Iterator[str]:
    """List stored time with far fewer rows than usual."""
    if not report.shortfalls:
        return
    yield _labelled("few rows", show_count(len(report.shortfalls)))
    for one in report.shortfalls[:MOST_NAMED]:
        yield f"    {one.bundle.range}: {one.figures}"
    yield from _left_out(len(report.shortfalls))


def _in_progress(overview: "Overview") -> str:
    """Count the bundles in flight at the service and those ready to download."""
    ready = sum(isinstance(one.state, Ready) for one in overview.unfinished)
    parts = {"in flight at the service": overview.in_progress - ready, "ready to download": ready}
    return ", ".join(f"{count_of(count, 'bundle', 'bundles')} {where}" for where, count in parts.items() if count)


def _behind(seconds: int) -> str:
    return f", {show_duration(seconds)} after the last archive" if seconds > 0 else ""


def _bundle_lines(label: str, problems: Sequence[tuple[Bundle, str, float | None]]) -> Iterator[str]:
    """List bundles with their problems; adjacent ones with the same problem are one entry."""
    if not problems:
        return
    merged = merged_problems(problems)
    yield _labelled(label, show_count(len(problems)))
    for one in merged[:MOST_NAMED]:
        yield _labelled("", f"  {one.range}{plain(one.details)}")
    if left := sum(one.count for one in merged[MOST_NAMED:]):
        yield _labelled("", f"  and {show_count(left)} more; --json lists all")


def _list_lines(label: str, items: Sequence[str]) -> Iterator[str]:
    if not items:
        return
    yield _labelled(label, show_count(len(items)))
    for item in items[:MOST_NAMED]:
        yield _labelled("", f"  {item}")
    yield from _left_out(len(items))


def _left_out(count: int) -> Iterator[str]:
    if count > MOST_NAMED:
        yield _labelled("", f"  and {show_count(count - MOST_NAMED)} more; --json lists all")


def _labelled(label: str, text: str) -> str:
    return f"  {label:<12}{text}"
