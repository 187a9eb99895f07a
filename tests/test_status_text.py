"""The report of `status` as text, from facts alone."""

import io
import os
import pty
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.cli.status_text import IF_WANTED, MOST_NAMED, export_lines, fitted, run_lines
from asyncexport.core.bundles import DAY
from asyncexport.core.health.records import RunRecord
from asyncexport.core.health.report import StatusReport
from asyncexport.core.parking import ParkedTimes
from asyncexport.core.states import Failed, Planned
from asyncexport.display import Outlet, ResultLines
from tests.page_rig import FIRST, MadeUpExport, report_on


def gap_lines(report: StatusReport) -> list[str]:
    """Return the lines about the gaps of the only export."""
    lines = list(export_lines(report.exports[0], now=report.now))
    start = next(at for at, line in enumerate(lines) if line.startswith("  gaps "))
    return [lines[start], *(line for line in lines[start + 1 :] if line.startswith("    "))]


def test_all_started_time_is_one_line_with_one_command():
    """After an interrupted run, one command finishes all that it started; it hides no other gap."""
    made = MadeUpExport(days=3)
    for number in range(10, 60, 5):
        for bundle in range(number, number + 4):
            made.spoil(bundle, Planned())
    assert gap_lines(report_on(made)) == [
        "  gaps        10, 20 h in all",
        "    started: 40 bundles, 10 gaps, 20 h: run the interrupted command again, or",
        "    asyncexport -c my.toml retry",
    ]
    made.spoil(100, Planned())
    made.spoil(110)
    lines = gap_lines(report_on(made, in_progress=True))
    assert lines[1] == "    started: 41 bundles, 11 gaps, 20 h 30 min: the run in progress finishes them"
    assert lines[2].endswith(" (30 min): never asked")


def test_the_largest_gaps_are_listed_first_if_not_all_are():
    """What is left out is smaller than what is shown, and its length is stated."""
    made = MadeUpExport(days=6)
    for number in range(MOST_NAMED + 2):
        for bundle in range(20 * number + 1, 20 * number + 2 + number):
            made.spoil(bundle)
    lines = gap_lines(report_on(made))
    assert [line.split("(")[1] for line in lines[1:4:2]] == ["6 h): never asked", "5 h 30 min): never asked"]
    assert lines[-1] == "                and 2 smaller, 1 h 30 min; --json lists all"
    assert len(lines) == 2 + 2 * MOST_NAMED


def test_time_before_nightly_runs_that_was_never_asked_for_is_no_fault():
    """Its command is for those who want it; a parked bundle of the same time is a fault."""
    made = MadeUpExport(days=6)
    made.spoil(10)
    made.spoil(20, Failed("no"))
    made.spoil(230)
    first, second, third = gap_lines(report_on(made, since=FIRST + 3 * DAY))[2::2]
    wanted = "    not part of nightly runs; if wanted: asyncexport -c my.toml backfill --start 2026-01-01T05:00:00Z "
    assert first.startswith(wanted)
    assert second.startswith("    asyncexport -c my.toml retry ")
    assert third.startswith("    asyncexport -c my.toml backfill ")


WORDS = st.lists(st.text("abc:-/.7", min_size=1, max_size=20), min_size=1, max_size=30)


@given(st.sampled_from(["", "  ", "    ", "  covered     "]), WORDS, st.integers(40, 90))
def test_lines_are_broken_between_words_only(start, words, columns):
    """The words stay whole and in order, every line fits, and the beginning of the first one stays."""
    lines = fitted(start + " ".join(words), columns)
    assert " ".join(lines).split() == [*start.split(), *words]
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith(start)
    assert len(lines) == 1 or min(len(line) - len(line.lstrip()) for line in lines[1:]) >= 4


def test_tables_are_broken_between_words_on_a_narrow_terminal():
    """At 60 columns, the last runs and what follows a label stay readable; commands stay one line each."""
    made = MadeUpExport(days=6)
    made.spoil(10)
    counts = {"bundles": {"stored": 1234, "failed": 1}}
    run = RunRecord("backfill", FIRST, ended=FIRST + 9000, exit_code=130, counts=counts)
    report = report_on(made, runs=(run,), since=FIRST + DAY)
    runs = [part for line in run_lines(report, most=5) for part in fitted(line, 60)]
    assert runs == [
        "last runs:",
        "  2026-01-01 00:00 UTC  backfill  2 h 30 min  exit 130",
        "      1,234 bundles stored, 1 parked",
    ]
    lines = [part for line in export_lines(report.exports[0], now=report.now) for part in fitted(line, 60)]
    long = [line for line in lines if len(line) > 60]
    assert [line.split(" asyncexport ")[0] for line in long] == [f"    {IF_WANTED.rstrip()}"]


@pytest.mark.parametrize("columns", [40, 49, 50, 80])
def test_the_picture_of_weeks_is_never_broken(columns):
    """On a narrow terminal, each week is still one line, with its characters below the names of their days."""
    made = MadeUpExport(days=6)
    made.spoil(10)
    report = report_on(made)
    exported = export_lines(report.exports[0], now=report.now, columns=columns)
    lines = [part for line in exported for part in fitted(line, columns)]
    head, first = next((one, lines[at + 1]) for at, one in enumerate(lines) if one.lstrip().startswith("week of"))
    assert max(len(head), len(first)) <= columns
    picture = first.removesuffix("  30 min missing").lstrip().removeprefix("2025-12-29")
    assert picture.replace(" ", "") == "-" + "#" * 15
    assert head.index("Thu") == first.index("-###")


def test_the_pieces_of_a_bundle_are_one_entry():
    """They are parked one after the other; the entry has the time after which nights retry all of them."""
    made = MadeUpExport(days=3, width=300)
    for number in range(6, 12):
        made.spoil(number, Failed("no"))
    made.spoil(20, Failed("no"))
    made.spoil(21, Failed("another reason"))
    report = report_on(made).exports[0]
    bundles = [made.bundle(number) for number in (*range(6, 12), 20, 21)]
    times = {bundle: ParkedTimes(1, FIRST + number) for number, bundle in enumerate(bundles)}
    report = replace(report, overview=replace(report.overview, parked_times=times))
    lines = list(export_lines(report, now=FIRST))
    at = lines.index("  parked      8")
    nights = "retried by the first nightly run after 2026-01-01T18:00:0"
    assert lines[at + 1 : at + 4] == [
        f"                2026-01-01T00:30:00Z to 2026-01-01T01:00:00Z (6 bundles): no; {nights}5Z",
        f"                2026-01-01T01:40:00Z to 2026-01-01T01:45:00Z: no; {nights}6Z",
        f"                2026-01-01T01:45:00Z to 2026-01-01T01:50:00Z: another reason; {nights}7Z",
    ]
    assert len(lines) == at + 4


def test_only_a_terminal_has_columns():
    """Files and pipes get each line of the report in one piece."""
    outer, inner = pty.openpty()
    with os.fdopen(outer, "rb"), os.fdopen(inner, "w") as terminal:
        termios.tcsetwinsize(inner, (24, 60))
        assert ResultLines(Outlet(terminal)).columns() == 60
    with Path(os.devnull).open("w") as file:
        assert Outlet(file).columns() is None
    assert Outlet(io.StringIO()).columns() is None
    assert fitted("word " * 50, None) == ["word " * 50]
