"""What the progress of a run looks like: a few lines from a snapshot, by themselves a function of numbers.

On a narrow terminal each line says less, and what matters most is left: down to 40 columns nothing is cut off but the
heading and a problem's end. Below that, the end of each line is.
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
from asyncexport.display.progress_text import Wordings, away, budget, bundles, data, files, fitting, when

RATE_SECONDS = 300.0
"""Rates are those of the last five minutes: since the beginning, the first burst would colour all that follows."""

LABEL = 10
"""Columns of the words at the left."""

MOST_PROBLEMS = 3

NARROW = 60
"""Columns; below that a problem may take more lines."""

PROBLEM_LINES, NARROW_PROBLEM_LINES = 2, 4
"""Lines that a problem may take."""

A_WHILE_SECONDS = 60.0
"""A problem older than this is told with its age."""

FINE, COARSE = "━╍─", "#+-"
"""The bar's parts, stored, under way and to come: for terminals that have these letters, and for others."""


@dataclass(slots=True)
class Rates:
    """Bytes and rows a second, lately."""

    seen: deque[tuple[float, int, int]] = field(default_factory=lambda: deque([(0.0, 0, 0)]))

    def take(self, snapshot: Snapshot) -> tuple[float, float]:
        """Take in where the run stands; bytes and rows a second."""
        seen = self.seen
        if snapshot.seconds - seen[-1][0] >= 1:
            seen.append((snapshot.seconds, snapshot.bytes + snapshot.received, snapshot.rows))
        while len(seen) > 2 and seen[1][0] <= snapshot.seconds - RATE_SECONDS:
            seen.popleft()
        since, size, rows = seen[0]
        seconds = max(snapshot.seconds - since, 1.0)
        # What came of a file that is thrown away is taken back.
        return max(0, snapshot.bytes + snapshot.received - size) / seconds, (snapshot.rows - rows) / seconds


def draw(
    snapshot: Snapshot, heading: str, *, width: int, now: float, rates: tuple[float, float], marks: str = FINE
) -> list[Text]:
    """The lines, none wider than `width`."""
    size, rows = rates
    cut: OverflowMethod = "ellipsis" if marks is FINE else "crop"
    lines = [
        _heading(plain(heading), _passed(snapshot.seconds), width, cut=cut),
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
    # Rounded down: 100 % means all of them.
    told = f"  {show_count(snapshot.have)} of {show_count(snapshot.planned)}  {int(share * 1000) / 10:5.1f}%"
    columns = max(width - len(told), 0)
    stored = int(columns * share)
    flying = min(columns - stored, round(columns * (snapshot.running + snapshot.fetching) / planned))
    return Text.assemble(
        (marks[0] * stored, "green"),
        (marks[1] * flying, "cyan"),
        (marks[2] * (columns - stored - flying), "dim"),
        told if columns else told.strip(),
    )


def _bundles(snapshot: Snapshot, width: int) -> Text:
    """Parked bundles in red."""
    line = _line("bundles", bundles(snapshot), width)
    if snapshot.parked:
        line.highlight_regex(r"[0-9,]+ parked$", "red")
    return line


def _end(snapshot: Snapshot, now: float, width: int) -> Text:
    if snapshot.down_seconds is not None:
        return _line("service", away(snapshot.down_seconds), width, style="red")
    if snapshot.expected_seconds is None:
        return _line("end", ("not known yet",), width, style="dim")
    return _line("end", when(snapshot.expected_seconds, now), width)


def _dated(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Each problem, and when it was where that is a while ago."""
    for problem, age in zip(snapshot.problems, snapshot.problem_ages, strict=True):
        yield problem, f" ({show_duration(age)} ago)" if age >= A_WHILE_SECONDS else ""


def _different(problems: Iterable[tuple[str, str]]) -> list[str]:
    """The last ones, each reason once: a hundred bundles may meet the same trouble."""
    by_reason: dict[str, str] = {}
    for problem, when_seen in problems:
        reason = problem.partition(": ")[2]
        by_reason.pop(reason, None)
        by_reason[reason] = problem + when_seen
    return list(by_reason.values())[-MOST_PROBLEMS:]


def _problem(problem: str, width: int) -> Iterator[Text]:
    """In several lines if need be: the reason stands at its end."""
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
    """What runs at the left edge, and for how long at the right one; what runs is cut where there is little room."""
    left, right = Text(what, style="bold"), Text(passed, style="dim")
    left.truncate(max(width - right.cell_len - 2, 0), overflow=cut)
    return Text.assemble(left, " " * max(width - left.cell_len - right.cell_len, 0), right)
