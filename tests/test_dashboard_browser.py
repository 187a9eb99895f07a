"""The page of a run in a real browser: it follows the run without being loaded again.

Needs Chromium and the extra `browser`; without them, each test is skipped with the reason.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from asyncexport.core.bundles import DAY, HOUR
from asyncexport.core.events import BundleMoved, BundleParked, BundleStored, Event
from asyncexport.core.health.report import DirectoryFacts, status_report
from asyncexport.core.listen_address import ListenAddress
from asyncexport.core.states import BundleRecord, Created, Failed, Planned, Stored
from asyncexport.display import plain
from asyncexport.monitor.dashboard_server import DashboardServer, serving_dashboard
from asyncexport.monitor.live_changes import LiveChanges
from asyncexport.monitor.live_page import LivePages
from asyncexport.monitor.page import Page, page_html
from tests.page_rig import FIRST, MadeUpExport, again, some_hours, some_runs
from tests.test_page import HOSTILE
from tests.test_page_browser import LONGEST_TASK_MS, OBSERVER, WIDE, axe, browser, expect, picture_of, readout_of  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@dataclass(slots=True)
class MadeUpRun:
    """A run in a thread that serves its page; the test says what happens in it.

    Args:
        made: The export that it works on.
    """

    made: MadeUpExport
    progress: str = "1 of 3 bundles stored"
    url: str = ""
    now: float = FIRST + 3 * DAY + 26 * HOUR
    changes: LiveChanges = field(default_factory=lambda: LiveChanges(clean=plain))
    _server: Any = None
    _loop: Any = None
    _end: Any = None
    _ready: threading.Event = field(default_factory=threading.Event)

    def emit(self, *events: Event) -> None:
        """Let these events happen."""
        for event in events:
            self._loop.call_soon_threadsafe(self.changes.on_event, event)

    def end(self) -> None:
        """Let the run end."""
        asyncio.run_coroutine_threadsafe(self._server.end(), self._loop).result(20)

    def close(self) -> None:
        """Stop the server."""
        self._loop.call_soon_threadsafe(self._end.set)

    def start(self) -> None:
        """Begin to serve."""
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._ready.wait(20)

    def _page(self, name: str) -> tuple[str, bool]:
        facts = DirectoryFacts((self.made.facts(),), FIRST, some_runs(), some_hours(2), in_progress=True)
        report = status_report(facts, now=self.now, again=again)
        page = Page(report, {self.made.name: self.made.archives}, "/data/exports", "0.1.0", name)
        return page_html(page, again=again, clean=plain), True

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        pages = LivePages(self.changes, self._page, token="run")
        self._server = DashboardServer(self.changes, pages, lambda: self.progress, tick_seconds=0.05)
        async with serving_dashboard(ListenAddress("127.0.0.1", 0), self._server) as self.url:
            self._ready.set()
            await self._end.wait()
        await pages.close()


Followed = Callable[..., Any]


@pytest.fixture
def followed(browser: Any) -> Iterator[Followed]:  # noqa: F811 - a fixture
    """Show the page of a run; at the end, it must have had no error and must not have been loaded again."""
    runs, shown, troubles = [], [], []

    def follow(run: MadeUpRun, **options: Any) -> Any:
        run.start()
        page = browser.new_context(**{"viewport": WIDE, **options}).new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(run.url)
        expect(page.locator("html")).to_have_attribute("data-ready", "yes", timeout=30_000)
        page.evaluate("window.isFirst = true")
        runs.append(run)
        shown.append(page)
        return page

    yield follow
    loaded_again = [page.url for page in shown if not page.evaluate("window.isFirst")]
    for page in shown:
        page.context.close()
    for run in runs:
        run.close()
    assert (troubles, loaded_again) == ([], [])


def stored(made: MadeUpExport, number: int, *, rows: int) -> BundleStored:
    """Let the n-th bundle be stored, and return the event."""
    archive = Stored(f"{number}.gz", 400, rows, "0" * 64, FIRST)
    before = made.records.get(number)
    made.records[number] = BundleRecord(made.bundle(number), 0, archive, archive)
    return BundleStored(made.bundle(number), archive, before.stored if before else None)


def in_progress(made: MadeUpExport, number: int) -> BundleMoved:
    """Let an operation for the n-th bundle be in flight, and return the event."""
    before, after = (BundleRecord(made.bundle(number), 0, state) for state in (Planned(), Created(1, FIRST, "id")))
    made.records[number] = after
    return BundleMoved(before, after)


def test_a_bundle_turns_stored_without_a_reload(followed):
    """The cell under the cursor goes from missing to in progress to stored, and the progress line follows."""
    made = MadeUpExport(days=3)
    made.spoil(100)
    run = MadeUpRun(made)
    page = followed(run)
    expect(page.locator("#live")).to_have_text("Live: 1 of 3 bundles stored.")
    picture = picture_of(page, "Days by time of day")
    page.get_by_role("button", name="Next gap").click()
    picture.focus()
    readout = readout_of(picture)
    expect(readout).to_contain_text("2026-01-03 Sat, 02:00 to 02:30: missing, no run has asked for it")
    run.progress = "2 of 3 bundles stored"
    run.emit(in_progress(made, 100))
    expect(readout).to_have_text(re.compile("02:00 to 02:30: started"))
    expect(page.locator("#live")).to_have_text("Live: 2 of 3 bundles stored.")
    run.emit(stored(made, 100, rows=1234))
    expect(readout).to_have_text("2026-01-03 Sat, 02:00 to 02:30: stored, 1,234 rows")
    expect(picture).to_be_focused()
    assert page.evaluate("window.isFirst")


def test_all_changes_of_a_day_are_drawn(followed):
    """Rows of the day, the legend, the table of its bundles, and a day after the last one; foreign text stays text."""
    made = MadeUpExport(days=3)
    for number in range(96, 144):
        made.spoil(number)
    run = MadeUpRun(made, now=float(FIRST + 3 * DAY))
    page = followed(run)
    page.locator("summary").first.click()
    run.emit(*(stored(made, number, rows=10) for number in range(96, 142)))
    run.emit(BundleParked(made.bundle(142), Failed(HOSTILE[0])), in_progress(made, 143), in_progress(made, 144))
    table = page.locator("details tbody").first
    expect(page.get_by_role("list", name="Legend").first).to_contain_text("parked")
    expect(page.locator(".buttons .quiet").first).to_contain_text("2026-01-01 to 2026-01-04")
    expect(picture_of(page, "Days by time of day").locator("text.strong", has_text="460")).to_have_count(1)
    picture_of(page, "Days by time of day").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    expect(table.locator("tr")).to_have_count(48)
    expect(table.locator("tr").nth(46)).to_contain_text("parked: </script><script>document.title='owned'</script>")
    expect(page).to_have_title("Healthy: asyncexport")


def test_the_first_bundle_of_an_export_brings_its_picture(followed):
    """The page of a first run begins without pictures."""
    made = MadeUpExport(days=0)
    run = MadeUpRun(made, now=float(FIRST))
    page = followed(run)
    assert picture_of(page, "Days by time of day").count() == 0
    run.emit(stored(made, 5, rows=7))
    picture = picture_of(page, "Days by time of day")
    picture.focus()
    expect(readout_of(picture)).to_have_text("2026-01-01 Thu, 02:30 to 03:00: stored, 7 rows")


def test_the_end_of_a_run_brings_the_final_page(followed):
    """The verdict, the figures and what is missing are those after the run, and the page says that it has ended."""
    made = MadeUpExport(days=3)
    made.spoil(50)
    run = MadeUpRun(made)
    page = followed(run)
    expect(page.get_by_role("heading", level=1)).to_have_text("Not healthy")
    expect(page.locator("#missing")).to_contain_text("1 in all")
    stored(made, 50, rows=9)
    run.progress = "the run has ended with exit code 0"
    run.end()
    expect(page.locator("#live")).to_have_attribute("data-state", "ended")
    expect(page.locator("#live")).to_have_text("The run has ended with exit code 0.")
    expect(page.locator("#missing")).to_contain_text("Nothing.")
    expect(page.locator(".figures")).to_contain_text("144 bundles")


def test_the_live_page_is_accessible(followed):
    """After changes, axe finds nothing serious."""
    made = MadeUpExport(days=70)
    run = MadeUpRun(made)
    page = followed(run)
    run.emit(in_progress(made, 70 * 48), stored(made, 70 * 48 + 1, rows=3))
    expect(page.get_by_role("list", name="Legend").first).to_contain_text("started")
    found = axe.Axe().run(page).response["violations"]
    assert {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found} == {}


def test_changes_among_20_000_bundles_do_not_block_the_page(followed, summary_line):
    """With 5-minute bundles on a canvas, a change is drawn without a task above 100 ms."""
    made = MadeUpExport(days=70, width=300)
    run = MadeUpRun(made, now=float(FIRST + 70 * DAY))
    page = followed(run)
    page.evaluate(OBSERVER)
    picture = picture_of(page, "Days by time of day")
    picture.focus()
    last = 70 * 288 - 1
    longest = []
    for rows in range(1_000, 6_000, 1_000):
        page.evaluate("void (window.tasks.length = 0)")
        run.emit(stored(made, last, rows=rows))
        expect(readout_of(picture)).to_contain_text(f"stored, {rows:,} rows")
        longest.append(max(page.evaluate("window.tasks"), default=0))
    shown = ", ".join(f"{ms:.0f}" for ms in longest)
    summary_line(f"changes among 20,000 bundles in Chromium: the longest task of each of 5 took {shown} ms")
    assert min(longest) <= LONGEST_TASK_MS
