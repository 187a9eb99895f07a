"""A month of nightly runs, each in a process of its own on a moved clock, with a fault in many of them.

Rows come up to 60 hours late, and bundles are refreshed at 48 and 72 hours. So every row must be stored in the end.
"""

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from asyncexport.core.bundles import ALL_TIME, DAY, HOUR, Range, show
from asyncexport.core.exits import Exit
from asyncexport.ledger import LedgerReader
from asyncexport.sandbox import KEY, Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.exporting import moment, rows_in, truth
from tests.json_lines import check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.may_idle(5),
    pytest.mark.skipif(not Path("/usr/share/zoneinfo").exists(), reason="this system has no time zone database"),
]

ROOT = Path(__file__).parents[1]

ZONE = "Europe/Berlin"

FIRST = date(2036, 10, 7)
"""The first night. Clocks are set back on the 26th: 25 hours pass between that night's run and the one before."""

LAST = 30

SINCE = moment("2036-10-05")

AGES = (48 * HOUR, 72 * HOUR)

SETTLE = 26 * HOUR

SERVICE = SandboxBehaviour(
    operation_seconds=0.4,
    rows_per_hour=60,
    late_share=0.2,
    late_seconds=60.0 * HOUR,
    requests_per_minute=1e6,
    burst=10_000,
)
"""One row in five reaches the service 60 hours after it happened."""

POISON = Range(moment("2036-10-09T08:12:00Z"), moment("2036-10-09T08:13:00Z"))

POISONED = Range(moment("2036-10-09T08:10:00Z"), moment("2036-10-09T08:15:00Z"))
"""The five minutes that cannot be exported because of the minute."""

POISONED_SINCE = 5
"""The first night that meets it."""

SETTINGS = """\
[api]
base_url = "{url}"
[budget]
requests_per_minute = 1000000
burst = 10000
scope = "all"
[polling]
min_interval = "1s"
expected = "400ms"
[retry]
backoff_initial = "5ms"
backoff_max = "50ms"
outage = "3s"
[nightly]
since = "2036-10-05"
refresh = ["48h", "72h"]
"""
"""Settings under which lists are not free, since the test counts them."""

EXPORT = """\
[[export]]
name = "{name}"
format = "{format}"
bundle = "{bundle}"
"""


def night_at(number: int) -> float:
    """Return when a night begins, counted from 1: at three o'clock local time."""
    day = FIRST + timedelta(days=number - 1)
    return datetime(day.year, day.month, day.day, 3, tzinfo=ZoneInfo(ZONE)).timestamp()


@dataclass(frozen=True, slots=True)
class Night:
    """What a night did.

    Attributes:
        summary: Its summary; None if it was killed.
        creates: The ranges that it exported, each as often as the service got a create of it.
        requests: The number of requests that the service got.
    """

    summary: dict[str, Any] | None
    creates: Counter[Range]
    requests: int

    @property
    def exit_code(self) -> int | None:
        """The exit code; None if it was killed."""
        return None if self.summary is None else self.summary["exit_code"]

    @property
    def problems(self) -> list[dict[str, Any]]:
        """The parked bundles that it reports."""
        return [] if self.summary is None else self.summary["problems"]

    @property
    def stored(self) -> int:
        """The number of bundles that it stored."""
        return 0 if self.summary is None else self.summary["bundles"]["stored"]


@dataclass
class Month:
    """A directory, a sandbox, and the nights so far.

    Attributes:
        path: The working directory.
        sandbox: The service.
        exports: The exports as they are configured now, with their formats.
        bundle: The width of their bundles.
        nights: The nights so far, by number.
        requests: The number of requests of the whole month.
    """

    path: Path
    sandbox: Sandbox
    exports: dict[str, str] = field(default_factory=lambda: {"events": "ndjson"})
    bundle: str = "30m"
    nights: dict[int, Night] = field(default_factory=dict)
    requests: int = 0

    async def start(self, *arguments: str, writes: int = 0) -> asyncio.subprocess.Process:
        """Start a command."""
        tables = (EXPORT.format(name=name, format=form, bundle=self.bundle) for name, form in self.exports.items())
        (self.path / "asyncexport.toml").write_text("".join((SETTINGS.format(url=self.sandbox.url), *tables)))
        ahead = self.sandbox.now - time.time()
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.moved_process", str(ahead), str(writes), "--json", *arguments),
            cwd=self.path,
            env={**os.environ, "FULLSTORY_API_KEY": KEY, "PYTHONPATH": str(ROOT), "TZ": ZONE},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )

    async def run(self, *arguments: str, kill_after: int = 0, writes: int = 0) -> Night:
        """Run a command; it is killed once it has stored as many bundles as `kill_after`, unless that is 0."""
        made = len(self.sandbox.operations)
        before = sent(self.sandbox)
        process = await self.start(*arguments, writes=writes)
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.create_task(process.stderr.read())
        last, stored = {}, 0
        async for line in process.stdout:
            last = check(json.loads(line))
            stored += last["type"] == "stored"
            if kill_after and stored == kill_after:
                process.kill()
                break
        else:
            assert last, (await errors).decode()
        await process.stdout.read()
        await errors
        await process.wait()
        summary = None if kill_after else last
        creates = Counter(Range(int(one.start), int(one.end)) for one in self.sandbox.operations[made:])
        night = Night(summary, creates, sent(self.sandbox) - before)
        assert process.returncode == (-signal.SIGKILL if summary is None else night.exit_code)
        self.requests += night.requests
        return night

    async def night(self, number: int, **more: int) -> Night:
        """Run `nightly` in a night."""
        self.move_to(night_at(number))
        self.nights[number] = night = await self.run("nightly", **more)
        return night

    async def check_again(self) -> None:
        """Check that a second run of the same night sends no request."""
        night = await self.run("nightly")
        assert (night.requests, night.stored) == (0, 0)
        assert night.exit_code == self.nights[max(self.nights)].exit_code

    def move_to(self, now: float) -> None:
        """Move the clock of the service; that of the host follows with the next process."""
        self.sandbox.skip(now - self.sandbox.now)

    def break_service(self, *faults: SandboxFault) -> None:
        """Give the service these faults, besides the minute that it cannot export."""
        self.sandbox.behave(replace(SERVICE, faults=(*faults, SandboxFault("operation", "FAILED", window=POISON))))

    def windows(self, name: str) -> Iterator[Range]:
        """Yield the windows of an export: those that are stored and those that are parked."""
        with LedgerReader(self.path / "exports") as ledger:
            yield from (one.bundle.range for one in ledger.stored(name, ALL_TIME))
            yield from (one.bundle.range for one in ledger.unfinished(name, ALL_TIME) if one.stored is None)

    def least(self) -> int:
        """Return the fewest requests that could do it: two per export that was due, and one list per 100 of them.

        A window is due in the first night after it has settled and in the first after each refresh age. Nights without
        a run, or in which the service exported nothing, do not count.
        """
        exported = 0
        for name, since in ADDED.items():
            nights = [night_at(number) for number in self.nights if number >= since and number not in NOTHING_EXPORTED]
            for window in self.windows(name):
                firsts = ([at for at in nights if at >= window.end + age][:1] for age in (SETTLE, *AGES))
                exported += len({at for found in firsts for at in found})
        return 2 * exported + math.ceil(exported / 100)


def sent(sandbox: Sandbox) -> int:
    """Return the number of requests to the API so far."""
    return sum(count for endpoint, count in sandbox.counts.items() if endpoint != "download")


async def missed(_month: Month, _number: int) -> None:
    """The machine is off."""


async def poison_begins(month: Month, number: int) -> None:
    """The service cannot export one minute: within twelve creates, all but five minutes of its window are stored."""
    month.break_service()
    night = await month.night(number)
    assert night.exit_code == Exit.PARTIAL
    assert [(one["start"], one["end"]) for one in night.problems] == [(show(POISONED.start), show(POISONED.end))]
    assert sum(count for window, count in night.creates.items() if meets(window, POISON)) <= 12
    await month.check_again()


async def poison_is_retried(month: Month, number: int) -> None:
    """After a pause of a day the five minutes are exported once more, in vain."""
    night = await month.night(number)
    assert night.creates[POISONED] == 1
    await month.check_again()


async def poison_is_not_due(month: Month, number: int) -> None:
    """During the next pause, of two days, the five minutes cost no request."""
    night = await month.night(number)
    assert night.creates[POISONED] == 0
    assert "next_try" in night.problems[0]
    await month.check_again()


async def killed(month: Month, number: int) -> None:
    """The run is killed with SIGKILL after 40 bundles; the next night finishes its work."""
    await month.night(number, kill_after=40)


async def storm(month: Month, number: int) -> None:
    """The service refuses requests of all kinds with 429."""
    month.break_service(SandboxFault("api", "429", since=40, times=20))
    night = await month.night(number)
    month.break_service()
    assert night.summary is not None
    assert (night.summary["refused"], night.summary["bundles"]["unfinished"]) == (20, 0)


async def key_is_refused(month: Month, number: int) -> None:
    """The service refuses the key: the run ends with 6 after two requests."""
    month.break_service(SandboxFault("api", "401"))
    night = await month.night(number)
    month.break_service()
    assert night.exit_code == Exit.KEY_REFUSED
    assert night.requests <= 2


async def disk_is_full(month: Month, number: int) -> None:
    """The disk is full after some archives: the run ends with 8, and the next night finishes its work."""
    night = await month.night(number, writes=200)
    assert night.exit_code == Exit.DISK
    assert night.stored > 0


async def export_is_added(month: Month, number: int) -> None:
    """A second export is configured: the night exports all of it since the date in `[nightly] since`."""
    month.exports["json"] = "json"
    night = await month.night(number)
    assert night.exit_code == Exit.PARTIAL, "the poison is in the second export as well"
    assert night.stored > 48 * (number - 1)


async def width_is_changed(month: Month, number: int) -> None:
    """Bundles are an hour wide from now on; stored ones stay, and are refreshed as they are."""
    month.bundle = "1h"
    night = await month.night(number)
    assert {window.seconds for window in night.creates} == {HOUR, HOUR // 2}
    await month.check_again()


async def everything_fails(month: Month, number: int) -> None:
    """All operations fail: nothing is split, and few creates follow those that were in flight."""
    month.break_service(SandboxFault("operation", "FAILED"))
    night = await month.night(number)
    month.break_service()
    assert (night.exit_code, night.stored) == (Exit.PARTIAL, 0)
    assert min(window.seconds for window in night.creates if window != POISONED) >= HOUR // 2
    assert night.creates.total() <= 100 + 10


async def service_is_emptied(month: Month, number: int) -> None:
    """All files are empty: archives with rows are kept. The next night exports their bundles again."""
    month.break_service(SandboxFault("operation", "fewer-rows"))
    night = await month.night(number)
    month.break_service()
    assert night.summary is not None
    assert night.exit_code == Exit.PARTIAL
    assert night.summary["refreshed"]["kept"] > 0
    assert night.summary["refreshed"]["rows_removed"] == 0
    await month.check_again()


async def service_has_recovered(month: Month, number: int) -> None:
    """Every archive that was kept has been replaced, with the rows that came late, and nobody had to do anything."""
    before = month.nights[number - 1].summary
    await as_usual(month, number)
    summary = month.nights[number].summary
    assert before is not None
    assert summary is not None
    assert summary["refreshed"]["kept"] == 0
    assert summary["refreshed"]["changed"] >= before["refreshed"]["kept"]
    with LedgerReader(month.path / "exports") as ledger:
        assert not [one for name in month.exports for one in ledger.unfinished(name, ALL_TIME) if one.kept]


async def as_usual(month: Month, number: int) -> None:
    """The service works: everything that is due is stored, except the five minutes."""
    night = await month.night(number)
    assert night.summary is not None
    assert night.exit_code == (Exit.PARTIAL if number >= POISONED_SINCE else Exit.DONE)
    assert night.summary["bundles"]["unfinished"] == 0
    assert {(one["start"], one["end"]) for one in night.problems} <= {(show(POISONED.start), show(POISONED.end))}


async def second_run_sends_nothing(month: Month, number: int) -> None:
    """A second run of the same night sends no request."""
    await as_usual(month, number)
    await month.check_again()


FAULTS: dict[int, Callable[[Month, int], Awaitable[None]]] = {
    2: second_run_sends_nothing,
    3: missed,
    POISONED_SINCE: poison_begins,
    6: poison_is_retried,
    7: poison_is_not_due,
    8: killed,
    10: storm,
    12: key_is_refused,
    14: disk_is_full,
    16: export_is_added,
    18: width_is_changed,
    20: everything_fails,
    22: service_is_emptied,
    23: service_has_recovered,
    25: second_run_sends_nothing,
    27: missed,
    28: missed,
    LAST: second_run_sends_nothing,
}
"""What happens in the nights that are not as usual, by number."""

NOTHING_EXPORTED = {12, 20}
"""The nights in which the key was refused or all operations failed."""

ADDED = {"events": 1, "json": 16}
"""The exports, each with its first night."""


def meets(one: Range, other: Range) -> bool:
    """Whether two ranges overlap."""
    return one.start < other.end and other.start < one.end


async def test_after_a_month_of_faults_every_row_is_stored(tmp_path, summary_line):
    """Only the rows of five reported minutes are missing, and the requests are at most 5 % above the minimum."""
    assert {night_at(number + 1) - night_at(number) for number in range(1, LAST)} == {DAY, 25.0 * HOUR}
    async with serving(SERVICE) as sandbox:
        month = Month(tmp_path, sandbox)
        for number in range(1, LAST + 1):
            await FAULTS.get(number, as_usual)(month, number)
        refreshed_until = int(sandbox.now - AGES[-1]) // HOUR * HOUR
        service = truth(sandbox, show(SINCE), show(sandbox.now))
        due = truth(sandbox, show(SINCE), show(refreshed_until))
        missing = truth(sandbox, show(POISONED.start), show(POISONED.end))
    assert missing, "the poisoned minutes have rows, so that their absence is noticed"
    problems = month.nights[LAST].problems
    assert {(one["start"], one["end"]) for one in problems} == {(show(POISONED.start), show(POISONED.end))}
    assert sorted(one["export"] for one in problems) == sorted(month.exports)
    for name in month.exports:
        stored = rows_in(tmp_path / "exports", name)
        assert due - stored == missing, name
        assert not stored - service, name
    least, requests = month.least(), month.requests
    summary_line(
        f"a month of nights: {requests:,} requests, {requests / least:.3f} times the least ({least:,}); all but "
        f"{missing.total()} of {due.total():,} rows are stored in each of {len(month.exports)} exports"
    )
    assert requests <= 1.05 * least
