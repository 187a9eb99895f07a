"""Lines on stdout and stderr.

1. `asyncexport: error: …`, `asyncexport: hint: …`, `asyncexport: warning: …`: the program's name, the kind, the matter.
   With `--log-format json` each is one JSON object instead.
2. Log lines have their time where no terminal shows that they are new. A traceback is shown only at `-vv`.
3. What cannot be written is left unsaid on stderr, and told once on stderr where it was a result.
4. Log lines are left out while `MOST_LOG_LINES` wait to be read, and their number is told; errors, hints and results
   are never left out.
5. A JSON line can be read whatever the stream's encoding, and whatever bytes a file's name is made of.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson

from asyncexport.display.formatting import count_of, plain
from asyncexport.display.output import Outlet

PROGRAM = "asyncexport"

MOST_LOG_LINES = 1_000
"""Log lines that wait for a reader of stderr; more are left out."""

MOST_PROGRESS_LINES = 10
"""The same for `progress` on stdout: an older one is of little use."""


class MessageLines(logging.Handler):
    """stderr: errors and hints, log lines, and what else there is to tell.

    Args:
        outlet: stderr.
        as_json: One JSON object a line.
        timed: Whether log lines have their time.
        tracebacks: Whether an exception's traceback follows its line.

    Attributes:
        above: Where lines go while a picture is shown; None: to stderr. It says whether the line was taken.
    """

    def __init__(self, outlet: Outlet, *, as_json: bool = False, timed: bool = False, tracebacks: bool = False) -> None:
        super().__init__()
        self._outlet = outlet
        self._left_out = 0
        self._as_json = as_json
        self._timed = timed
        self._tracebacks = tracebacks
        self.above: Callable[[str, int | None], bool] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a log line."""
        level = record.levelname.lower()
        trace = ""
        if self._tracebacks and record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
        if self._as_json:
            more = {"logger": record.name, **({"traceback": trace} if trace else {})}
            self._log(self._json(level, record.getMessage(), more))
            return
        time = f"{_now()} " if self._timed else ""
        self._log(f"{PROGRAM}: {level}: {time}{plain(record.getMessage())}" + (f"\n{trace}" if trace else ""))

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
            self._log(self._json("info", message, {"kind": kind, **facts}))
            return
        time = f"{_now()} " if self._timed else ""
        self._log(f"{PROGRAM}: {kind}: {time}{plain(message)}")

    def report_left_out(self) -> None:
        """Write how many log lines were left out since the last such line; called before the program ends."""
        if self._left_out:
            self._write(self._left_out_line())
            self._left_out = 0

    def _left_out_line(self) -> str:
        text = f"{count_of(self._left_out, 'log line was', 'log lines were')} dropped because nothing read stderr"
        return self._json("warning", text, {}) if self._as_json else f"{PROGRAM}: warning: {text}"

    def _json(self, level: str, message: str, more: dict[str, Any]) -> str:
        return json_line({"time": _now(), "level": level, "message": message, **more}, encoding=self._outlet.encoding)

    def _log(self, text: str) -> None:
        """A line that may be left out."""
        if self._left_out:
            if not self._write(self._left_out_line(), most_waiting=MOST_LOG_LINES):
                self._left_out += 1
                return
            self._left_out = 0
        if not self._write(text, most_waiting=MOST_LOG_LINES):
            self._left_out += 1

    def _write(self, text: str, *, most_waiting: int | None = None) -> bool:
        above = self.above
        if above is not None:
            return above(text, most_waiting)
        return self._outlet.write(f"{text}\n", most_waiting=most_waiting)


class ResultLines:
    """Results.

    Args:
        outlet: stdout.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    @property
    def gone(self) -> bool:
        """Whether nobody reads them any more, or they cannot be written."""
        return self._outlet.gone

    @property
    def failure(self) -> OSError | None:
        """Why they cannot be written; None where they can, or where a reader has gone away."""
        return self._outlet.failure

    def record(self, record: dict[str, Any]) -> None:
        """One JSON object; it has a `type`."""
        self.line(json_line(record, encoding=self._outlet.encoding))

    def progress(self, record: dict[str, Any]) -> None:
        """One JSON object that says how things stand now; it is left out where older ones wait to be read."""
        text = json_line(record, encoding=self._outlet.encoding)
        self._outlet.write(f"{text}\n", most_waiting=MOST_PROGRESS_LINES)

    def line(self, text: str = "") -> None:
        """One line."""
        self._outlet.write(f"{text}\n")


def json_line(record: dict[str, Any], *, encoding: str) -> str:
    """An object as one line of JSON that a stream in this encoding can hold.

    Bytes of a file's name that are not UTF-8 are spelt out, since no JSON text can hold them.
    """
    try:
        text = orjson.dumps(record).decode()
    except TypeError:
        text = json.dumps(_spelt_out(record), ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), separators=(",", ":"))
    return text


def _spelt_out(value: Any) -> Any:
    """The same with text that every encoding of Unicode can hold."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_spelt_out(key): _spelt_out(one) for key, one in value.items()}
        case list() | tuple():
            return [_spelt_out(one) for one in value]
        case _:
            return value


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
