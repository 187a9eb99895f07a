"""Slow or absent readers of stdout and stderr: the program never waits for them, and no result is lost."""

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
"""More bytes than any pipe holds unread."""


class Pipe:
    """A pipe that an outlet writes to and that is not read yet."""

    def __init__(self, thread: OutputThread) -> None:
        self._reader, writer = os.pipe()
        self.stream = os.fdopen(writer, "w", encoding="utf-8")
        self.outlet = Outlet(self.stream, thread=thread)
        self._thread = thread

    def read(self) -> list[str]:
        """Read all lines written so far, including those still waiting."""
        self.outlet.write("(end)\n")
        text = b""
        while not text.endswith(b"(end)\n"):
            text += os.read(self._reader, 65_536)
        return text.decode().splitlines()[:-1]

    def close(self) -> None:
        """Stop reading."""
        with suppress(OSError):
            os.close(self._reader)


@contextmanager
def pipes(count: int) -> Iterator[tuple[OutputThread, list[Pipe]]]:
    """Open pipes that one thread writes to, and close them at the end."""
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
    """More results than a pipe holds are written without blocking, and arrive complete and in order when read."""
    with pipes(1) as (thread, [pipe]):
        results = ResultLines(pipe.outlet)
        expected = [f"{number} {'x' * 1000}" for number in range(PIPES // 1000)]
        for line in expected:
            results.line(line)
        assert not thread.drain(seconds=0.0)
        assert pipe.read() == expected


def test_an_unread_stream_does_not_block_the_other():
    """While stdout is not read, as with `--json | less`, log lines still reach stderr."""
    with pipes(2) as (_, [unread, read]):
        unread.outlet.write("x" * PIPES)
        read.outlet.write("a\n")
        assert read.read() == ["a"]


def test_a_reader_that_goes_away_ends_the_wait():
    """Output for a reader that has closed the pipe is dropped, which is not a failure."""
    with pipes(1) as (thread, [pipe]):
        pipe.outlet.write("x" * PIPES)
        pipe.close()
        assert thread.drain(seconds=PATIENCE_SECONDS)
        assert pipe.outlet.gone
        assert pipe.outlet.failure is None
        assert not pipe.outlet.write("more")


def test_both_streams_into_one_reader_keep_their_order():
    """With `2>&1`, lines of stdout and stderr arrive in the order in which they were written."""
    reader, writer = os.pipe()
    thread = OutputThread()
    with os.fdopen(writer, "w", encoding="utf-8") as first, os.fdopen(os.dup(writer), "w", encoding="utf-8") as second:
        outlets = [Outlet(stream, thread=thread) for stream in (first, second)]
        expected = [f"{number}\n" for number in range(500)]
        for number, line in enumerate(expected):
            outlets[number % 2].write(line)
        assert thread.drain(seconds=PATIENCE_SECONDS)
        thread.close()
    with os.fdopen(reader, encoding="utf-8") as lines:
        assert list(lines) == expected


def test_a_process_without_file_handles_can_still_write():
    """Output works even if the process has no file handles left when the first line is written."""
    with pipes(1) as (_, (pipe,)):
        with handles_left(0):
            pipe.outlet.write("no handles\n")
            pipe.outlet.write("are left\n")
        assert pipe.read() == ["no handles", "are left"]


def test_unread_log_lines_are_dropped_and_counted():
    """While stderr is not read, log lines beyond a limit are dropped and counted, but errors never are."""
    with pipes(1) as (_, [pipe]):
        lines = MessageLines(pipe.outlet)
        pipe.outlet.write("x" * PIPES + "\n")
        with listening(lines, level=logging.INFO):
            for number in range(MOST_LOG_LINES + 50):
                logging.getLogger("asyncexport.x").info("%d", number)
            lines.error("no", hint="do")
            said = pipe.read()
            logging.getLogger("asyncexport.x").info("later")
        assert said[-2:] == ["asyncexport: error: no", "asyncexport: hint: do"]
        assert len(said) <= MOST_LOG_LINES + 5
        warning, later = pipe.read()
        assert warning.endswith(" log lines were dropped because nothing read stderr")
        assert later == "asyncexport: info: later"


def test_dropped_lines_are_reported_at_the_end():
    """The number of dropped log lines is written once at the end, for a reader that returns late."""
    with pipes(1) as (_, [pipe]):
        lines = MessageLines(pipe.outlet)
        pipe.outlet.write("x" * PIPES + "\n")
        for _ in range(MOST_LOG_LINES + 50):
            lines.report("status", "so far")
        lines.report_dropped()
        lines.report_dropped()
        reported = [line for line in pipe.read() if "dropped" in line]
        assert len(reported) == 1
        assert re.match("asyncexport: warning: (50|49) log lines were", reported[0]), "one may still be in the pipe"


def test_unread_progress_lines_are_dropped():
    """While stdout is not read, old `progress` lines are dropped, but no `stored` line is."""
    with pipes(1) as (_, [pipe]):
        results = ResultLines(pipe.outlet)
        pipe.outlet.write("x" * PIPES + "\n")
        for number in range(100):
            results.progress({"type": "progress", "done": number})
            results.record({"type": "stored", "rows": number})
        kinds = [json.loads(line)["type"] for line in pipe.read()[1:]]
        assert kinds.count("stored") == 100
        assert kinds.count("progress") <= MOST_PROGRESS_LINES


def test_a_dropped_frame_does_not_count_as_drawn():
    """While a terminal is paused by Ctrl-S frames are dropped, and the next frame replaces the last one shown."""
    with pipes(1) as (thread, [pipe]):
        view = LiveView(pipe.outlet, size=lambda: (80, 24))
        pipe.outlet.write("x" * PIPES + "\n")
        for number in range(20):
            view.draw_plain([f"frame {number}"])
        view.draw_plain(["last"])
        assert "frame" not in "".join(pipe.read())
        assert thread.drain(seconds=PATIENCE_SECONDS)
        view.draw_plain(["now"])
        assert "now" in "".join(pipe.read())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_json_line_is_valid_in_any_encoding(encoding):
    """File names that are not UTF-8, and characters that the encoding lacks, still give valid JSON lines."""
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


def test_a_file_name_that_is_not_utf_8_can_be_pasted():
    """A suggested command contains the exact bytes of the file name; in prose they are escaped."""
    raw, name = io.BytesIO(), os.fsdecode(b"caf\xe9")
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    ResultLines(Outlet(stream)).line(f"gzip -dc {name}")
    assert raw.getvalue() == b"gzip -dc caf\xe9\n"
    assert plain(f"the files are in {name}") == "the files are in caf\\xe9"
