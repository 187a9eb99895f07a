"""The status page in a real browser: what it shows, that it can be used with the keyboard, and how fast it is.

Needs Chromium and the extra `browser`; without them, each test is skipped with the reason.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncexport.core.bundles import DAY
from asyncexport.core.health.records import AcceptedGap, RunRecord
from asyncexport.core.sentinel.shortfalls import Shortfall, ShortfallRule
from asyncexport.core.states import Failed
from asyncexport.monitor.page_text import GAPS_IN_HTML
from tests.page_rig import FIRST, MadeUpExport, html_of, one_of_each, report_on, some_hours, some_runs, written
from tests.test_page import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra `browser`")
expect = playwright.expect

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

WIDE = {"width": 1200, "height": 900}
NARROW = {"width": 360, "height": 780}

LONGEST_TASK_MS = 100
"""A longer task of the page would make it feel stuck."""

LOADS = 5
"""Loads of which the best counts: other programs on a busy machine only make tasks longer."""

OBSERVER = """
window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((entry) => entry.duration)))
  .observe({ type: "longtask", buffered: true });
"""
"""Collects the durations of tasks above 50 ms, in milliseconds."""

Shown = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium once for all tests."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: install Debian's package `chromium`")
    with playwright.sync_playwright() as started:
        # Chromium's sandbox cannot be used by root.
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield chromium
        chromium.close()


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Shown]:
    """Show a page; at the end, it must have had no error, asked for nothing and broken no rule of its policy."""
    contexts, troubles = [], []

    def show(html: str, **options: Any) -> Any:
        address = written(html, tmp_path)

        def note(request: Any) -> None:
            if request.url not in (address, "data:,"):
                troubles.append(request.url)

        context = browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", note)
        page.add_init_script(OBSERVER)
        page.goto(address)
        expect(page.locator("html")).to_have_attribute("data-ready", "yes", timeout=30_000)
        return page

    yield show
    for context in contexts:
        context.close()
    assert troubles == []


def full_page() -> str:
    """Return a page with every state, runs and requests, and more days than the picture shows."""
    return html_of(one_of_each(70), runs=some_runs(), hours=some_hours(70))


def picture_of(page: Any, name: str) -> Any:
    """Return the picture with this name."""
    return page.get_by_role("application", name=name)


def readout_of(picture: Any) -> Any:
    """Return the line below a picture."""
    return picture.locator("xpath=following-sibling::output")


def test_the_verdict_is_that_of_the_report(shown):
    """The reader sees it first, in the words of `status`."""
    made = one_of_each()
    page = shown(html_of(made, runs=some_runs()))
    expect(page.get_by_role("heading", level=1)).to_have_text("Not healthy")
    expect(page.locator("#verdict")).to_have_text(report_on(made, runs=some_runs()).verdict.reason)
    expect(page).to_have_title("Not healthy: asyncexport")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"color_scheme": "dark"},
        {"viewport": NARROW},
        {"viewport": NARROW, "color_scheme": "dark"},
        {"forced_colors": "active"},
        {"forced_colors": "active", "color_scheme": "dark"},
        {"reduced_motion": "reduce", "viewport": {"width": 640, "height": 480}},
    ],
    ids=str,
)
def test_axe_finds_nothing_serious(shown, options):
    """With everything opened, no rule for accessibility is broken seriously, and nothing is wider than the window."""
    page = shown(full_page(), **options)
    for summary in page.locator("summary").all():
        summary.click()
    expect(page.locator("details tbody tr").last).to_be_visible()
    found = axe.Axe().run(page).response["violations"]
    assert {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found} == {}
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(shown, text):
    """It runs no script, makes no element, loads nothing and does not turn its surroundings around."""
    made = one_of_each()
    made.name = text
    made.__post_init__()
    made.spoil(9, Failed(text))
    run = RunRecord(text, float(FIRST), text, FIRST + 9.0, 5, text)
    page = shown(html_of(made, directory=text, runs=[run]))
    seen = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    expect(page.get_by_role("heading", level=2).first).to_have_text(seen)
    for summary in page.locator("summary").all():
        summary.click()
    expect(page.locator("#runs td").nth(1)).to_have_text(seen)
    assert page.locator("img, b, script[src], [onmouseover]").count() == 0
    expect(page).to_have_title("Not healthy: asyncexport")


def test_every_gap_is_reached_with_the_keyboard(shown):
    """Tab and Enter lead to each gap in turn, also where the days shown have to change, and back to the first."""
    made = MadeUpExport(days=130)
    for number in (5, 6, 100, 2000, 2900, 3000, 3001, 6200):
        made.spoil(number, Failed("no") if number % 2 else None)
    gaps = report_on(made).exports[0].gaps
    page = shown(html_of(made))
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Next gap":
            break
    readout = readout_of(picture_of(page, "Days by time of day"))
    for number, gap in [*enumerate(gaps, 1), (1, gaps[0])]:
        page.keyboard.press("Enter")
        expect(readout).to_contain_text(f"gap {number} of {len(gaps)}")
        expect(readout).to_contain_text(gap.command)


def test_the_arrow_keys_visit_every_bundle(shown):
    """From the last one, where the cursor begins, to the first, each is described with its time."""
    made = one_of_each(6)
    page = shown(html_of(made, now=float(FIRST + 7 * DAY)))
    picture = picture_of(page, "Days by time of day")
    picture.focus()
    readout, seen = readout_of(picture), []
    for _ in range(7 * 48):
        seen.append(readout.text_content())
        page.keyboard.press("ArrowLeft")
    whens = [text.split(": ")[0] for text in seen]
    assert whens[0] == "2026-01-07 Wed, 23:30 to 24:00"
    assert whens[-1] == "2026-01-01 Thu, 00:00 to 00:30"
    assert len(set(whens)) == 7 * 48
    words = " ".join(seen)
    for state in ("no rows", "exported again", "before its data was settled", "kept, because", "deleted or changed"):
        assert state in words
    for state in (
        "missing, no run",
        "parked: the operation failed",
        ": started",
        "accepted as missing: the site",
        "few rows: ",
        "accepted: a holiday",
    ):
        assert state in words


def test_few_rows_and_accepted_time_are_drawn(shown):
    """Stored time with few rows has its reason, and so has time for which the user has accepted that."""
    made = MadeUpExport(days=3)
    made.shortfalls.append(Shortfall(made.bundle(143), ShortfallRule.EMPTY, 5400, 0))
    made.accepted.append(AcceptedGap(made.bundle(142), "the site was down", FIRST))
    page = shown(html_of(made, now=float(FIRST + 3 * DAY)))
    picture = picture_of(page, "Days by time of day")
    picture.focus()
    expect(readout_of(picture)).to_contain_text("where about 5,400 are usual")
    page.keyboard.press("ArrowLeft")
    expect(readout_of(picture)).to_contain_text("accepted: the site was down")
    legend = page.get_by_role("list", name="Legend").first
    expect(legend).to_contain_text("far fewer rows than usual")
    expect(legend).to_contain_text("accepted by you")
    expect(picture.locator('path[data-layer="hatch"]')).to_have_count(1)
    expect(picture.locator('path[data-layer="bar"]')).to_have_count(1)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ArrowUp", "2026-03-06 Fri, 12:00"),
        ("ArrowDown", "2026-03-04 Wed, 12:00"),
        ("PageUp", "2026-03-12 Thu, 12:00"),
        ("PageDown", "2026-02-26 Thu, 12:00"),
        ("Home", "2026-03-05 Thu, 00:00"),
        ("End", "2026-03-05 Thu, 23:30"),
    ],
)
def test_keys_move_the_cursor_by_days_and_weeks(shown, key, expected):
    """The newest day is at the top, so Up leads to the next day."""
    made = MadeUpExport(days=80)
    made.spoil(63 * 48 + 24)
    page = shown(html_of(made))
    page.get_by_role("button", name="Next gap").click()
    picture = picture_of(page, "Days by time of day")
    expect(readout_of(picture)).to_contain_text("2026-03-05 Thu, 12:00")
    picture.focus()
    page.keyboard.press(key)
    expect(readout_of(picture)).to_contain_text(expected)


def test_the_days_shown_follow_the_cursor(shown):
    """Moving down from the newest day leads to older days, down to the first week."""
    page = shown(html_of(MadeUpExport(days=130)))
    picture = picture_of(page, "Days by time of day")
    picture.focus()
    readout = readout_of(picture)
    for _ in range(18):
        before = readout.text_content()
        page.keyboard.press("PageDown")
        expect(readout).not_to_have_text(before)
    expect(readout).to_contain_text("2026-01-0")


def test_there_is_a_strip_above_60_days(shown):
    """It has a cell per day, and choosing one shows the days around it."""
    assert picture_of(shown(html_of(MadeUpExport(days=55))), "All days").count() == 0
    page = shown(html_of(MadeUpExport(days=130)))
    strip = picture_of(page, "All days")
    strip.focus()
    page.keyboard.press("Home")
    expect(readout_of(strip)).to_contain_text("2026-01-01 Thu: ")
    expect(page.locator(".buttons .quiet").first).to_contain_text("2026-01-01 to 2026-03-01")
    expect(page.locator("summary").first).to_have_text("Table of the bundles of 2026-01-01")
    page.keyboard.press("ArrowRight")
    expect(readout_of(strip)).to_contain_text("2026-01-08 Thu: ")


def test_more_than_5000_bundles_are_drawn_on_a_canvas(shown):
    """Fewer are SVG. Both show the same: a missing bundle is where the pointer finds it."""
    for width, canvases in ((1800, 0), (300, 1)):
        made = MadeUpExport(days=40, width=width)
        made.spoil(20 * DAY // width)
        page = shown(html_of(made))
        picture = picture_of(page, "Days by time of day")
        expect(picture.locator("canvas")).to_have_count(canvases)
        expect(picture.locator("svg")).to_have_count(1)
        page.get_by_role("button", name="Next gap").click()
        expect(readout_of(picture)).to_contain_text("2026-01-21 Wed, 00:00")
        cursor, box = picture.locator(".cursor").bounding_box(), picture.bounding_box()
        place = {"x": cursor["x"] - box["x"] + cursor["width"] / 2, "y": cursor["y"] - box["y"] + cursor["height"] / 2}
        picture.click(position={"x": 600, "y": 300})
        expect(readout_of(picture)).not_to_contain_text("2026-01-21 Wed, 00:00")
        picture.click(position=place)
        expect(readout_of(picture)).to_contain_text("2026-01-21 Wed, 00:00")


def test_a_canvas_follows_the_colour_scheme(shown):
    """When the system changes to dark or to forced colours, it is drawn again."""
    page = shown(html_of(MadeUpExport(days=40, width=300)))
    picture = picture_of(page, "Days by time of day")
    seen: list[str] = []
    for media in ({}, {"color_scheme": "dark"}, {"forced_colors": "active"}):
        page.emulate_media(**media)
        # It is drawn in slices: wait until two of them are equal, and unlike what was there before.
        before = ""
        while not before or before in seen:
            found = picture.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
            before = found if found == before or not before else ""
        seen.append(before)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("is_canvas", [False, True])
def test_a_printed_page_is_complete(shown, is_canvas):
    """Pictures of a wide window fit the paper, tables are not cut off, and a dark page is printed in dark letters."""
    made = MadeUpExport(days=20, width=300) if is_canvas else one_of_each(70)
    page = shown(html_of(made, runs=some_runs(), hours=some_hours(70)), color_scheme="dark")
    assert page.locator("canvas").count() == is_canvas
    page.emulate_media(media="print", color_scheme="dark")
    # All in one call: the pictures have no time to be drawn again, as when a page is printed.
    found = page.evaluate(
        """() => {
          document.body.style.width = "600px";
          const edges = [...document.querySelectorAll(".picture")].map((box) => {
            const drawn = [...box.querySelectorAll("svg, canvas")].map((one) => one.getBoundingClientRect());
            return [drawn, box.getBoundingClientRect()];
          });
          return {
            right: Math.max(...edges.flatMap(([drawn]) => drawn.map((one) => one.right))),
            spare: Math.max(...edges.map(([drawn, box]) => box.bottom - Math.max(...drawn.map((one) => one.bottom)))),
            apart: Math.max(...edges.map(([drawn]) => drawn.at(-1).bottom - drawn[0].bottom)),
            colour: getComputedStyle(document.body).color,
            buttons: [...document.querySelectorAll("button")].filter((one) => one.checkVisibility()).length,
            cut: [...document.querySelectorAll(".scroll")]
              .filter((one) => getComputedStyle(one).maxHeight !== "none").length,
          };
        }"""
    )
    assert found["right"] <= 600
    assert abs(found["spare"]) < 2
    assert abs(found["apart"]) < 2
    assert (found["colour"], found["buttons"], found["cut"]) == ("rgb(27, 31, 36)", 0, 0)


def test_each_picture_has_its_table(shown):
    """Bundles of a day, days, runs and requests are tables as well, complete when they are opened."""
    made, runs, hours = MadeUpExport(days=300), some_runs(), some_hours(30)
    page = shown(html_of(made, runs=runs, hours=hours))
    tables = page.locator("details")
    for summary in page.locator("summary").all():
        summary.click()
    # The newest of the 302 days has two bundles less than four hours: it is the one that is not due.
    expect(tables.nth(1).locator("tbody tr")).to_have_count(302)
    expect(tables.nth(2).locator("tbody tr")).to_have_count(60)
    expect(tables.nth(3).locator("tbody tr")).to_have_count(30)
    strip = picture_of(page, "All days")
    strip.focus()
    page.keyboard.press("Home")
    expect(tables.nth(0).locator("tbody tr")).to_have_count(48)
    assert re.match(r"00:0000:30stored", tables.nth(0).locator("tbody tr").first.text_content() or "")


def test_all_gaps_can_be_listed_and_their_commands_copied(shown):
    """Commands that the script puts together equal those of the report, and Copy copies them."""
    made = MadeUpExport(days=10)
    for number in range(1, 480, 2):
        made.spoil(number, Failed("no") if number % 3 else None)
    gaps = report_on(made).exports[0].gaps
    page = shown(html_of(made), permissions=["clipboard-read", "clipboard-write"])
    codes = page.locator("#gaps code")
    expect(codes).to_have_count(GAPS_IN_HTML)
    page.get_by_role("button", name="List 200 more of 220").click()
    expect(codes).to_have_count(GAPS_IN_HTML + 200)
    page.get_by_role("button", name="List 20 more of 20").click()
    expect(codes).to_have_count(240)
    assert codes.all_text_contents() == [gap.command for gap in gaps]
    last = page.locator("#gaps tr").last
    last.get_by_role("button", name="Copy").click()
    expect(last.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == gaps[-1].command
    last.get_by_role("button", name="Show").click()
    picture = picture_of(page, "Days by time of day")
    expect(picture).to_be_focused()
    expect(readout_of(picture)).to_contain_text("gap 240 of 240")


def test_without_a_clipboard_the_command_is_selected(shown):
    """The reader can copy it with the keys of the system."""
    page = shown(html_of(one_of_each()))
    page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('refused')))")
    code = page.locator("#gaps code").first
    page.locator("#gaps").get_by_role("button", name="Copy").first.click()
    expect(page.get_by_text("Selected").first).to_be_visible()
    assert page.evaluate("getSelection().toString()") == code.text_content()


def test_an_old_page_says_so(shown):
    """Nobody mistakes the verdict of last week for today's."""
    page = shown(html_of(MadeUpExport(days=3)))
    expect(page.locator("#age.stale")).to_contain_text("this page is old")


def test_a_page_without_a_ledger_is_shown(shown):
    """It has only the verdict."""
    page = shown(html_of())
    expect(page.get_by_text("No run is on record.")).to_be_visible()


def test_without_scripts_the_page_has_its_verdict_and_commands(browser, tmp_path):
    """Pictures are missing, and the page says how to see the rest."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written(html_of(one_of_each()), tmp_path))
    expect(page.get_by_role("heading", level=1)).to_have_text("Not healthy")
    expect(page.locator("code.command").first).to_be_visible()
    expect(page.get_by_text("The pictures need JavaScript.")).to_be_visible()
    context.close()


def twenty_thousand(days: int, width: int) -> MadeUpExport:
    """Return an export of 20,000 bundles and a few gaps."""
    made = MadeUpExport(days=days, width=width)
    for number in (30, 31, 5_000, 12_345, 19_000):
        made.spoil(number, Failed("no") if number % 2 else None)
    return made


@pytest.mark.parametrize(("days", "width"), [(417, 1800), (70, 300)], ids=["30 minutes", "5 minutes"])
def test_20_000_bundles_never_block_the_page(shown, summary_line, days, width):
    """While it is drawn, and while keys move the cursor, no task takes longer than 100 ms."""
    html = html_of(twenty_thousand(days, width), runs=some_runs(400), hours=some_hours(400))
    longest = []
    for _ in range(LOADS):
        page = shown(html)
        picture = picture_of(page, "Days by time of day")
        picture.focus()
        for key in ("ArrowRight", "PageDown", "ArrowDown", "End"):
            page.keyboard.press(key)
        page.get_by_role("button", name="Next gap").click()
        expect(readout_of(picture)).to_contain_text("of 5)")
        longest.append(max(page.evaluate("window.tasks"), default=0))
        page.context.close()
    shown_longest = ", ".join(f"{ms:.0f}" for ms in longest)
    summary_line(
        f"20,000 bundles of {width // 60} minutes in Chromium: {len(html.encode()):,} bytes; the longest task of each "
        f"of {LOADS} loads took {shown_longest} ms (0: none above 50)"
    )
    assert min(longest) <= LONGEST_TASK_MS
