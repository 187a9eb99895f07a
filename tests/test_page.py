"""The status page as a file: its data, its policy, foreign text, and how it is written."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.cli import main
from asyncexport.core.bundles import DAY, HOUR, Bundle, Range
from asyncexport.core.exits import Exit
from asyncexport.core.health.records import AcceptedGap, HourCount, RunRecord
from asyncexport.core.sentinel.shortfalls import Shortfall, ShortfallRule
from asyncexport.core.states import BundleRecord, Created, Failed, Stored
from asyncexport.errors import StorageError
from asyncexport.ledger import Ledger
from asyncexport.monitor.files import replace_file
from asyncexport.monitor.page_data import ALTERED, CHANGED, EMPTY, KEPT, KINDS, REFRESHED, UNSETTLED, request_data
from asyncexport.monitor.page_text import GAPS_IN_HTML
from tests.ledger_rig import fill
from tests.page_rig import (
    FIRST,
    HALF_HOUR,
    MadeUpExport,
    again,
    html_of,
    one_of_each,
    report_on,
    some_hours,
    some_runs,
)

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onmouseover=alert(1) x='",
    "<!--<script>",
    "&lt;b&gt; &amp; ]]>",
    "\u202eevil\u202c \u2028line\u2029 🎈",
    "${title} $policy",
)


def data_of(html: str) -> dict[str, Any]:
    """Return the data in a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(found)
    return data


def verdict_of(html: str) -> tuple[str, str]:
    """Return the verdict of a page: in two words, and its reason."""
    (state,) = re.findall(r"<h1>(.*?)</h1>", html)
    (reason,) = re.findall(r'<p id="verdict">(.*?)</p>', html)
    return state, unescape(reason)


def archives_in(export: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the ranges of the archives in an export's data, as the script reads them."""
    found, reached = [], 0
    for skipped, width, count in export["runs"]:
        reached += skipped
        for _ in range(count):
            found.append((reached, reached + width))
            reached += width
    return found


def ranges_in(rows: list[list[int]]) -> list[tuple[int, int, str]]:
    """Return the ranges of spans or gaps, each with its kind, as the script reads them."""
    found: list[tuple[int, int, str]] = []
    reached = 0
    for skipped, seconds, kind, _ in rows:
        start = reached + skipped
        reached = start + seconds
        found.append((start, reached, KINDS[kind]))
    return found


@given(
    pieces=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([300, 1800, 1800, 3600]), st.integers(0, 99))),
    missing=st.sets(st.integers(0, 40)),
)
def test_the_data_has_the_range_and_rows_of_every_archive(pieces, missing):
    """Whatever widths and pauses the archives have, the compact form has the same ranges and rows."""
    made, at = MadeUpExport(days=0), FIRST
    for number, (pause, width, rows) in enumerate(pieces):
        at += pause * HALF_HOUR
        archive = Stored("path", 1, rows, "0" * 64, at + 3 * DAY)
        made.records[number] = BundleRecord(Bundle("events", Range(at, at + width)), 0, archive, archive)
        at += width
    for number in missing & made.records.keys():
        made.records[number] = None
    archives = made.archives
    (export,) = data_of(html_of(made, now=float(FIRST + 400 * DAY)))["exports"]
    assert archives_in(export) == [(one.bundle.range.start, one.bundle.range.end) for one in archives]
    assert export["rows"] == [one.stored.rows for one in archives if one.stored]
    assert len(export["flags"]) == len(archives)


def test_each_archive_has_its_flags():
    """Empty, refreshed, unsettled, kept and altered archives are marked, and only these."""
    made = MadeUpExport(days=1)
    for number in range(48):
        made.records[number] = made.stored(number)
    made.records[1] = made.stored(1, rows=0)
    made.records[2] = made.stored(2, revision=2)
    made.keep(3)
    made.altered.append(made.stored(4))
    made.unsettled.append(made.stored(5))
    first = made.stored(6).stored
    assert first
    same = first.written_in(0)
    made.records[6] = BundleRecord(made.bundle(6), 1, same, same)
    (export,) = data_of(html_of(made))["exports"]
    flags = [ord(letter) - ord("0") for letter in export["flags"]]
    assert flags[:8] == [0, EMPTY, REFRESHED | CHANGED, KEPT, ALTERED, UNSETTLED, REFRESHED, 0]
    assert set(flags[8:]) == {0}


def test_what_is_not_stored_is_a_span_with_its_reason():
    """Missing, parked, accepted and running bundles each have a span; an accepted one is no longer parked."""
    made = MadeUpExport(days=2)
    made.spoil(10)
    made.spoil(20, Failed("bad luck"))
    made.spoil(30, Failed("never mind"))
    made.accepted.append(AcceptedGap(made.bundle(30), "not needed", FIRST))
    made.spoil(40, Created(1, FIRST, "operation"))
    (export,) = data_of(html_of(made))["exports"]
    expected = {10: "never asked", 20: "parked", 30: "accepted", 40: "in progress"}
    spans = ranges_in(export["spans"])
    found = {(start - FIRST) // HALF_HOUR: kind for start, _, kind in spans if kind != "not due"}
    assert found == expected
    texts = [export["texts"][text] for *_, text in export["spans"]]
    assert texts[:4] == ["", "bad luck", "not needed", ""]


def test_many_distinct_reasons_do_not_make_the_page_large():
    """20,000 parked bundles, each with a long reason of its own, fit into a megabyte."""
    made = MadeUpExport(days=0)
    for number in range(20_000):
        made.spoil(number, Failed(f"the operation {number} failed {'so ' * 60}"))
    assert len(html_of(made, now=float(FIRST + 500 * DAY)).encode()) <= 1_000_000


def test_20_000_bundles_fit_into_a_megabyte(summary_line):
    """So does every second one missing, which makes 10,000 gaps."""
    made = MadeUpExport(days=417)
    sizes = [len(html_of(made, runs=some_runs(400), hours=some_hours(400)).encode())]
    for number in range(0, len(made.records), 2):
        made.spoil(number)
    sizes.append(len(html_of(made, runs=some_runs(400), hours=some_hours(400)).encode()))
    summary_line(f"status page of 20,016 bundles: {sizes[0]:,} bytes; every second one missing: {sizes[1]:,} bytes")
    assert max(sizes) <= 1_000_000


def test_a_weekday_usually_has_the_median_of_its_complete_days():
    """Incomplete days do not count, and fewer than three complete days say nothing."""
    made = MadeUpExport(days=7 * 4)
    for number in range(48 * 28):
        made.records[number] = made.stored(number, rows=1 + number // 48 // 7)
    made.spoil(0)
    (export,) = data_of(html_of(made))["exports"]
    # 2026-01-01 is a Thursday; its first day is incomplete.
    assert export["usual"] == [120, 120, 120, 144, 120, 120, 120]
    (short,) = data_of(html_of(MadeUpExport(days=14)))["exports"]
    assert short["usual"] == [None] * 7


def test_a_day_has_its_rows_and_its_missing_time():
    """Rows, archives, stored and missing seconds of a day add up."""
    made = MadeUpExport(days=3)
    for number in (50, 51, 60):
        made.spoil(number)
    (export,) = data_of(html_of(made))["exports"]
    rows, archives, stored, missing = export["days"][1]
    records = [made.records[number] for number in range(48, 96)]
    assert rows == sum(one.stored.rows for one in records if one and one.stored)
    assert (archives, stored, missing) == (45, DAY - 3 * HALF_HOUR, 3 * HALF_HOUR)
    assert export["first_day"] == FIRST // DAY


def test_an_absurd_start_does_not_make_the_page_large():
    """If nights begin in the year 1000, the picture has the newest ten years."""
    html = html_of(MadeUpExport(days=1), since=-30_000_000_000)
    (export,) = data_of(html)["exports"]
    assert len(export["days"]) == 3_653
    assert len(html) < 200_000


def test_requests_are_counted_by_hour_or_by_day():
    """Up to ten days are shown by hour, more by day; 429s and other failures are counted apart."""
    hours = [
        HourCount(FIRST, "create", 200, 3),
        HourCount(FIRST, "create", 429, 2),
        HourCount(FIRST, "list", 0, 1),
        HourCount(FIRST + HOUR, "poll", 503, 4),
    ]
    short = request_data(hours)
    assert short["unit"] == HOUR
    assert short["counts"] == [[FIRST, 5, 0, 1, 0, 0, 2, 1], [FIRST + HOUR, 0, 4, 0, 0, 0, 0, 4]]
    long = request_data([*hours, HourCount(FIRST + 20 * DAY, "results", 200, 7)])
    assert long["unit"] == DAY
    assert long["counts"][0] == [FIRST, 5, 4, 1, 0, 0, 2, 5]


def test_the_page_has_the_last_60_runs():
    """The newest is the last one, and only that one may be in progress."""
    runs = data_of(html_of(runs=some_runs(75)))["runs"]
    assert len(runs) == 60
    assert [run["running"] for run in runs] == [False] * 60
    assert runs[-1]["began"] == some_runs(75)[-1].began


@pytest.mark.parametrize("counts", [{}, {"bundles": 3}, {"bundles": {"stored": "many"}, "requests": None}])
def test_counts_that_an_earlier_version_wrote_otherwise_are_left_out(counts):
    """The page is made although the counts of a run have an unknown form."""
    (run,) = data_of(html_of(runs=[RunRecord("nightly", FIRST, "", FIRST + 9.0, 0, "", counts)]))["runs"]
    assert (run["stored"], run["parked"], run["requests"]) == (0, 0, 0)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    """Names, reasons, paths, hosts, errors and commands never become markup, in the HTML or in the data."""
    made = one_of_each()
    made.name = text
    made.__post_init__()
    made.spoil(9, Failed(text))
    made.accepted.append(AcceptedGap(made.bundle(10), text, FIRST))
    run = RunRecord(text, float(FIRST), text, FIRST + 9.0, 5, text)
    html = html_of(made, directory=text, runs=[run])
    plain = html_of(one_of_each(), runs=[run])
    tags = [re.sub(r'"[^"]*"', '""', tag) for tag in re.findall(r"<[a-zA-Z/!][^>]*>", html)]
    assert set(tags) <= {re.sub(r'"[^"]*"', '""', tag) for tag in re.findall(r"<[a-zA-Z/!][^>]*>", plain)} | {"<b>"}
    assert html.count("<script") == html.count("</script") == 2
    (found,) = re.findall(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert not set("<>&\u2028\u2029") & set(found)


def test_all_foreign_text_is_cleaned():
    """No text gets into the page without the function that hides secrets."""
    made = one_of_each()
    made.spoil(9, Failed("SECRET"))
    made.accepted.append(AcceptedGap(made.bundle(10), "SECRET", FIRST))
    run = RunRecord("SECRET", float(FIRST), "SECRET", FIRST + 9.0, 5, "SECRET")
    html = html_of(made, directory="SECRET", runs=[run], clean=lambda text: text.replace("SECRET", "***"))
    assert "SECRET" not in html
    assert html.count("***") >= 6


def test_the_policy_allows_only_the_page_itself():
    """The hashes are those of its style and its script, and nothing is inline or loaded."""
    html = html_of(one_of_each())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    script = html.rpartition("<script>")[2].partition("</script>")[0]
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{hashes[0]}'",
        f"script-src 'sha256-{hashes[1]}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    markup = html.replace(script, "").replace(style, "")
    assert not re.search(r"<[^>]*\s(on\w+|style)=", markup)
    assert not re.search(r'(src|href)="(?!data:,|#)', markup)


def test_each_gap_is_listed_with_its_command():
    """The first gaps are in the HTML; the data has the range, reason and command of all."""
    made = MadeUpExport(days=4)
    for number in range(1, 160, 4):
        made.spoil(number, Failed("no") if number % 3 else None)
    report, html = report_on(made), html_of(made)
    gaps = report.exports[0].gaps
    assert len(gaps) == 40
    listed = re.findall(r'<code class="command">(.*?)</code>', html)
    assert listed == [escape(gap.command) for gap in gaps[:GAPS_IN_HTML]]
    (export,) = data_of(html)["exports"]
    assert ranges_in(export["gaps"]) == [(gap.range.start, gap.range.end, gap.reason) for gap in gaps]
    assert len(export["commands"]) <= 4


def test_the_page_has_one_command_for_all_that_was_started():
    """Each gap keeps its row; what runs have started also has a line with the command that finishes all of it."""
    made = MadeUpExport(days=4)
    for number in (10, 11, 40):
        made.spoil(number, Created(1, FIRST, "operation"))
    made.spoil(20)
    html = html_of(made, since=FIRST + DAY)
    assert "</bdi>, started: 3 bundles, 2 gaps, 1 h 30 min. Run the interrupted command again, or: <code" in html
    assert re.findall(r"<td>([^<>]*)</td><td><code", html) == [
        "started",
        "never asked, and not part of nightly runs",
        "started",
    ]
    assert "</bdi>, started" not in html_of(made, in_progress=True)


def test_the_page_says_what_else_to_do():
    """Altered and kept archives come with the command that deals with them."""
    made = one_of_each()
    html = unescape(html_of(made))
    assert again("verify", "--repair") in html
    assert again("retry", "--accept-fewer") in html


def test_the_page_lists_times_with_few_rows():
    """Each comes with the command that accepts it; the export's name is shown as text."""
    made = MadeUpExport(name="<b>shop</b>")
    made.shortfalls.append(Shortfall(made.bundle(40), ShortfallRule.EMPTY, 5400, 0))
    html = html_of(made)
    start, end = "2026-01-01T20:00:00Z", "2026-01-01T20:30:00Z"
    assert f"has no rows from {start} to {end}, where about 5,400 are usual" in html
    assert escape(again("accept", start, end, "--export", "<b>shop</b>", "--why", "REASON")) in html
    assert "<b>shop" not in html
    assert "Times with few rows" in html


def test_nothing_is_wrong_with_a_complete_directory():
    """The verdict is good, and nothing is missing."""
    run = RunRecord("nightly", FIRST + 4.0 * DAY, "host", FIRST + 4.0 * DAY + 60, 0, "", {})
    made = MadeUpExport(days=3)
    assert verdict_of(html_of(made, runs=[run])) == ("Healthy", report_on(made, runs=[run]).verdict.reason)
    assert "<p>Nothing.</p>" in html_of(made, runs=[run])


# The file


def test_an_existing_file_keeps_its_permissions(tmp_path):
    """A page that a web server may read stays readable."""
    path = tmp_path / "page.html"
    replace_file(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o640)
    replace_file(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path):
    """A link in the folder of a web server is not replaced by a file."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "page.html"
    link.symlink_to("real/page.html")
    replace_file(link, b"one")
    assert link.is_symlink()
    assert (tmp_path / "real/page.html").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["/dev/null", ".", "missing/page.html", "file/page.html", "loop"])
def test_what_cannot_be_a_file_is_refused(tmp_path, name, monkeypatch):
    """A device, a folder, a missing folder, a file as a folder and a loop are errors, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    with pytest.raises(StorageError, match="cannot be written"):
        replace_file(Path(name), b"one")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "loop"}
    assert Path("/dev/null").is_char_device()


# The command


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an output directory that has some of everything."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "exports"


async def filled(directory: Path) -> None:
    """Write a ledger."""
    ledger = await Ledger.open(directory)
    await fill(ledger)
    await ledger.close()


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the JSON lines that were printed."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def page_written() -> str:
    """Return the page."""
    return Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("options", [(), ("--check",)])
async def test_the_page_has_the_verdict_of_status(directory, capsys, options):
    """The verdict is that of `--json`, and the exit code is the same as without a page."""
    await filled(directory)
    without = main(["status", *options])
    capsys.readouterr()
    assert main(["--json", "status", *options, "--html", "page.html"]) == without == Exit.PARTIAL
    printed = lines_of(capsys)
    (health,) = [line for line in printed if line["type"] == "health"]
    html = page_written()
    assert verdict_of(html) == ("Not healthy", health["reason"])
    pages = [line for line in printed if line["type"] == "page"]
    assert pages == ([] if options else [{"type": "page", "path": "page.html", "bytes": len(html.encode())}])


async def test_a_ledger_that_cannot_be_read_makes_a_page_that_says_so(directory, capsys):
    """An older page that says that all is well does not stay."""
    await filled(directory)
    assert main(["status", "--html", "page.html"]) == Exit.PARTIAL
    (directory / ".asyncexport/ledger.sqlite3").write_bytes(b"damaged" * 999)
    for options in ((), ("--check",)):
        assert main(["status", "--html", "page.html", *options]) == Exit.LEDGER
        state, reason = verdict_of(page_written())
        assert state == "Not healthy"
        assert "damaged" in reason
    capsys.readouterr()


def test_an_empty_directory_has_a_page(directory, capsys):
    """It says that nothing was exported yet."""
    assert main(["status", "--html", "page.html"]) == Exit.DONE
    assert "wrote page.html" in capsys.readouterr().out
    assert verdict_of(page_written()) == (
        "Not healthy",
        "nothing exported yet: exports has no ledger",
    )


@pytest.mark.parametrize("name", ["notes.txt", "-", "."])
def test_a_file_that_is_no_page_is_not_overwritten(directory, capsys, name):
    """Neither is the ledger or a configuration, and the error says so before anything is read."""
    Path("notes.txt").write_text("mine")
    assert main(["status", "--html", name]) == Exit.USAGE
    assert "--html: " in capsys.readouterr().err
    assert Path("notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["missing/page.html", "/dev/null"])
def test_a_page_that_cannot_be_written_is_an_error(directory, capsys, name):
    """The exit code is that of a disk that is not writable."""
    assert main(["status", "--html", name]) == Exit.DISK
    assert f"{name} cannot be written" in capsys.readouterr().err


async def test_a_secret_in_a_setting_is_hidden_in_the_page(directory, capsys):
    """The commands repeat the settings of the call, without a proxy's password."""
    await filled(directory)
    main(["status", "--html", "page.html", "--set", "api.proxy=http://user:pa55word@proxy:1"])
    html = page_written()
    assert "pa55word" not in html
    assert "api.proxy=" in html
    capsys.readouterr()
