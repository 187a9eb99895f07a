"""Complete runs against a sandbox in the same process, and the rows that they leave on disk."""

import asyncio
import csv
import gzip
import io
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asyncexport.client.clock import HostClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.bundles import read_moment, read_when
from asyncexport.core.events import Event
from asyncexport.core.service_time import HostReading
from asyncexport.core.summary import Snapshot, Summary
from asyncexport.display.event_records import event_record
from asyncexport.engine.scheduler import Stop
from asyncexport.run.run import export
from asyncexport.run.spec import Audit, Backfill, Nightly, Repair, Retry, RunSpec
from asyncexport.sandbox import Sandbox
from asyncexport.storage.layout import archive_range
from tests.failpoints import at_failpoints
from tests.json_lines import check

AMPLE = {"requests_per_minute": 1e6, "burst": 10_000}
"""A budget that never delays a run."""

BY_SERVICE: dict[str, Any] = {"api": {"clock": "service"}}
"""Settings for a sandbox whose clock differs by more than a day from this host's."""

QUICK: dict[str, Any] = {
    "budget": AMPLE,
    "polling": {"min_interval": "5ms", "expected": "50ms"},
    "retry": {"backoff_initial": "1ms", "backoff_max": "20ms", "outage": "2s"},
    "download": {"second_look": "20ms"},
    "output": {"grace": "1s"},
}
"""Settings for a sandbox whose operations take milliseconds."""


@dataclass(slots=True)
class Notebook:
    """Records events as `--json` prints them, and the first snapshot."""

    events: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    async def watch(self, snapshot: Callable[[], Snapshot]) -> None:
        """Take one snapshot at the beginning."""
        self.snapshots.append(snapshot())
        await asyncio.Event().wait()

    def on_event(self, event: Event) -> None:
        """Record an event."""
        record = event_record(event)
        if record is not None:
            self.events.append(check(record))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        return [event for event in self.events if event["type"] == kind]


def settings_for(sandbox: Sandbox, directory: Path, changes: dict[str, Any] | None = None) -> Settings:
    """Return settings that fit a sandbox; `changes` are written as in the configuration file, table by table."""
    changes = changes or {}
    tables: dict[str, Any] = {"api": {"base_url": sandbox.url}, **QUICK}
    for name, table in changes.items():
        tables[name] = table if name == "export" else {**tables.get(name, {}), **table}
    tables["output"] = {**tables["output"], "directory": str(directory)}
    return Settings.from_layers(tables)


async def run(
    sandbox: Sandbox,
    directory: Path,
    *,
    start: str = "2026-01-01",
    end: str | None = "2026-01-02",
    changes: dict[str, Any] | None = None,
    key: str = "",
    stop: Stop | None = None,
    viewer: Notebook | None = None,
    boundary: Callable[[str], None] = lambda _name: None,
    host_clock: HostClock | None = None,
    kind: type[RunSpec] = Backfill,
    **fields: Any,
) -> Summary:
    """Run a backfill, or another kind of run with these fields of its specification.

    `boundary` is called at each failpoint. For a nightly run, `start` sets `[nightly] since`, unless it is "".
    """
    if kind is Nightly and start:
        changes = {**(changes or {}), "nightly": {"since": start}}
    settings = settings_for(sandbox, directory, changes)
    if kind in (Backfill, Retry):
        fields = {"start": read_when(start), **fields}
    if kind not in (Repair, Audit):
        fields = {"end": None if end is None else read_when(end), **fields}
    with at_failpoints(boundary):
        return await export(
            settings,
            kind(settings.exports, **fields),
            key=ApiKey(key or sandbox.key),
            stop=stop or Stop(),
            listeners=() if viewer is None else (viewer.on_event,),
            watch=(viewer or Notebook()).watch,
            host_clock=host_clock,
        )


class OffClock(HostClock):
    """A host clock that is `seconds` fast, or stands still at `stands_at`."""

    def __init__(self, seconds: float = 0.0, *, stands_at: float | None = None, up: float = 0.0) -> None:
        """Set the clock; `up` is added to the machine's uptime."""
        super().__init__()
        self._seconds, self._stands_at, self._up = seconds, stands_at, up

    def read(self) -> HostReading:
        """Read all clocks."""
        reading = super().read()
        wall = reading.wall + self._seconds if self._stands_at is None else self._stands_at
        return replace(reading, wall=wall, uptime=reading.uptime + self._up)


def clock_of(sandbox: Sandbox) -> OffClock:
    """Return a host clock on which as much time has passed as on the sandbox's."""
    ahead = sandbox.now - time.time()
    return OffClock(ahead, up=ahead)


def moment(text: str) -> int:
    """Return a time in seconds since 1970."""
    return read_moment(text, now=0)


def archives(directory: Path, export_name: str = "everyone-events") -> list[Path]:
    """Return the archives of an export, in order."""
    return sorted(path for path in (directory / export_name).glob("date=*/*.gz") if archive_range(str(path)))


def rows_in(directory: Path, export_name: str = "everyone-events") -> Counter[str]:
    """Return every row of an export on disk in a canonical spelling, with the number of times it is there.

    Python's gzip module, which makes the same checks as the gzip command, must accept the files.
    """
    found: Counter[str] = Counter()
    for path in archives(directory, export_name):
        text = gzip.decompress(path.read_bytes()).decode()
        found.update(_rows_of(text, path.name.split(".")[-2]))
    return found


def truth(sandbox: Sandbox, start: str, end: str) -> Counter[str]:
    """Return every row that the service has in a range, in the same spelling."""
    return Counter(canonical(row) for row in sandbox.events(moment(start), moment(end)))


def truth_as_csv(sandbox: Sandbox, start: str, end: str) -> Counter[str]:
    """Return the same rows as they are in CSV, where every value is text and a missing one is empty."""
    rows = ({key: _as_text(value) for key, value in row.items()} for row in sandbox.events(moment(start), moment(end)))
    return Counter(canonical({key: text for key, text in row.items() if text}) for row in rows)


def canonical(row: dict[str, Any]) -> str:
    """Return a row in a canonical spelling."""
    return json.dumps(row, sort_keys=True)


def _rows_of(text: str, container: str) -> list[str]:
    match container:
        case "json" if text:
            return [canonical(row) for row in json.loads(text)]
        case "csv":
            table = csv.DictReader(io.StringIO(text, newline=""))
            return [canonical({key: value for key, value in row.items() if value}) for row in table]
        case _:
            return [canonical(json.loads(line)) for line in text.split("\n") if line.strip()]


def _as_text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case _:
            return json.dumps(value)
