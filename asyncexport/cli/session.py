"""One call of the program: how it speaks, and how it was called.

What global options say is taken in as it is parsed, and counts from `begin` on. Nothing slow is imported before that.
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
    from signal import Signals

    from asyncexport.core.exits import Exit
    from asyncexport.core.summary import Summary
    from asyncexport.display import Counter as LookCounter
    from asyncexport.display import MessageLines, ResultLines, RunViewer, StandardStreams
    from asyncexport.display.live_view import LiveView


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A signal ended a command that has nothing to save."""

    def __init__(self, reason: "Exit") -> None:
        super().__init__(reason)
        self.reason = reason


class Session:
    """One call of the program.

    Args:
        as_json: Whether results are JSON, as far as that can be told before anything is parsed.

    Attributes:
        command: Which; "" before that is known.
        directory: The output directory; "" before that is known.
        began: When, on the monotonic clock.
        invocation: How it was called.
        signals: The signals that came during a run.
        requests: How many requests were sent, by kind, where the command is no run.
        has_begun: Whether a command was called, and neither help nor the version.
        stopped_at_once: Why a signal ended the command at once. None: none did.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.command = ""
        self.directory = ""
        self.began = time.monotonic()
        self.invocation = Invocation()
        self.signals: list[Signals] = []
        self.requests: Counter[str] = Counter()
        self.stopped_at_once: Exit | None = None
        self.quiet = False
        self.verbose = 0
        self.log_as_json = False
        self._stack = ExitStack()
        self.has_begun = False

    def take(self, name: str, value: Any) -> None:
        """Take in a global option; one that was not given changes nothing."""
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
        """All options are known: speak as they say.

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
            raise ConfigError([Problem("-q", "and -v contradict each other")])

    def end(self) -> None:
        """Nothing more will be said."""
        self._stack.close()
        if self.has_spoken:
            self.streams.close()

    @property
    def has_spoken(self) -> bool:
        """Whether anything was to be said; help and the version are said by typer."""
        return "streams" in vars(self)

    @cached_property
    def streams(self) -> "StandardStreams":
        """Both streams that the program speaks on."""
        from asyncexport.display import StandardStreams

        return StandardStreams(sys.stdout, sys.stderr)

    @cached_property
    def lines(self) -> "MessageLines":
        """What goes to stderr."""
        from asyncexport.display import MessageLines

        return MessageLines(
            self.streams.stderr,
            as_json=self.log_as_json,
            timed=not sys.stderr.isatty(),
            tracebacks=self.verbose > 1,
        )

    @cached_property
    def results(self) -> "ResultLines":
        """What goes to stdout."""
        from asyncexport.display import ResultLines

        return ResultLines(self.streams.stdout)

    def viewer(self, heading: str) -> "RunViewer":
        """Who shows a run as it goes."""
        from asyncexport.display import RunViewer

        events = self.results if self.as_json else None
        return RunViewer(self.lines, heading, events=events, pane=self._pane(), silent=self.quiet)

    def counting(self, heading: str, *, total: int | None, of: str) -> "LookCounter":
        """Who shows how far a long look has come."""
        from asyncexport.display import Counter as LookCounter

        return LookCounter(self.lines, heading, total=total, of=of, pane=self._pane(), silent=self.quiet)

    def _pane(self) -> "LiveView | None":
        """Where a picture can be drawn: stderr, if it is a terminal on which that disturbs nobody."""
        if self.quiet or self.log_as_json or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return None
        if self.as_json and sys.stdout.isatty():
            return None
        from asyncexport.display.live_view import LiveView

        return LiveView(self.streams.stderr)

    def say(self, text: str = "") -> None:
        """A line of a result, where results are text."""
        if not self.as_json:
            self.results.line(text)

    def record(self, kind: str, **facts: Any) -> None:
        """One object of a result, where results are JSON."""
        if self.as_json:
            self.results.record({"type": kind, **facts})

    def summary(self, exit_code: int, **more: Any) -> "Summary":
        """The summary of a command that is no run; `more`: what of it is known."""
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
