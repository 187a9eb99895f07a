"""Lines on stdout and stderr.

1. `asyncexport: error: …`, `asyncexport: hint: …`, `asyncexport: warning: …`: the program's name, the kind, the matter.
   With `--log-format json` each is one JSON object instead.
2. Log lines have their time where no terminal shows that they are new. A traceback is shown only at `-vv`.
3. What cannot be written is left unsaid on stderr, and told once on stderr where it was a result.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from asyncexport.display.words import plain

PROGRAM = "asyncexport"


class MessageLines(logging.Handler):
    """stderr: errors and hints, log lines, and what else there is to tell.

    Args:
        stream: Where.
        as_json: One JSON object a line.
        timed: Whether log lines have their time.
        tracebacks: Whether an exception's traceback follows its line.

    Attributes:
        above: Where lines go while a picture is shown; None: to the stream.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False, timed: bool = False, tracebacks: bool = False) -> None:
        super().__init__()
        self._stream = stream
        self._as_json = as_json
        self._timed = timed
        self._tracebacks = tracebacks
        self.above: Callable[[str], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a log line."""
        level = record.levelname.lower()
        trace = ""
        if self._tracebacks and record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
        if self._as_json:
            more = {"logger": record.name, **({"traceback": trace} if trace else {})}
            self._write(self._json(level, record.getMessage(), more))
            return
        time = f"{_now()} " if self._timed else ""
        self._write(f"{PROGRAM}: {level}: {time}{plain(record.getMessage())}" + (f"\n{trace}" if trace else ""))

    def fault(self, message: str, *, hint: str = "") -> None:
        """What went wrong, and the next thing to do about it, in a line each."""
        if self._as_json:
            self._write(self._json("error", message, {"hint": hint} if hint else {}))
            return
        self._write(f"{PROGRAM}: error: {plain(message)}")
        if hint:
            self.hint(hint)

    def hint(self, hint: str) -> None:
        """The next thing to do, by itself."""
        if self._as_json:
            self._write(self._json("info", hint, {"kind": "hint"}))
        else:
            self._write(f"{PROGRAM}: hint: {plain(hint)}")

    def tell(self, kind: str, message: str, **facts: Any) -> None:
        """What is to be told at any verbosity: `kind` takes the place of the level."""
        if self._as_json:
            self._write(self._json("info", message, {"kind": kind, **facts}))
            return
        time = f"{_now()} " if self._timed else ""
        self._write(f"{PROGRAM}: {kind}: {time}{plain(message)}")

    def _json(self, level: str, message: str, more: dict[str, Any]) -> str:
        return orjson.dumps({"time": _now(), "level": level, "message": message, **more}).decode()

    def _write(self, text: str) -> None:
        above = self.above
        if above is not None:
            above(text)
            return
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal is gone, or the stream is closed: rule 4 of the room.
            return


class ResultLines:
    """stdout. `gone`: nobody reads it any more; `failure`: it could not be written.

    Args:
        stream: Where.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.gone = False
        self.failure: OSError | None = None

    def record(self, record: dict[str, Any]) -> None:
        """One JSON object; it has a `type`."""
        self.line(orjson.dumps(record).decode())

    def line(self, text: str = "") -> None:
        """One line."""
        if self.gone:
            return
        # A terminal of another age may not have all letters; nothing is left out for that.
        code = self._stream.encoding or "utf-8"
        text = text.encode(code, "backslashreplace").decode(code)
        try:
            with self._lock:
                self._stream.write(f"{text}\n")
                self._stream.flush()
        except OSError as error:
            self.gone = True
            self.failure = None if error.errno == errno.EPIPE else error
            self._let_go()
        except ValueError:
            self.gone = True

    def _let_go(self) -> None:
        """What is left in the buffer would be tried once more, and complained about, when the program ends."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            return


@contextmanager
def listening(lines: MessageLines, *, level: int) -> Iterator[None]:
    """Send the log to these lines: ours from this level on, of the libraries' only what is a warning or worse."""
    root, ours = logging.getLogger(), logging.getLogger(PROGRAM)
    before = (root.level, ours.level)
    root.addHandler(lines)
    root.setLevel(max(level, logging.WARNING))
    ours.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(lines)
        root.setLevel(before[0])
        ours.setLevel(before[1])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
