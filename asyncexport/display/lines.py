"""Lines on stdout and stderr.

1. Messages look like `asyncexport: error: …`, `asyncexport: hint: …` or `asyncexport: warning: …`. With
   `--log-format json`, each is a JSON object instead.
2. Log lines have a timestamp unless stderr is a terminal. Tracebacks are shown only with `-vv`.
3. Messages that cannot be written are lost. If a result cannot be written, that is reported once on stderr.
4. Log lines are dropped while `MOST_LOG_LINES` lines wait to be read, and the number dropped is reported. Errors, hints
   and results are never dropped.
5. A JSON line is valid in any encoding of the stream and for any bytes in a file name.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson

from asyncexport.display.formatting import count_of, plain, wrapped
from asyncexport.display.output import Outlet

PROGRAM = "asyncexport"

MOST_LOG_LINES = 1_000
"""Log lines that may wait for a reader of stderr; further ones are dropped."""

MOST_PROGRESS_LINES = 10
"""`progress` lines that may wait for a reader of stdout; old ones are of little use."""


class MessageLines(logging.Handler):
    """Writes errors, hints, log lines and other messages to stderr.

    Args:
        outlet: stderr.
        as_json: Whether each line is a JSON object.
        timed: Whether log lines have a timestamp.
        tracebacks: Whether the traceback of an exception follows its line.

    Attributes:
        above: Writes a line above the live view while one is shown, and returns whether it was accepted. None if there
            is no live view.
    """

    def __init__(self, outlet: Outlet, *, as_json: bool = False, timed: bool = False, tracebacks: bool = False) -> None:
        super().__init__()
        self._outlet = outlet
        self._dropped = 0
        self._as_json = as_json
        self._timed = timed
        self._tracebacks = tracebacks
        self.above: Callable[[str, int | None], bool] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a log record."""
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

    def error(self, message: str, *, hint: str = "") -> None:
        """Write an error, and a line with a hint if there is one."""
        if self._as_json:
            self._write(self._json("error", message, {"hint": hint} if hint else {}))
            return
        self._write(f"{PROGRAM}: error: {plain(message)}")
        if hint:
            self.hint(hint)

    def hint(self, hint: str) -> None:
        """Write a hint by itself."""
        if self._as_json:
            self._write(self._json("info", hint, {"kind": "hint"}))
        else:
            self._write(f"{PROGRAM}: hint: {plain(hint)}")

    def report(self, kind: str, message: str, **facts: Any) -> None:
        """Write a message at any verbosity; `kind` takes the place of the log level."""
        if self._as_json:
            self._log(self._json("info", message, {"kind": kind, **facts}))
            return
        time = f"{_now()} " if self._timed else ""
        self._log(f"{PROGRAM}: {kind}: {time}{plain(message)}")

    def report_dropped(self) -> None:
        """Write how many log lines were dropped since the last such line; called before the program ends."""
        if self._dropped:
            self._write(self._dropped_line())
            self._dropped = 0

    def _dropped_line(self) -> str:
        text = f"{count_of(self._dropped, 'log line was', 'log lines were')} dropped because nothing read stderr"
        return self._json("warning", text, {}) if self._as_json else f"{PROGRAM}: warning: {text}"

    def _json(self, level: str, message: str, more: dict[str, Any]) -> str:
        return json_line({"time": _now(), "level": level, "message": message, **more}, encoding=self._outlet.encoding)

    def _log(self, text: str) -> None:
        """Write a line that may be dropped."""
        if self._dropped:
            if not self._write(self._dropped_line(), most_waiting=MOST_LOG_LINES):
                self._dropped += 1
                return
            self._dropped = 0
        if not self._write(text, most_waiting=MOST_LOG_LINES):
            self._dropped += 1

    def _write(self, text: str, *, most_waiting: int | None = None) -> bool:
        above = self.above
        if above is not None:
            return above(text, most_waiting)
        return self._outlet.write(f"{text}\n", most_waiting=most_waiting)


class ResultLines:
    """Writes results to stdout.

    Args:
        outlet: stdout.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    @property
    def gone(self) -> bool:
        """Whether the reader has closed stdout, or writing failed."""
        return self._outlet.gone

    @property
    def failure(self) -> OSError | None:
        """Why writing failed; None if it did not, or if the reader closed stdout."""
        return self._outlet.failure

    def columns(self) -> int | None:
        """Return the columns of the terminal; None if stdout is not a terminal."""
        return self._outlet.columns()

    def record(self, record: dict[str, Any]) -> None:
        """Write a JSON object, which must have a `type`."""
        self.line(json_line(record, encoding=self._outlet.encoding))

    def progress(self, record: dict[str, Any]) -> None:
        """Write a JSON object with the current progress, unless too many older ones wait to be read."""
        text = json_line(record, encoding=self._outlet.encoding)
        self._outlet.write(f"{text}\n", most_waiting=MOST_PROGRESS_LINES)

    def line(self, text: str = "") -> None:
        """Write a line of text."""
        self._outlet.write(f"{text}\n")

    def fitted_line(self, text: str, *, hanging: int) -> None:
        """Write a line of text, broken between words if it is too long for the terminal.

        A line with a command is not broken: the terminal wraps it, so that the command is copied as one line. Further
        lines are indented by `hanging`.
        """
        columns = self.columns()
        for line in [text] if columns is None or "`" in text else wrapped(text, columns, hanging=hanging):
            self.line(line)


def json_line(record: dict[str, Any], *, encoding: str) -> str:
    """Return an object as one line of JSON that can be written in this encoding.

    Bytes of a file name that are not UTF-8 are replaced by escapes, because JSON cannot contain them.
    """
    try:
        text = orjson.dumps(record).decode()
    except TypeError:
        text = json.dumps(_escaped(record), ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), separators=(",", ":"))
    return text


def _escaped(value: Any) -> Any:
    """Replace undecodable bytes in all texts of a value by escapes."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(one) for key, one in value.items()}
        case list() | tuple():
            return [_escaped(one) for one in value]
        case _:
            return value


@contextmanager
def listening(lines: MessageLines, *, level: int) -> Iterator[None]:
    """Send log records here: ours from this level on, those of libraries from WARNING on."""
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
