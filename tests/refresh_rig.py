"""Two stored bundles that are refreshed, and a service that sends as many rows of each as a test says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asyncexport.core.bundles import ALL_TIME
from asyncexport.core.states import BundleRecord, Planned, Stored
from asyncexport.core.summary import Exit, Summary
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import LedgerReader
from asyncexport.run.spec import Nightly, Repair, Retry
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.exporting import archives, clock_of, moment, run

CALM = SandboxBehaviour(operation_seconds=0.01, rows_per_hour=300, requests_per_minute=1e6, burst=10_000)

START, END = "2026-01-01T20:00:00Z", "2026-01-01T21:00:00Z"
"""Two bundles."""

NAME = "everyone-events"
LATER = 90 * 86_400.0
"""Seconds after a bundle's end when a refresh is due: at the first run after `sandbox.skip`."""


@dataclass
class Scene:
    """Two bundles that were stored too soon, and the sandbox they came from."""

    sandbox: Sandbox
    directory: Path

    async def run(self, **more: Any) -> Summary:
        """Run over both bundles."""
        order = {"start": START, "end": END, "host_clock": clock_of(self.sandbox), **more}
        return await run(self.sandbox, self.directory, **order)

    async def nightly(self, **more: Any) -> Summary:
        """Run `nightly` with refreshes."""
        return await self.run(**{"kind": Nightly, "refresh_ages": (LATER,), **more})

    async def retry(self, **more: Any) -> Summary:
        """Run `retry`."""
        return await self.run(**{"kind": Retry, "start": "1970-01-01", "end": None, **more})

    async def repair(self, **more: Any) -> Summary:
        """Repair both bundles, as `verify --repair` does once it has found them damaged."""
        return await self.run(kind=Repair, bundles=tuple(self.records()), **more)

    def serve(self, *rows: int | None) -> None:
        """Set how many rows the exports of each bundle have from now on; None for all of them."""
        starts = (START, "2026-01-01T20:30:00Z")
        ends = ("2026-01-01T20:30:00Z", END)
        faults = [
            SandboxFault.parse(f"operation:fewer-rows,rows={count},window={start}/{end}")
            for count, start, end in zip(rows, starts, ends, strict=True)
            if count is not None
        ]
        self.sandbox.behave(replace(self.sandbox.behaviour, faults=tuple(faults)))
        self.sandbox.reset_counts()

    def records(self) -> list[BundleRecord]:
        """Return the records of both bundles."""
        with LedgerReader(self.directory) as ledger:
            return list(ledger.stored(NAME, ALL_TIME))

    @property
    def counts(self) -> list[int]:
        """The row counts of both bundles in the ledger."""
        return [one.stored.rows for one in self.records() if one.stored]

    @property
    def files(self) -> list[tuple[bytes, int]]:
        """The bytes and inodes of both archives."""
        return [(path.read_bytes(), path.stat().st_ino) for path in archives(self.directory)]

    @property
    def requests(self) -> int:
        """The number of requests since `serve`."""
        return sum(self.sandbox.counts.values())


@asynccontextmanager
async def stored(directory: Path) -> AsyncIterator[Scene]:
    """Serve a sandbox and store both bundles, so that a refresh is due."""
    # The clock is one day after the data, so that the archives count as exported too soon.
    async with serving(CALM) as sandbox:
        sandbox.behave(replace(CALM, clock_ahead_seconds=moment("2026-01-03") - sandbox.now))
        scene = Scene(sandbox, directory)
        assert (await scene.run()).exit_code is Exit.DONE
        assert min(scene.counts) > 100
        sandbox.skip(LATER)
        sandbox.behave(replace(sandbox.behaviour, everyone_seconds=1e9))
        yield scene


def refreshed(summary: Summary) -> tuple[int, ...]:
    """Return the numbers of bundles, changed ones, rows added, rows removed, and archives kept."""
    counted = summary.to_dict()["refreshed"]
    assert list(counted) == ["bundles", "changed", "rows_added", "rows_removed", "kept"]
    return tuple(counted.values())


async def interrupt_a_night(scene: Scene) -> None:
    """Stop a refresh after its creates and before any download; its exports will have no rows."""
    scene.serve(0, 0)
    night = await scene.nightly(**stopped_after_creates(scene))
    assert night.exit_code is Exit.INTERRUPTED
    assert not any(isinstance(one.state, Stored | Planned) for one in scene.records())


def stopped_after_creates(scene: Scene) -> dict[str, Any]:
    """Return arguments that make a run stop once both creates are sent; operations take long from now on."""
    stop = Stop()
    scene.sandbox.behave(replace(scene.sandbox.behaviour, operation_seconds=3600.0))
    scene.sandbox.reset_counts()

    def boundary(name: str) -> None:
        del name
        if scene.sandbox.counts["create"] == 2:
            stop.ask(Exit.INTERRUPTED)

    return {"stop": stop, "boundary": boundary}
