"""What a mirror did, in words and as JSON."""

from itertools import islice
from typing import Any

from asyncexport.core.mirror.tally import MirrorEvent, MirrorTally, Outcome
from asyncexport.core.summary import Summary
from asyncexport.core.text import show_bytes, show_duration
from asyncexport.display.formatting import count_of, plain, show_count

MOST_FAILURES = 10
"""Failures that are shown; `--json` lists all files."""


def mirror_record(event: MirrorEvent) -> dict[str, Any]:
    """Return what became of a file as a JSON object."""
    record = {"type": "mirrored", "path": event.path, "outcome": event.outcome.value, "bytes": event.bytes}
    return record if event.error is None else {**record, "reason": str(event.error)}


def mirror_lines(summary: Summary) -> list[str]:
    """Return what a mirror did as lines of text."""
    tally = summary.mirror
    if tally is None:
        return []
    lines = [f"mirror {plain(tally.url)}: {_counts(tally)}"]
    failures = [one for one in tally.failures if one.error is not tally.error]
    lines += [f"{one.outcome.value}: {plain(str(one.error))}" for one in islice(failures, MOST_FAILURES)]
    left = tally.failed + tally.foreign - min(len(failures), MOST_FAILURES)
    if len(failures) > MOST_FAILURES and left:
        lines.append(f"failed: {show_count(left)} more; --json lists all")
    if tally.error is not None and tally.error is not summary.error:
        lines.append(plain(f"the mirror ended early: {tally.error}"))
    return lines


def mirror_hints(summary: Summary) -> list[str]:
    """Say what to do about files that are not in the mirror."""
    tally = summary.mirror
    if tally is None or summary.error is not None:
        return []
    errors = [one.error for one in tally.failures] + [tally.error]
    return list(dict.fromkeys(one.hint for one in errors if one is not None and one.hint))


def _counts(tally: MirrorTally) -> str:
    parts = [f"{count_of(tally.uploaded, 'file', 'files')} uploaded ({show_bytes(tally.bytes)})"]
    parts += [f"{show_count(tally.already)} there before"]
    parts += [f"{show_count(tally.failed)} failed"] if tally.failed else []
    parts += [f"{show_count(tally.foreign)} {Outcome.FOREIGN.value}"] if tally.foreign else []
    text = ", ".join(parts)
    return f"{text}; stopped" if tally.is_stopped else f"{text}, in {show_duration(tally.seconds)}"
