"""The lines of the live view, computed from a snapshot of the run.

On a narrow terminal the lines become shorter and keep what matters most. Down to 40 columns only the heading and the
end of a problem are cut off; below that, the end of every line is.
"""

import textwrap
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rich.console import OverflowMethod
from rich.text import Text

from asyncexport.core.summary import Snapshot
from asyncexport.core.text import show_duration
from asyncexport.display.formatting import plain, show_count
from asyncexport.display.progress_text import Wordings, budget, bundles, covered, data, files, fitting, outage, when

RATE_SECONDS = 300.0
"""Rates are averages over the last five minutes; averages since the start would be dominated by the first burst."""

LABEL = 10
"""Width of the labels on the left."""

MOST_PROBLEMS = 3

NARROW = 60
"""A terminal with fewer columns is narrow: a problem may take more lines."""

PROBLEM_LINES, NARROW_PROBLEM_LINES = 2, 4
"""Maximum number of lines per problem."""

A_WHILE_SECONDS = 60.0
"""A problem older than this is shown with its age."""

FINE, COARSE = "━╍─", "#+-"
"""The characters of the bar for stored, in progress and to do: for terminals that have them, and for others."""


@dataclass(slots=True)
class Rates:
    """Recent rates, in bytes and rows per second."""

    seen: deque[tuple[float, int, int]] = field(default_factory=lambda: deque([(0.0, 0, 0)]))

    def take(self, snapshot: Snapshot) -> tuple[float, float]:
        """Add a snapshot and return the current rates, in bytes and rows per second."""
        seen = self.seen
        if snapshot.seconds - seen[-1][0] >= 1:
            seen.append((snapshot.seconds, snapshot.bytes + snapshot.received, snapshot.rows))
        while len(seen) > 2 and seen[1][0] <= snapshot.seconds - RATE_SECONDS:
            seen.popleft()
        since, size, rows = seen[0]
        seconds = max(snapshot.seconds - since, 1.0)
        # Received bytes decrease when a partial file is discarded.
        return max(0, snapshot.bytes + snapshot.received - size) / seconds, (snapshot.rows - rows) / seconds


def draw(
    snapshot: Snapshot, heading: str, *, width: int, now: float, rates: tuple[float, float], marks: str = FINE
) -> list[Text]:
    """Return the lines of the live view, none wider than `width`."""
    size, rows = rates
    cut: OverflowMethod = "ellipsis" if marks is FINE else "crop"
    lines = [
        _heading(plain(heading), _passed(snapshot.seconds), width, cut=cut),
        *([_line("range", covered(snapshot.covered), width)] if snapshot.covered else []),
        _bar(snapshot, width, marks),
        _bundles(snapshot, width),
        _line("files", files(snapshot), width),
        _line("budget", budget(snapshot), width),
        _line("data", data(snapshot, bytes_a_second=size, rows_a_second=rows), width),
        _end(snapshot, now, width),
        *(line for problem in _different(_dated(snapshot)) for line in _problem(problem, width)),
    ]
    for line in lines:
        line.truncate(width, overflow=cut)
    return lines


def _bar(snapshot: Snapshot, width: int, marks: str) -> Text:
    planned = max(snapshot.planned, 1)
    share = snapshot.have / planned
    # Rounded down, so that 100 % means all of them.
    figures = f"  {show_count(snapshot.have)} of {show_count(snapshot.planned)}  {int(share * 1000) / 10:5.1f}%"
    columns = max(width - len(figures), 0)
    stored = int(columns * share)
    flying = min(columns - stored, round(columns * (snapshot.running + snapshot.fetching) / planned))
    return Text.assemble(
        (marks[0] * stored, "green"),
        (marks[1] * flying, "cyan"),
        (marks[2] * (columns - stored - flying), "dim"),
        figures if columns else figures.strip(),
    )


def _bundles(snapshot: Snapshot, width: int) -> Text:
    """Return the line about bundles, with parked ones in red."""
    line = _line("bundles", bundles(snapshot), width)
    if snapshot.parked:
        line.highlight_regex(r"[0-9,]+ parked$", "red")
    return line


def _end(snapshot: Snapshot, now: float, width: int) -> Text:
    if snapshot.down_seconds is not None:
        return _line("service", outage(snapshot.down_seconds), width, style="red")
    if snapshot.expected_seconds is None:
        return _line("end", ("not known yet",), width, style="dim")
    return _line("end", when(snapshot.expected_seconds, now), width)


def _dated(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield each problem, and its age if it is old."""
    for problem, age in zip(snapshot.problems, snapshot.problem_ages, strict=True):
        yield problem, f" ({show_duration(age)} ago)" if age >= A_WHILE_SECONDS else ""


def _different(problems: Iterable[tuple[str, str]]) -> list[str]:
    """Return the newest problems, each reason only once: many bundles may have the same problem."""
    by_reason: dict[str, str] = {}
    for problem, when_seen in problems:
        reason = problem.partition(": ")[2]
        by_reason.pop(reason, None)
        by_reason[reason] = problem + when_seen
    return list(by_reason.values())[-MOST_PROBLEMS:]


def _problem(problem: str, width: int) -> Iterator[Text]:
    """Return a problem in several lines if necessary, because the reason is at its end."""
    most = PROBLEM_LINES if width >= NARROW else NARROW_PROBLEM_LINES
    pieces = textwrap.wrap(plain(problem), max(width - LABEL, 20)) or [""]
    shown = [*pieces[: most - 1], " ".join(pieces[most - 1 :])]
    for number, piece in enumerate(one for one in shown if one or not pieces[0]):
        yield _labelled("" if number else "problem", Text(piece, style="yellow"))


def _passed(seconds: float) -> str:
    return show_duration(int(seconds)) if seconds >= 1 else "0 s"


def _line(label: str, wordings: Wordings, width: int, *, style: str = "") -> Text:
    return _labelled(label, Text(fitting(wordings, width - LABEL), style=style))


def _labelled(label: str, what: Text) -> Text:
    return Text.assemble((label.ljust(LABEL), "dim"), what)


def _heading(what: str, passed: str, width: int, *, cut: "OverflowMethod") -> Text:
    """Return the command on the left, truncated if necessary, and its duration on the right."""
    left, right = Text(what, style="bold"), Text(passed, style="dim")
    left.truncate(max(width - right.cell_len - 2, 0), overflow=cut)
    return Text.assemble(left, " " * max(width - left.cell_len - right.cell_len, 0), right)
