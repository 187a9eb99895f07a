"""The closing text of a run: how much is done, where the files are, and how to view one."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asyncexport.core.bundles import Bundle, Range, show
from asyncexport.core.exits import Exit
from asyncexport.core.refreshed import Refreshed
from asyncexport.core.summary import Summary, Tally, lost_reason
from asyncexport.core.text import show_bytes, show_duration
from asyncexport.display.audit_text import audit_lines, compared_nothing
from asyncexport.display.formatting import count_of, plain, show_count
from asyncexport.display.load_text import load_lines
from asyncexport.display.mirror_text import mirror_lines
from asyncexport.display.progress_text import covered

MOST_PROBLEMS = 10
"""Lines about parked bundles; `status` and `--json` list all."""

FIRST_WORDS = {
    Exit.DONE: "done",
    Exit.PARTIAL: "finished, but not everything is done",
    Exit.TIME_UP: "stopped by --max-duration; the state is saved",
    Exit.INTERRUPTED: "stopped by Ctrl-C; the state is saved",
    Exit.TERMINATED: "stopped by SIGTERM; the state is saved",
}

STOPPED = (Exit.TIME_UP, Exit.INTERRUPTED, Exit.TERMINATED)
"""The exit codes of runs that were stopped, perhaps before it was known whether there was anything to do."""

NOT_SETTLED = "finished up to what is settled; the end that was asked for is not settled yet"

NOTHING_TO_COMPARE = "finished, but nothing was compared"

DAMAGED_ARCHIVES = "finished, but archives are damaged"

FEW_ROWS = "finished, but rows seem to be missing"

BY_HANG_UP = "stopped by SIGHUP because its terminal was closed; the state is saved"

BY_AN_ERROR = "stopped by an error"
"""The error itself is printed on stderr."""


@dataclass(frozen=True, slots=True)
class MergedProblem:
    """Adjacent bundles of an export that have the same problem.

    Attributes:
        export: The export's name.
        range: The range of all of them.
        count: The number of bundles.
        reason: The problem.
        next_try: When a pause ends after which nightly runs retry all of them; None if they do not pause.
    """

    export: str
    range: Range
    count: int
    reason: str
    next_try: float | None = None

    def __str__(self) -> str:
        """Return it for messages."""
        return f"{self.export} {self.range}{self.details}"

    @property
    def details(self) -> str:
        """What follows the range in a message."""
        count = "" if self.count == 1 else f" ({show_count(self.count)} bundles)"
        later = "" if self.next_try is None else f"; retried by the first nightly run after {show(self.next_try)}"
        return f"{count}: {self.reason}{later}"


def merged_problems(problems: Iterable[tuple[Bundle, str, float | None]]) -> list[MergedProblem]:
    """Return the problems of bundles in order, with adjacent bundles that have the same problem as one.

    Args:
        problems: Bundles, each with its problem and the time after which nightly runs retry it, if it pauses. These
            times may differ: the pieces of a bundle are parked one after the other.
    """
    found: list[MergedProblem] = []
    for bundle, reason, due in sorted(problems, key=lambda one: one[0]):
        last, own = found[-1] if found else None, bundle.range
        same = (bundle.export, own.start, reason, due is None)
        if last and (last.export, last.range.end, last.reason, last.next_try is None) == same:
            latest = None if due is None or last.next_try is None else max(due, last.next_try)
            found[-1] = MergedProblem(last.export, Range(last.range.start, own.end), last.count + 1, reason, latest)
        else:
            found.append(MergedProblem(bundle.export, own, 1, reason, due))
    return found


def closing_lines(summary: Summary, *, look: str = "", hung_up: bool = False) -> list[str]:
    """Return the summary as lines of text.

    Args:
        summary: The summary of the run.
        look: A command that shows the beginning of a file; "" for none.
        hung_up: Whether the run was stopped by SIGHUP, which a terminal sends when it is closed.
    """
    tally = summary.tally
    lines = [_first_line(summary, hung_up=hung_up)]
    if tally.stored or sum(summary.requests.values()):
        lines.append(f"{_data(summary)} in {show_duration(summary.seconds)}, with {_requests(summary)}")
    else:
        lines.append(f"no request was {'needed' if summary.exit_code is Exit.DONE else 'sent'}")
    lines += _ranges(tally)
    if summary.joined is not None:
        lines.append(plain(f"waited for another run, which held the directory: {summary.joined}"))
    if tally.possible_duplicates:
        lines.append(
            f"{count_of(tally.possible_duplicates, 'create', 'creates')} got no answer: the service may have run the "
            "same export twice"
        )
    if tally.refreshed.bundles:
        lines.append(_refreshed(tally.refreshed, word="repaired" if summary.command == "verify" else "refreshed"))
    lines += audit_lines(tally.audit)
    parked = merged_problems((bundle, why, tally.next_tries.get(bundle)) for bundle, why in tally.parked.items())
    lines += [plain(f"parked: {one}") for one in parked[:MOST_PROBLEMS]]
    if left := sum(one.count for one in parked[MOST_PROBLEMS:]):
        lines.append(f"parked: {show_count(left)} more; `asyncexport status` lists all")
    lost = [_problem("fewer rows", bundle, lost_reason(fewer)) for bundle, fewer in sorted(tally.losses.items())]
    lines += lost[:MOST_PROBLEMS]
    if len(lost) > MOST_PROBLEMS:
        lines.append(f"fewer rows: {show_count(len(lost) - MOST_PROBLEMS)} more; --json lists all")
    if tally.shortfalls_fail:
        lines += _shortfalls(tally)
    lines += summary.notes
    if tally.stored or tally.stored_before:
        lines.append(f"the files are in {plain(summary.directory)}")
    if look:
        lines.append(f"view one: {look}")
    return lines


def closing_line(summary: Summary) -> str:
    """Return the result of a run that did not end as it should in one line, with the first problem."""
    tally = summary.tally
    line = f"{summary.command}, exit code {int(summary.exit_code)}: {_first_line(summary, hung_up=False)}"
    reasons = {bundle: lost_reason(fewer) for bundle, fewer in tally.fewer.items()} | tally.parked
    if reasons:
        first = min(reasons)
        line += f"; {_problem('first problem', first, reasons[first])}"
    elif tally.audit.damaged:
        line += f"; {audit_lines(tally.audit)[1]}"
    elif tally.shortfalls:
        line += f"; {_shortfalls(tally)[0]}"
    elif summary.mirror is not None and summary.mirror.exit_code() is not Exit.DONE:
        line += "; " + "; ".join(mirror_lines(summary)[:2])
    elif summary.load is not None:
        line += "; load: " + "; ".join(load_lines(summary, directory="")[:2])
    return f"{line}; `asyncexport status` shows details"


def look_command(path: Path) -> str:
    """Return a one-line shell command that shows the beginning of an archive."""
    # The first line is the first row of NDJSON and the header of CSV. A JSON array is one long line.
    short = "head -c 500" if path.name.endswith(".json.gz") else "head -n 1"
    return f"gzip -dc {shlex.quote(str(path))} | {short}"


def _shortfalls(tally: Tally) -> list[str]:
    found = [f"few rows: {plain(one.bundle.export)}: {one.text}" for one in tally.shortfalls]
    more = len(found) - MOST_PROBLEMS
    return found[:MOST_PROBLEMS] + ([f"few rows: {show_count(more)} more; --json lists all"] if more > 0 else [])


def _first_line(summary: Summary, *, hung_up: bool) -> str:
    """Say how the run ended, and how many bundles are stored."""
    tally = summary.tally
    # A refused export does not stop the run: the other exports continue.
    stopped = summary.error is not None and summary.error not in tally.refusals.values()
    code = summary.exit_code
    if (summary.load or summary.mirror) is not None and not stopped and code not in STOPPED:
        # The load and the mirror have lines of their own.
        code = tally.exit_code()
    first = BY_AN_ERROR if stopped else FIRST_WORDS.get(code, BY_AN_ERROR)
    if hung_up and code is Exit.TERMINATED:
        first = BY_HANG_UP
    if summary.ends_unsettled:
        first = NOT_SETTLED
    if compared_nothing(summary):
        first = NOTHING_TO_COMPARE
    if code is Exit.PARTIAL and not (tally.failed or tally.unfinished or tally.losses or stopped):
        first = DAMAGED_ARCHIVES if tally.audit.damaged else FEW_ROWS
    return f"{first}: {_bundles(summary)}"


def _bundles(summary: Summary) -> str:
    tally = summary.tally
    if not tally.planned:
        is_known = summary.exit_code not in STOPPED or summary.ends_unsettled or compared_nothing(summary)
        return "nothing to do" if is_known else "no work had begun"
    have = tally.stored_before + tally.stored
    parts = [f"{show_count(have)} of {show_count(tally.planned)} bundles stored"]
    if tally.stored_before:
        parts.append(f"{show_count(tally.stored_before)} of them by earlier runs")
    if tally.empty:
        parts.append(f"{show_count(tally.empty)} {'new ones' if tally.stored_before else 'of them'} without rows")
    if tally.failed:
        parts.append(f"{show_count(tally.failed)} parked")
    if tally.unfinished:
        parts.append(f"{show_count(tally.unfinished)} left")
    return ", ".join(parts)


def _ranges(tally: Tally) -> list[str]:
    """Say where the ranges end that end where settled data does."""
    texts = {name: covered(one)[0] for name, one in tally.ranges.items() if one.is_open}
    if len(set(texts.values())) == 1:
        return [f"range: {next(iter(texts.values()))}"]
    return [plain(f"range of {name}: {text}") for name, text in texts.items()]


def _refreshed(refreshed: Refreshed, *, word: str) -> str:
    """Describe the bundles that were exported again."""
    text = (
        f"{word}: {count_of(refreshed.bundles, 'bundle', 'bundles')}, "
        f"{show_count(refreshed.changed)} of them changed; {count_of(refreshed.rows_added, 'row', 'rows')} added, "
        f"{show_count(refreshed.rows_removed)} removed"
    )
    return text + (f"; {count_of(refreshed.kept, 'archive', 'archives')} kept" if refreshed.kept else "")


def _problem(kind: str, bundle: Bundle, reason: str) -> str:
    return plain(f"{kind}: {bundle.export} {show(bundle.range.start)}: {reason}")


def _data(summary: Summary) -> str:
    return f"{show_count(summary.tally.rows)} rows, {show_bytes(summary.tally.bytes)}"


def _requests(summary: Summary) -> str:
    sent = {kind: count for kind, count in summary.requests.items() if count}
    text = count_of(sum(sent.values()), "request", "requests")
    # The only other request of a run is `/me`.
    checks = sent.pop("other", 0)
    kinds = [f"{show_count(count)} {kind}" for kind, count in sent.items()]
    kinds += [count_of(checks, "key check", "key checks")] if checks else []
    text += f" ({', '.join(kinds)})"
    return text + (f", {show_count(summary.refused)} of them refused (429)" if summary.refused else "")
