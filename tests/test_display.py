"""The output for users and scripts: lines, the live view, events, and the closing text."""

import asyncio
import errno
import io
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.text import Text

from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.covered_range import CoveredRange, covering
from asyncexport.core.events import (
    BundleMoved,
    BundleParked,
    BundleStored,
    ExportStopped,
    Joining,
    Note,
    PossibleDuplicate,
    Retried,
)
from asyncexport.core.exits import Exit
from asyncexport.core.join_progress import JoinedRun, ShareProgress
from asyncexport.core.sentinel.shortfalls import Shortfall, ShortfallRule
from asyncexport.core.states import BundleRecord, Failed, FewerRows, Overdue, Stored
from asyncexport.core.summary import Snapshot, Summary, Tally
from asyncexport.display import (
    MessageLines,
    Outlet,
    ProgressCounter,
    ResultLines,
    RunViewer,
    closing_lines,
    fitted_table,
    listening,
    look_command,
    plain,
    show_bytes,
    table,
)
from asyncexport.display.event_records import progress_record
from asyncexport.display.live_view import LiveView
from asyncexport.display.progress_text import sentence
from asyncexport.display.progress_view import COARSE, FINE, Rates, draw
from asyncexport.errors import RefusedError, UnavailableError
from tests.virtual_time import on_virtual_time

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z

RUN = Snapshot(
    seconds=3_723.0,
    done=1_000,
    stored_before=101,
    planned=2_880,
    running=100,
    queued=30,
    fetching=9,
    downloading=4,
    received=0,
    parked=0,
    tokens=12,
    burst=50,
    scope="create?",
    next_request_seconds=0.0,
    paused_seconds=0.0,
    down_seconds=None,
    rows=8_412_113,
    bytes=1_234_567_890,
    expected_seconds=47_400.0,
)

WORST = replace(
    RUN,
    seconds=1_000_000.0,
    done=1_234_567,
    planned=9_999_999,
    running=100_000,
    queued=1_000_000,
    fetching=10_000,
    downloading=1_000,
    received=10**15,
    parked=12_345,
    tokens=1_000,
    burst=1_000,
    scope="all",
    next_request_seconds=3_599.0,
    rows=10**15,
    bytes=10**17,
    problems=("\x1b[2Jsegment checkout 2026-01-01T00:00:00Z: the operation failed: " + "no reason " * 40,) * 5,
    problem_ages=(1e6,) * 5,
)


class Screen(io.StringIO):
    """A terminal that wraps lines, and wraps the lines it shows again when it gets narrower."""

    def __init__(self, columns: int, rows: int = 24, *, encoding: str = "utf-8") -> None:
        super().__init__()
        self.columns, self.rows, self.code = columns, rows, encoding
        self.lines: list[str] = [""]
        self.at = 0
        self.writes: list[str] = []

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the terminal."""
        return self.code

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return self.columns, self.rows

    def resize(self, columns: int) -> None:
        """Wrap all lines again as some terminals do; the cursor stays in the empty line at the end."""
        assert self.at == len(self.lines) - 1
        self.lines = [
            piece
            for line in self.lines
            for piece in ([line[i : i + columns] for i in range(0, len(line), columns)] or [""])
        ]
        self.columns, self.at = columns, len(self.lines) - 1

    def write(self, text: str) -> int:
        """Process text and control sequences as a terminal does."""
        self.writes.append(text)
        column = 0
        for control, letter in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z])|(.|\n)", text):
            match control[-1:] or letter:
                case "A":
                    self.at -= int(control[2:-1])
                    assert self.at >= 0, "above the screen"
                case "K":
                    self.lines[self.at] = self.lines[self.at][:column]
                case "J":
                    self.lines[self.at :] = [self.lines[self.at][:column]]
                case "m" | "h" | "l" if control:
                    pass
                case "\r":
                    column = 0
                case "\n":
                    self.at, column = self.at + 1, 0
                    self.lines += [""] * (self.at + 1 - len(self.lines))
                case _:
                    assert column < self.columns, "a line as wide as the terminal"
                    line = self.lines[self.at].ljust(column)
                    self.lines[self.at] = line[:column] + letter + line[column + 1 :]
                    column += 1
        return len(text)

    @property
    def shown(self) -> list[str]:
        """The lines on the screen."""
        return [line.rstrip() for line in self.lines[:-1]]


class Closed(io.StringIO):
    """A stream whose reader is gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """An encoding, which is never used."""
        return "utf-8"

    def write(self, _: str) -> int:
        """Fail with the error number."""
        raise OSError(self.number, os.strerror(self.number))


def frame(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def drawn(snapshot: Snapshot, width: int, *, marks: str = FINE) -> list[str]:
    lines = draw(snapshot, "backfill everyone-events", width=width, now=NOON, rates=(1.1e6, 7400.0), marks=marks)
    assert all(line.cell_len <= width for line in lines)
    return [line.plain for line in lines]


def in_trouble(*problems: str) -> Snapshot:
    return replace(RUN, problems=problems, problem_ages=(0.0,) * len(problems))


def lines_of(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


# Formatting


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20_113_408, "20.1 MB"),
        (999_949, "1.0 MB"),
        (123_456_789, "123 MB"),
        (1_234_567_890, "1.2 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_sizes_have_about_three_digits(size, text):
    """A size is shown with the unit that users expect, at every order of magnitude."""
    assert show_bytes(size) == text


def test_no_text_moves_the_cursor():
    """Control characters in the service's text cannot clear a terminal or start a second line."""
    assert plain("a\x1b[2Jb\nc\td\u202ee") == "a [2Jb c d e"


def test_columns_are_aligned():
    """Text is aligned to the left and numbers to the right."""
    assert table([("what", "many"), ("a", "1,000"), ("bcdef", "7")], right=frozenset({1})) == [
        "what    many",
        "a      1,000",
        "bcdef      7",
    ]
    assert table([]) == []


# Lines


def test_an_error_and_its_hint_are_one_line_each():
    """Each line begins with the program's name and the kind of message."""
    stream = io.StringIO()
    MessageLines(Outlet(stream), timed=True).error("the service refused\nthe API key (401)", hint="check the key")
    assert lines_of(stream) == [
        "asyncexport: error: the service refused the API key (401)",
        "asyncexport: hint: check the key",
    ]


def test_as_json_every_line_is_an_object():
    """With `--log-format json` all of stderr, including errors and hints, can be parsed."""
    stream = io.StringIO()
    lines = MessageLines(Outlet(stream), as_json=True, tracebacks=True)
    lines.error("no", hint="do")
    lines.report("status", "half", done=1)
    lines.hint("go on")
    with listening(lines, level=logging.DEBUG):
        logging.getLogger("asyncexport.somewhere").debug("two\nlines", exc_info=ValueError("x"))
    fault, status, hint, record = map(orjson.loads, lines_of(stream))
    assert (fault["level"], fault["message"], fault["hint"]) == ("error", "no", "do")
    assert (status["kind"], status["done"]) == ("status", 1)
    assert (hint["kind"], hint["message"]) == ("hint", "go on")
    assert (record["level"], record["logger"], record["message"]) == ("debug", "asyncexport.somewhere", "two\nlines")
    assert "ValueError: x" in record["traceback"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one["time"]) for one in (fault, status, hint, record))


def test_log_lines_have_a_time_unless_they_are_shown_on_a_terminal():
    """A log file shows when something happened; a terminal shows it as it happens."""
    for timed, pattern in ((True, r"asyncexport: warning: \d{4}-\S+Z no"), (False, "asyncexport: warning: no")):
        stream = io.StringIO()
        with listening(MessageLines(Outlet(stream), timed=timed), level=logging.WARNING):
            logging.getLogger("asyncexport.x").warning("no")
        assert re.fullmatch(pattern, stream.getvalue().strip())


def test_libraries_are_only_logged_from_warning_up():
    """At `-vv` all of our own log is shown, but not the debug log of libraries."""
    stream = io.StringIO()
    with listening(MessageLines(Outlet(stream)), level=logging.DEBUG):
        logging.getLogger("asyncexport.x").debug("ours")
        logging.getLogger("some.library").info("theirs")
        logging.getLogger("some.library").warning("in trouble")
    logging.getLogger("asyncexport.x").error("after the end")
    assert lines_of(stream) == ["asyncexport: debug: ours", "asyncexport: warning: in trouble"]


def test_a_traceback_is_shown_only_when_asked_for():
    """Without `-vv` an error is one line."""
    for tracebacks in (False, True):
        stream = io.StringIO()
        with listening(MessageLines(Outlet(stream), tracebacks=tracebacks), level=logging.DEBUG):
            logging.getLogger("asyncexport.x").error("oh", exc_info=ValueError("the cause"))
        assert ("ValueError: the cause" in stream.getvalue()) is tracebacks


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_a_closed_terminal_is_no_failure(number):
    """The run continues although its messages can no longer be shown."""
    lines = MessageLines(Outlet(Closed(number)))
    lines.error("no", hint="do")
    lines.report("status", "x")
    with listening(lines, level=logging.WARNING):
        logging.getLogger("asyncexport.x").warning("no")
    pane = LiveView(Outlet(Closed(number)), size=lambda: (80, 24))
    pane.draw(frame("a"))
    pane.above("b")
    pane.clear()


def test_results_to_a_closed_pipe_are_dropped():
    """With `| head` the run continues, and the closed pipe is no failure."""
    results = ResultLines(Outlet(Closed(errno.EPIPE)))
    results.line("a")
    results.record({"type": "x"})
    assert results.gone
    assert results.failure is None


def test_a_full_disk_under_stdout_is_a_failure():
    """Results that could not be written are reported, since scripts rely on them."""
    results = ResultLines(Outlet(Closed(errno.ENOSPC)))
    results.line("a")
    assert results.gone
    assert results.failure is not None
    assert results.failure.errno == errno.ENOSPC


def test_characters_that_a_stream_cannot_encode_are_escaped():
    """On an ASCII stream no text is lost and nothing fails."""
    raw = io.BytesIO()
    results = ResultLines(Outlet(io.TextIOWrapper(raw, encoding="ascii")))
    results.line("näh")
    assert raw.getvalue() == b"n\\xe4h\n"
    assert not results.gone


# The live view


def test_the_live_view_shows_the_state_of_the_run():
    """It shows what is done, in progress and allowed, the data so far, and the expected end."""
    assert drawn(RUN, 79) == [
        "backfill everyone-events" + " " * 46 + "1 h 2 min",
        "━" * 21 + "╍" * 2 + "─" * 32 + "  1,101 of 2,880   38.2%",
        "bundles   100 running, 30 queued for a request, 1,640 waiting, 0 parked",
        "files     4 downloading, 5 ready to be fetched",
        "budget    12 of 50 requests left, next one now; only creates count, it seems",
        "data      8,412,113 rows, 1.2 GB; recently 7,400 rows/s, 1.1 MB/s",
        "end       in about 13 h 10 min, 2026-01-02 01:10 UTC",
    ]


@pytest.mark.parametrize("marks", [FINE, COARSE])
@pytest.mark.parametrize("width", [1, 2, 9, 19, 39, 59, 79, 119, 300])
@pytest.mark.parametrize("snapshot", [RUN, WORST, replace(RUN, planned=0, stored_before=0, done=0)])
def test_no_line_is_wider_than_the_terminal(snapshot, width, marks):
    """Every line fits any width for any numbers, and contains no control characters."""
    lines = drawn(snapshot, width, marks=marks)
    assert len(lines) <= 7 + 4 * 3
    assert all(line.isprintable() for line in lines)
    if marks is COARSE:
        assert all(line.isascii() for line in lines)


IN_TROUBLE = replace(
    RUN,
    running=100,
    queued=1_200,
    planned=99_999,
    parked=12,
    tokens=0,
    next_request_seconds=3_000.0,
    received=123_456_789,
)


@pytest.mark.parametrize("width", [79, 59, 49, 39])
@pytest.mark.parametrize(
    "snapshot",
    [
        RUN,
        IN_TROUBLE,
        replace(IN_TROUBLE, down_seconds=90_000.0),
        replace(IN_TROUBLE, paused_seconds=3_600.0, scope="all"),
        replace(IN_TROUBLE, expected_seconds=None),
    ],
    ids=["running", "parked", "unreachable", "paused", "end unknown"],
)
def test_a_narrow_terminal_shows_fewer_details_without_cutting_lines(snapshot, width):
    """Down to 40 columns only the heading is cut, and the elapsed time and the parked bundles are shown."""
    heading, _, *lines = drawn(snapshot, width)
    assert heading.endswith("  1 h 2 min")
    assert [line for line in lines if "…" in line] == []
    assert lines[0].endswith(f" {snapshot.parked} parked")
    if snapshot.down_seconds is None and snapshot.expected_seconds is not None:
        assert "13 h 10 min" in lines[-1]


def test_a_hundred_percent_means_complete():
    """The share is rounded down, so that an incomplete run never shows 100%."""
    assert " 99.9%" in drawn(replace(RUN, planned=100_000, done=99_999, stored_before=0), 79)[1]
    assert "100.0%" in drawn(replace(RUN, planned=1101), 79)[1]


def test_an_outage_is_shown_instead_of_the_end():
    """While the service is unreachable the end is unknown, and the outage is shown instead."""
    lines = drawn(replace(RUN, down_seconds=700.0, expected_seconds=None), 79)
    assert "service   unreachable for 12 min; retrying" in lines
    assert not [line for line in lines if line.startswith("end")]
    assert "end       not known yet" in drawn(replace(RUN, expected_seconds=None), 79)


def test_the_last_problems_are_shown_with_their_reason():
    """A long problem takes two lines, since its reason is at the end."""
    reason = "everyone-events 2026-01-01T00:00:00Z: parked: the operation failed: the search could not be carried out"
    lines = drawn(in_trouble("a: old", "b: older", "c: x", "d: y", reason), 79)
    assert not [line for line in lines if "old" in line]
    assert " ".join(line[10:] for line in lines[-2:]).endswith("the search could not be carried out")


def test_a_problem_of_many_bundles_is_shown_once():
    """The same reason for many bundles takes one line, so that other problems are visible."""
    lines = drawn(in_trouble("e 1: gone", "e 2: late", "e 3: gone", "e 4: gone"), 79)
    assert lines[7:] == ["problem   e 2: late", "problem   e 4: gone"]


def test_an_older_problem_is_shown_with_its_age():
    """A problem that happened minutes ago does not look new."""
    lines = drawn(replace(RUN, problems=("e 1: gone", "e 2: late"), problem_ages=(200.0, 5.0)), 79)
    assert lines[7:] == ["problem   e 1: gone (3 min ago)", "problem   e 2: late"]


def test_a_pause_after_a_429_is_shown_with_its_duration():
    """Tokens cannot be used during the pause, so only its duration is shown."""
    lines = drawn(replace(RUN, tokens=9, scope="all", next_request_seconds=27.0, paused_seconds=27.0), 79)
    assert lines[4] == "budget    paused by the service for 27 s (429: too many requests)"


def test_the_wait_for_the_next_request_is_shown():
    """Without a token the wait is shown, except in an outage, when it is unknown."""
    budget = "budget    0 of 50 requests left, next {}; only creates count, it seems"
    short, long = replace(RUN, tokens=0, next_request_seconds=0.4), replace(RUN, tokens=0, next_request_seconds=240.0)
    assert budget.format("one soon") in drawn(short, 79)
    assert budget.format("in 4 min") in drawn(long, 79)
    away = drawn(replace(long, down_seconds=9.0), 79)
    assert "budget    0 of 50 requests left; only creates count, it seems" in away


def test_before_any_answer_the_scope_is_not_shown():
    """What the limit counts is unknown until the service has answered."""
    unheard = drawn(replace(RUN, tokens=0, down_seconds=90.0, scope=""), 79)
    assert "budget    0 of 50 requests left" in unheard


def test_a_big_download_shows_progress():
    """Bytes of incomplete files are shown and count towards the rate."""
    rates = Rates()
    coming = [replace(RUN, seconds=s, bytes=0, rows=0, received=received) for s, received in ((60.0, 6_000), (70.0, 0))]
    assert rates.take(coming[0]) == (100.0, 0.0)
    assert "data      0 rows, 0 B and 6.0 kB partial; recently 7,400 rows/s, 1.1 MB/s" in drawn(coming[0], 79)
    assert rates.take(coming[1]) == (0.0, 0.0), "bytes of a discarded file do not make the rate negative"


def test_rates_cover_the_last_minutes():
    """After a burst the rate falls to its present value."""
    rates = Rates()
    for second in range(0, 3600, 5):
        size = min(second, 600) * 1000
        now = rates.take(replace(RUN, seconds=float(second), bytes=size, rows=size // 10))
        if second == 300:
            assert now == (1000.0, 100.0)
    assert now == (0.0, 0.0)


def test_a_status_line_shows_what_the_live_view_shows():
    """Without a terminal, one line contains all of it."""
    assert sentence(RUN, now=NOON) == (
        "1,101 of 2,880 bundles stored; 100 running, 30 queued for a request, 1,640 waiting, 0 parked; 4 downloading, "
        "5 ready to be fetched; 12 of 50 requests left, next one now; only creates count, it seems; "
        "8,412,113 rows, 1.2 GB; ends in about 13 h 10 min, 2026-01-02 01:10 UTC"
    )
    away = sentence(replace(RUN, down_seconds=90.0), now=NOON)
    assert away.endswith("the service is unreachable for 2 min; retrying")


# Drawing


def test_a_frame_replaces_the_previous_one_in_one_write():
    """Frames do not flicker, and a shorter frame leaves nothing of a longer one."""
    screen = Screen(20)
    screen.write("$ asyncexport\n")
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    for lines in (["a", "bbbb", "c"], ["a", "bb"], ["xxxxx", "y", "z"]):
        before = len(screen.writes)
        pane.draw(frame(*lines))
        assert len(screen.writes) == before + 1
        assert screen.shown == ["$ asyncexport", *lines]
    before = len(screen.writes)
    pane.draw(frame("xxxxx", "y", "z"))
    assert len(screen.writes) == before, "the same frame was written again"
    pane.clear()
    assert screen.shown == ["$ asyncexport"]


def test_log_lines_scroll_above_the_live_view():
    """Log lines stay on the screen above the live view, which stays complete."""
    screen = Screen(30)
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    pane.draw(frame("picture", "of two lines"))
    pane.above("a warning that is longer")
    pane.above("Traceback:\n  two lines")
    assert screen.shown == ["a warning that is longer", "Traceback:", "  two lines", "picture", "of two lines"]


def test_a_resized_terminal_shows_one_live_view():
    """No part of an older frame remains, and no line above is lost."""
    screen = Screen(80)
    screen.write("$ asyncexport\n")
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    for columns in (80, 60, 30, 7, 120, 40):
        screen.resize(columns)
        lines = ["H" * pane.width, "=" * pane.width, "short"]
        pane.draw(frame(*lines))
        assert [line for line in screen.shown if line and line[0] in "H="] == lines[:2]
        assert "".join(screen.shown).startswith("$ asyncexport")


def test_a_live_view_higher_than_the_terminal_is_cut():
    """On a terminal of five lines, four are drawn."""
    screen = Screen(80, rows=5)
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    pane.draw(frame(*"abcdefgh"))
    assert screen.shown == list("abcd")


def test_characters_are_checked_before_they_are_drawn():
    """A terminal that cannot encode the bar's characters gets a bar of others."""
    assert LiveView(Outlet(Screen(80))).has(FINE)
    assert not LiveView(Outlet(Screen(80, encoding="latin-1"))).has(FINE)


# Viewers


async def watched(watcher: RunViewer, snapshot: Snapshot, *, seconds: float) -> None:
    """Run the viewer for `seconds`."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await watcher.watch(lambda: snapshot)


@on_virtual_time
async def test_without_a_terminal_a_status_line_is_written_at_an_interval():
    """A log file shows that a run is alive and how far it is."""
    stream = io.StringIO()
    await watched(RunViewer(MessageLines(Outlet(stream)), "backfill", status_seconds=0.01), RUN, seconds=0.2)
    status = lines_of(stream)
    assert len(status) > 1
    assert all(line.startswith("asyncexport: status: 1,101 of 2,880 bundles stored; ") for line in status)


@on_virtual_time
async def test_with_q_neither_live_view_nor_status_lines_are_written():
    """With `-q` stderr only has errors; the JSON lines are still printed."""
    stream, stdout = io.StringIO(), io.StringIO()
    watcher = RunViewer(
        MessageLines(Outlet(stream)), "backfill", events=ResultLines(Outlet(stdout)), silent=True, status_seconds=0.01
    )
    await watched(watcher, RUN, seconds=0.1)
    assert stream.getvalue() == ""
    first = orjson.loads(lines_of(stdout)[0])
    assert (first["type"], first["planned"], first["scope"]) == ("progress", 2_880, "create?")


@on_virtual_time
async def test_the_live_view_is_removed_when_the_run_ends():
    """Log lines are written above it during the run, and afterwards nothing of it is left on the screen."""
    screen = Screen(80)
    lines = MessageLines(Outlet(screen))
    watcher = RunViewer(lines, "backfill", view=LiveView(Outlet(screen), size=lambda: screen.size))
    watching = asyncio.create_task(watcher.watch(lambda: RUN))
    await asyncio.sleep(0.05)
    assert "38.2%" in "".join(screen.shown)
    assert watcher.downloading == 4
    lines.report("stopping", "soon")
    assert screen.shown[0] == "asyncexport: stopping: soon"
    assert screen.shown[1].startswith("backfill")
    watching.cancel()
    await asyncio.wait([watching])
    lines.error("no")
    assert screen.shown == ["asyncexport: stopping: soon", "asyncexport: error: no"]
    assert watcher.downloading == 0


@on_virtual_time
async def test_progress_is_printed_as_json_alongside_the_live_view():
    """With `--json` a progress record is printed every minute, independent of stderr."""
    screen, stdout = Screen(80), io.StringIO()
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    viewer = RunViewer(MessageLines(Outlet(screen)), "backfill", events=ResultLines(Outlet(stdout)), view=pane)
    await watched(viewer, RUN, seconds=150.0)
    records = [orjson.loads(line) for line in lines_of(stdout)]
    assert [one["type"] for one in records] == ["progress"] * 2
    assert (records[0]["tokens"], records[0]["burst"], records[0]["expected_seconds"]) == (12, 50, 47_400.0)
    assert records[0]["ends_at"] is not None


def test_the_example_archive_has_rows():
    """The archive suggested in the closing text is not empty."""
    viewer = RunViewer(MessageLines(Outlet(io.StringIO())), "backfill")
    for path, rows in (("empty", 0), ("full", 7), ("empty too", 0)):
        viewer.on_event(BundleStored(BUNDLE, Stored(path, 9, rows, "", 0.0)))
    assert viewer.example == "full"


BUNDLE = Bundle("e", Range(1_767_225_600, 1_767_227_400))
SPAN = '"export":"e","start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:30:00Z"'
ARCHIVE = Stored("e/a.gz", 9, 7, "", 0.0)
OVERDUE = Overdue(1, 0.0, "op")
KEPT = FewerRows(rows_before=70, rows_found=7)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            BundleStored(BUNDLE, ARCHIVE),
            f'{{"type":"stored",{SPAN},"path":"e/a.gz","rows":7,"bytes":9,"refresh":false}}',
        ),
        (
            BundleStored(BUNDLE, ARCHIVE, replace(ARCHIVE, rows=70)),
            f'{{"type":"stored",{SPAN},"path":"e/a.gz","rows":7,"bytes":9,"refresh":true,"rows_before":70}}',
        ),
        (BundleParked(BUNDLE, Failed("no")), f'{{"type":"parked",{SPAN},"reason":"no"}}'),
        (
            BundleParked(BUNDLE, OVERDUE),
            f'{{"type":"parked",{SPAN},"reason":"the operation was still running at its deadline"}}',
        ),
        (
            BundleParked(BUNDLE, KEPT),
            f'{{"type":"parked",{SPAN},"reason":"{KEPT.reason}","rows_before":70,"rows_found":7}}',
        ),
        (Retried(BUNDLE, "cut", concerns_all=True), f'{{"type":"retried",{SPAN},"reason":"cut"}}'),
        (
            ExportStopped("e", RefusedError("no such segment", status=400)),
            '{"type":"refused","export":"e","reason":"no such segment"}',
        ),
        (Note("the end is cut back"), '{"type":"note","message":"the end is cut back"}'),
    ],
)
def test_an_event_is_one_line_of_json(event, line):
    """The keys and their order are an interface for scripts."""
    stdout = io.StringIO()
    RunViewer(MessageLines(Outlet(io.StringIO())), "backfill", events=ResultLines(Outlet(stdout))).on_event(event)
    assert lines_of(stdout) == [line]


@pytest.mark.parametrize("event", [PossibleDuplicate(BUNDLE), BundleMoved(BundleRecord(BUNDLE), BundleRecord(BUNDLE))])
def test_an_event_without_a_documented_line_is_not_printed(event):
    """State changes have no JSON line of their own."""
    stdout = io.StringIO()
    RunViewer(MessageLines(Outlet(io.StringIO())), "backfill", events=ResultLines(Outlet(stdout))).on_event(event)
    assert stdout.getvalue() == ""


def test_a_progress_record_has_its_keys():
    """The keys and their order are an interface for scripts."""
    assert list(progress_record(RUN, now=NOON)) == [
        "type",
        "seconds",
        "done",
        "already",
        "planned",
        "running",
        "queued",
        "fetching",
        "downloading",
        "received",
        "parked",
        "tokens",
        "burst",
        "scope",
        "next_request_seconds",
        "paused_seconds",
        "down_seconds",
        "rows",
        "bytes",
        "expected_seconds",
        "problems",
        "problem_ages",
        "ends_at",
    ]
    assert progress_record(RUN, now=NOON)["ends_at"] == "2026-01-02T01:10:00Z"
    assert progress_record(replace(RUN, expected_seconds=1e15), now=NOON)["ends_at"] == "9999-12-31T23:59:59Z"
    assert progress_record(replace(RUN, expected_seconds=None), now=NOON)["ends_at"] is None


def test_a_long_check_shows_its_progress():
    """A check of many archives shows how far it is."""
    stream = io.StringIO()
    lines = MessageLines(Outlet(stream))
    with ProgressCounter(lines, "verify exports", total=1_000, of="archives checked", status_seconds=0.0) as step:
        step()
        step()
    assert lines_of(stream)[-1] == "asyncexport: status: 2 of 1,000 archives checked"
    screen = Screen(80)
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    with ProgressCounter(MessageLines(Outlet(screen)), "rebuild", total=None, of="files read", view=pane) as step:
        step()
    assert screen.shown == []


# The closing text


def summary(code: Exit, tally: Tally, **more: Any) -> Summary:
    requests = {"create": 96, "poll": 0, "list": 4, "results": 96, "other": 0}
    facts = {"requests": requests, "refused": 0, "directory": "exports", **more}
    return Summary("backfill", code, 1204.5, tally, **facts)


def test_the_closing_text_says_what_is_done_and_where():
    """After a complete run it shows the counts, the directory, and a command that prints a row."""
    tally = Tally(planned=100, stored_before=4, stored=96, empty=3, rows=184_211, bytes=20_113_408)
    command = look_command(Path("my exports/a.ndjson.gz"))
    assert closing_lines(summary(Exit.DONE, tally), look=command) == [
        "done: 100 of 100 bundles stored, 4 of them by earlier runs, 3 new ones without rows",
        "184,211 rows, 20.1 MB in 20 min, with 196 requests (96 create, 4 list, 96 results)",
        "the files are in exports",
        "view one: gzip -dc 'my exports/a.ndjson.gz' | head -n 1",
    ]


@pytest.mark.parametrize(
    ("code", "first"),
    [
        (Exit.TIME_UP, "stopped by --max-duration; the state is saved: no work had begun"),
        (Exit.INTERRUPTED, "stopped by Ctrl-C; the state is saved: no work had begun"),
        (Exit.TERMINATED, "stopped by SIGTERM; the state is saved: no work had begun"),
        (Exit.DONE, "done: nothing to do"),
    ],
)
def test_a_run_that_was_stopped_while_it_waited_does_not_say_that_nothing_is_to_do(code, first):
    """What there is to do is not known yet, and its end may well be settled."""
    assert closing_lines(summary(code, Tally()))[0] == first


def test_the_closing_text_says_where_settled_data_ends():
    """A range without a given end is shown: once if all exports have the same, else for each export."""
    start, end = 1_795_737_600, 1_795_851_000
    tally = Tally(planned=63, stored=63, ranges={name: CoveredRange(start, end, end) for name in ("a", "b")})
    shown = "2026-11-27 00:00 to 2026-11-28 07:30 UTC, where settled data ends"
    assert closing_lines(summary(Exit.DONE, tally))[2] == f"range: {shown}"
    tally.ranges["b"] = CoveredRange(start - DAY, end, end)
    assert closing_lines(summary(Exit.DONE, tally))[2:4] == [
        f"range of a: {shown}",
        "range of b: 2026-11-26 00:00 to 2026-11-28 07:30 UTC, where settled data ends",
    ]
    asked, of_all_history = CoveredRange(start, end, end, end, end), CoveredRange(0, end, end)
    for one in (asked, of_all_history, CoveredRange(end, end, end)):
        assert "range" not in "".join(closing_lines(summary(Exit.DONE, replace(tally, ranges={"a": one}))))


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (79, "2026-11-27 00:00 to 2026-11-28 07:30 UTC, where settled data ends"),
        (60, "2026-11-27 00:00 to 2026-11-28 07:30 UTC (settled)"),
        (50, "2026-11-27 00:00 to 2026-11-28 07:30 UTC"),
        (40, "to 2026-11-28 07:30 UTC"),
    ],
)
def test_the_live_view_shows_where_settled_data_ends(width, shown):
    """A run whose end was not given shows its range, with the words that fit."""
    found = covering([CoveredRange(1_795_737_600, 1_795_851_000, 1_795_851_000)])
    assert drawn(replace(RUN, covered=found), width)[1] == f"range     {shown}"


def test_the_closing_text_counts_key_checks():
    """The only other requests of a run are those that check the key."""
    for checks, shown in ((1, "1 key check"), (2, "2 key checks")):
        sent = {"create": 3, "poll": 0, "list": 1, "results": 3, "other": checks}
        line = closing_lines(summary(Exit.DONE, Tally(planned=3, stored=3), requests=sent))[1]
        assert line.endswith(f"with {7 + checks} requests (3 create, 1 list, 3 results, {shown})")


def test_the_closing_text_lists_shortfalls_that_fail_the_run():
    """Otherwise they are only logged, once. A long list is cut, and refers to --json."""
    one = Shortfall(Bundle("e", Range(1_767_225_600, 1_767_312_000)), ShortfallRule.LOW_DAY, 19_000, 9_000)
    tally = Tally(planned=48, stored_before=48, shortfalls=(one,) * 12)
    assert not [line for line in closing_lines(summary(Exit.DONE, tally)) if "rows from" in line]
    tally.shortfalls_fail = True
    assert tally.exit_code() is Exit.PARTIAL
    lines = closing_lines(summary(Exit.PARTIAL, tally))
    assert lines[0].startswith("finished, but rows seem to be missing: 48 of 48 bundles stored")
    assert lines[2] == f"few rows: e: {one.text}"
    assert lines[2:12] == [lines[2]] * 10
    assert lines[12] == "few rows: 2 more; --json lists all"


def test_the_closing_text_of_a_run_with_nothing_to_do_is_short():
    """Counts of zero are left out."""
    nothing = dict.fromkeys(("create", "poll", "list", "results", "other"), 0)
    done = summary(Exit.DONE, Tally(planned=48, stored_before=48), requests=nothing)
    assert closing_lines(done)[:2] == [
        "done: 48 of 48 bundles stored, 48 of them by earlier runs",
        "no request was needed",
    ]
    assert closing_lines(summary(Exit.DONE, Tally(), requests=nothing))[0] == "done: nothing to do"


HOLDER = JoinedRun("backfill", 7, "host\x1b[2J", NOON)

SHOWN = "backfill, process 7 on host [2J, since 2026-01-01T12:00:00Z"


SIMULATED = (
    ("if only creates count", "bundles", "create/poll/list/results", "first file", "done in", "min to max", "done at"),
    ("as configured", "96", "96/0/8/96", "5 min", "28 min", "27 min to 31 min", "2026-11-28 07:30 UTC"),
    ("bundle=1h", "48", "48/0/6/48", "6 min", "11 min", "9 min to 13 min", "2026-11-28 07:13 UTC"),
)


@pytest.mark.parametrize(
    ("columns", "left_out"),
    [
        (None, ()),
        (130, ()),
        (110, ("min to max",)),
        (95, ("min to max", "2026-")),
        (80, ("min to max", "2026-", "first file")),
        (60, ()),
    ],
)
def test_a_table_fits_a_narrow_terminal(columns, left_out):
    """No line is wider than the terminal, and no word is broken; if stdout is not a terminal, nothing is left out."""
    lines = fitted_table(SIMULATED, right=frozenset({1, 2}), columns=columns, spare=(5, 3))
    assert all(len(line) <= (columns or 999) for line in lines)
    assert [one for one in ("min to max", "2026-", "first file") if one not in "\n".join(lines)] == list(left_out)
    assert all(cell in "\n".join(lines) for row in SIMULATED for cell in (*row[:3], row[4]))


def test_a_table_that_does_not_fit_becomes_blocks():
    """Each row is a block with a line for each column."""
    assert fitted_table(SIMULATED[:2], right=frozenset({1, 2}), columns=60, spare=(5, 3)) == [
        "if only creates count",
        "  as configured",
        "    bundles                   96",
        "    create/poll/list/results  96/0/8/96",
        "    first file                5 min",
        "    done in                   28 min",
        "    min to max                27 min to 31 min",
        "    done at                   2026-11-28 07:30 UTC",
    ]


async def test_a_wait_for_another_run_is_shown():
    """A line says for which run and how much is stored, in text and as JSON; another one says when the wait is over."""
    stderr, stdout = io.StringIO(), io.StringIO()
    viewer = RunViewer(MessageLines(Outlet(stderr)), "nightly", events=ResultLines(Outlet(stdout)))
    viewer.on_event(Joining(HOLDER, None, 0.04))
    parked = BundleRecord(Bundle("e", Range(0, 1800)), state=Failed("broken"))
    viewer.on_event(Joining(HOLDER, ShareProgress(1_200, 300, (parked,)), 60.04))
    assert viewer.is_joining
    await watched(viewer, RUN, seconds=0.01)
    assert not viewer.is_joining
    waits = f"asyncexport: joining: waiting for {SHOWN}; "
    assert stderr.getvalue().splitlines() == [
        f"{waits}what it has stored of this run's range is not known yet",
        f"{waits}1,200 of 1,501 bundles of this run's range stored, 1 parked",
        "asyncexport: joining: the other run has ended; this run continues in its place",
    ]
    first, second = map(orjson.loads, stdout.getvalue().splitlines())
    assert (first["planned"], second["planned"], second["left"], second["seconds"]) == (None, 1501, 300, 60.0)
    assert (second["command"], second["pid"], second["since"]) == ("backfill", 7, "2026-01-01T12:00:00Z")


async def test_a_wait_without_a_share_says_only_for_whom():
    """A run that needs the directory itself does not report what the other run has stored."""
    stderr = io.StringIO()
    viewer = RunViewer(MessageLines(Outlet(stderr)), "audit", events=None)
    viewer.on_event(Joining(HOLDER, None, 0.04, has_share=False))
    await watched(viewer, RUN, seconds=0.01)
    assert stderr.getvalue().splitlines() == [
        f"asyncexport: joining: waiting for {SHOWN}",
        "asyncexport: joining: the other run has ended; this run begins",
    ]


def test_the_closing_text_names_the_run_that_was_waited_for():
    """It says who held the directory, without the control characters in that text."""
    lines = closing_lines(replace(summary(Exit.DONE, Tally(planned=1, stored_before=1)), joined=HOLDER))
    assert [line for line in lines if "waited" in line] == [
        f"waited for another run, which held the directory: {SHOWN}"
    ]


def test_the_closing_text_lists_parked_bundles():
    """The first ten ranges of parked bundles are listed with their reasons, as are 429s and possible duplicates."""
    tally = Tally(planned=30, stored=10, possible_duplicates=1)
    for number in range(12):
        tally.parked[Bundle("e", Range(number * 3600, number * 3600 + 1800))] = "no\nreason"
    lines = closing_lines(summary(Exit.PARTIAL, tally, refused=2))
    assert lines[0] == "finished, but not everything is done: 10 of 30 bundles stored, 12 parked, 8 left"
    assert "2 of them refused (429)" in lines[1]
    assert lines[2].startswith("1 create got no answer")
    first = next(line for line in lines if line.startswith("parked: "))
    assert first == "parked: e 1970-01-01T00:00:00Z to 1970-01-01T00:30:00Z: no reason"
    assert "parked: 2 more; `asyncexport status` lists all" in lines


def test_adjacent_parked_bundles_with_the_same_problem_are_one_line():
    """The line names the whole range and the number of bundles; another reason or export begins a new line."""
    tally = Tally(planned=30)
    for export, minute, reason in [
        ("e", 0, "a"),
        ("e", 5, "a"),
        ("e", 10, "a"),
        ("e", 15, "b"),
        ("e", 25, "b"),
        ("f", 30, "b"),
    ]:
        tally.parked[Bundle(export, Range(minute * 60, minute * 60 + 300))] = reason
    assert [line for line in closing_lines(summary(Exit.PARTIAL, tally)) if line.startswith("parked: ")] == [
        "parked: e 1970-01-01T00:00:00Z to 1970-01-01T00:15:00Z (3 bundles): a",
        "parked: e 1970-01-01T00:15:00Z to 1970-01-01T00:20:00Z: b",
        "parked: e 1970-01-01T00:25:00Z to 1970-01-01T00:30:00Z: b",
        "parked: f 1970-01-01T00:30:00Z to 1970-01-01T00:35:00Z: b",
    ]


def test_a_run_ended_by_an_error_is_reported_as_stopped():
    """It does not count as finished, even if much is stored; a refused export alone stops no run."""
    tally = Tally(planned=30, stored=10)
    gone = summary(Exit.PARTIAL, tally, error=UnavailableError("gone", lasting=True))
    assert closing_lines(gone)[0] == "stopped by an error: 10 of 30 bundles stored, 20 left"
    stopped = summary(Exit.TERMINATED, Tally(planned=30))
    assert closing_lines(stopped)[0].startswith("stopped by SIGTERM; ")
    assert closing_lines(stopped, hung_up=True)[0].startswith("stopped by SIGHUP because its terminal was closed; ")
    assert "the files are in" not in "".join(closing_lines(stopped)), "there are none"
    unasked = closing_lines(summary(Exit.USAGE, Tally(planned=2), error=RefusedError("no", status=400), requests={}))
    assert unasked[1] == "no request was sent", "it is unknown whether one was needed"
    refusal = RefusedError("no such segment", status=400)
    tally.record(ExportStopped("e", refusal))
    assert closing_lines(summary(Exit.PARTIAL, tally, error=refusal))[0].startswith(
        "finished, but not everything is done: "
    )


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.ndjson.gz", "gzip -dc a.ndjson.gz | head -n 1"),
        ("a.csv.gz", "gzip -dc a.csv.gz | head -n 1"),
        ("a.json.gz", "gzip -dc a.json.gz | head -c 500"),
    ],
)
def test_the_command_to_show_a_row_fits_the_format(name, command):
    """A JSON array is a single line, so only its beginning is shown."""
    assert look_command(Path(name)) == command
