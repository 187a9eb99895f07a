"""What people and programs see: lines, the picture of a run and where it is drawn, who watches, the closing words."""

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

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.events import (
    BundleMoved,
    BundleParked,
    BundleStored,
    ExportStopped,
    Note,
    PossibleDuplicate,
    Retried,
)
from asyncexport.core.exits import Exit
from asyncexport.core.states import BundleRecord, Failed, FewerRows, Overdue, Stored
from asyncexport.core.summary import Snapshot, Summary, Tally
from asyncexport.display import (
    Counter,
    MessageLines,
    Outlet,
    ResultLines,
    RunViewer,
    closing_lines,
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
    """A terminal that breaks lines and, when it gets narrower, breaks those it shows anew."""

    def __init__(self, columns: int, rows: int = 24, *, encoding: str = "utf-8") -> None:
        super().__init__()
        self.columns, self.rows, self.code = columns, rows, encoding
        self.lines: list[str] = [""]
        self.at = 0
        self.writes: list[str] = []

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What its letters are written in."""
        return self.code

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return self.columns, self.rows

    def resize(self, columns: int) -> None:
        """As terminals do that break anew; the cursor stays with its text, which is the empty line at the end."""
        assert self.at == len(self.lines) - 1
        self.lines = [
            piece
            for line in self.lines
            for piece in ([line[i : i + columns] for i in range(0, len(line), columns)] or [""])
        ]
        self.columns, self.at = columns, len(self.lines) - 1

    def write(self, text: str) -> int:
        """Do as a terminal does."""
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
        """What stands on it."""
        return [line.rstrip() for line in self.lines[:-1]]


class Closed(io.StringIO):
    """A stream that nobody reads any more."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of no use."""
        return "utf-8"

    def write(self, _: str) -> int:
        """In vain."""
        raise OSError(self.number, os.strerror(self.number))


def frame(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def picture(snapshot: Snapshot, width: int, *, marks: str = FINE) -> list[str]:
    lines = draw(snapshot, "backfill everyone-events", width=width, now=NOON, rates=(1.1e6, 7400.0), marks=marks)
    assert all(line.cell_len <= width for line in lines)
    return [line.plain for line in lines]


def in_trouble(*problems: str) -> Snapshot:
    return replace(RUN, problems=problems, problem_ages=(0.0,) * len(problems))


def lines_of(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


# words


@pytest.mark.parametrize(
    ("size", "told"),
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
def test_sizes_have_three_digits_or_so(size, told):
    """A size is told as people say it, at every order of magnitude."""
    assert show_bytes(size) == told


def test_no_text_moves_the_cursor():
    """What a service wrote cannot clear a terminal, nor make a second line."""
    assert plain("a\x1b[2Jb\nc\td\u202ee") == "a [2Jb c d e"


def test_columns_are_aligned():
    """Text begins at one place, numbers end at one."""
    assert table([("what", "many"), ("a", "1,000"), ("bcdef", "7")], right=frozenset({1})) == [
        "what    many",
        "a      1,000",
        "bcdef      7",
    ]
    assert table([]) == []


# lines


def test_an_error_and_its_hint_are_a_line_each():
    """The voice of the program: its name, the kind, the matter."""
    stream = io.StringIO()
    MessageLines(Outlet(stream), timed=True).fault("the service refused\nthe API key (401)", hint="check the key")
    assert lines_of(stream) == [
        "asyncexport: error: the service refused the API key (401)",
        "asyncexport: hint: check the key",
    ]


def test_as_json_every_line_is_an_object():
    """With `--log-format json`, stderr can be read by a program, errors and hints included."""
    stream = io.StringIO()
    lines = MessageLines(Outlet(stream), as_json=True, tracebacks=True)
    lines.fault("no", hint="do")
    lines.tell("status", "half", done=1)
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


def test_log_lines_have_their_time_where_no_terminal_shows_that_they_are_new():
    """A log that is read in the morning says when; on a terminal the time would only be in the way."""
    for timed, pattern in ((True, r"asyncexport: warning: \d{4}-\S+Z no"), (False, "asyncexport: warning: no")):
        stream = io.StringIO()
        with listening(MessageLines(Outlet(stream), timed=timed), level=logging.WARNING):
            logging.getLogger("asyncexport.x").warning("no")
        assert re.fullmatch(pattern, stream.getvalue().strip())


def test_libraries_are_heard_only_when_something_is_wrong():
    """At `-vv` our log is all there, and that of the libraries is not."""
    stream = io.StringIO()
    with listening(MessageLines(Outlet(stream)), level=logging.DEBUG):
        logging.getLogger("asyncexport.x").debug("ours")
        logging.getLogger("some.library").info("theirs")
        logging.getLogger("some.library").warning("in trouble")
    logging.getLogger("asyncexport.x").error("after the end")
    assert lines_of(stream) == ["asyncexport: debug: ours", "asyncexport: warning: in trouble"]


def test_a_traceback_is_shown_only_when_asked_for():
    """One error is one line, unless somebody looks for its cause."""
    for tracebacks in (False, True):
        stream = io.StringIO()
        with listening(MessageLines(Outlet(stream), tracebacks=tracebacks), level=logging.DEBUG):
            logging.getLogger("asyncexport.x").error("oh", exc_info=ValueError("the cause"))
        assert ("ValueError: the cause" in stream.getvalue()) is tracebacks


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_a_terminal_that_is_gone_is_no_failure(number):
    """A run goes on when nobody can be told of it any more."""
    lines = MessageLines(Outlet(Closed(number)))
    lines.fault("no", hint="do")
    lines.tell("status", "x")
    with listening(lines, level=logging.WARNING):
        logging.getLogger("asyncexport.x").warning("no")
    pane = LiveView(Outlet(Closed(number)), size=lambda: (80, 24))
    pane.draw(frame("a"))
    pane.above("b")
    pane.clear()


def test_a_closed_pipe_swallows_results():
    """`| head` ends the reading, and not the run; it is no failure."""
    results = ResultLines(Outlet(Closed(errno.EPIPE)))
    results.line("a")
    results.record({"type": "x"})
    assert results.gone
    assert results.failure is None


def test_a_full_disk_below_stdout_is_a_failure():
    """Results that could not be written are not passed over: whoever redirects them relies on them."""
    results = ResultLines(Outlet(Closed(errno.ENOSPC)))
    results.line("a")
    assert results.gone
    assert results.failure is not None
    assert results.failure.errno == errno.ENOSPC


def test_letters_that_a_stream_does_not_have_are_spelt_out():
    """On a terminal of another age nothing is left out and nothing fails."""
    raw = io.BytesIO()
    results = ResultLines(Outlet(io.TextIOWrapper(raw, encoding="ascii")))
    results.line("näh")
    assert raw.getvalue() == b"n\\xe4h\n"
    assert not results.gone


# the picture


def test_the_picture_shows_what_matters():
    """At a glance: how much is done, what is under way, what may be asked, what has come, when it ends."""
    assert picture(RUN, 79) == [
        "backfill everyone-events" + " " * 46 + "1 h 2 min",
        "━" * 21 + "╍" * 2 + "─" * 32 + "  1,101 of 2,880   38.2%",
        "bundles   100 running, 30 queued for a request, 1,640 waiting, 0 parked",
        "files     4 downloading, 5 ready to be fetched",
        "budget    12 of 50 requests left, next at once; only creates count, it seems",
        "data      8,412,113 rows, 1.2 GB; lately 7,400 rows/s, 1.1 MB/s",
        "end       in about 13 h 10 min, 2026-01-02 01:10 UTC",
    ]


@pytest.mark.parametrize("marks", [FINE, COARSE])
@pytest.mark.parametrize("width", [1, 2, 9, 19, 39, 59, 79, 119, 300])
@pytest.mark.parametrize("snapshot", [RUN, WORST, replace(RUN, planned=0, stored_before=0, done=0)])
def test_no_line_is_wider_than_the_terminal(snapshot, width, marks):
    """Narrow or wide, whatever the numbers: each line fits, and none has anything that moves the cursor."""
    lines = picture(snapshot, width, marks=marks)
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
    ids=["well", "parked", "out of reach", "paused", "no end known"],
)
def test_a_narrow_terminal_is_told_less_and_nothing_by_half(snapshot, width):
    """Down to 40 columns no line but the heading is cut, and how long it runs and what is parked is there."""
    heading, _, *lines = picture(snapshot, width)
    assert heading.endswith("  1 h 2 min")
    assert [line for line in lines if "…" in line] == []
    assert lines[0].endswith(f" {snapshot.parked} parked")
    if snapshot.down_seconds is None and snapshot.expected_seconds is not None:
        assert "13 h 10 min" in lines[-1]


def test_a_hundred_percent_means_all():
    """The share is rounded down: what is not done is not told as done."""
    assert " 99.9%" in picture(replace(RUN, planned=100_000, done=99_999, stored_before=0), 79)[1]
    assert "100.0%" in picture(replace(RUN, planned=1101), 79)[1]


def test_an_outage_takes_the_place_of_the_end():
    """While the service is out of reach nobody knows when it ends, and that is what is said."""
    lines = picture(replace(RUN, down_seconds=700.0, expected_seconds=None), 79)
    assert "service   not reached for 12 min; it is tried again and again" in lines
    assert not [line for line in lines if line.startswith("end")]
    assert "end       not known yet" in picture(replace(RUN, expected_seconds=None), 79)


def test_the_last_problems_are_shown_to_their_reason():
    """A problem takes two lines if it must: why it is one stands at its end."""
    reason = "everyone-events 2026-01-01T00:00:00Z: parked: the operation failed: the search could not be carried out"
    lines = picture(in_trouble("a: old", "b: older", "c: x", "d: y", reason), 79)
    assert not [line for line in lines if "old" in line]
    assert " ".join(line[10:] for line in lines[-2:]).endswith("the search could not be carried out")


def test_a_problem_that_many_share_is_shown_once():
    """A hundred bundles that meet the same trouble leave room for another one."""
    lines = picture(in_trouble("e 1: gone", "e 2: late", "e 3: gone", "e 4: gone"), 79)
    assert lines[7:] == ["problem   e 2: late", "problem   e 4: gone"]


def test_a_problem_of_a_while_ago_says_so():
    """What is long past does not look as if it had just happened."""
    lines = picture(replace(RUN, problems=("e 1: gone", "e 2: late"), problem_ages=(200.0, 5.0)), 79)
    assert lines[7:] == ["problem   e 1: gone (3 min ago)", "problem   e 2: late"]


def test_a_pause_by_the_service_is_told_as_one():
    """After a 429 there may be tokens and nobody may use them: only how long that lasts is told."""
    lines = picture(replace(RUN, tokens=9, scope="all", next_request_seconds=27.0, paused_seconds=27.0), 79)
    assert lines[4] == "budget    paused by the service for 27 s (429: asked too often)"


def test_the_next_request_is_told_as_it_is():
    """Without a token nothing goes at once, and in an outage nobody knows when."""
    budget = "budget    0 of 50 requests left, next in {}; only creates count, it seems"
    short, long = replace(RUN, tokens=0, next_request_seconds=0.4), replace(RUN, tokens=0, next_request_seconds=240.0)
    assert budget.format("a moment") in picture(short, 79)
    assert budget.format("4 min") in picture(long, 79)
    away = picture(replace(long, down_seconds=9.0), 79)
    assert "budget    0 of 50 requests left; only creates count, it seems" in away


def test_before_any_answer_nothing_is_said_of_what_the_limit_counts():
    """Nobody can know."""
    unheard = picture(replace(RUN, tokens=0, down_seconds=90.0, scope=""), 79)
    assert "budget    0 of 50 requests left" in unheard


def test_a_big_download_is_seen_to_come():
    """Bytes of files that are not whole yet are shown, and count for the rate."""
    rates = Rates()
    coming = [replace(RUN, seconds=s, bytes=0, rows=0, received=received) for s, received in ((60.0, 6_000), (70.0, 0))]
    assert rates.take(coming[0]) == (100.0, 0.0)
    assert "data      0 rows, 0 B and 6.0 kB on the way; lately 7,400 rows/s, 1.1 MB/s" in picture(coming[0], 79)
    assert rates.take(coming[1]) == (0.0, 0.0), "a file that is thrown away does not count backwards"


def test_rates_are_those_of_the_last_minutes():
    """After a burst the rate comes down to what it is now."""
    rates = Rates()
    for second in range(0, 3600, 5):
        size = min(second, 600) * 1000
        now = rates.take(replace(RUN, seconds=float(second), bytes=size, rows=size // 10))
        if second == 300:
            assert now == (1000.0, 100.0)
    assert now == (0.0, 0.0)


def test_a_line_says_what_the_picture_says():
    """Where nothing can be drawn, one line has it all."""
    assert sentence(RUN, now=NOON) == (
        "1,101 of 2,880 bundles stored; 100 running, 30 queued for a request, 1,640 waiting, 0 parked; 4 downloading, "
        "5 ready to be fetched; 12 of 50 requests left, next at once; only creates count, it seems; "
        "8,412,113 rows, 1.2 GB; ends in about 13 h 10 min, 2026-01-02 01:10 UTC"
    )
    away = sentence(replace(RUN, down_seconds=90.0), now=NOON)
    assert away.endswith("the service was not reached for 2 min; it is tried again and again")


# where it is drawn


def test_a_frame_is_drawn_over_the_one_before_it_in_one_write():
    """Nothing flickers, nothing is left over, and a shorter frame leaves no rest."""
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


def test_lines_that_stay_go_above_the_picture():
    """Log lines and the picture do not fight: they scroll by above it, and it stays whole."""
    screen = Screen(30)
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    pane.draw(frame("picture", "of two lines"))
    pane.above("a warning that is longer")
    pane.above("Traceback:\n  two lines")
    assert screen.shown == ["a warning that is longer", "Traceback:", "  two lines", "picture", "of two lines"]


def test_a_terminal_that_is_resized_keeps_one_picture():
    """Narrower and wider again: no piece of an older frame stays behind, and nothing above is lost."""
    screen = Screen(80)
    screen.write("$ asyncexport\n")
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    for columns in (80, 60, 30, 7, 120, 40):
        screen.resize(columns)
        lines = ["H" * pane.width, "=" * pane.width, "short"]
        pane.draw(frame(*lines))
        assert [line for line in screen.shown if line and line[0] in "H="] == lines[:2]
        assert "".join(screen.shown).startswith("$ asyncexport")


def test_a_picture_higher_than_the_terminal_is_cut():
    """On five lines there is room for four."""
    screen = Screen(80, rows=5)
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    pane.draw(frame(*"abcdefgh"))
    assert screen.shown == list("abcd")


def test_letters_are_tried_before_they_are_drawn():
    """A terminal without the bar's letters gets a bar that it has letters for."""
    assert LiveView(Outlet(Screen(80))).has(FINE)
    assert not LiveView(Outlet(Screen(80, encoding="latin-1"))).has(FINE)


# who watches


async def watched(watcher: RunViewer, snapshot: Snapshot, *, seconds: float) -> None:
    """Watch for so long."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await watcher.watch(lambda: snapshot)


@on_virtual_time
async def test_off_a_terminal_a_line_comes_at_its_interval():
    """A log shows that a run is alive, and where it is."""
    stream = io.StringIO()
    await watched(RunViewer(MessageLines(Outlet(stream)), "backfill", status_seconds=0.01), RUN, seconds=0.2)
    told = lines_of(stream)
    assert len(told) > 1
    assert all(line.startswith("asyncexport: status: 1,101 of 2,880 bundles stored; ") for line in told)


@on_virtual_time
async def test_quietly_there_is_neither_picture_nor_line():
    """With `-q` only errors are written; what is asked for as JSON still comes."""
    stream, stdout = io.StringIO(), io.StringIO()
    watcher = RunViewer(
        MessageLines(Outlet(stream)), "backfill", events=ResultLines(Outlet(stdout)), silent=True, status_seconds=0.01
    )
    await watched(watcher, RUN, seconds=0.1)
    assert stream.getvalue() == ""
    first = orjson.loads(lines_of(stdout)[0])
    assert (first["type"], first["planned"], first["scope"]) == ("progress", 2_880, "create?")


@on_virtual_time
async def test_on_a_terminal_the_picture_goes_when_the_run_does():
    """While it runs, log lines go above the picture; afterwards the screen is as if it had never been there."""
    screen = Screen(80)
    lines = MessageLines(Outlet(screen))
    watcher = RunViewer(lines, "backfill", pane=LiveView(Outlet(screen), size=lambda: screen.size))
    watching = asyncio.create_task(watcher.watch(lambda: RUN))
    await asyncio.sleep(0.05)
    assert "38.2%" in "".join(screen.shown)
    assert watcher.downloading == 4
    lines.tell("stopping", "soon")
    assert screen.shown[0] == "asyncexport: stopping: soon"
    assert screen.shown[1].startswith("backfill")
    watching.cancel()
    await asyncio.wait([watching])
    lines.fault("no")
    assert screen.shown == ["asyncexport: stopping: soon", "asyncexport: error: no"]
    assert watcher.downloading == 0


@on_virtual_time
async def test_progress_comes_as_json_beside_the_picture():
    """Whoever reads `--json` is told once a minute how far it is, whatever stderr shows."""
    screen, stdout = Screen(80), io.StringIO()
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    viewer = RunViewer(MessageLines(Outlet(screen)), "backfill", events=ResultLines(Outlet(stdout)), pane=pane)
    await watched(viewer, RUN, seconds=150.0)
    records = [orjson.loads(line) for line in lines_of(stdout)]
    assert [one["type"] for one in records] == ["progress"] * 2
    assert (records[0]["tokens"], records[0]["burst"], records[0]["expected_seconds"]) == (12, 50, 47_400.0)
    assert records[0]["ends_at"] is not None


def test_the_example_has_rows():
    """The file to look into has something in it."""
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
    """Its keys and their order are what scripts were written for."""
    stdout = io.StringIO()
    RunViewer(MessageLines(Outlet(io.StringIO())), "backfill", events=ResultLines(Outlet(stdout))).on_event(event)
    assert lines_of(stdout) == [line]


@pytest.mark.parametrize("event", [PossibleDuplicate(BUNDLE), BundleMoved(BundleRecord(BUNDLE), BundleRecord(BUNDLE))])
def test_what_no_script_was_promised_is_not_printed(event):
    """A move from state to state has no line of its own."""
    stdout = io.StringIO()
    RunViewer(MessageLines(Outlet(io.StringIO())), "backfill", events=ResultLines(Outlet(stdout))).on_event(event)
    assert stdout.getvalue() == ""


def test_progress_has_its_keys():
    """Those that scripts were written for, in their order."""
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


def test_a_long_look_says_how_far_it_has_come():
    """A check of many archives shows that it goes on."""
    stream = io.StringIO()
    lines = MessageLines(Outlet(stream))
    with Counter(lines, "verify exports", total=1_000, of="archives checked", status_seconds=0.0) as step:
        step()
        step()
    assert lines_of(stream)[-1] == "asyncexport: status: 2 of 1,000 archives checked"
    screen = Screen(80)
    pane = LiveView(Outlet(screen), size=lambda: screen.size)
    with Counter(MessageLines(Outlet(screen)), "rebuild", total=None, of="files read", pane=pane) as step:
        step()
    assert screen.shown == []


# the closing words


def summary(code: Exit, tally: Tally, **more: Any) -> Summary:
    requests = {"create": 96, "poll": 0, "list": 4, "results": 96, "other": 0}
    facts = {"requests": requests, "refused": 0, "directory": "exports", **more}
    return Summary("backfill", code, 1204.5, tally, **facts)


def test_the_end_says_what_is_done_where_it_is_and_how_to_look_at_it():
    """The last words of a run that went well."""
    tally = Tally(planned=100, stored_before=4, stored=96, empty=3, rows=184_211, bytes=20_113_408)
    look = look_command(Path("my exports/a.ndjson.gz"))
    assert closing_lines(summary(Exit.DONE, tally), look=look) == [
        "done: 100 of 100 bundles stored, 4 of them before this run, 3 of this run's without rows",
        "184,211 rows, 20.1 MB in 20 min, with 196 requests (96 create, 4 list, 96 results)",
        "the files are in exports",
        "look into one: gzip -dc 'my exports/a.ndjson.gz' | head -n 1",
    ]


def test_the_end_of_a_run_with_nothing_to_do_is_plain():
    """No zeros in a row where nothing happened."""
    nothing = dict.fromkeys(("create", "poll", "list", "results", "other"), 0)
    done = summary(Exit.DONE, Tally(planned=48, stored_before=48), requests=nothing)
    assert closing_lines(done)[:2] == [
        "done: 48 of 48 bundles stored, 48 of them before this run",
        "no request was needed",
    ]
    assert closing_lines(summary(Exit.DONE, Tally(), requests=nothing))[0] == "done: there was nothing to do"


def test_the_end_names_what_was_parked():
    """What is not done is named with its reason, the first ten of it; refusals and twins are told."""
    tally = Tally(planned=30, stored=10, possible_duplicates=1)
    for number in range(12):
        tally.parked[Bundle("e", Range(number * 1800, (number + 1) * 1800))] = "no\nreason"
    lines = closing_lines(summary(Exit.PARTIAL, tally, refused=2))
    assert lines[0] == "finished, but not all of it: 10 of 30 bundles stored, 12 parked, 8 left"
    assert "2 of them refused (429)" in lines[1]
    assert lines[2].startswith("it is not known whether 1 create was carried out")
    assert next(line for line in lines if line.startswith("parked: ")) == "parked: e 1970-01-01T00:00:00Z: no reason"
    assert "parked: 2 more; `asyncexport status` names all" in lines


def test_a_run_that_an_outage_ended_has_stopped():
    """It is not told as finished, even if much is stored; an export that was refused stops nothing."""
    tally = Tally(planned=30, stored=10)
    gone = summary(Exit.PARTIAL, tally, error=UnavailableError("gone", lasting=True))
    assert closing_lines(gone)[0] == "stopped by an error: 10 of 30 bundles stored, 20 left"
    stopped = summary(Exit.TERMINATED, Tally(planned=30))
    assert closing_lines(stopped)[0].startswith("stopped by SIGTERM; ")
    assert closing_lines(stopped, hung_up=True)[0].startswith("stopped by SIGHUP, as its terminal was closed; ")
    assert "the files are in" not in "".join(closing_lines(stopped)), "there are none"
    unasked = closing_lines(summary(Exit.USAGE, Tally(planned=2), error=RefusedError("no", status=400), requests={}))
    assert unasked[1] == "no request was sent", "nobody knows that none was needed"
    refusal = RefusedError("no such segment", status=400)
    tally.record(ExportStopped("e", refusal))
    assert closing_lines(summary(Exit.PARTIAL, tally, error=refusal))[0].startswith("finished, but not all of it: ")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.ndjson.gz", "gzip -dc a.ndjson.gz | head -n 1"),
        ("a.csv.gz", "gzip -dc a.csv.gz | head -n 1"),
        ("a.json.gz", "gzip -dc a.json.gz | head -c 500"),
    ],
)
def test_a_look_is_short_in_every_format(name, command):
    """A JSON array is one long line: its first line would be all of it."""
    assert look_command(Path(name)) == command
