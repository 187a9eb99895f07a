"""The events of a run as JSON objects: the lines of `--json` before the summary.

Users write scripts against the keys, which the documentation lists: keys may be added, never changed.
"""

from dataclasses import asdict
from typing import Any

from asyncexport.core.bundles import Bundle, show
from asyncexport.core.events import (
    BundleAudited,
    BundleParked,
    BundleSplit,
    BundleStored,
    Event,
    ExportStopped,
    Joining,
    Note,
    Retried,
    RowsOutside,
    ShortfallFound,
)
from asyncexport.core.summary import Snapshot, counts_of

END_OF_CALENDAR = 253_402_300_799.0
"""The last second of the year 9999."""

_PROGRESS_KEYS = {"stored_before": "already"}
"""Keys of `progress` that differ from the name of the snapshot's field."""


def event_record(event: Event) -> dict[str, Any] | None:
    """Return an event as a JSON object, or None if this kind of event is not printed."""
    match event:
        case BundleStored(bundle=bundle, archive=archive, replaced=replaced):
            before = {} if replaced is None else {"rows_before": replaced.rows}
            facts = {"path": archive.path, "rows": archive.rows, "bytes": archive.bytes}
            return _of_bundle("stored", bundle, {**facts, "refresh": replaced is not None, **before})
        case BundleParked(bundle=bundle, state=state):
            return _of_bundle("parked", bundle, {"reason": event.reason, **counts_of(state)})
        case BundleSplit(bundle=bundle, pieces=pieces, reason=reason):
            return _of_bundle("split", bundle, {"reason": reason, "pieces": [_span(piece) for piece in pieces]})
        case Retried(bundle=bundle, reason=reason):
            return _of_bundle("retried", bundle, {"reason": reason})
        case RowsOutside(bundle=bundle, outside=outside, timed=timed):
            return _of_bundle("rows_outside", bundle, {"outside": outside, "looked_at": timed})
        case ExportStopped(export=export, error=error):
            return {"type": "refused", "export": export, "reason": str(error)}
        case Joining():
            return _joining(event)
        case ShortfallFound(shortfall=shortfall):
            return {"type": "shortfall", **shortfall.to_dict()}
        case BundleAudited(comparison=found):
            facts = {"differs": found.differs, "kept": found.kept, "age_seconds": round(found.age_seconds, 1)}
            counts = {"rows_before": found.rows_before, "rows_found": found.rows_found}
            return _of_bundle("audited", found.bundle, {**facts, **counts})
        case Note(message=message):
            return {"type": "note", "message": message}
        case _:
            return None


def progress_record(snapshot: Snapshot, *, now: float) -> dict[str, Any]:
    """Return the progress of a run as a JSON object; `now` is in seconds since 1970."""
    facts = {_PROGRESS_KEYS.get(name, name): value for name, value in asdict(snapshot).items() if name != "covered"}
    expected = snapshot.expected_seconds
    ends_at = None if expected is None else show(min(now + expected, END_OF_CALENDAR))
    return {"type": "progress", **facts, "ends_at": ends_at}


def _joining(event: Joining) -> dict[str, Any]:
    run, progress = event.run, event.progress
    return {
        "type": "joining",
        "seconds": round(event.seconds, 1),
        "command": run and run.command,
        "pid": run and run.pid,
        "host": run and run.host,
        "since": run and show(run.since),
        "planned": progress and progress.planned,
        "stored": progress and progress.stored,
        "parked": progress and len(progress.parked),
        "left": progress and progress.left,
    }


def _of_bundle(kind: str, bundle: Bundle, facts: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "export": bundle.export, **_span(bundle), **facts}


def _span(bundle: Bundle) -> dict[str, str]:
    return {"start": show(bundle.range.start), "end": show(bundle.range.end)}
