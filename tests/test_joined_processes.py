"""Nightly runs that join a backfill, each in a process of its own."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from asyncexport.core.bundles import DAY, show
from asyncexport.core.exits import Exit
from asyncexport.sandbox import KEY, Sandbox, SandboxBehaviour, serving
from asyncexport.storage.layout import archive_range
from tests.exporting import archives, rows_in, truth
from tests.json_lines import check

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

TAKEOVER_SECONDS = 60.0
"""The promised time between the end of a killed run and the first request of the run that has joined it."""

SERVICE = SandboxBehaviour(operation_seconds=0.2, rows_per_hour=20, requests_per_minute=1e6, burst=10_000)

DAYS = 10

IN_FLIGHT = 2
"""The number of operations that a run has in flight, and so of creates that a kill may repeat."""

SETTINGS = """\
[api]
base_url = "{url}"
[budget]
requests_per_minute = 1000000
burst = 10000
[concurrency]
operations = {operations}
[polling]
min_interval = "5ms"
expected = "50ms"
[nightly]
since = "{since}"
[[export]]
bundle = "6h"
"""


@dataclass
class Place:
    """A working directory with a configuration for a sandbox."""

    path: Path
    sandbox: Sandbox
    start: int

    @property
    def exports(self) -> Path:
        """The output directory."""
        return self.path / "exports"

    async def started(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command with `--json`."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCEXPORT_")}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asyncexport", "--json", *arguments),
            cwd=self.path,
            env={**environ, "FULLSTORY_API_KEY": KEY, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def backfilling(self) -> asyncio.subprocess.Process:
        """Start a backfill, and wait until it has stored something."""
        end = show(self.start + DAYS * DAY)
        process = await self.started("backfill", "--start", show(self.start), "--end", end)
        await line_of(process, "stored")
        return process

    async def joining(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a nightly run, and wait until it has joined."""
        process = await self.started("nightly", *arguments)
        await line_of(process, "joining")
        return process


def starts_in(directory: Path) -> set[int]:
    """Return the starts of the stored bundles."""
    return {found.start for path in archives(directory) if (found := archive_range(str(path)))}


async def line_of(process: asyncio.subprocess.Process, kind: str) -> dict[str, Any]:
    """Read lines until one of this type comes."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        found: dict[str, Any] = check(json.loads(line))
        if found["type"] == kind:
            return found
    raise AssertionError(f"it ended without a line of the type {kind!r}")


async def summary_of(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return the summary, once the process has ended with its exit code."""
    summary = await line_of(process, "summary")
    await process.communicate()
    assert process.returncode == summary["exit_code"]
    return summary


@asynccontextmanager
async def place_in(directory: Path, behaviour: SandboxBehaviour = SERVICE) -> AsyncIterator[Place]:
    """Serve a sandbox, and write a configuration for it."""
    async with serving(behaviour) as sandbox:
        start = int(sandbox.now) // DAY * DAY - 20 * DAY
        (directory / "asyncexport.toml").write_text(
            SETTINGS.format(url=sandbox.url, since=show(start), operations=IN_FLIGHT)
        )
        yield Place(directory, sandbox, start)


async def test_a_killed_run_is_taken_over(tmp_path, summary_line):
    """The nightly run resumes what the killed one has left within a minute, and only creates in flight come twice."""
    async with place_in(tmp_path) as place:
        holder = await place.backfilling()
        joiner = await place.joining("--end", show(place.start + DAYS * DAY))
        holder.kill()
        killed_at = time.monotonic()
        await line_of(joiner, "stored")
        seconds = time.monotonic() - killed_at
        summary = await summary_of(joiner)
        await holder.communicate()
        assert summary["joined"] == {"command": "backfill", "pid": holder.pid}
        assert (summary["exit_code"], summary["bundles"]["stored"] + summary["bundles"]["already"]) == (0, 4 * DAYS)
        twice = place.sandbox.counts["create"] - 4 * DAYS
        assert twice <= IN_FLIGHT
        end = show(place.start + DAYS * DAY)
        assert rows_in(place.exports) == truth(place.sandbox, show(place.start), end)
    assert seconds < TAKEOVER_SECONDS
    summary_line(
        f"a killed run: the joined run stored its first bundle after {seconds:.1f} s; {twice} creates came twice"
    )


async def test_it_ends_while_the_backfill_continues(tmp_path):
    """A nightly run whose range is stored ends with 0 and sends nothing, whatever the backfill still has to do."""
    async with place_in(tmp_path, replace(SERVICE, operation_seconds=0.5)) as place:
        holder = await place.backfilling()
        own = {place.start, place.start + DAY // 4}
        while not own <= starts_in(place.exports):  # noqa: ASYNC110 - written by another process
            await asyncio.sleep(0.02)
        summary = await summary_of(await place.started("nightly", "--end", show(place.start + DAY // 2)))
        assert holder.returncode is None
        holder.kill()
        await holder.communicate()
    assert (summary["exit_code"], summary["bundles"]["already"], sum(summary["requests"].values())) == (0, 2, 0)
    assert summary["joined"] == {"command": "backfill", "pid": holder.pid}


async def test_the_wait_ends_with_the_right_exit_code(tmp_path):
    """While one run waits, others end with 4. `--max-duration` ends the wait with 9, signals with 130 and 143."""
    async with place_in(tmp_path, replace(SERVICE, operation_seconds=2.0)) as place:
        holder = await place.backfilling()
        waiting = await place.joining()
        second = await summary_of(await place.started("nightly"))
        alone = await summary_of(await place.started("nightly", "--no-join"))
        waiting.send_signal(signal.SIGINT)
        interrupted = await summary_of(waiting)
        waiting = await place.joining()
        waiting.send_signal(signal.SIGTERM)
        began = time.monotonic()
        terminated = await summary_of(waiting)
        seconds = time.monotonic() - began
        limited = await summary_of(await place.started("nightly", "--max-duration", "300ms"))
        holder.kill()
        await holder.communicate()
    codes = [one["exit_code"] for one in (second, alone, interrupted, terminated, limited)]
    assert codes == [Exit.LOCKED, Exit.LOCKED, Exit.INTERRUPTED, Exit.TERMINATED, Exit.TIME_UP]
    assert "already waits for it: nightly, process " in second["error"]
    assert not any("joined" in one for one in (second, alone))
    assert {one["joined"]["command"] for one in (interrupted, terminated, limited)} == {"backfill"}
    assert limited["bundles"]["unfinished"] > 0
    assert seconds < 10


async def test_commands_that_need_the_lock_say_whom_they_wait_for(tmp_path):
    """`accept --wait` and `audit --wait` print a `joining` line without a share, and a signal ends the wait."""
    async with place_in(tmp_path, replace(SERVICE, operation_seconds=2.0)) as place:
        holder = await place.backfilling()
        start, end = show(place.start), show(place.start + DAY)
        for command in (("accept", start, end, "--why", "known", "--wait"), ("audit", "--wait")):
            waiting = await place.started(*command)
            line = await line_of(waiting, "joining")
            assert (line["command"], line["pid"], line["planned"]) == ("backfill", holder.pid, None)
            waiting.send_signal(signal.SIGTERM)
            assert (await summary_of(waiting))["exit_code"] == Exit.TERMINATED
        holder.kill()
        await holder.communicate()
