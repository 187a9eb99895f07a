"""The data that the page's script draws, in a compact form: 20,000 bundles take about 200 kB.

1. Archives are columns. `runs` describes their ranges, `[skipped seconds, width, count]`: so many archives of this
   width follow each other, after a gap of so many seconds. `rows` has their rows, `flags` a character each.
2. Everything else is a span, `[skipped seconds, seconds, kind, text]`; `kind` is an index into `KINDS`, and `text` into
   `texts`. The script cuts long spans at the grid lines of the width.
3. A mark is `[start, end, kind, text]`: stored time that has few rows, whether the user has accepted that or not.
4. Commands differ mostly in their dates. `commands` has each command once: as a text, or, if it has the dates of its
   gap, as the two texts before and after them.
5. All text is foreign: it is cleaned here, and the script never treats it as HTML.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from asyncexport.core.bundles import DAY, HOUR, Range, show, show_day_or_time
from asyncexport.core.health.export_report import ExportReport
from asyncexport.core.health.missing import Coverage, Gap
from asyncexport.core.health.problems import why_parked
from asyncexport.core.health.records import HourCount, RunRecord
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.monitor.page_days import days_of, usual_rows
from asyncexport.monitor.page_text import why_no_command

KINDS = tuple(Coverage)
"""The kinds of spans and gaps, in the order of their index."""

EMPTY, REFRESHED, UNSETTLED, KEPT, ALTERED, CHANGED = 1, 2, 4, 8, 16, 32
"""The flags of an archive: no rows; exported again; not settled; kept although its new export has fewer rows; altered
on disk; replaced when it was exported again."""

FEW_ROWS = "few"
"""The kind of a mark on time with far fewer rows than usual."""

MOST_TEXTS = 300
"""Distinct reasons that the page has; `status --json` has all."""

MOST_RUNS = 60

HOURLY_SECONDS = 10 * DAY
"""Requests are counted by hour if they span at most this long, else by day."""

KINDS_OF_REQUESTS = ("create", "poll", "list", "results", "other")


class Texts:
    """Collects texts, so that each is written once.

    Args:
        clean: Makes foreign text printable and hides secrets in it.
        most: How many texts are collected; None if there is no limit.

    Attributes:
        all: The texts, cleaned; the first one is empty. A text of several parts is a list.
    """

    def __init__(self, clean: Callable[[str], str], *, most: int | None = None) -> None:
        self._clean = clean
        self._most = most
        self._known: dict[tuple[str, ...], int] = {("",): 0}
        self.all: list[str | list[str]] = [""]

    def index(self, *parts: str) -> int:
        """Return the index of a text; that of the empty one if there are too many."""
        known = self._known.get(parts)
        if known is None:
            if self._most is not None and len(self.all) > self._most:
                return 0
            known = self._known[parts] = len(self.all)
            cleaned = [self._clean(part) for part in parts]
            self.all.append(cleaned if len(cleaned) > 1 else cleaned[0])
        return known


def export_data(
    report: ExportReport, archives: Sequence[BundleRecord], *, clean: Callable[[str], str]
) -> dict[str, Any]:
    """Return what the script needs of one export (rules 1 to 5)."""
    overview = report.overview
    days = days_of(report, archives)
    texts, commands = Texts(clean, most=MOST_TEXTS), Texts(clean)
    return {
        "name": clean(overview.name),
        "width": _width(archives),
        "runs": list(_runs(archives)),
        "rows": [one.stored.rows for one in archives if one.stored],
        "flags": _flags(report, archives),
        "marks": list(_marks(report, texts)),
        "spans": list(_spans(report, texts)),
        "gaps": list(_gaps(report.gaps, commands)),
        "texts": texts.all,
        "commands": commands.all,
        "configured": report.due is not None,
        "since": report.due.since if report.due else None,
        "no_command": why_no_command(report),
        "first_day": next(iter(days), 0),
        "days": [[one.rows, one.archives, one.stored_seconds, one.missing_seconds] for one in days.values()],
        "usual": usual_rows(days),
    }


def _width(archives: Sequence[BundleRecord]) -> int:
    """Return the width in which missing time is drawn: the one of most archives."""
    widths = Counter(one.bundle.range.seconds for one in archives)
    return widths.most_common(1)[0][0] if widths else HOUR // 2


def _runs(archives: Sequence[BundleRecord]) -> Iterator[list[int]]:
    """Yield the ranges of archives that are in order of their start (rule 1)."""
    reached, skips = 0, []
    for one in archives:
        skips.append((one.bundle.range.start - reached, one.bundle.range.seconds))
        reached = one.bundle.range.end
    at = 0
    while at < len(skips):
        skipped, width = skips[at]
        count = 1
        while at + count < len(skips) and skips[at + count] == (0, width):
            count += 1
        yield [skipped, width, count]
        at += count


def _flags(report: ExportReport, archives: Sequence[BundleRecord]) -> str:
    """Return a character for each archive: the sum of its flags, counted from "0"."""
    unsettled = {one.bundle for one in report.overview.unsettled}
    altered = {one.record.bundle for one in report.altered}
    flags = []
    for one in archives:
        if one.stored is None:
            continue
        again = one.revision if isinstance(one.state, Stored) else one.revision - 1
        flag = EMPTY * (one.stored.rows == 0) | UNSETTLED * (one.bundle in unsettled)
        flag |= KEPT * one.kept | ALTERED * (one.bundle in altered) | REFRESHED * (again > 0)
        flag |= CHANGED * (again > 0 and one.stored.written_by in (None, again))
        flags.append(chr(ord("0") + flag))
    return "".join(flags)


def _spans(report: ExportReport, texts: Texts) -> Iterator[list[int]]:
    """Yield what is not stored, in order of its start (rule 2)."""
    found: list[tuple[Range, Coverage, str]] = []
    for span, coverage in report.pieces:
        if coverage is Coverage.ACCEPTED:
            reasons = (one.reason for one in report.accepted if _meet(one.bundle.range, span))
            found.append((span, coverage, next(reasons, "")))
        elif coverage in (Coverage.NEVER_ASKED, Coverage.BEHIND, Coverage.NOT_DUE):
            found.append((span, coverage, ""))
    # Parked bundles that were accepted are drawn as accepted.
    found += [
        (one.bundle.range, Coverage.PARKED, _parked(report, one)) for one in report.open_parked if one.stored is None
    ]
    found += [
        (one.bundle.range, Coverage.IN_PROGRESS, "")
        for one in report.overview.unfinished
        if not one.parked and one.stored is None
    ]
    reached = 0
    for span, coverage, text in sorted(found, key=lambda one: (one[0], one[1])):
        yield [span.start - reached, span.seconds, KINDS.index(coverage), texts.index(text)]
        reached = span.end


def _marks(report: ExportReport, texts: Texts) -> Iterator[list[Any]]:
    """Yield times with few rows that are stored (rule 3)."""
    for one in report.shortfalls:
        yield [one.bundle.range.start, one.bundle.range.end, FEW_ROWS, texts.index(one.text)]
    for gap in report.accepted:
        yield [gap.bundle.range.start, gap.bundle.range.end, Coverage.ACCEPTED, texts.index(gap.reason)]


def _parked(report: ExportReport, record: BundleRecord) -> str:
    retried = report.overview.next_try(record)
    later = "" if retried is None else f"; retried by the first nightly run after {show(retried)}"
    return f"{why_parked(record)}{later}"


def _gaps(gaps: Sequence[Gap], commands: Texts) -> Iterator[list[int]]:
    """Yield the gaps, `[skipped seconds, seconds, kind, command]` (rule 4)."""
    reached = 0
    for gap in gaps:
        dates = f"--start {show_day_or_time(gap.range.start)} --end {show_day_or_time(gap.range.end)}"
        command = commands.index(*gap.command.split(dates, maxsplit=1))
        yield [gap.range.start - reached, gap.range.seconds, KINDS.index(gap.reason), command]
        reached = gap.range.end


def _meet(one: Range, other: Range) -> bool:
    return one.start < other.end and other.start < one.end


def run_data(runs: Sequence[RunRecord], *, clean: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return the last runs, the newest last."""
    return [
        {
            "command": clean(run.command),
            "host": clean(run.host),
            "began": run.began,
            "ended": run.ended,
            "code": run.exit_code,
            "error": clean(run.error),
            "running": run.running,
            "stored": _count(run, "bundles", "stored"),
            "parked": _count(run, "bundles", "failed"),
            "requests": sum(_counts(run, "requests").values()),
        }
        for run in runs[-MOST_RUNS:]
    ]


def _counts(run: RunRecord, key: str) -> dict[str, int]:
    """Return counts of a run's summary; the ledger may be of an earlier version, so nothing is taken for granted."""
    found = run.counts.get(key)
    values = found.items() if isinstance(found, dict) else ()
    return {name: count for name, count in values if isinstance(count, int)}


def _count(run: RunRecord, key: str, name: str) -> int:
    return _counts(run, key).get(name, 0)


def request_data(hours: Sequence[HourCount]) -> dict[str, Any]:
    """Return the requests over time: `[start, one count per kind, those answered with 429, those that failed]`."""
    unit = HOUR if not hours or hours[-1].began - hours[0].began <= HOURLY_SECONDS else DAY
    counts = []
    for at, group in groupby(hours, key=lambda one: one.began // unit * unit):
        kinds, refused, failed = Counter[str](), 0, 0
        for one in group:
            kinds[one.kind] += one.requests
            refused += one.requests * (one.status == 429)
            failed += one.requests * (one.status != 429 and not 200 <= one.status < 300)
        counts.append([at, *(kinds[kind] for kind in KINDS_OF_REQUESTS), refused, failed])
    return {"unit": unit, "kinds": KINDS_OF_REQUESTS, "counts": counts}
