"""The last load and the last mirror of everything: how they went, and whether all is well with them.

1. They work beside runs, and end after the run's own record was written, so they have records of their own.
2. One that is in progress does not count yet: the one before it does.
3. One ends well with exit code 0, or with 9: it was stopped together with its run, and the next one continues.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asyncexport.core.bundles import show
from asyncexport.core.exits import Exit
from asyncexport.core.health.last_run import ENDS_WELL, SIGNALS


class BesideKind(StrEnum):
    """What works beside runs."""

    LOAD = "load"
    MIRROR = "mirror"


@dataclass(frozen=True, slots=True)
class BesideBegin:
    """A load or a mirror that has begun, and has not ended or was killed.

    Attributes:
        command: The command that it belongs to: `load`, `nightly` and so on.
        at: When it began, in seconds since 1970.
        host: The name of the machine.
        pid: Its process there.
        running: Whether it is still running, as far as that can be seen. Its record does not know that.
    """

    command: str
    at: float
    host: str
    pid: int
    running: bool = False


@dataclass(frozen=True, slots=True)
class BesideEnd:
    """A load or a mirror that has ended.

    Attributes:
        command: The command that it belongs to.
        began: When it began, in seconds since 1970.
        ended: When it ended, in seconds since 1970.
        exit_code: Its exit code, whatever that of its run.
        error: The first error, in one line; "" if there was none.
        counts: Its counts, as the summary has them under `load` or `mirror`.
        is_complete: Whether everything is loaded, or in the mirror.
    """

    command: str
    began: float
    ended: float
    exit_code: int
    error: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)
    is_complete: bool = True

    def count(self, name: str) -> int:
        """Return a count; 0 if the record has none, which an earlier version may have written."""
        found = self.counts.get(name)
        return found if isinstance(found, int) else 0


@dataclass(frozen=True, slots=True)
class Beside:
    """The last load, or the last mirror.

    Attributes:
        kind: Which of the two.
        last: How the last one ended; None if none has.
        begun: The one that has begun after that; None if none has.
        complete_at: When one last ended that was complete, in seconds since 1970; 0 if none ever did.
    """

    kind: BesideKind
    last: BesideEnd | None = None
    begun: BesideBegin | None = None
    complete_at: float = 0.0


def days_not_loaded(end: BesideEnd) -> int:
    """Return the days of a load that failed, or that it did not get to."""
    return max(0, end.count("days") - end.count("already") - end.count("loaded"))


def files_missing(end: BesideEnd) -> int | None:
    """Return the files that are not known to be in the mirror; None if not even their number is known."""
    found = end.counts.get("missing")
    return found if isinstance(found, int) else None


def newest(kind: BesideKind, records: list[Beside]) -> Beside | None:
    """Return one record for several of the same kind, which were kept in different places; None if there are none."""
    if not records:
        return None
    last = max((one.last for one in records if one.last), key=lambda one: one.ended, default=None)
    begun = max((one.begun for one in records if one.begun), key=lambda one: one.at, default=None)
    if begun is not None and last is not None and begun.at < last.began:
        begun = None
    return Beside(kind, last, begun, max(one.complete_at for one in records))


def fault_of_beside(record: Beside) -> str:
    """Say what is wrong with a load or a mirror; "" if nothing is."""
    if record.begun is not None and not record.begun.running:
        return f"the last {record.kind} ({record.begun.command}) {_killed(record.begun)}"
    if record.last is None or record.last.exit_code in ENDS_WELL:
        return ""
    return f"the last {record.kind} ({record.last.command}) {_how_it_ended(record)}"


def beside_line(record: Beside) -> str:
    """Describe the last load or mirror in one line."""
    parts = []
    if record.last is not None:
        parts.append(f"last {record.kind}: {record.last.command} {_how_it_ended(record)}")
    if record.begun is not None and record.begun.running:
        parts.append(f"{record.begun.command} has begun a {record.kind} at {show(record.begun.at)}")
    elif record.begun is not None:
        parts.append(f"{record.begun.command} {_killed(record.begun)}")
    text = "; ".join(parts)
    return text if record.last is not None else f"last {record.kind}: {text}"


def _killed(begun: BesideBegin) -> str:
    return f"began at {show(begun.at)} and did not finish: it was killed or it crashed"


def _how_it_ended(record: Beside) -> str:
    last = record.last
    if last is None:
        return ""
    counts = ", ".join(_of_load(last) if record.kind is BesideKind.LOAD else _of_mirror(last))
    how = f"was stopped by {SIGNALS[Exit(last.exit_code)]}" if last.exit_code in SIGNALS else "ended"
    text = f"{how} at {show(last.ended)}: {counts}" + (f": {last.error}" if last.error else "")
    if last.is_complete:
        return text
    earlier = (
        f"the last complete one ended at {show(record.complete_at)}"
        if record.complete_at
        else f"no {record.kind} has been complete yet"
    )
    return f"{text}; {earlier}"


def _of_load(last: BesideEnd) -> Iterator[str]:
    days, failed = last.count("days"), last.count("failed")
    left = days_not_loaded(last) - failed
    yield f"{days:,} {'day' if days == 1 else 'days'}"
    if failed:
        yield f"{failed:,} failed"
    if left > 0:
        yield f"{left:,} left"
    if last.is_complete:
        yield "all loaded"
    elif not (failed or left):
        yield "not all destinations are up to date"
    if lines := last.count("quarantined"):
        yield f"{lines:,} {'line is no row' if lines == 1 else 'lines are no rows'}"


def _of_mirror(last: BesideEnd) -> Iterator[str]:
    files = last.count("uploaded") + last.count("already")
    missing = files_missing(last)
    yield f"{files:,} {'file' if files == 1 else 'files'} there"
    if last.is_complete:
        yield "none missing"
    else:
        yield "not all were compared" if missing is None else f"{missing:,} missing"
    if foreign := last.count("foreign"):
        yield f"of which the name of {foreign:,} is taken"
