"""Readers of stdout and stderr that do not read: nobody who writes waits for them, and no result is lost."""

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from asyncexport.display import MessageLines, Outlet, ResultLines, listening
from asyncexport.display.formatting import plain
from asyncexport.display.lines import MOST_LOG_LINES, MOST_PROGRESS_LINES
from asyncexport.display.live_view import LiveView
from asyncexport.display.output import OutputThread
from tests.handles import handles_left

PATIENCE_SECONDS = 30.0

PIPES = 300_000
"""Bytes that no pipe takes unread."""


class Pipe:
    """A pipe into which an outlet writes, and which nobody reads yet."""

    def __init__(self, thread: OutputThread) -> None:
        self._reader, writer = os.pipe()
        self.stream = os.fdopen(writer, "w", encoding="utf-8")
        self.outlet = Outlet(self.stream, thread=thread)
        self._thread = thread

    def read(self) -> list[str]:
        """All lines that were written, up to the last one that waits."""
        self.outlet.write("(end)\n")
        text = b""
        while not text.endswith(b"(end)\n"):
            text += os.read(self._reader, 65_536)
        return text.decode().splitlines()[:-1]

    def close(self) -> None:
        """Read no more."""
        with suppress(OSError):
            os.close(self._reader)


@contextmanager
def pipes(count: int) -> Iterator[tuple[OutputThread, list[Pipe]]]:
    """Pipes that one thread writes to; at the end they are closed."""
    thread = OutputThread()
    opened = [Pipe(thread) for _ in range(count)]
    try:
        yield thread, opened
    finally:
        for pipe in opened:
            pipe.close()
        assert thread.drain(seconds=PATIENCE_SECONDS)
        thread.close()
        for pipe in opened:
            pipe.stream.close()


def test_results_wait_for_their_reader_and_none_is_lost():
    """More than a pipe takes is written without a wait, and comes whole and in order once somebody reads."""
    with pipes(1) as (thread, [pipe]):
        results = ResultLines(pipe.outlet)
        told = [f"{number} {'x' * 1000}" for number in range(PIPES // 1000)]
        for line in told:
            results.line(line)
        assert not thread.drain(seconds=0.0)
        assert pipe.read() == told


def test_an_unread_stream_does_not_hold_up_the_other():
    """`--json | less` with a log beside it: the log is written."""
    with pipes(2) as (_, [unread, read]):
        unread.outlet.write("x" * PIPES)
        read.outlet.write("a\n")
        assert read.read() == ["a"]


def test_a_reader_that_goes_away_ends_the_wait():
    """What nobody will read any more is thrown away, and that is no failure."""
    with pipes(1) as (thread, [pipe]):
        pipe.outlet.write("x" * PIPES)
        pipe.close()
        assert thread.drain(seconds=PATIENCE_SECONDS)
        assert pipe.outlet.gone
        assert pipe.outlet.failure is None
        assert not pipe.outlet.write("more")


def test_both_streams_into_one_reader_keep_their_order():
    """With `2>&1`, a hint comes after the words that it belongs to."""
    reader, writer = os.pipe()
    thread = OutputThread()
    with os.fdopen(writer, "w", encoding="utf-8") as first, os.fdopen(os.dup(writer), "w", encoding="utf-8") as second:
        outlets = [Outlet(stream, thread=thread) for stream in (first, second)]
        told = [f"{number}\n" for number in range(500)]
        for number, line in enumerate(told):
            outlets[number % 2].write(line)
        assert thread.drain(seconds=PATIENCE_SECONDS)
        thread.close()
    with os.fdopen(reader, encoding="utf-8") as lines:
        assert list(lines) == told


def test_a_process_without_handles_says_what_it_has_to_say():
    """The first text may come when none is left, and is often about that."""
    with pipes(1) as (_, (pipe,)):
        with handles_left(0):
            pipe.outlet.write("no handles\n")
            pipe.outlet.write("are left\n")
        assert pipe.read() == ["no handles", "are left"]


def test_log_lines_are_left_out_and_counted_while_nobody_reads():
    """Memory has a bound, whoever reads later learns what is missing, and an error is never among it."""
    with pipes(1) as (_, [pipe]):
        lines = MessageLines(pipe.outlet)
        pipe.outlet.write("x" * PIPES + "\n")
        with listening(lines, level=logging.INFO):
            for number in range(MOST_LOG_LINES + 50):
                logging.getLogger("asyncexport.x").info("%d", number)
            lines.fault("no", hint="do")
            said = pipe.read()
            logging.getLogger("asyncexport.x").info("later")
        assert said[-2:] == ["asyncexport: error: no", "asyncexport: hint: do"]
        assert len(said) <= MOST_LOG_LINES + 5
        warning, later = pipe.read()
        assert warning.endswith(" log lines were left out, since nobody read stderr")
        assert later == "asyncexport: info: later"


def test_what_was_left_out_is_counted_at_the_end_too():
    """A reader who comes back when all is said learns that something is missing."""
    with pipes(1) as (_, [pipe]):
        lines = MessageLines(pipe.outlet)
        pipe.outlet.write("x" * PIPES + "\n")
        for _ in range(MOST_LOG_LINES + 50):
            lines.tell("status", "so far")
        lines.tell_left_out()
        lines.tell_left_out()
        told = [line for line in pipe.read() if "left out" in line]
        assert len(told) == 1
        assert re.match("asyncexport: warning: (50|49) log lines were", told[0]), "one may be on its way"


def test_progress_is_left_out_while_nobody_reads():
    """An hour of `progress` says less than its last one; what was stored is told all the same."""
    with pipes(1) as (_, [pipe]):
        results = ResultLines(pipe.outlet)
        pipe.outlet.write("x" * PIPES + "\n")
        for number in range(100):
            results.progress({"type": "progress", "done": number})
            results.record({"type": "stored", "rows": number})
        kinds = [json.loads(line)["type"] for line in pipe.read()[1:]]
        assert kinds.count("stored") == 100
        assert kinds.count("progress") <= MOST_PROGRESS_LINES


def test_a_frame_that_was_left_out_is_not_taken_for_drawn():
    """On a terminal that is halted by Ctrl-S the picture waits; the next frame is drawn over the last one shown."""
    with pipes(1) as (thread, [pipe]):
        pane = LiveView(pipe.outlet, size=lambda: (80, 24))
        pipe.outlet.write("x" * PIPES + "\n")
        for number in range(20):
            pane.draw_plain([f"frame {number}"])
        pane.draw_plain(["last"])
        assert "frame" not in "".join(pipe.read())
        assert thread.drain(seconds=PATIENCE_SECONDS)
        pane.draw_plain(["now"])
        assert "now" in "".join(pipe.read())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_json_line_can_be_read_whatever_the_encoding(encoding):
    """A name that is not UTF-8, and letters that the stream lacks, leave each line JSON."""
    raw = io.BytesIO()
    results = ResultLines(Outlet(io.TextIOWrapper(raw, encoding=encoding)))
    name = os.fsdecode(b"caf\xe9")
    results.record({"type": "x", "directory": name, "paths": [f"ä/{name}"], "named": {"é": 1, "😀": None}})
    record = json.loads(raw.getvalue().decode(encoding))
    assert record == {
        "type": "x",
        "directory": "caf\\udce9",
        "paths": ["ä/caf\\udce9"],
        "named": {"é": 1, "😀": None},
    }


def test_a_name_that_is_not_utf_8_can_be_pasted():
    """A command that looks into a file has the bytes of the file's name; in a sentence they are spelt out."""
    raw, name = io.BytesIO(), os.fsdecode(b"caf\xe9")
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    ResultLines(Outlet(stream)).line(f"gzip -dc {name}")
    assert raw.getvalue() == b"gzip -dc caf\xe9\n"
    assert plain(f"the files are in {name}") == "the files are in caf\\xe9"
