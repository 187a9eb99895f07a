"""The report of `status` as text, from facts alone."""

from asyncexport.cli.status_text import MOST_NAMED, export_lines
from asyncexport.core.bundles import DAY
from asyncexport.core.health.report import StatusReport
from asyncexport.core.states import Failed, Planned
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
    wanted = "    before nightly runs begin; if wanted: asyncexport -c my.toml backfill --start 2026-01-01T05:00:00Z "
    assert first.startswith(wanted)
    assert second.startswith("    asyncexport -c my.toml retry ")
    assert third.startswith("    asyncexport -c my.toml backfill ")
