"""What a load did, in words and as JSON."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from asyncexport.core.summary import Summary
from asyncexport.core.text import show_bytes, show_duration
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.load_events import DayFailed, LoadEvent
from asyncexport.core.warehouse.load_tally import LoadTally
from asyncexport.display.formatting import count_of, plain, show_count

MOST_FAILURES = 10
"""Failures with different reasons that are shown; `--json` lists all days."""


def load_record(event: LoadEvent) -> dict[str, Any]:
    """Return a day that was loaded or failed as a JSON object."""
    counts = event.counts
    record = {
        "type": "day",
        "export": counts.export,
        "date": counts.date,
        "loaded": not isinstance(event, DayFailed),
        "rows": counts.rows,
        "rescued": counts.rescued,
        "quarantined": counts.quarantined,
        "bytes": counts.bytes,
        "seconds": round(counts.seconds, 2),
        "exact": dict(counts.exact),
        "left_out": dict(counts.left_out),
        "sinks": list(counts.sinks),
    }
    if isinstance(event, DayFailed):
        record |= {"reason": str(event.error), "failed_sinks": dict(event.failed_sinks)}
    return record


def days_text(dates: Sequence[str]) -> str:
    """Return some days, in order, as a short text: the only one, or the first, the last and their number."""
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]} ({show_count(len(dates))} days)"


def load_lines(summary: Summary, *, directory: str) -> list[str]:
    """Return what a load did as lines of text; `directory` is the load directory."""
    tally = summary.load
    if tally is None:
        return []
    lines = [_first_line(summary, tally)]
    if tally.loaded or tally.rows:
        made = f", {show_bytes(tally.bytes)} of Parquet" if tally.bytes else ""
        lines.append(f"{count_of(tally.rows, 'row', 'rows')}{made}, in {show_duration(tally.seconds)}")
    if tally.rescued:
        rows = count_of(tally.rescued, "row has", "rows have")
        lines.append(f"rescued: {rows} a value that does not fit its column; it is kept in _rescued")
    if tally.quarantined:
        odd = count_of(tally.quarantined, "line that is no row is", "lines that are no rows are")
        lines.append(f"quarantined: {odd} kept in {plain(directory)}/TABLE.quarantine")
    if tally.left_out:
        kinds = ", ".join(f"{show_count(count)} {plain(kind)}" for kind, count in sorted(tally.left_out.items()))
        lines.append(f"left out of the tables in the shape of Data Direct: {kinds}")
    failures = [plain(one) for one in _failures(tally)]
    lines += failures[:MOST_FAILURES]
    if len(failures) > MOST_FAILURES:
        lines.append(f"failed: {show_count(len(failures) - MOST_FAILURES)} more; --json lists all")
    said = {str(error) for one in tally.failures for error in one.errors}
    unfinished = [(name, str(error)) for name, error in tally.unfinished_sinks.items() if str(error) not in said]
    lines += [plain(f"not up to date: {name}: {error}") for name, error in unfinished]
    lines += [plain(f"the load ended early: {tally.error}")] if tally.error is not None else []
    lines += [plain(note) for note in tally.notes]
    if tally.loaded or tally.already:
        lines.append(f"the tables are in {' and '.join(_places(tally, directory))}")
    return lines


def _places(tally: LoadTally, directory: str) -> list[str]:
    """Return where the tables are: the load directory for files, and each database by its name."""
    files = {SinkName.PARQUET.value, SinkName.DUCKDB.value}
    databases = [name for name in tally.sinks if name not in files]
    return [plain(directory)] * (not files.isdisjoint(tally.sinks)) + databases


def load_hints(summary: Summary) -> list[str]:
    """Say what to do about days that failed or are left."""
    tally = summary.load
    if tally is None or summary.error is not None:
        return []
    errors = [error for one in tally.failures for error in one.errors]
    errors += [*tally.unfinished_sinks.values(), *([] if tally.error is None else [tally.error])]
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    if tally.unfinished and summary.command == "load":
        hints["run the same command again to resume"] = None
    return list(hints)


def _first_line(summary: Summary, tally: LoadTally) -> str:
    stopped = tally.is_stopped or tally.error is not None or summary.error is not None
    if not tally.days:
        return "stopped before a day was loaded" if stopped else "nothing to load: there are no archives in the range"
    parts = [f"{count_of(tally.loaded, 'day', 'days')} loaded"]
    parts += [f"{show_count(tally.already)} loaded before"] if tally.already else []
    parts += [f"{show_count(tally.failed)} failed"] if tally.failed else []
    parts += [f"{show_count(tally.unfinished)} left"] if tally.unfinished else []
    return f"{'stopped: ' if stopped else ''}{', '.join(parts)}"


def _failures(tally: LoadTally) -> Iterator[str]:
    """Yield the failed days, for each destination those with the same reason together."""
    reasons = sorted((one.counts.export, str(error), one.counts.date) for one in tally.failures for error in one.errors)
    for (export, reason), days in groupby(reasons, key=lambda one: one[:2]):
        yield f"failed: {export} {days_text([date for *_, date in days])}: {reason}"
