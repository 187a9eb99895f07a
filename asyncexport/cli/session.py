"""One call of the program: its options and its output.

Global options are collected while the command line is parsed and take effect in `begin`. No slow module is imported
before that.
"""

import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

from asyncexport.cli.invocation import Invocation
from asyncexport.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import Signals

    from asyncexport.core.exits import Exit
    from asyncexport.core.summary import Summary
    from asyncexport.display import MessageLines, ProgressCounter, ResultLines, RunViewer, StandardStreams
    from asyncexport.display.live_view import LiveView


class Stopped(BaseException):
    """A signal ended a command that has no state to save. Not an error, so nothing that handles errors handles it."""

    def __init__(self, reason: "Exit") -> None:
        super().__init__(reason)
        self.reason = reason


class Session:
    """One call of the program.

    Args:
        as_json: Whether results are JSON, as far as that is known before the arguments are parsed.
        signals: The list to which each signal is added.

    Attributes:
        command: The command's name; "" until it is known.
        directory: The output directory; "" until it is known.
        began: When the program started, on the monotonic clock.
        invocation: How the program was called.
        signals: The signals received so far.
        requests: Requests sent by a command that is not a run, by kind.
        has_begun: Whether a command was started, as opposed to help or the version.
        stopped_at_once: The exit code if a signal ended the command immediately, else None.
        success_exits: The exit codes of `--success-exit`.
    """

    def __init__(self, *, as_json: bool = False, signals: "list[Signals] | None" = None) -> None:
        self.as_json = as_json
        self.command = ""
        self.directory = ""
        self.began = time.monotonic()
        self.invocation = Invocation()
        self.signals: list[Signals] = [] if signals is None else signals
        self.requests: Counter[str] = Counter()
        self.stopped_at_once: Exit | None = None
        self.success_exits: frozenset[int] = frozenset()
        self.quiet = self.log_as_json = False
        self.verbose = 0
        self._stack = ExitStack()
        self.has_begun = False

    def take(self, name: str, value: Any) -> None:
        """Store the value of a global option; an option that was not given changes nothing."""
        match name:
            case "config" if value is not None:
                self.invocation.config = value
            case "as_json":
                self.as_json = self.as_json or value
            case "quiet":
                self.quiet = self.quiet or value
            case "verbose":
                self.verbose += value
            case "log_format" if value is not None:
                self.log_as_json = value == "json"

    def begin(self) -> None:
        """Apply the options, once all of them are known.

        Raises:
            ConfigError: they contradict each other.
        """
        if self.has_begun:
            return
        self.has_begun = True
        import logging

        from asyncexport.display import listening

        louder = (logging.WARNING, logging.INFO, logging.DEBUG)
        level = logging.ERROR if self.quiet else louder[min(self.verbose, 2)]
        self._stack.enter_context(listening(self.lines, level=level))
        if self.quiet and self.verbose:
            raise ConfigError([Problem("-q", "cannot be combined with -v")])

    def end(self) -> None:
        """Close the output streams."""
        self._stack.close()
        if self.has_output:
            self.streams.close()

    @property
    def has_output(self) -> bool:
        """Whether there was any output through `streams`; typer prints help and the version itself."""
        return "streams" in vars(self)

    @cached_property
    def streams(self) -> "StandardStreams":
        """The program's stdout and stderr."""
        from asyncexport.display import StandardStreams

        return StandardStreams(sys.stdout, sys.stderr)

    @cached_property
    def lines(self) -> "MessageLines":
        """The writer of messages to stderr."""
        from asyncexport.display import MessageLines

        return MessageLines(
            self.streams.stderr,
            as_json=self.log_as_json,
            timed=not sys.stderr.isatty(),
            tracebacks=self.verbose > 1,
        )

    @cached_property
    def results(self) -> "ResultLines":
        """The writer of results to stdout."""
        from asyncexport.display import ResultLines

        return ResultLines(self.streams.stdout)

    def viewer(self, heading: str, *, also: "Callable[[str], None]") -> "RunViewer":
        """Return a viewer that shows the progress of a run, and passes the text of each status line to `also`."""
        from asyncexport.display import RunViewer

        events = self.results if self.as_json else None
        return RunViewer(self.lines, heading, events=events, view=_live_view(self), silent=self.quiet, also=also)

    def counting(self, heading: str, *, total: int | None, of: str) -> "ProgressCounter":
        """Return a counter that shows the progress of a long check."""
        from asyncexport.display import ProgressCounter

        return ProgressCounter(self.lines, heading, total=total, of=of, view=_live_view(self), silent=self.quiet)

    def say(self, text: str = "") -> None:
        """Print a line of the result, unless results are JSON."""
        if not self.as_json:
            self.results.line(text)

    def say_fitted(self, text: str, *, hanging: int = 4) -> None:
        """Print a line of the result, broken between words if it is too long for the terminal."""
        if not self.as_json:
            self.results.fitted_line(text, hanging=hanging)

    def record(self, kind: str, **facts: Any) -> None:
        """Print a JSON object of the result, if results are JSON."""
        if self.as_json:
            self.results.record({"type": kind, **facts})

    def summary(self, exit_code: int, **more: Any) -> "Summary":
        """Return the summary of a command that is not a run; `more` sets further fields of it."""
        from asyncexport.core.exits import Exit
        from asyncexport.core.summary import Summary, Tally

        requests = {kind: self.requests[kind] for kind in ("create", "poll", "list", "results", "other")}
        facts = {"tally": Tally(), "requests": requests, "refused": 0, **more}
        return Summary(
            command=self.command,
            exit_code=Exit(exit_code),
            seconds=time.monotonic() - self.began,
            directory=self.directory,
            **facts,
        )


def _live_view(session: Session) -> "LiveView | None":
    """Return a live view on stderr, or None unless stderr is a terminal that can show one."""
    if session.quiet or session.log_as_json or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    if session.as_json and sys.stdout.isatty():
        return None
    from asyncexport.display.live_view import LiveView

    return LiveView(session.streams.stderr)
