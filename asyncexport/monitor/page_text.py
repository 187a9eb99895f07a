"""The parts of the page that need no script: the verdict, the figures, what is missing, and what to do.

All text is foreign: every part goes through `cleaned` or `html.escape`.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape

from asyncexport.core.bundles import show
from asyncexport.core.health.beside import beside_line
from asyncexport.core.health.export_report import ExportReport
from asyncexport.core.health.gap_list import STARTED, reason_words
from asyncexport.core.health.missing import Again, Gap
from asyncexport.core.health.report import MOST_PROBLEMS_NAMED, StatusReport
from asyncexport.core.text import show_bytes, show_duration

GAPS_IN_HTML = 20
"""Gaps that are listed without the script, which adds the others."""

SHORTFALLS_IN_HTML = 10
"""Times with few rows that are listed; `status --json` lists all."""


class PageText:
    """Writes HTML.

    Args:
        report: What the page shows.
        again: Makes a command line from a command and its arguments, for the same configuration and directory.
        clean: Makes foreign text printable and hides secrets in it.
    """

    def __init__(self, report: StatusReport, *, again: Again, clean: Callable[[str], str]) -> None:
        self._report = report
        self._again = again
        self._clean = clean

    def state(self) -> str:
        """Return the verdict in a word or two."""
        return "Healthy" if self._report.verdict.healthy else "Not healthy"

    def reason(self) -> str:
        """Return the reason of the verdict, in the words of `status`."""
        return self._text(self._report.verdict.reason)

    def beside(self) -> str:
        """Return how the last load and the last mirror went, in the words of `status`."""
        lines = [beside_line(one) for one in self._report.beside]
        return self._text(" ".join(f"{line[:1].upper()}{line[1:]}." for line in lines))

    def link(self) -> str:
        """Return a link to what is missing, if anything is."""
        if not any(one.gaps for one in self._report.exports) and not list(self._actions()):
            return ""
        return '<p><a href="#missing">What is missing, and the commands that help</a></p>'

    def export(self, number: int) -> str:
        """Return the section of an export; the script adds the pictures."""
        one = self._report.exports[number]
        definition = one.overview.definition
        what = f"{definition.type.value}s of {definition.segment}, as {definition.format.value}"
        figures = "".join(f"<div><dt>{label}</dt><dd>{self._text(value)}</dd></div>" for label, value in _figures(one))
        # The verdict names the first problems of all exports; it need not be repeated.
        named = len(self._report.exports) == 1 and len(one.problems) <= MOST_PROBLEMS_NAMED
        problems = "".join(f"<li>{self._text(problem)}</li>" for problem in (() if named else one.problems))
        return (
            f'<section id="export-{number}" aria-labelledby="export-{number}-name">'
            f'<h2 id="export-{number}-name"><bdi>{self._text(one.overview.name)}</bdi></h2>'
            f'<p class="quiet"><bdi>{self._text(what)}</bdi></p>'
            + (f'<ul class="problems">{problems}</ul>' if problems else "")
            + f'<dl class="figures">{figures}</dl><div class="pictures"></div></section>'
        )

    def missing(self) -> str:
        """Return what is missing, with the commands that fill it, and what else needs to be done."""
        gaps = [(one, gap) for one in self._report.exports for gap in one.gaps]
        rows = "".join(self._gap(one, gap) for one, gap in gaps[:GAPS_IN_HTML])
        head = "".join(f'<th scope="col">{name}</th>' for name in ("Export", "From", "To", "Long", "Why", "Command"))
        table = (
            '<div class="scroll" tabindex="0" role="region" aria-label="Table of what is missing"><table id="gaps">'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
        actions = "".join(f"<li>{self._text(text)}: {self._command(command)}</li>" for text, command in self._actions())
        started = "".join(map(self._started, self._report.exports))
        listed = f'<p id="more-gaps">{len(gaps):,} in all.</p>{started}{table}' if gaps else "<p>Nothing.</p>"
        return listed + (f"<h3>What else to do</h3><ul>{actions}</ul>" if actions else "")

    def as_of(self, version: str, directory: str) -> str:
        """Return the line that says when, from what and by what the page was made."""
        now = show(self._report.now)
        return (
            f'<p class="quiet">As of <time datetime="{now}">{now}</time>, <span id="age"></span>from '
            f"<bdi>{self._text(directory)}</bdi>, by asyncexport {escape(version)}. All times are UTC.</p>"
        )

    def _started(self, report: ExportReport) -> str:
        """Return how to finish all that runs have started of an export; "" if nothing needs to be done."""
        started = report.started
        if started is None or not started.command:
            return ""
        bundles = f"{started.bundles:,} {_plural(started.bundles, 'bundle')}"
        gaps = f"{started.gaps:,} {_plural(started.gaps, 'gap')}"
        return (
            f"<p><bdi>{self._text(report.overview.name)}</bdi>, {STARTED}: {bundles}, {gaps}, "
            f"{show_duration(started.seconds)}. Run the interrupted command again, or: "
            f"{self._command(started.command)}</p>"
        )

    def _gap(self, report: ExportReport, gap: Gap) -> str:
        command = self._command(gap.command) if gap.command else why_no_command(report)
        name = self._text(report.overview.name)
        return (
            f"<tr><td><bdi>{name}</bdi></td><td>{show(gap.range.start)}</td><td>{show(gap.range.end)}</td>"
            f"<td>{show_duration(gap.range.seconds)}</td><td>{reason_words(gap, report.due)}</td>"
            f"<td>{command}</td></tr>"
        )

    def _actions(self) -> Iterator[tuple[str, str]]:
        """Yield what to do about what is no gap, with the command."""
        judged = [one for one in self._report.exports if one.due is not None]
        altered = sum(len(one.altered) for one in judged)
        kept = sum(record.kept for one in judged for record in one.open_parked)
        overlaps = sum(len(one.overview.overlaps) for one in judged)
        if altered:
            text = "Export archives again that were deleted or changed"
            yield f"{text} ({altered:,})", self._again("verify", "--repair")
        if kept:
            text = "Replace kept archives, if their rows were deleted on purpose"
            yield f"{text} ({kept:,})", self._again("retry", "--accept-fewer")
        if overlaps:
            yield f"See which archives overlap ({overlaps:,})", self._again("verify")
        for one in [shortfall for report in judged for shortfall in report.shortfalls][:SHORTFALLS_IN_HTML]:
            export, span = one.bundle.export, one.bundle.range
            command = self._again("accept", show(span.start), show(span.end), "--export", export, "--why", "REASON")
            yield f"If it is known that {export} has {one.text}, accept that", command

    def _command(self, command: str) -> str:
        return f'<code class="command">{self._text(command)}</code>'

    def _text(self, text: str) -> str:
        return escape(self._clean(text))


def why_no_command(report: ExportReport) -> str:
    """Say why no command fills a gap of an export."""
    return "none: the export is not configured any more" if report.due is None else "none: the run in progress does it"


def _figures(report: ExportReport) -> Iterator[tuple[str, str]]:
    """Yield the figures of an export, each with its label."""
    overview, covered = report.overview, report.overview.covered
    empty = f" ({overview.empty:,} without rows)" if overview.empty else ""
    yield "Stored", f"{overview.stored:,} {_plural(overview.stored, 'bundle')}{empty}"
    yield "Rows", f"{overview.rows:,}"
    yield "Size", show_bytes(overview.bytes)
    if covered:
        yield "Covers", f"{show(covered[0].start)} to {show(covered[-1].end)}"
    if report.complete_until is not None:
        yield "Complete up to", show(report.complete_until)
    if report.due is not None:
        yield "Settled up to", show(report.due.settled)
    missing = sum(gap.range.seconds for gap in report.gaps)
    yield "Missing", show_duration(missing) if missing else "nothing"
    yield from _counts(("Parked", report.open_parked), ("Altered", report.altered))
    yield from _counts(("Times with few rows", report.shortfalls))
    yield from _counts(("Accepted gaps", report.accepted), ("Not settled yet", overview.unsettled))
    if overview.in_progress:
        yield "In progress", f"{overview.in_progress:,} {_plural(overview.in_progress, 'bundle')}"


def _counts(*counted: tuple[str, Sequence[object]]) -> Iterator[tuple[str, str]]:
    yield from ((label, f"{len(items):,}") for label, items in counted if items)


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"
